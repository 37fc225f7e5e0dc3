/* Maps anonymous memory past malloc and keeps it, touched page by page. */
#include "contract.h"

#include <sys/mman.h>

__attribute__((noinline)) static void touch_every_page(volatile char *start, unsigned long bytes)
{
    for (unsigned long offset = 0; offset < bytes; offset += PAGE_BYTES)
        start[offset] = 1;
}

__attribute__((noinline)) static unsigned long leak_mapping(unsigned long count)
{
    unsigned long bytes = count * STEP_BYTES;
    void *start = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED)
        fail("map %lu bytes", bytes);
    touch_every_page(start, bytes);
    return bytes;
}

int main(void)
{
    contract_begin();
    return contract_leak("c/mmap_leak", 3, leak_mapping);
}
