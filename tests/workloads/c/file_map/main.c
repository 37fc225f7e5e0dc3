/*
 * Maps files of its own making and reads them through the mapping; they are unlinked at once.
 *
 * The surprise: the files lie in the current directory and not in a temporary one, which is a tmpfs
 * on many machines, where the same pages would count as shared memory.
 */
#include "contract.h"

#include <sys/mman.h>

static int new_file(unsigned long bytes)
{
    static char block[STEP_BYTES];
    char name[] = "file_map.XXXXXX";
    int file = mkstemp(name);
    if (file < 0)
        fail("create a file in the current directory");
    unlink(name);
    memset(block, 'x', sizeof block);
    for (unsigned long written = 0; written < bytes; written += sizeof block)
        if (write(file, block, sizeof block) != (ssize_t)sizeof block)
            fail("write %lu bytes to a file", bytes);
    return file;
}

__attribute__((noinline)) static unsigned long read_every_page(const volatile char *start, unsigned long bytes)
{
    unsigned long sum = 0;
    for (unsigned long offset = 0; offset < bytes; offset += PAGE_BYTES)
        sum += (unsigned char)start[offset];
    return sum;
}

__attribute__((noinline)) static unsigned long map_and_read(unsigned long count)
{
    unsigned long bytes = count * STEP_BYTES;
    int file = new_file(bytes);
    char *start = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, file, 0);
    if (start == MAP_FAILED)
        fail("map a file of %lu bytes", bytes);
    close(file);
    if (read_every_page(start, bytes) == 0)
        fail("read a file of %lu bytes", bytes);
    return bytes;
}

int main(void)
{
    contract_begin();
    return contract_leak("c/file_map", 3, map_and_read);
}
