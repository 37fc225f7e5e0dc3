/*
 * Faults on fresh 4 KiB pages as fast as one core can: the worst a page-fault probe can meet.
 *
 * "storm N" maps, touches and unmaps 256 MiB N times and answers with the pages and the time.
 */
#include "contract.h"

#include <sys/mman.h>
#include <time.h>

#define MAPPING_BYTES (256UL << 20)

static unsigned long now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000UL + now.tv_nsec;
}

__attribute__((noinline)) static void touch_every_page(volatile char *start)
{
    for (unsigned long offset = 0; offset < MAPPING_BYTES; offset += PAGE_BYTES)
        start[offset] = 1;
}

__attribute__((noinline)) static void storm(unsigned long rounds)
{
    for (unsigned long round = 0; round < rounds; round++) {
        void *start = mmap(NULL, MAPPING_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (start == MAP_FAILED)
            fail("map %lu bytes", MAPPING_BYTES);
        madvise(start, MAPPING_BYTES, MADV_NOHUGEPAGE);
        touch_every_page(start);
        munmap(start, MAPPING_BYTES);
    }
}

int main(void)
{
    struct command command;
    contract_begin();
    answer("{\"workload\":\"c/fault_storm\",\"pid\":%d}", getpid());
    while (next_command(&command)) {
        if (strcmp(command.verb, "storm") != 0) {
            answer("{\"error\":\"unknown command %s\"}", command.verb);
            continue;
        }
        unsigned long started_ns = now_ns();
        storm(command.count);
        answer("{\"pages\":%lu,\"elapsed_ns\":%lu}", command.count * (MAPPING_BYTES / PAGE_BYTES),
               now_ns() - started_ns);
    }
    return 0;
}
