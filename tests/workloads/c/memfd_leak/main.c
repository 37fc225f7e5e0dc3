/* Keeps memory in memfds, mapped shared and touched: shared memory with no file anybody can list. */
#define _GNU_SOURCE
#include "contract.h"

#include <sys/mman.h>

__attribute__((noinline)) static void touch_every_page(volatile char *start, unsigned long bytes)
{
    for (unsigned long offset = 0; offset < bytes; offset += PAGE_BYTES)
        start[offset] = 1;
}

__attribute__((noinline)) static unsigned long leak_memfd(unsigned long count)
{
    unsigned long bytes = count * STEP_BYTES;
    int file = memfd_create("forgotten", 0);
    if (file < 0 || ftruncate(file, bytes))
        fail("create a memfd of %lu bytes", bytes);
    void *start = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (start == MAP_FAILED)
        fail("map a memfd of %lu bytes", bytes);
    close(file);
    touch_every_page(start, bytes);
    return bytes;
}

int main(void)
{
    contract_begin();
    return contract_leak("c/memfd_leak", 3, leak_memfd);
}
