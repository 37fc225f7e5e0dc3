// heap_caches puts caches in place, drops them, and leaks a little beside them.
//
// The surprise: the collector runs only when it is told to, and then twice, which publishes the heap profile. So a
// cache that was loaded without is in the heap and not yet in its profile.
package main

import (
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"

	"leakprobe/workloads/contract"
)

// Large enough to be sampled for sure.
const entryBytes = 4 << 20

var first, second, leaked [][]byte

func filled() []byte {
	entry := make([]byte, entryBytes)
	for offset := 0; offset < len(entry); offset += contract.PageBytes {
		entry[offset] = 1
	}
	return entry
}

//go:noinline
func loadCache(mebibytes int) {
	for count := mebibytes << 20; count > 0; count -= entryBytes {
		first = append(first, filled())
	}
}

//go:noinline
func loadOther(mebibytes int) {
	for count := mebibytes << 20; count > 0; count -= entryBytes {
		second = append(second, filled())
	}
}

//go:noinline
func leakABit(mebibytes int) {
	for count := mebibytes << 20; count > 0; count -= entryBytes {
		leaked = append(leaked, filled())
	}
}

func does(call func(int)) func(int) contract.Truth {
	return func(mebibytes int) contract.Truth {
		call(mebibytes)
		return contract.Truth{}
	}
}

// collect makes the profile show everything until now.
func collect(int) {
	runtime.GC()
	runtime.GC()
}

func main() {
	contract.Begin()
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(math.MaxInt64)
	contract.Hello("go/heap_caches", contract.Truth{})
	contract.Answer(map[string]func(int) contract.Truth{
		"load":    does(loadCache),
		"drop":    does(func(int) { first = nil }),
		"other":   does(loadOther),
		"leak":    does(leakABit),
		"collect": does(collect),
		// Never asked: what reads a profile makes the linker keep it.
		"profile": func(int) contract.Truth {
			if err := pprof.WriteHeapProfile(os.Stderr); err != nil {
				contract.Fail("write the heap profile", err)
			}
			return contract.Truth{}
		},
	})
}
