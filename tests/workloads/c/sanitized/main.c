/*
 * Keeps blocks, frees others, fills a table of its own in .bss, and starts threads that allocate too. It is
 * built with every sanitizer, by gcc and by clang.
 *
 * The surprise: one in 64 of the blocks among the freed ones is kept, so that some pages hold both.
 */
#include "truth.h"

#define THREADS 12
#define SMALL_BLOCKS 24000
#define THREAD_BLOCKS 400
#define LARGE_BLOCKS 9
#define LARGE_BYTES (1UL << 20)

static pthread_barrier_t filled;

static void *filled_block(size_t bytes)
{
    void *block = malloc(bytes);
    if (!block)
        fail("allocate a block");
    memset(block, 'x', bytes);
    /* Keeps the compiler from seeing that nobody reads the block. */
    __asm__ volatile("" : : "r"(block) : "memory");
    return block;
}

static void free_noted(void *block, size_t bytes)
{
    note(&own.freed, block, bytes);
    free(block);
}

static void fill(unsigned blocks, unsigned state)
{
    void **later = filled_block(blocks * sizeof *later);
    size_t *sizes = filled_block(blocks * sizeof *sizes);
    for (unsigned i = 0; i < blocks; i++) {
        size_t bytes = next_random(&state) % 1500 + 1;
        note(&own.kept, filled_block(bytes), bytes);
    }
    for (unsigned i = 0; i < blocks; i++) {
        sizes[i] = next_random(&state) % 1500 + 1;
        later[i] = filled_block(sizes[i]);
    }
    for (unsigned i = 0; i < blocks; i++) {
        if (i % 64 == 0)
            note(&own.kept, later[i], sizes[i]);
        else
            free_noted(later[i], sizes[i]);
    }
    free_noted(later, blocks * sizeof *later);
    free_noted(sizes, blocks * sizeof *sizes);
}

static void *fill_in_a_thread(void *number)
{
    fill(THREAD_BLOCKS, 7 * (unsigned)(uintptr_t)number + 1);
    pthread_barrier_wait(&filled);
    for (;;)
        pause();
    return NULL;
}

int main(void)
{
    struct command command;
    truth_begin();
    fill(SMALL_BLOCKS, 5);
    for (int i = 0; i < LARGE_BLOCKS; i++) {
        note(&own.kept, filled_block(LARGE_BYTES), LARGE_BYTES);
        free_noted(filled_block(2 * LARGE_BYTES), 2 * LARGE_BYTES);
    }
    pthread_barrier_init(&filled, NULL, THREADS + 1);
    for (long number = 0; number < THREADS; number++) {
        pthread_t thread;
        if ((errno = pthread_create(&thread, NULL, fill_in_a_thread, (void *)number)))
            fail("start a thread");
    }
    pthread_barrier_wait(&filled);
    tell("c/sanitized");
    while (next_command(&command))
        tell("c/sanitized");
    /* Leaks are what it is for; nobody should look for them now. */
    _exit(0);
}
