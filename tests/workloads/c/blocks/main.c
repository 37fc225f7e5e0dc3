/*
 * Holds blocks of many sizes, frees some in runs and some here and there, the latter in part from another thread,
 * and says what it holds; and what its malloc says of itself, where it has something to say.
 *
 * The surprise: sizes are such that musl's slots have no byte too many, for musl counts nothing and its
 * malloc_usable_size is what was asked for.
 */
#include "contract.h"

#include <dlfcn.h>
#include <malloc.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define BLOCKS 60000
#define LARGE_BLOCKS 3
#define LARGE_BYTES ((3UL << 20) - 20)
#define RUN_BLOCKS 4000

static const size_t sizes[] = { 12, 44, 76, 108, 140, 188, 236, 316, 396, 492, 668, 796, 1004, 1148, 1340, 1628 };

static char answer_buffer[1 << 12];
static char line_buffer[1 << 12];
static char *blocks[BLOCKS];
static char *large[LARGE_BLOCKS];

struct truth {
    unsigned long blocks, bytes;
};

/* What mimalloc shows a visitor of its heap's areas. */
struct area {
    void *blocks;
    size_t reserved, committed, used, block_size, full_block_size;
};

static bool count_area(const void *heap, const struct area *area, void *block, size_t block_size, void *argument)
{
    struct truth *truth = argument;
    (void)heap, (void)block, (void)block_size;
    truth->blocks += area->used;
    truth->bytes += area->used * area->full_block_size;
    return true;
}

static unsigned long property(const char *name)
{
    int (*get)(const char *, size_t *);
    size_t value = 0;
    *(void **)&get = dlsym(RTLD_DEFAULT, "MallocExtension_GetNumericProperty");
    return get && get(name, &value) ? value : 0;
}

static unsigned long statistic(const char *name)
{
    int (*control)(const char *, void *, size_t *, void *, size_t);
    uint64_t epoch = 1;
    size_t value = 0, len = sizeof value;
    *(void **)&control = dlsym(RTLD_DEFAULT, "mallctl");
    if (!control || control("epoch", NULL, NULL, &epoch, sizeof epoch) || control(name, &value, &len, NULL, 0))
        return 0;
    return value;
}

static struct truth visited(void)
{
    struct truth truth = { 0, 0 };
    void *(*heap)(void);
    bool (*visit)(void *, bool, bool (*)(const void *, const struct area *, void *, size_t, void *), void *);
    *(void **)&heap = dlsym(RTLD_DEFAULT, "mi_heap_get_default");
    *(void **)&visit = dlsym(RTLD_DEFAULT, "mi_heap_visit_blocks");
    if (heap && visit)
        visit(heap(), false, count_area, &truth);
    return truth;
}

static void add(struct truth *truth, void *block)
{
    if (block) {
        truth->blocks++;
        truth->bytes += malloc_usable_size(block);
    }
}

/* What malloc says of itself: mimalloc its blocks, jemalloc and tcmalloc their bytes. */
static void tell(void)
{
    struct truth held = { 0, 0 }, told = visited();
    for (int i = 0; i < BLOCKS; i++)
        add(&held, blocks[i]);
    for (int i = 0; i < LARGE_BLOCKS; i++)
        add(&held, large[i]);
    told.bytes += statistic("stats.allocated") + property("generic.current_allocated_bytes");
    answer("{\"blocks\":%lu,\"bytes\":%lu,\"told_blocks\":%lu,\"told_bytes\":%lu,\"active\":%lu,"
           "\"cached\":%lu,\"free\":%lu,\"system\":%lu}",
           held.blocks, held.bytes, told.blocks, told.bytes, statistic("stats.active"),
           property("tcmalloc.thread_cache_free_bytes") + property("tcmalloc.transfer_cache_free_bytes"),
           property("tcmalloc.pageheap_free_bytes"), property("generic.heap_size"));
}

static void *filled(size_t bytes)
{
    void *block = malloc(bytes);
    if (!block)
        fail("allocate a block");
    return memset(block, 'x', bytes);
}

static void release(int i)
{
    free(blocks[i]);
    blocks[i] = NULL;
}

/* Of the last quarter each third block. */
static void *free_from_another_thread(void *argument)
{
    for (int i = BLOCKS / 4 * 3; i < BLOCKS; i += 3)
        if (blocks[i])
            release(i);
    return argument;
}

int main(void)
{
    struct command command;
    pthread_t thread;
    contract_begin();
    setvbuf(stdout, answer_buffer, _IOFBF, sizeof answer_buffer);
    setvbuf(stdin, line_buffer, _IOFBF, sizeof line_buffer);
    for (int i = 0; i < BLOCKS; i++)
        blocks[i] = filled(sizes[(unsigned)i * 7 % (sizeof sizes / sizeof *sizes)]);
    for (int i = 0; i < LARGE_BLOCKS; i++)
        large[i] = filled(LARGE_BYTES);
    /* The second quarter in runs of which one in eight is kept, the third quarter every other. */
    for (int i = BLOCKS / 4; i < BLOCKS / 2; i++)
        if (i % RUN_BLOCKS >= RUN_BLOCKS / 8)
            release(i);
    for (int i = BLOCKS / 2; i < BLOCKS / 4 * 3; i += 2)
        release(i);
    if ((errno = pthread_create(&thread, NULL, free_from_another_thread, NULL)))
        fail("start a thread");
    pthread_join(thread, NULL);
    /* Asking mimalloc has it collect what the other thread freed: not before somebody asks. */
    answer("{\"workload\":\"c/blocks\"}");
    while (next_command(&command))
        tell();
    return 0;
}
