/*
 * Maps, moves and unmaps memory in every way a program can, and says what is mapped of it in the end.
 *
 * The surprise: many of the lengths are chosen for what the kernel makes of them. From Linux 6.7 on it looks for
 * more room than it was asked for where a huge page would fit, and takes an aligned part of what it found.
 */
#define _GNU_SOURCE
#include "contract.h"

#include <fcntl.h>
#include <sys/mman.h>

#define MIB (1UL << 20)
#define ACCESS (PROT_READ | PROT_WRITE)
#define ANONYMOUS (MAP_PRIVATE | MAP_ANONYMOUS)
#define RANGES_MAX 32

static struct range {
    unsigned long start, end;
} ranges[RANGES_MAX];
static int range_count;

static char *mapped(char *hint, unsigned long bytes, int flags, int file, unsigned long offset)
{
    char *start = mmap(hint, bytes, ACCESS, flags, file, offset);
    if (start == MAP_FAILED)
        fail("map %lu bytes", bytes);
    return start;
}

static char *moved(char *start, unsigned long old_bytes, unsigned long new_bytes)
{
    char *now = mremap(start, old_bytes, new_bytes, MREMAP_MAYMOVE);
    if (now == MAP_FAILED)
        fail("make %lu bytes of %lu", new_bytes, old_bytes);
    return now;
}

static void unmapped(char *start, unsigned long bytes)
{
    if (munmap(start, bytes) != 0)
        fail("unmap %lu bytes", bytes);
}

static void keep(char *start, unsigned long bytes)
{
    if (range_count == RANGES_MAX)
        fail("keep more than %d ranges", RANGES_MAX);
    ranges[range_count].start = (unsigned long)start;
    ranges[range_count++].end = (unsigned long)start + bytes;
}

static void refused(char *start, unsigned long bytes, int flags)
{
    if (mmap(start, bytes, ACCESS, flags, -1, 0) != MAP_FAILED)
        fail("be refused %lu bytes", bytes);
}

static void map_in_every_way(char *room, int file)
{
    /* First: the kernel likes to fill room like this by itself. */
    char *hinted = mapped(room, 2 * PAGE_BYTES, ANONYMOUS, -1, 0);
    if (hinted != room)
        fail("map where there is room, at %p", (void *)room);
    keep(hinted, 2 * PAGE_BYTES);
    keep(mapped(room, 7 * PAGE_BYTES, ANONYMOUS, -1, 0), 7 * PAGE_BYTES);

    keep(mapped(NULL, 5 * PAGE_BYTES - 100, ANONYMOUS, -1, 0), 5 * PAGE_BYTES);
    keep(mapped(NULL, 4 * MIB, ANONYMOUS, -1, 0), 4 * MIB);
    keep(mapped(NULL, 2 * MIB, ANONYMOUS, -1, 0), 2 * MIB);
    keep(mapped(NULL, 3 * PAGE_BYTES, ANONYMOUS | MAP_POPULATE, -1, 0), 3 * PAGE_BYTES);
    keep(mapped(NULL, 3 * PAGE_BYTES, MAP_SHARED | MAP_ANONYMOUS, -1, 0), 3 * PAGE_BYTES);
    keep(mapped(NULL, 4 * MIB, MAP_SHARED, file, MIB), 4 * MIB);

    char *large = mapped(NULL, 4 * MIB + PAGE_BYTES, ANONYMOUS, -1, 0);
    keep(large, 4 * MIB + PAGE_BYTES);
    mapped(large + MIB, 2 * PAGE_BYTES, ANONYMOUS | MAP_FIXED, -1, 0);
    refused(large, PAGE_BYTES, ANONYMOUS | MAP_FIXED_NOREPLACE);
    refused(NULL, 0, ANONYMOUS);
}

static void move_and_unmap(void)
{
    /* Nothing can grow where something follows. */
    char *pair = mapped(NULL, 4 * PAGE_BYTES, ANONYMOUS, -1, 0);
    mprotect(pair + 2 * PAGE_BYTES, 2 * PAGE_BYTES, PROT_READ);
    keep(pair + 2 * PAGE_BYTES, 2 * PAGE_BYTES);
    keep(moved(pair, 2 * PAGE_BYTES, 20 * PAGE_BYTES), 20 * PAGE_BYTES);

    char *large = mapped(NULL, 4 * MIB, ANONYMOUS, -1, 0);
    mprotect(large + 2 * MIB, 2 * MIB, PROT_READ);
    keep(large + 2 * MIB, 2 * MIB);
    keep(moved(large, 2 * MIB, 6 * MIB), 6 * MIB);

    char *shrunk = mapped(NULL, 9 * PAGE_BYTES, ANONYMOUS, -1, 0);
    keep(moved(shrunk, 9 * PAGE_BYTES, 4 * PAGE_BYTES), 4 * PAGE_BYTES);

    char *holed = mapped(NULL, 10 * PAGE_BYTES, ANONYMOUS, -1, 0);
    unmapped(holed + 3 * PAGE_BYTES, 4 * PAGE_BYTES);
    keep(holed, 3 * PAGE_BYTES);
    keep(holed + 7 * PAGE_BYTES, 3 * PAGE_BYTES);
    holed[0] = 1;
    madvise(holed, PAGE_BYTES, MADV_DONTNEED);

    unsigned long heap_bytes = 30 * PAGE_BYTES;
    char *heap = sbrk(heap_bytes);
    if (heap == (char *)-1)
        fail("move the break by %lu bytes", heap_bytes);
    sbrk(-10 * (long)PAGE_BYTES);
    keep(heap, heap_bytes - 10 * PAGE_BYTES);
}

int main(void)
{
    struct command command;
    contract_begin();
    char name[] = "mappings-XXXXXX";
    int file = mkstemp(name);
    if (file < 0 || unlink(name) != 0 || ftruncate(file, 8 * MIB) != 0)
        fail("make a file");
    char *room = mapped(NULL, 64 * PAGE_BYTES, ANONYMOUS, -1, 0);
    unmapped(room, 64 * PAGE_BYTES);
    answer("{\"workload\":\"mappings\",\"pid\":%d}", getpid());
    while (next_command(&command)) {
        if (strcmp(command.verb, "map") != 0) {
            answer("{\"error\":\"unknown command %s\"}", command.verb);
            continue;
        }
        map_in_every_way(room, file);
        move_and_unmap();
        printf("{\"mapped\":[");
        for (int at = 0; at < range_count; at++)
            printf("%s[%lu,%lu]", at ? "," : "", ranges[at].start, ranges[at].end);
        answer("]}");
    }
    return 0;
}
