// heap_slack keeps one object in 64, so that hardly a page of its heap is free and hardly one is full.
package main

import (
	"math"
	"runtime"
	"runtime/debug"
	"strconv"

	"leakprobe/workloads/contract"
)

const (
	objects     = 640_000
	objectBytes = 112
	keptEvery   = 64
	// Objects of two more sizes, all of them kept.
	mediums, mediumBytes = 1000, 2000
	larges, largeBytes   = 10, 1_200_000
)

var kept [][]byte

//go:noinline
func keepSome() {
	all := make([][]byte, objects)
	for number := range all {
		all[number] = make([]byte, objectBytes)
		all[number][0] = 1
	}
	for number := 0; number < objects; number += keptEvery {
		kept = append(kept, all[number])
	}
}

//go:noinline
func keepAll(count, bytes int) {
	for ; count > 0; count-- {
		object := make([]byte, bytes)
		for offset := 0; offset < bytes; offset += contract.PageBytes {
			object[offset] = 1
		}
		kept = append(kept, object)
	}
}

func truth() contract.Truth {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	bySize := map[string]uint64{}
	for _, class := range stats.BySize[1:] {
		bySize[strconv.Itoa(int(class.Size))] = class.Mallocs - class.Frees
	}
	return contract.Truth{
		"heap_alloc":   stats.HeapAlloc,
		"heap_inuse":   stats.HeapInuse,
		"heap_objects": stats.HeapObjects,
		"objects":      bySize,
	}
}

func main() {
	contract.Begin()
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(math.MaxInt64)
	keepSome()
	keepAll(mediums, mediumBytes)
	keepAll(larges, largeBytes)
	runtime.GC()
	runtime.GC()
	contract.Hello("go/heap_slack", truth())
	contract.Answer(map[string]func(int) contract.Truth{"truth": func(int) contract.Truth { return truth() }})
}
