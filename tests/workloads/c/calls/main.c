/*
 * System calls as fast as one thread can make them: what each of them costs.
 *
 * "map N" maps a page and unmaps it again N times, and touches nothing; "ask N" asks for its own process id N times,
 * each by a system call. The answer says how long it took.
 */
#define _GNU_SOURCE
#include "contract.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

static unsigned long now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000UL + now.tv_nsec;
}

static void map_and_unmap(unsigned long count)
{
    for (unsigned long pair = 0; pair < count; pair++) {
        void *start = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (start == MAP_FAILED)
            fail("map a page");
        munmap(start, PAGE_BYTES);
    }
}

/* glibc once kept the process id; syscall(2) asks the kernel each time. */
static void ask_for_pid(unsigned long count)
{
    for (unsigned long call = 0; call < count; call++)
        syscall(SYS_getpid);
}

int main(void)
{
    struct command command;
    contract_begin();
    answer("{\"workload\":\"c/calls\",\"pid\":%d}", getpid());
    while (next_command(&command)) {
        unsigned long started_ns = now_ns();
        if (strcmp(command.verb, "map") == 0) {
            map_and_unmap(command.count);
        } else if (strcmp(command.verb, "ask") == 0) {
            ask_for_pid(command.count);
        } else {
            answer("{\"error\":\"unknown command %s\"}", command.verb);
            continue;
        }
        answer("{\"elapsed_ns\":%lu}", now_ns() - started_ns);
    }
    return 0;
}
