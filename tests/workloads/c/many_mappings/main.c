/*
 * 60,000 mappings, all of them resident: four gigabytes in pieces of 72 KiB. Meanwhile a thread maps, touches and
 * unmaps without rest, and times each call: whoever reads the address space holds it up.
 *
 * The surprise: neighbours differ in what may be done with them, or the kernel would make one mapping of all.
 */
#include "contract.h"

#include <pthread.h>
#include <sys/mman.h>
#include <time.h>

#define MAPPINGS 60000UL
#define MAPPING_BYTES (18 * PAGE_BYTES)
#define SMALL_BYTES (16 * PAGE_BYTES)
#define CALLS_MAX (1UL << 23)

static unsigned call_ns[CALLS_MAX];
static unsigned long calls; /* as many as were timed since "reset" */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static unsigned long now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000UL + now.tv_nsec;
}

static void map_all(void)
{
    char *start = mmap(NULL, MAPPINGS * MAPPING_BYTES, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED)
        fail("map %lu bytes", MAPPINGS * MAPPING_BYTES);
    for (unsigned long offset = 0; offset < MAPPINGS * MAPPING_BYTES; offset += PAGE_BYTES)
        start[offset] = 1;
    for (unsigned long mapping = 0; mapping < MAPPINGS; mapping += 2)
        if (mprotect(start + mapping * MAPPING_BYTES, MAPPING_BYTES, PROT_READ) != 0)
            fail("protect mapping %lu", mapping);
}

static void timed(unsigned long since_ns)
{
    unsigned long ns = now_ns() - since_ns;
    pthread_mutex_lock(&lock);
    if (calls < CALLS_MAX)
        call_ns[calls++] = ns > 0xffffffffUL ? 0xffffffffU : (unsigned)ns;
    pthread_mutex_unlock(&lock);
}

static void *map_and_unmap(void *nothing)
{
    (void)nothing;
    for (;;) {
        unsigned long started_ns = now_ns();
        volatile char *start =
            mmap(NULL, SMALL_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        timed(started_ns);
        if (start == MAP_FAILED)
            fail("map %lu bytes", SMALL_BYTES);
        for (unsigned long offset = 0; offset < SMALL_BYTES; offset += PAGE_BYTES)
            start[offset] = 1;
        started_ns = now_ns();
        munmap((void *)start, SMALL_BYTES);
        timed(started_ns);
    }
    return NULL;
}

static int by_size(const void *a, const void *b)
{
    unsigned left = *(const unsigned *)a, right = *(const unsigned *)b;
    return (left > right) - (left < right);
}

static void answer_calls(void)
{
    pthread_mutex_lock(&lock);
    qsort(call_ns, calls, sizeof call_ns[0], by_size);
    unsigned long median_ns = calls ? call_ns[calls / 2] : 0, longest_ns = calls ? call_ns[calls - 1] : 0;
    answer("{\"calls\":%lu,\"median_ns\":%lu,\"longest_ns\":%lu}", calls, median_ns, longest_ns);
    calls = 0;
    pthread_mutex_unlock(&lock);
}

int main(void)
{
    struct command command;
    pthread_t thread;
    contract_begin();
    map_all();
    if (pthread_create(&thread, NULL, map_and_unmap, NULL) != 0)
        fail("start a thread");
    answer("{\"workload\":\"c/many_mappings\",\"pid\":%d,\"mappings\":%lu,\"mapped_bytes\":%lu}", getpid(),
           MAPPINGS, MAPPINGS * MAPPING_BYTES);
    while (next_command(&command)) {
        if (strcmp(command.verb, "calls") == 0)
            answer_calls(); /* since the last time it was asked */
        else
            answer("{\"error\":\"unknown command %s\"}", command.verb);
    }
    return 0;
}
