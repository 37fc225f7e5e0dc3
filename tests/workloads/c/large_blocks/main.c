/*
 * Forgets malloc'd blocks that are so large that what an allocator adds to one is nothing beside it.
 *
 * The surprise: it is built with each sanitizer, whose allocators take the place of malloc.
 */
#include "contract.h"

__attribute__((noinline)) static unsigned long leak_blocks(unsigned long count)
{
    for (unsigned long leaked = 0; leaked < count; leaked++) {
        char *block = malloc(STEP_BYTES);
        if (!block)
            fail("allocate a block");
        memset(block, 'x', STEP_BYTES);
        /* Keeps the compiler from seeing that nobody reads the block. */
        __asm__ volatile("" : : "r"(block) : "memory");
    }
    return count * STEP_BYTES;
}

int main(void)
{
    contract_begin();
    return contract_leak("c/large_blocks", 3, leak_blocks);
}
