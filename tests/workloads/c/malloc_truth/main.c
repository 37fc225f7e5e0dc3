/*
 * Holds blocks of all sizes in several arenas, frees some of them in every way there is (thread caches,
 * fast bins, bins, tops, mappings), and says what malloc counts of them.
 *
 * The surprise: mallinfo2 is a weak symbol here, for C libraries before 2.33 have only mallinfo, whose
 * figures are ints.
 */
#include "contract.h"

#include <pthread.h>

#define THREADS 3
#define MAIN_BLOCKS 20000
#define THREAD_BLOCKS 4000

static char answer_buffer[1 << 16];
static char line_buffer[1 << 12];
static void *kept[MAIN_BLOCKS];
static pthread_barrier_t filled;

static unsigned next_random(unsigned *state)
{
    *state = *state * 1103515245 + 12345;
    return *state >> 8;
}

static void *filled_block(size_t bytes)
{
    void *block = malloc(bytes);
    if (!block)
        fail("allocate a block");
    return memset(block, 1, bytes);
}

static void *fill_an_arena(void *number)
{
    void **blocks = filled_block(THREAD_BLOCKS * sizeof *blocks);
    unsigned state = 7 * (unsigned)(long)number + 1;
    for (int i = 0; i < THREAD_BLOCKS; i++)
        blocks[i] = filled_block(next_random(&state) % 3000 + 1);
    for (int i = 0; i < THREAD_BLOCKS; i += 2 + (long)number % 2)
        free(blocks[i]);
    pthread_barrier_wait(&filled);
    for (;;)
        pause();
    return NULL;
}

/* Small blocks freed in a row: more than a thread's cache takes, so that the fast bins get some. */
static void fill_fast_bins(void)
{
    void *small[200];
    for (int i = 0; i < 200; i++)
        small[i] = filled_block(40);
    for (int i = 0; i < 200; i += 2)
        free(small[i]);
}

/* As in malloc.h, which an old C library has without the former. */
struct info {
    size_t arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost;
};
struct old_info {
    int arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost;
};
__attribute__((weak)) struct info mallinfo2(void);
struct old_info mallinfo(void);

static void tell(const char *key)
{
    struct info info;
    if (mallinfo2) {
        info = mallinfo2();
    } else {
        struct old_info old = mallinfo();
        info = (struct info){ old.arena,   old.ordblks, old.smblks,   old.hblks,    old.hblkhd,
                              old.usmblks, old.fsmblks, old.uordblks, old.fordblks, old.keepcost };
    }
    answer("{%s\"system\":%zu,\"fast_blocks\":%zu,\"mapped_blocks\":%zu,\"mapped\":%zu,\"fast\":%zu,"
           "\"in_use\":%zu,\"free\":%zu}",
           key, info.arena, info.smblks, info.hblks, info.hblkhd, info.fsmblks, info.uordblks, info.fordblks);
}

int main(void)
{
    struct command command;
    contract_begin();
    /* stdio would allocate its buffers while the truth is told. */
    setvbuf(stdout, answer_buffer, _IOFBF, sizeof answer_buffer);
    setvbuf(stdin, line_buffer, _IOFBF, sizeof line_buffer);
    unsigned state = 5;
    for (int i = 0; i < MAIN_BLOCKS; i++)
        kept[i] = filled_block(next_random(&state) % 5000 + 1);
    for (int i = 0; i < MAIN_BLOCKS; i += 2)
        free(kept[i]);
    for (int i = 1; i < 2000; i += 2)
        free(kept[i]);
    filled_block(3 << 20);
    filled_block(300000);
    pthread_barrier_init(&filled, NULL, THREADS + 1);
    for (long number = 0; number < THREADS; number++) {
        pthread_t thread;
        if ((errno = pthread_create(&thread, NULL, fill_an_arena, (void *)number)))
            fail("start a thread");
    }
    pthread_barrier_wait(&filled);
    fill_fast_bins();
    tell("\"workload\":\"c/malloc_truth\",");
    while (next_command(&command))
        tell("");
    return 0;
}
