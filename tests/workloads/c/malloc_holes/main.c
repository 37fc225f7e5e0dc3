/*
 * Frees every other of its blocks, then forgets new ones that fit into the holes: they make no page fault.
 *
 * The surprise: pages stay as they were, every one with a block in use, and the process holds ever more.
 */
#include "contract.h"

#include <malloc.h>

#define BLOCK_BYTES 1000
#define BLOCKS 65536UL

static char answer_buffer[1 << 12];
static char line_buffer[1 << 12];
static char *blocks[BLOCKS];

__attribute__((noinline)) static char *new_block(void)
{
    char *block = malloc(BLOCK_BYTES);
    if (!block)
        fail("allocate a block");
    memset(block, 'x', BLOCK_BYTES);
    return block;
}

__attribute__((noinline)) static unsigned long fill_holes(unsigned long count)
{
    unsigned long filled = 0;
    while (filled < count * STEP_BYTES) {
        char *block = new_block();
        /* Keeps the compiler from seeing that nobody reads the block. */
        __asm__ volatile("" : : "r"(block) : "memory");
        filled += malloc_usable_size(block) + sizeof(size_t);
    }
    return filled;
}

int main(void)
{
    contract_begin();
    setvbuf(stdout, answer_buffer, _IOFBF, sizeof answer_buffer);
    setvbuf(stdin, line_buffer, _IOFBF, sizeof line_buffer);
    for (unsigned long i = 0; i < BLOCKS; i++)
        blocks[i] = new_block();
    for (unsigned long i = 0; i < BLOCKS; i += 2)
        free(blocks[i]);
    return contract_leak("c/malloc_holes", 0, fill_holes);
}
