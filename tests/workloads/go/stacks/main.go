// stacks leaks at the end of chains of calls between Go and C whose two ends are known: "mmap" and "heap" in Go alone,
// "spawn" what the race detector keeps of goroutines that have ended, and with the build tag with_cgo "cgo" in C called from Go, "callback" in C called from Go called from C called from Go, and
// "thread" in Go called from a thread of C's.
package main

import (
	"sync"
	"syscall"

	"leakprobe/workloads/contract"
)

const blockBytes = 1 << 16

var handlers = map[string]func(int) contract.Truth{
	"mmap": func(count int) contract.Truth {
		return contract.Truth{"grown_bytes": mmapOutermost(count)}
	},
	"heap": func(count int) contract.Truth {
		return contract.Truth{"grown_bytes": heapOutermost(count)}
	},
	"spawn": func(count int) contract.Truth {
		spawnOutermost(count)
		return contract.Truth{}
	},
}

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

var kept [][]byte

// Objects as long as their span, so that they are what the heap grows by.
//
//go:noinline
func heapInnermost() int {
	object := make([]byte, blockBytes)
	for index := 0; index < len(object); index += contract.PageBytes {
		object[index] = 1
	}
	kept = append(kept, object)
	return len(object)
}

//go:noinline
func heapThird(depth int) int {
	if depth > 0 {
		return heapThird(depth-1) + 0
	}
	return heapInnermost()
}

//go:noinline
func heapOutermost(count int) int {
	leaked := 0
	for leaked < count*contract.StepBytes {
		leaked += heapThird(5)
	}
	return leaked
}

//go:noinline
func spawnInnermost(ended *sync.WaitGroup) {
	go ended.Done()
}

//go:noinline
func spawnOutermost(count int) {
	var ended sync.WaitGroup
	for number := 0; number < count*1000; number++ {
		ended.Add(1)
		spawnInnermost(&ended)
		if number%100 == 0 {
			ended.Wait()
		}
	}
	ended.Wait()
}

func main() {
	contract.Begin()
	contract.Hello("go/stacks", ends)
	contract.Answer(handlers)
}
