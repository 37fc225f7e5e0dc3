// cgo_malloc forgets blocks that C's malloc gave it: a leak in a Go program that Go cannot see.
//
// The surprise: cgo calls run on whatever thread the scheduler has, so the blocks lie in a thread's
// arena (or several) and not on the brk heap.
package main

/*
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_BYTES 1000

// Counts glibc's chunk, header included: that is what the block costs.
static __attribute__((noinline)) long forget_block(void)
{
	char *block = malloc(BLOCK_BYTES);
	if (!block)
		abort();
	memset(block, 'x', BLOCK_BYTES);
	// Keeps the compiler from seeing that nobody reads the block.
	__asm__ volatile("" : : "r"(block) : "memory");
	return malloc_usable_size(block) + sizeof(size_t);
}

static __attribute__((noinline)) long forget_blocks(long bytes)
{
	long leaked = 0;
	while (leaked < bytes)
		leaked += forget_block();
	return leaked;
}
*/
import "C"

import "leakprobe/workloads/contract"

//go:noinline
func leakThroughC(count int) int {
	return int(C.forget_blocks(C.long(count * contract.StepBytes)))
}

func main() {
	contract.Begin()
	contract.Leak("go/cgo_malloc", 3, leakThroughC)
}
