/*
 * Lets threads exit whose stacks glibc then keeps, and says how much of them is still resident; some threads stay.
 *
 * The surprise: a thread gives back most of its stack as it exits, but never the last 16 KiB and what lies above:
 * the thread-local storage, of which this program has a lot.
 */
#define _GNU_SOURCE
#include "contract.h"

#include <pthread.h>
#include <semaphore.h>
#include <sys/mman.h>

#define EXITING 140
#define STAYING 5
#define STACK_BYTES (256UL << 10)
#define LOCAL_BYTES (200UL << 10)

static __thread volatile char local[LOCAL_BYTES];
static struct { char *start; unsigned long bytes; } stacks[EXITING + STAYING];
static sem_t noted;

static void note_own_stack(unsigned long index)
{
    pthread_attr_t attributes;
    void *start;
    size_t bytes;
    if (pthread_getattr_np(pthread_self(), &attributes) || pthread_attr_getstack(&attributes, &start, &bytes))
        fail("ask for a thread's own stack");
    pthread_attr_destroy(&attributes);
    stacks[index].start = start;
    stacks[index].bytes = bytes;
    for (unsigned long offset = 0; offset < LOCAL_BYTES; offset += PAGE_BYTES)
        local[offset] = 1;
    sem_post(&noted);
}

static void *exiting_thread(void *index)
{
    note_own_stack((unsigned long)index);
    return NULL;
}

static void *staying_thread(void *index)
{
    note_own_stack((unsigned long)index);
    while (pause())
        ;
    return NULL;
}

static unsigned long resident_bytes(unsigned long first, unsigned long count)
{
    static unsigned char pages[STACK_BYTES / PAGE_BYTES];
    unsigned long bytes = 0;
    for (unsigned long index = first; index < first + count; index++) {
        if (mincore(stacks[index].start, stacks[index].bytes, pages))
            fail("ask what of a stack is resident");
        for (unsigned long page = 0; page < stacks[index].bytes / PAGE_BYTES; page++)
            bytes += pages[page] & 1 ? PAGE_BYTES : 0;
    }
    return bytes;
}

int main(void)
{
    pthread_t threads[EXITING + STAYING];
    pthread_attr_t attributes;
    contract_begin();
    sem_init(&noted, 0, 0);
    pthread_attr_init(&attributes);
    if (pthread_attr_setstacksize(&attributes, STACK_BYTES))
        fail("ask for stacks of %lu bytes", STACK_BYTES);
    for (unsigned long index = 0; index < EXITING + STAYING; index++) {
        void *(*run)(void *) = index < EXITING ? exiting_thread : staying_thread;
        errno = pthread_create(&threads[index], &attributes, run, (void *)index);
        if (errno)
            fail("start a thread");
    }
    for (unsigned long index = 0; index < EXITING + STAYING; index++)
        while (sem_wait(&noted) && errno == EINTR)
            ;
    for (unsigned long index = 0; index < EXITING; index++)
        pthread_join(threads[index], NULL);
    answer("{\"workload\":\"c/exited_threads\",\"pid\":%d,\"exited\":%d,\"staying\":%d,\"exited_bytes\":%lu,"
           "\"staying_bytes\":%lu}",
           getpid(), EXITING, STAYING, resident_bytes(0, EXITING), resident_bytes(EXITING, STAYING));
    struct command command;
    while (next_command(&command))
        answer("{\"error\":\"unknown command %s\"}", command.verb);
    return 0;
}
