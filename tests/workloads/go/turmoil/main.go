// turmoil never rests: on all cores it makes and drops small objects, large ones and maps, starts goroutines
// that grow their stacks and end, collects and returns memory, and one thread maps and unmaps without end.
//
// The surprise: it has bounds, and says them, so that what is read of it can be called absurd.
package main

import (
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"

	"leakprobe/workloads/contract"
)

const (
	// Goroutines that one worker has alive at most.
	burst = 200
	// What a worker keeps of each kind at most.
	smallKept  = 4000
	largeKept  = 4
	largeBytes = 2 << 20
	mapsKept   = 8
	// What the mapping thread has mapped at most.
	mappedBytes = 16 << 20
)

var rounds int64

//go:noinline
func descend(depth int) byte {
	var room [256]byte
	if depth == 0 {
		return room[0]
	}
	room[depth] = descend(depth - 1)
	return room[depth] + 1
}

func work(seed int) {
	small := make([][]byte, smallKept)
	large := make([][]byte, largeKept)
	maps := make([]map[int][]byte, mapsKept)
	for round := seed; ; round++ {
		for index := range small {
			small[index] = make([]byte, 16+(round*31+index*7)%2000)
		}
		slice := make([]byte, largeBytes/(1+round%3))
		for offset := 0; offset < len(slice); offset += contract.PageBytes {
			slice[offset] = byte(round)
		}
		large[round%largeKept] = slice
		table := make(map[int][]byte)
		for key := 0; key < 500; key++ {
			table[key*round] = make([]byte, 48)
		}
		maps[round%mapsKept] = table
		var ended sync.WaitGroup
		ended.Add(burst)
		for count := 0; count < burst; count++ {
			depth := (count * round) % 200
			go func() {
				descend(depth)
				ended.Done()
			}()
		}
		ended.Wait()
		if round%97 == 0 {
			debug.FreeOSMemory()
		}
		atomic.AddInt64(&rounds, 1)
	}
}

func mapAndUnmap() {
	runtime.LockOSThread()
	for round := 0; ; round++ {
		bytes := mappedBytes >> uint(round%8)
		memory, err := syscall.Mmap(-1, 0, bytes, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
		if err != nil {
			contract.Fail("map memory", err)
		}
		for offset := 0; offset < bytes; offset += contract.PageBytes {
			memory[offset] = 1
		}
		if err := syscall.Munmap(memory); err != nil {
			contract.Fail("unmap memory", err)
		}
	}
}

func main() {
	contract.Begin()
	workers := runtime.NumCPU() + 1
	for seed := 0; seed < workers; seed++ {
		go work(seed)
	}
	go mapAndUnmap()
	contract.Hello("go/turmoil", contract.Truth{
		// The main one, the workers, the one that maps, and those the workers started.
		"most_goroutines": 2 + workers*(burst+1),
	})
	contract.Answer(map[string]func(int) contract.Truth{"rounds": func(int) contract.Truth {
		// Who can ask for a heap profile has one kept.
		buckets, _ := runtime.MemProfile(nil, true)
		return contract.Truth{"rounds": atomic.LoadInt64(&rounds), "buckets": buckets}
	}})
}
