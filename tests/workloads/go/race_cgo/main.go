// race_cgo has all there is of memory that is not Go's, side by side: C blocks of a known sum, a mapping of C's
// own, and what the race detector keeps of thousands of goroutines, living and gone.
//
// The surprise: a program with C code of its own is linked by the C linker, so that once stripped it names no
// function of the race detector anywhere.
package main

/*
#define _GNU_SOURCE
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static long fill(long bytes, long from)
{
	long sum = 0;
	for (long size = from; sum < bytes; size = size % 9000 + 61) {
		char *block = malloc(size);
		if (!block)
			abort();
		memset(block, 'x', size);
		__asm__ volatile("" : : "r"(block) : "memory");
		sum += malloc_usable_size(block) + sizeof(size_t);
	}
	return sum;
}

// The pointer to it is kept where a program keeps such things.
static char *mapping;

static long map_and_fill(long bytes)
{
	mapping = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mapping == MAP_FAILED)
		abort();
	memset(mapping, 'y', bytes);
	return bytes;
}
*/
import "C"

import (
	"sync"

	"leakprobe/workloads/contract"
)

const (
	blockBytes   = 48 << 20
	mappedBytes  = 3<<20 + 4096
	gone         = 30000
	living       = 3000
	goneTogether = 500
)

// Each writes shared memory under a lock, so that the race detector has something to remember.
func run(count int, shared *sync.Mutex, sums map[int]int, end *sync.WaitGroup, wait <-chan struct{}) {
	var started sync.WaitGroup
	for number := 0; number < count; number++ {
		number := number
		started.Add(1)
		end.Add(1)
		go func() {
			defer end.Done()
			shared.Lock()
			sums[number%97] += number
			shared.Unlock()
			started.Done()
			if wait != nil {
				<-wait
			}
		}()
	}
	started.Wait()
}

func main() {
	contract.Begin()
	blocks := int(C.fill(blockBytes/2, 61))
	mapped := int(C.map_and_fill(mappedBytes))
	sums := map[int]int{}
	var shared sync.Mutex
	var end sync.WaitGroup
	for batch := 0; batch < gone/goneTogether; batch++ {
		run(goneTogether, &shared, sums, &end, nil)
		end.Wait()
	}
	run(living, &shared, sums, &end, make(chan struct{}))
	blocks += int(C.fill(blockBytes/2, 1777))
	contract.Hello("go/race_cgo", contract.Truth{
		"block_bytes": blocks, "mapped_bytes": mapped, "goroutines_started": gone + living,
	})
	contract.Answer(nil)
}
