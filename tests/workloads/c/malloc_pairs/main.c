/*
 * Allocates and frees about a million blocks a second, with some work on each, and forgets one in a thousand.
 *
 * "work N" does N of them and answers with the time they took, by the clock and of the processor. The surprise:
 * with "mixed N" the forgotten blocks have the sizes of the others. Then they take the place of freed ones, and who
 * touches fresh memory is whoever allocates next.
 */
#include "contract.h"

#include <time.h>

#define FORGOTTEN_ONE_IN 1000
/* Malloc gives sizes in steps of 16 bytes: every other one is for the forgotten blocks alone. */
#define LEAST_BYTES 56
#define STEPS 32
#define STEP 32
#define FORGOTTEN_BYTES 520

static unsigned long now_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * 1000000000UL + now.tv_nsec;
}

/* What a program does with a block: writes all of it, reads all of it. */
__attribute__((noinline)) static unsigned long use(unsigned char *block, unsigned long bytes, unsigned long seed)
{
    unsigned long hash = seed;
    memset(block, (int)seed, bytes);
    for (unsigned long i = 0; i < bytes; i++)
        hash = (hash ^ block[i]) * 0x100000001b3UL;
    return hash;
}

__attribute__((noinline)) static unsigned char *take(unsigned long bytes)
{
    unsigned char *block = malloc(bytes);
    if (!block)
        fail("allocate %lu bytes", bytes);
    return block;
}

__attribute__((noinline)) static unsigned long forget_one(unsigned long bytes, unsigned long seed)
{
    unsigned char *block = take(bytes);
    unsigned long hash = use(block, bytes, seed);
    __asm__ volatile("" : : "r"(block) : "memory");
    return hash;
}

__attribute__((noinline)) static unsigned long work(unsigned long pairs, unsigned long hash, int is_mixed)
{
    for (unsigned long i = 0; i < pairs; i++) {
        unsigned long bytes = LEAST_BYTES + hash % STEPS * STEP;
        if (i % FORGOTTEN_ONE_IN == 0) {
            hash = forget_one(is_mixed ? bytes : FORGOTTEN_BYTES, hash);
            continue;
        }
        unsigned char *block = take(bytes);
        hash = use(block, bytes, hash);
        free(block);
    }
    return hash;
}

int main(void)
{
    struct command command;
    unsigned long hash = 1;
    contract_begin();
    answer("{\"workload\":\"c/malloc_pairs\",\"pid\":%d}", getpid());
    while (next_command(&command)) {
        int is_mixed = !strcmp(command.verb, "mixed");
        if (!is_mixed && strcmp(command.verb, "work") != 0) {
            answer("{\"error\":\"unknown command %s\"}", command.verb);
            continue;
        }
        unsigned long started_ns = now_ns(CLOCK_MONOTONIC), cpu_ns = now_ns(CLOCK_PROCESS_CPUTIME_ID);
        hash = work(command.count, hash, is_mixed);
        answer("{\"pairs\":%lu,\"elapsed_ns\":%lu,\"cpu_ns\":%lu,\"hash\":%lu}", command.count,
               now_ns(CLOCK_MONOTONIC) - started_ns, now_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu_ns, hash);
    }
    return 0;
}
