/*
 * Starts threads that use 1 MiB of their own stack, one thread a step, and stay.
 *
 * The surprise: a stack page stays resident after the function that touched it has returned, so the
 * threads wait with almost empty stacks.
 */
#include "contract.h"

#include <pthread.h>
#include <semaphore.h>

static sem_t touched;

__attribute__((noinline)) static void use_own_stack(void)
{
    volatile char frame[STEP_BYTES];
    for (unsigned long offset = 0; offset < sizeof frame; offset += PAGE_BYTES)
        frame[offset] = 1;
}

static void *deep_thread(void *unused)
{
    (void)unused;
    use_own_stack();
    sem_post(&touched);
    while (pause())
        ;
    return NULL;
}

__attribute__((noinline)) static unsigned long start_threads(unsigned long count)
{
    for (unsigned long started = 0; started < count; started++) {
        pthread_t thread;
        errno = pthread_create(&thread, NULL, deep_thread, NULL);
        if (errno)
            fail("start a thread");
        while (sem_wait(&touched) && errno == EINTR)
            ;
    }
    return count * STEP_BYTES;
}

int main(void)
{
    contract_begin();
    sem_init(&touched, 0, 0);
    return contract_leak("c/thread_stacks", 3, start_threads);
}
