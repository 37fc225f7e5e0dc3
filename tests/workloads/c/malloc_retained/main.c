/*
 * Takes 300 MB in small blocks and frees 63 of 64, then gives back what malloc_trim can on command.
 *
 * The surprise: which 63 matters. Here a run of 4032 blocks is freed and the next 64 are kept, as where a
 * request's blocks are freed together; were each 64th kept, hardly a whole page would be free.
 */
#include "contract.h"

#include <malloc.h>

#define BLOCK_BYTES 200
#define BLOCKS (300UL * 1000 * 1000 / BLOCK_BYTES)
#define RUN_BLOCKS 4096
#define KEPT_BLOCKS (RUN_BLOCKS / 64)

static char answer_buffer[1 << 12];
static char line_buffer[1 << 12];
static char *blocks[BLOCKS];

static unsigned long rss_bytes(void)
{
    unsigned long pages = 0;
    char text[128] = "";
    FILE *statm = fopen("/proc/self/statm", "r");
    if (!statm || !fgets(text, sizeof text, statm) || sscanf(text, "%*u %lu", &pages) != 1)
        fail("read /proc/self/statm");
    fclose(statm);
    return pages * PAGE_BYTES;
}

int main(void)
{
    struct command command;
    unsigned long live = 0;
    contract_begin();
    setvbuf(stdout, answer_buffer, _IOFBF, sizeof answer_buffer);
    setvbuf(stdin, line_buffer, _IOFBF, sizeof line_buffer);
    for (unsigned long i = 0; i < BLOCKS; i++) {
        blocks[i] = malloc(BLOCK_BYTES);
        if (!blocks[i])
            fail("allocate a block");
        memset(blocks[i], 'x', BLOCK_BYTES);
    }
    for (unsigned long i = 0; i < BLOCKS; i++) {
        if (i % RUN_BLOCKS < RUN_BLOCKS - KEPT_BLOCKS)
            free(blocks[i]);
        else
            live += malloc_usable_size(blocks[i]) + sizeof(size_t);
    }
    answer("{\"workload\":\"c/malloc_retained\",\"live_bytes\":%lu}", live);
    while (next_command(&command)) {
        unsigned long before = rss_bytes();
        malloc_trim(0);
        answer("{\"given_back_bytes\":%ld}", (long)(before - rss_bytes()));
    }
    return 0;
}
