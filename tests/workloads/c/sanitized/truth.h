/*
 * What a program under a sanitizer says of itself: which pages hold blocks in use, which only freed ones, what
 * of the shadow belongs to those and to its own variables. Counted in pages that the kernel says are there
 * (/proc/self/pagemap), because no two sanitizers put as much around a block.
 *
 * The surprise: it allocates nothing itself, or the truth would change while it is told.
 */
#ifndef TRUTH_H
#define TRUTH_H

#include "contract.h"
#include "shadow.h"

#include <fcntl.h>
#include <pthread.h>

#define MAX_BLOCKS (1 << 17)
#define MAX_PAGES (1 << 19)
#define TABLE_BYTES (6UL << 20)

struct block {
    uintptr_t addr;
    size_t bytes;
};

struct blocks {
    size_t count;
    struct block all[MAX_BLOCKS];
};

struct pages {
    size_t count;
    uintptr_t all[MAX_PAGES];
};

/* All of the program's own .bss. */
static struct {
    unsigned char table[TABLE_BYTES], only_read[3 * PAGE_BYTES];
    struct blocks kept, freed;
    struct pages kept_pages, freed_pages, shadowed, shadow;
    char output[1 << 12], input[1 << 12];
} own;

static pthread_mutex_t telling = PTHREAD_MUTEX_INITIALIZER;
static int pagemap = -1;
static uint64_t zero_page;

static inline unsigned next_random(unsigned *state)
{
    *state = *state * 1103515245 + 12345;
    return *state >> 8;
}

static inline void note(struct blocks *blocks, const void *addr, size_t bytes)
{
    pthread_mutex_lock(&telling);
    if (blocks->count == MAX_BLOCKS)
        fail("note a block");
    blocks->all[blocks->count].addr = (uintptr_t)addr;
    blocks->all[blocks->count++].bytes = bytes;
    pthread_mutex_unlock(&telling);
}

static inline uint64_t entry_of(uintptr_t page);

/* Fills the table, and takes care that stdio allocates nothing later. */
static inline void truth_begin(void)
{
    contract_begin();
    setvbuf(stdout, own.output, _IOFBF, sizeof own.output);
    setvbuf(stdin, own.input, _IOFBF, sizeof own.input);
    memset(own.table, 1, sizeof own.table);
    if ((pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC)) < 0)
        fail("open the page map");
    uintptr_t only_read = ((uintptr_t)own.only_read + PAGE_BYTES) & -PAGE_BYTES;
    if (*(volatile char *)only_read == 0)
        zero_page = entry_of(only_read);
}

static inline uint64_t entry_of(uintptr_t page)
{
    uint64_t entry = 0;
    if (pread(pagemap, &entry, sizeof entry, (off_t)(page / PAGE_BYTES * sizeof entry)) != sizeof entry)
        return 0;
    return entry;
}

/* A page that was only ever read is the kernel's page of zeros, which counts for nobody. */
static inline int is_resident(uintptr_t page)
{
    uint64_t entry = entry_of(page);
    return entry >> 63 && entry << 9 != zero_page << 9;
}

static inline void add_page(struct pages *pages, uintptr_t page)
{
    if (pages->count && pages->all[pages->count - 1] == page)
        return;
    if (pages->count == MAX_PAGES)
        fail("note a page");
    pages->all[pages->count++] = page;
}

static inline void add_range(struct pages *pages, uintptr_t addr, size_t bytes)
{
    for (uintptr_t page = addr & -PAGE_BYTES; page < addr + bytes; page += PAGE_BYTES)
        add_page(pages, page);
}

/* Ascending, and each page once. */
static inline void sort_pages(struct pages *pages)
{
    for (size_t gap = pages->count / 2; gap; gap /= 2)
        for (size_t i = gap; i < pages->count; i++) {
            uintptr_t page = pages->all[i];
            size_t at = i;
            for (; at >= gap && pages->all[at - gap] > page; at -= gap)
                pages->all[at] = pages->all[at - gap];
            pages->all[at] = page;
        }
    size_t count = pages->count;
    pages->count = 0;
    for (size_t i = 0; i < count; i++)
        add_page(pages, pages->all[i]);
}

