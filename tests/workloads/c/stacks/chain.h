/*
 * A chain of calls whose two ends are known by address: the test looks for both on the stacks of what was leaked, so
 * that it works without names too. Each end lies in a section of its own, which the linker gives a start and an end.
 */
#ifndef CHAIN_H
#define CHAIN_H

#include <stdlib.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#define INNERMOST __attribute__((noinline, section("innermost_code")))
#define OUTERMOST __attribute__((noinline, section("outermost_code")))
#define BETWEEN __attribute__((noinline))
/* Keeps a call from becoming a jump, and the compiler from knowing what is behind a pointer. */
#define STAYS(pointer) __asm__ volatile("" : : "r"(pointer) : "memory")

extern const char __start_innermost_code[], __stop_innermost_code[];
extern const char __start_outermost_code[], __stop_outermost_code[];

#define BLOCK_BYTES 20000UL

/* Frames of a size that real code has. */
#define PAD() char pad[700]; memset(pad, 1, sizeof pad); STAYS(pad)

#ifdef __cplusplus
}
#endif

#define CHAIN_ENDS \
    "\"innermost\":[%lu,%lu],\"outermost\":[%lu,%lu]"
#define CHAIN_ENDS_VALUES \
    (unsigned long)__start_innermost_code, (unsigned long)__stop_innermost_code, \
    (unsigned long)__start_outermost_code, (unsigned long)__stop_outermost_code

#endif
