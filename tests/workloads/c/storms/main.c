/*
 * Two storms at once: one thread faults on fresh pages as fast as it can, another maps and unmaps as fast as it can.
 *
 * "run N" is N rounds of 64 MiB, and as many pairs of mmap and munmap as fit meanwhile; "start" lets both go on until
 * "stop". The answer says how many there were. The surprise: the pages are those of one mapping, given back after
 * each round, so that a storm goes on for hours in 64 MiB; "hold N" keeps N MiB besides.
 */
#include "contract.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <time.h>

#define ROUND_BYTES (64UL << 20)
#define PAIR_BYTES (64UL << 10)

static atomic_int is_over;
static unsigned long rounds_wanted, pages, pairs;
static pthread_t faulting, pairing;

static unsigned long now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000UL + now.tv_nsec;
}

static char *mapped(unsigned long bytes)
{
    char *start = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED)
        fail("map %lu bytes", bytes);
    return start;
}

__attribute__((noinline)) static void touch_every_page(volatile char *start, unsigned long bytes)
{
    for (unsigned long offset = 0; offset < bytes; offset += PAGE_BYTES)
        start[offset] = 1;
}

static void *fault(void *nothing)
{
    char *start = mapped(ROUND_BYTES);
    for (pages = 0; !atomic_load(&is_over) && pages < rounds_wanted * (ROUND_BYTES / PAGE_BYTES);) {
        touch_every_page(start, ROUND_BYTES);
        madvise(start, ROUND_BYTES, MADV_DONTNEED);
        pages += ROUND_BYTES / PAGE_BYTES;
    }
    munmap(start, ROUND_BYTES);
    atomic_store(&is_over, 1);
    return nothing;
}

static void *map_and_unmap(void *nothing)
{
    for (pairs = 0; !atomic_load(&is_over); pairs++)
        munmap(mapped(PAIR_BYTES), PAIR_BYTES);
    return nothing;
}

static void begin(unsigned long rounds)
{
    rounds_wanted = rounds;
    atomic_store(&is_over, 0);
    if (pthread_create(&faulting, NULL, fault, NULL) || pthread_create(&pairing, NULL, map_and_unmap, NULL))
        fail("start two threads");
}

static void finish(unsigned long began_ns)
{
    pthread_join(faulting, NULL);
    pthread_join(pairing, NULL);
    answer("{\"pages\":%lu,\"pairs\":%lu,\"elapsed_ns\":%lu}", pages, pairs, now_ns() - began_ns);
}

__attribute__((noinline)) static unsigned long hold(unsigned long steps)
{
    touch_every_page(mapped(steps * STEP_BYTES), steps * STEP_BYTES);
    return steps * STEP_BYTES;
}

int main(void)
{
    struct command command;
    unsigned long began_ns = 0;
    contract_begin();
    answer("{\"workload\":\"c/storms\",\"pid\":%d}", getpid());
    while (next_command(&command)) {
        if (!strcmp(command.verb, "run")) {
            began_ns = now_ns();
            begin(command.count);
            finish(began_ns);
        } else if (!strcmp(command.verb, "start")) {
            began_ns = now_ns();
            begin(~0UL >> 20);
            answer("{}");
        } else if (!strcmp(command.verb, "stop")) {
            atomic_store(&is_over, 1);
            finish(began_ns);
        } else if (!strcmp(command.verb, "hold")) {
            answer("{\"held_bytes\":%lu}", hold(command.count));
        } else {
            answer("{\"error\":\"unknown command %s\"}", command.verb);
        }
    }
    return 0;
}
