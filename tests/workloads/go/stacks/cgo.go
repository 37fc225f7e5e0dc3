//go:build with_cgo

package main

/*
#include "chain.h"
*/
import "C"

import "leakprobe/workloads/contract"

func init() {
	ends["innermost"] = []uint64{uint64(C.innermost_start()), uint64(C.innermost_end())}
	ends["outermost"] = []uint64{uint64(C.outermost_start()), uint64(C.outermost_end())}
	handlers["cgo"] = func(count int) contract.Truth {
		return contract.Truth{"grown_bytes": cgoOutermost(count)}
	}
	handlers["callback"] = func(count int) contract.Truth {
		return contract.Truth{"grown_bytes": callbackOutermost(count)}
	}
	handlers["thread"] = func(count int) contract.Truth {
		return contract.Truth{"grown_bytes": int(C.on_a_thread(C.long(count * contract.StepBytes)))}
	}
}

//go:noinline
func cgoSecond() int {
	return int(C.second_in_c(2))
}

//go:noinline
func cgoOutermost(count int) int {
	leaked := 0
	for leaked < count*contract.StepBytes {
		leaked += cgoSecond()
	}
	return leaked
}

//export goCallback
func goCallback(depth C.int) C.long {
	if depth > 0 {
		return C.back_to_go(depth - 1)
	}
	return C.second_in_c(2)
}

//export goInnermost
func goInnermost() C.long {
	return C.long(mmapThird(2))
}

//go:noinline
func callbackOutermost(count int) int {
	leaked := 0
	for leaked < count*contract.StepBytes {
		leaked += int(C.back_to_go(1))
	}
	return leaked
}
