/*
 * Forgets small malloc'd blocks on the main thread: they lie on the brk heap.
 *
 * The surprise: a block costs more than was asked for, so the truth counts glibc's chunks, header
 * included.
 */
#include "contract.h"

#include <malloc.h>

#define BLOCK_BYTES 200

__attribute__((noinline)) static unsigned long forget_block(void)
{
    char *block = malloc(BLOCK_BYTES);
    if (!block)
        fail("allocate a block");
    memset(block, 'x', BLOCK_BYTES);
    /* Keeps the compiler from seeing that nobody reads the block. */
    __asm__ volatile("" : : "r"(block) : "memory");
    return malloc_usable_size(block) + sizeof(size_t);
}

__attribute__((noinline)) static unsigned long leak_blocks(unsigned long count)
{
    unsigned long leaked = 0;
    while (leaked < count * STEP_BYTES)
        leaked += forget_block();
    return leaked;
}

int main(void)
{
    contract_begin();
    return contract_leak("c/malloc_leak", 3, leak_blocks);
}
