/*
 * Holds as many blocks as it is asked for in 64 arenas, of which it freed one in three, and says what malloc_info counts
 * of them.
 *
 * The surprise: what threads keep in their caches is in use for malloc_info.
 */
#include "contract.h"

#include <malloc.h>
#include <pthread.h>

#define ARENAS 64
#define LARGEST_BYTES 200

static char told[1 << 20];
static pthread_barrier_t filled;
static unsigned long blocks_per_thread;

static void *fill_an_arena(void *number)
{
    unsigned state = 7 * (unsigned)(unsigned long)number + 1;
    void **to_free = NULL;
    for (unsigned long made = 0; made < blocks_per_thread; made++) {
        state = state * 1103515245 + 12345;
        unsigned long bytes = (state >> 8) % LARGEST_BYTES + 1;
        /* No block of malloc's is too small for a pointer. */
        void **block = malloc(bytes);
        if (!block)
            fail("allocate %lu bytes", bytes);
        *block = to_free;
        if (made % 3 == 0)
            to_free = block;
    }
    while (to_free) {
        void **next = *to_free;
        free(to_free);
        to_free = next;
    }
    pthread_barrier_wait(&filled);
    for (;;)
        pause();
    return NULL;
}

/* A figure of the totals, which stand behind the last arena. */
static unsigned long total(const char *totals, const char *before)
{
    const char *found = strstr(totals, before);
    unsigned long count = 0, bytes = 0;
    if (found && sscanf(found + strlen(before), " count=\"%lu\" size=\"%lu\"", &count, &bytes) != 2)
        sscanf(found + strlen(before), " size=\"%lu\"", &bytes);
    return bytes;
}

static void answer_truth(void)
{
    FILE *stream = fmemopen(told, sizeof told, "w");
    if (!stream || malloc_info(0, stream) || fclose(stream))
        fail("ask malloc_info");
    const char *totals = told;
    for (const char *next = told; (next = strstr(next, "</heap>")); next++)
        totals = next;
    unsigned long system = total(totals, "<system type=\"current\"");
    unsigned long free_bytes = total(totals, "<total type=\"fast\"") + total(totals, "<total type=\"rest\"");
    answer("{\"system\":%lu,\"free\":%lu,\"in_use\":%lu}", system, free_bytes, system - free_bytes);
}

int main(void)
{
    struct command command;
    contract_begin();
    mallopt(M_ARENA_MAX, ARENAS + 1);
    pthread_barrier_init(&filled, NULL, ARENAS + 1);
    answer("{\"workload\":\"c/malloc_arenas\",\"pid\":%d,\"arenas\":%d}", getpid(), ARENAS);
    while (next_command(&command)) {
        if (strcmp(command.verb, "fill") == 0 && blocks_per_thread == 0) {
            blocks_per_thread = command.count / ARENAS;
            for (unsigned long number = 0; number < ARENAS; number++) {
                pthread_t thread;
                if ((errno = pthread_create(&thread, NULL, fill_an_arena, (void *)number)))
                    fail("start a thread");
            }
            pthread_barrier_wait(&filled);
            answer("{\"chunks\":%lu}", blocks_per_thread * ARENAS);
        } else if (strcmp(command.verb, "truth") == 0) {
            answer_truth();
        } else {
            answer("{\"error\":\"unknown command %s\"}", command.verb);
        }
    }
    return 0;
}
