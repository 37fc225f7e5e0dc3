// museum holds and wastes memory in the ways of Go programs, one a command: each that leaks, and what looks like it and
// does not.
//
// The surprise: it collects garbage on command only where an exhibit is of what a collection leaves; elsewhere the
// collector runs as it likes.
package main

/*
#include <string.h>
#include <unistd.h>

// Uses so much of the thread's stack, and stays there.
static __attribute__((noinline)) void stay_in_c(long bytes, int ready, int end)
{
	char frame[bytes], byte = 1;
	memset(frame, 1, sizeof frame);
	__asm__ volatile("" : : "r"(frame) : "memory");
	if (write(ready, &byte, 1) == 1 && read(end, &byte, 1) > 0)
		return;
}
*/
import "C"

import (
	"crypto/sha256"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"

	"leakprobe/workloads/contract"
)

const (
	blockBytes = 16 << 10
	stackBytes = contract.StepBytes
	// Goroutines that work at the same time.
	workers = 200
)

var (
	kept    [][]byte
	cache   = map[int][]byte{}
	entries int
	// Kept: a collected file is closed.
	pipes []*os.File
)

//go:noinline
func filled(bytes int) []byte {
	block := make([]byte, bytes)
	for offset := 0; offset < bytes; offset += contract.PageBytes {
		block[offset] = 1
	}
	return block
}

// collect publishes the heap profile: it is as of the collection before the last.
func collect() {
	runtime.GC()
	runtime.GC()
}

// keep leaks: nobody needs what it retains.
//
//go:noinline
func keep(count int) {
	for taken := 0; taken < count*contract.StepBytes; taken += blockBytes {
		kept = append(kept, filled(blockBytes))
	}
	collect()
}

// waste makes garbage, and leaves it to the collector.
//
//go:noinline
func waste(count int) {
	for taken := 0; taken < count*contract.StepBytes; taken += blockBytes {
		filled(blockBytes)
	}
}

// remember fills a cache that replaces its oldest entry: it is as large as it gets.
//
//go:noinline
func remember(count int) {
	const bound = 512
	for number := 0; number < count; number++ {
		cache[entries%bound] = filled(blockBytes)
		entries++
	}
}

// peak takes much and needs none of it afterwards.
func peak(count int) {
	keep(count)
	kept = nil
	collect()
}

// work starts goroutines that end, some hundred at a time.
//
//go:noinline
func work(count int) {
	var all sync.WaitGroup
	tokens := make(chan struct{}, workers)
	for number := 0; number < count; number++ {
		tokens <- struct{}{}
		all.Add(1)
		go func() {
			defer all.Done()
			block := filled(contract.PageBytes)
			for round := 0; round < 4; round++ {
				sum := sha256.Sum256(block)
				copy(block, sum[:])
			}
			<-tokens
		}()
	}
	all.Wait()
}

//go:noinline
func mapPastTheRuntime(count int) []byte {
	region, err := syscall.Mmap(-1, 0, count*contract.StepBytes, syscall.PROT_READ|syscall.PROT_WRITE,
		syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		contract.Fail("map memory", err)
	}
	for offset := 0; offset < len(region); offset += contract.PageBytes {
		region[offset] = 1
	}
	return region
}

func mapAndUnmap(count int) {
	if err := syscall.Munmap(mapPastTheRuntime(count)); err != nil {
		contract.Fail("unmap memory", err)
	}
}

// callC has so many threads in C, each deep in its stack.
//
//go:noinline
func callC(count int) {
	ready, begun := pipe()
	end, open := pipe()
	pipes = append(pipes, end, open)
	for number := 0; number < count; number++ {
		go C.stay_in_c(C.long(stackBytes), C.int(begun.Fd()), C.int(end.Fd()))
	}
	for number := 0; number < count; number++ {
		if _, err := ready.Read(make([]byte, 1)); err != nil {
			contract.Fail("wait for a thread", err)
		}
	}
	pipes = append(pipes, ready, begun)
}

// pipe returns the end to read and the end to write, both blocking.
func pipe() (*os.File, *os.File) {
	reader, writer, err := os.Pipe()
	if err != nil {
		contract.Fail("make a pipe", err)
	}
	reader.Fd()
	writer.Fd()
	return reader, writer
}

func main() {
	contract.Begin()
	// Small, so that the profile knows what grows by a few MiB; without a call of MemProfile there would be none.
	runtime.MemProfileRate = 64 << 10
	runtime.MemProfile(nil, false)
	collect()
	contract.Hello("go/museum", contract.Truth{})
	handlers := map[string]func(int) contract.Truth{}
	for verb, run := range map[string]func(int){
		"keep": keep, "waste": waste, "remember": remember, "peak": peak, "work": work, "call": callC,
		"release": func(int) { debug.FreeOSMemory() },
		"map":     func(count int) { mapPastTheRuntime(count) },
		"unmap":   mapAndUnmap,
	} {
		verb, run := verb, run
		handlers[verb] = func(count int) contract.Truth {
			run(count)
			return contract.Truth{"done": verb}
		}
	}
	contract.Answer(handlers)
}
