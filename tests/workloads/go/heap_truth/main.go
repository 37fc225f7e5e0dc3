// heap_truth holds objects, idle pages and goroutine stacks, and says how much of each the runtime counts. It
// compiles with Go 1.19 and all that came after.
//
// The surprise: the truth is taken with the collector off, or it would be another one by the time it is read.
package main

import (
	"math"
	"runtime"
	"runtime/debug"

	"leakprobe/workloads/contract"
)

const (
	smallObjects = 40_000
	smallBytes   = 1024
	largeObjects = 64
	largeBytes   = 3 << 20
	// Less than a tenth of what is kept: the runtime's scavenger returns in the background what exceeds
	// that, collector on or off, and the truth would change while it is read.
	garbageBytes = 14 << 20
	goroutines   = 500
)

var (
	kept    [][]byte
	garbage [][]byte
	forever = make(chan struct{})
)

//go:noinline
func filled(bytes int) []byte {
	slice := make([]byte, bytes)
	for offset := 0; offset < bytes; offset += contract.PageBytes {
		slice[offset] = 1
	}
	return slice
}

// waitDeep waits for ever on a stack that had to grow.
//
//go:noinline
func waitDeep(depth int, ready chan<- struct{}) byte {
	var room [512]byte
	if depth == 0 {
		ready <- struct{}{}
		<-forever
		return room[0]
	}
	room[depth] = waitDeep(depth-1, ready)
	return room[depth]
}

func fillTheHeap() {
	for count := 0; count < smallObjects; count++ {
		kept = append(kept, filled(smallBytes))
	}
	for count := 0; count < largeObjects; count++ {
		kept = append(kept, filled(largeBytes))
	}
	garbage = append(garbage, filled(garbageBytes))
	ready := make(chan struct{})
	for count := 0; count < goroutines; count++ {
		go waitDeep(12, ready)
	}
	for count := 0; count < goroutines; count++ {
		<-ready
	}
}

// profileBytes is what runtime/pprof would write as bytes in use, scaled as protomem.go does.
func profileBytes() int64 {
	var records []runtime.MemProfileRecord
	count, done := runtime.MemProfile(nil, true)
	for !done {
		records = make([]runtime.MemProfileRecord, count+64)
		count, done = runtime.MemProfile(records, true)
	}
	var total int64
	for _, record := range records[:count] {
		objects, bytes := record.InUseObjects(), record.InUseBytes()
		if objects == 0 || bytes == 0 {
			continue
		}
		mean := float64(bytes) / float64(objects)
		total += int64(float64(bytes) / (1 - math.Exp(-mean/float64(runtime.MemProfileRate))))
	}
	return total
}

// stats is no local variable: it would be an object of the heap that it counts.
var stats runtime.MemStats

// counts is what the runtime says of itself for the price of saying it.
func counts() contract.Truth {
	runtime.ReadMemStats(&stats)
	// What StackSys has beyond StackInuse are stacks outside the heap: with the rest, all that the runtime
	// took from the kernel for itself.
	outsideStacks := stats.StackSys - stats.StackInuse
	return contract.Truth{
		"heap_inuse":     stats.HeapInuse,
		"heap_idle":      stats.HeapIdle,
		"heap_released":  stats.HeapReleased,
		"stack_inuse":    stats.StackInuse,
		"mspan_sys":      stats.MSpanSys,
		"mcache_sys":     stats.MCacheSys,
		"buck_hash_sys":  stats.BuckHashSys,
		"gc_sys":         stats.GCSys,
		"other_sys":      stats.OtherSys,
		"outside_stacks": outsideStacks,
		"goroutines":     runtime.NumGoroutine(),
	}
}

func truth() contract.Truth {
	profile := profileBytes()
	truth := counts()
	truth["profile_bytes"] = profile
	return truth
}

func main() {
	contract.Begin()
	// What is freed stays resident: nothing runs that would return it.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(math.MaxInt64)
	fillTheHeap()
	garbage = nil
	runtime.GC()
	runtime.GC()
	contract.Hello("go/heap_truth", truth())
	contract.Answer(map[string]func(int) contract.Truth{
		"truth":  func(int) contract.Truth { return truth() },
		"counts": func(int) contract.Truth { return counts() },
	})
}
