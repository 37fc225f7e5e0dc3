// library is a Go runtime in a C program: it holds a heap and blocks goroutines, and says how much of each.
//
// Built with -buildmode=c-shared; the host is c/go_host.
package main

// typedef unsigned long long number;
import "C"

import (
	"runtime"
	"runtime/debug"
)

const blockBytes = 1 << 20

var (
	kept    [][]byte
	forever = make(chan struct{})
)

//go:noinline
func waitInTheLibrary(ready chan<- struct{}) {
	ready <- struct{}{}
	<-forever
}

// library_hold fills so many blocks of 1 MiB and blocks so many goroutines.
//
//export library_hold
func library_hold(blocks, goroutines C.number) {
	debug.SetGCPercent(-1)
	for len(kept) < int(blocks) {
		block := make([]byte, blockBytes)
		for offset := range block {
			block[offset] = 1
		}
		kept = append(kept, block)
	}
	ready := make(chan struct{})
	for count := 0; count < int(goroutines); count++ {
		go waitInTheLibrary(ready)
		<-ready
	}
	runtime.GC()
}

//export library_heap_inuse
func library_heap_inuse() C.number {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return C.number(stats.HeapInuse)
}

//export library_goroutines
func library_goroutines() C.number {
	return C.number(runtime.NumGoroutine())
}

func main() {}
