/*
 * Allocates and frees on several threads without a pause, within bounds it names. Says hello when each has
 * filled its slots once.
 */
#include "contract.h"

#include <pthread.h>

#define THREADS 4
#define SLOTS 20000UL
#define MAX_BLOCK_BYTES 2000UL

static pthread_barrier_t filled;

static void renew(void **slot, size_t bytes)
{
    free(*slot);
    *slot = malloc(bytes);
    if (!*slot)
        fail("allocate a block");
    memset(*slot, 1, bytes);
}

static void *churn(void *number)
{
    void **slots = calloc(SLOTS, sizeof *slots);
    unsigned long state = 77 + (unsigned long)number;
    if (!slots)
        fail("allocate the slots");
    for (unsigned long slot = 0; slot < SLOTS; slot++)
        renew(&slots[slot], slot * 37 % MAX_BLOCK_BYTES + 1);
    pthread_barrier_wait(&filled);
    for (;;) {
        state = state * 6364136223846793005UL + 1442695040888963407UL;
        renew(&slots[(state >> 33) % SLOTS], (state >> 20) % MAX_BLOCK_BYTES + 1);
    }
    return NULL;
}

int main(void)
{
    struct command command;
    contract_begin();
    pthread_barrier_init(&filled, NULL, THREADS + 1);
    for (long number = 0; number < THREADS; number++) {
        pthread_t thread;
        if ((errno = pthread_create(&thread, NULL, churn, (void *)number)))
            fail("start a thread");
    }
    pthread_barrier_wait(&filled);
    answer("{\"workload\":\"c/malloc_churn\",\"blocks\":%lu,\"most_live_bytes\":%lu}",
           THREADS * SLOTS, THREADS * (SLOTS * (MAX_BLOCK_BYTES + 32) + SLOTS * sizeof(void *)));
    while (next_command(&command))
        answer("{}");
    return 0;
}