static inline void pages_of(const struct blocks *blocks, struct pages *pages)
{
    pages->count = 0;
    for (uintptr_t view = 0; view < VIEWS; view++)
        for (size_t i = 0; i < blocks->count; i++)
            add_range(pages, first_view(blocks->all[i].addr) + view * VIEW_BYTES, blocks->all[i].bytes);
    sort_pages(pages);
}

static inline int has_page(const struct pages *pages, uintptr_t page)
{
    size_t low = 0, high = pages->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (pages->all[middle] < page)
            low = middle + 1;
        else
            high = middle;
    }
    return low < pages->count && pages->all[low] == page;
}

/* Resident bytes of the pages that are not in `but`, which may be null. */
static inline unsigned long resident_bytes(const struct pages *pages, const struct pages *but)
{
    unsigned long bytes = 0;
    for (size_t i = 0; i < pages->count; i++)
        if (!(but && has_page(but, pages->all[i])) && is_resident(pages->all[i]))
            bytes += PAGE_BYTES;
    return bytes;
}

/* Resident bytes of what shadows the pages of blocks and of the table: in `level` 0 the shadow itself, in
 * `level` 1 origins or metadata. */
static inline unsigned long shadow_bytes(int level)
{
    own.shadow.count = 0;
    for (size_t i = 0; i < own.shadowed.count; i++) {
        size_t bytes = 0;
        uintptr_t addr = shadow_of(own.shadowed.all[i], level, &bytes);
        if (bytes)
            add_range(&own.shadow, addr, bytes);
    }
    sort_pages(&own.shadow);
    return resident_bytes(&own.shadow, NULL);
}

/* Adds each page of which a page of shadow is made; mappings as long as the shadow itself are that. */
static inline void add_all_mappings(struct pages *pages)
{
    char line[512];
    size_t used = 0;
    int maps = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    if (maps < 0)
        fail("open the list of mappings");
    while (read(maps, line + used, 1) == 1) {
        if (line[used] != '\n') {
            used += used < sizeof line - 2;
            continue;
        }
        line[used] = 0;
        used = 0;
        unsigned long start = 0, end = 0;
        char writable = 0;
        if (sscanf(line, "%lx-%lx %*c%c", &start, &end, &writable) != 3 || writable != 'w' || end - start > 1UL << 32)
            continue;
        for (uintptr_t page = start & -(8 * PAGE_BYTES); page < end; page += 8 * PAGE_BYTES)
            add_page(pages, page);
    }
    close(maps);
}

static inline void tell(const char *name)
{
    pages_of(&own.kept, &own.kept_pages);
    pages_of(&own.freed, &own.freed_pages);
    own.shadowed.count = 0;
    for (size_t i = 0; i < own.kept_pages.count; i++)
        add_page(&own.shadowed, own.kept_pages.all[i]);
    for (size_t i = 0; i < own.freed_pages.count; i++)
        add_page(&own.shadowed, own.freed_pages.all[i]);
    for (uintptr_t page = (uintptr_t)&own & -PAGE_BYTES; page < (uintptr_t)(&own + 1); page += PAGE_BYTES)
        if (is_resident(page))
            add_page(&own.shadowed, page);
    if (SHADOWS_EVERYTHING)
        add_all_mappings(&own.shadowed);
    sort_pages(&own.shadowed);
    unsigned long shadow = shadow_bytes(0), second = shadow_bytes(1);
    unsigned long kept = resident_bytes(&own.kept_pages, NULL);
    unsigned long freed = resident_bytes(&own.freed_pages, &own.kept_pages);
    unsigned long variables = 0;
    for (uintptr_t page = (uintptr_t)&own & -PAGE_BYTES; page < (uintptr_t)(&own + 1); page += PAGE_BYTES)
        variables += is_resident(page) ? PAGE_BYTES : 0;
    answer("{\"workload\":\"%s\",\"pid\":%d,\"kept_bytes\":%lu,\"freed_bytes\":%lu,\"variable_bytes\":%lu,"
           "\"shadow_bytes\":%lu,\"second_shadow_bytes\":%lu}",
           name, getpid(), kept, freed, variables, shadow, second);
}

#endif
