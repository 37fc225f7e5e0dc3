//go:build with_cgo

#include "chain.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "_cgo_export.h"

#define BLOCK_BYTES 20000L
#define STAYS(pointer) __asm__ volatile("" : : "r"(pointer) : "memory")
/* Frames of a size that real code has. */
#define PAD() char pad[900]; memset(pad, 1, sizeof pad); STAYS(pad)

extern const char __start_innermost_code[], __stop_innermost_code[];
extern const char __start_outermost_code[], __stop_outermost_code[];

unsigned long innermost_start(void) { return (unsigned long)__start_innermost_code; }
unsigned long innermost_end(void) { return (unsigned long)__stop_innermost_code; }
unsigned long outermost_start(void) { return (unsigned long)__start_outermost_code; }
unsigned long outermost_end(void) { return (unsigned long)__stop_outermost_code; }

__attribute__((noinline, section("innermost_code"))) static long innermost(void)
{
	char *block = malloc(BLOCK_BYTES);
	if (!block)
		abort();
	memset(block, 'x', BLOCK_BYTES);
	STAYS(block);
	return BLOCK_BYTES;
}

__attribute__((noinline)) long second_in_c(int depth)
{
	PAD();
	long leaked = depth > 0 ? second_in_c(depth - 1) : innermost();
	STAYS(pad);
	return leaked;
}

__attribute__((noinline)) long back_to_go(int depth)
{
	PAD();
	long leaked = goCallback(depth);
	STAYS(pad);
	return leaked;
}

__attribute__((noinline, section("outermost_code"))) static void *of_the_thread(void *wanted)
{
	PAD();
	long leaked = 0;
	while (leaked < *(long *)wanted)
		leaked += goInnermost();
	*(long *)wanted = leaked;
	STAYS(pad);
	return NULL;
}

long on_a_thread(long bytes)
{
	pthread_t thread;
	if (pthread_create(&thread, NULL, of_the_thread, &bytes) != 0)
		abort();
	pthread_join(thread, NULL);
	return bytes;
}
