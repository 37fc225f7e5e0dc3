// heap_lazily_freed returns memory to the kernel with MADV_FREE, as Go 1.12 to 1.15 did: it stays resident
// until the kernel needs it, beside objects that are in use.
//
// The surprise: the runtime reads the setting before any code of the program runs, so it starts itself again.
package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"syscall"

	"leakprobe/workloads/contract"
)

const (
	blocks     = 64
	blockBytes = 1 << 20
)

var kept, garbage [][]byte

//go:noinline
func filled() []byte {
	block := make([]byte, blockBytes)
	for offset := 0; offset < blockBytes; offset += contract.PageBytes {
		block[offset] = 1
	}
	return block
}

// fillTheHeap leaves garbage between what is kept.
func fillTheHeap() {
	for count := 0; count < blocks; count++ {
		kept = append(kept, filled())
		garbage = append(garbage, filled())
	}
}

const setting = "madvdontneed=0"

func main() {
	if os.Getenv("GODEBUG") != setting {
		env := append(os.Environ(), "GODEBUG="+setting)
		contract.Fail("start again with GODEBUG="+setting, syscall.Exec("/proc/self/exe", os.Args, env))
	}
	contract.Begin()
	debug.SetGCPercent(-1)
	fillTheHeap()
	garbage = nil
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	debug.FreeOSMemory()
	runtime.ReadMemStats(&after)
	contract.Hello("go/heap_lazily_freed", contract.Truth{
		"kept_bytes":  blocks * blockBytes,
		"freed_bytes": blocks * blockBytes,
		"released":    after.HeapReleased - before.HeapReleased,
	})
	contract.Answer(nil)
	runtime.KeepAlive(kept)
}
