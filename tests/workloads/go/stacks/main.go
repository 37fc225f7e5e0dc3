// stacks leaks at the end of chains of calls between Go and C whose two ends are known: "mmap" in Go alone, and with
// the build tag with_cgo "cgo" in C called from Go, "callback" in C called from Go called from C called from Go, and
// "thread" in Go called from a thread of C's.
package main

import (
	"syscall"

	"leakprobe/workloads/contract"
)

const blockBytes = 1 << 16

var handlers = map[string]func(int) contract.Truth{"mmap": func(count int) contract.Truth {
	return contract.Truth{"grown_bytes": mmapOutermost(count)}
}}

var ends = contract.Truth{"innermost": []uint64{0, 0}, "outermost": []uint64{0, 0}}

// Keeps no frame of its own: its caller is known by nothing but the return address.
//
//go:noinline
func mmapInnermost(block []byte) {
	for index := 0; index < len(block); index += contract.PageBytes {
		block[index] = 1
	}
}

//go:noinline
func mmapThird(depth int) int {
	if depth > 0 {
		return mmapThird(depth-1) + 0
	}
	block, err := syscall.Mmap(-1, 0, blockBytes, syscall.PROT_READ|syscall.PROT_WRITE,
		syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		contract.Fail("map memory", err)
	}
	mmapInnermost(block)
	return len(block)
}

//go:noinline
func mmapOutermost(count int) int {
	leaked := 0
	for leaked < count*contract.StepBytes {
		leaked += mmapThird(5)
	}
	return leaked
}

func main() {
	contract.Begin()
	contract.Hello("go/stacks", ends)
	contract.Answer(handlers)
}
