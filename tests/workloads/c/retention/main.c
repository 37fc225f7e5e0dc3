/*
 * Makes memory resident, moves it and gives it back in every way there is, one a command, each in a function of its
 * own; and says how much of it is resident then, by its own page map.
 *
 * The surprise: huge pages are not switched off here, as the contract does elsewhere. What a machine makes of one
 * touch, the program counts.
 */
#define _GNU_SOURCE
#include "contract.h"

#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define HUGE_BYTES (2UL << 20)
#define AROUND_BYTES (64UL << 10)
/* No two are made one where their bodies are alike. */
#define SITE __attribute__((noipa)) static void
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

static int page_map;
static char *moved_before;
static unsigned long moved_bytes;

static char *mapped(unsigned long bytes, int flags)
{
    char *start = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
    if (start == MAP_FAILED)
        fail("map %lu bytes", bytes);
    return start;
}

/* Aligned, so that huge pages fit. */
static char *mapped_for_huge(unsigned long bytes)
{
    uintptr_t start = (uintptr_t)mapped(bytes + HUGE_BYTES, 0);
    return (char *)((start + HUGE_BYTES - 1) & ~(HUGE_BYTES - 1));
}

static void touch(volatile char *start, unsigned long bytes, unsigned long step)
{
    for (unsigned long offset = 0; offset < bytes; offset += step)
        start[offset] = 1;
}

static unsigned long resident(const char *start, unsigned long bytes)
{
    unsigned long found = 0;
    for (unsigned long offset = 0; offset < bytes; offset += PAGE_BYTES) {
        uint64_t entry;
        if (pread(page_map, &entry, 8, ((uintptr_t)start + offset) / PAGE_BYTES * 8) != 8)
            fail("read the page map");
        found += entry >> 63;
    }
    return found * PAGE_BYTES;
}

static char *mapped_file(unsigned long bytes)
{
    static char block[STEP_BYTES];
    int file = open("retention.file", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file < 0)
        fail("create a file");
    memset(block, 'x', sizeof block);
    for (unsigned long written = 0; written < bytes; written += sizeof block)
        if (write(file, block, sizeof block) != (ssize_t)sizeof block)
            fail("write %lu bytes", bytes);
    unlink("retention.file");
    char *start = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
    if (start == MAP_FAILED)
        fail("map a file of %lu bytes", bytes);
    close(file);
    return start;
}

SITE touch_huge_pages(char *start, unsigned long bytes)
{
    madvise(start, bytes, MADV_HUGEPAGE);
    touch(start, bytes, HUGE_BYTES);
}

SITE read_here_and_there(const volatile char *start, unsigned long bytes)
{
    for (unsigned long offset = AROUND_BYTES / 2; offset < bytes; offset += AROUND_BYTES)
        (void)start[offset];
}

SITE read_every_page(const volatile char *start, unsigned long bytes)
{
    for (unsigned long offset = 0; offset < bytes; offset += PAGE_BYTES)
        (void)start[offset];
}

SITE write_copies(char *start, unsigned long bytes)
{
    touch(start, bytes, PAGE_BYTES);
}

SITE touch_first(char *start, unsigned long bytes)
{
    touch(start, bytes, PAGE_BYTES);
}

SITE rewrite_after_fork(char *start, unsigned long bytes)
{
    pid_t child = fork();
    if (child == 0) {
        touch(mapped(bytes, 0), bytes, PAGE_BYTES);
        pause();
        _exit(0);
    }
    touch(start, bytes, PAGE_BYTES);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
}

SITE fill_by_read(char *start, unsigned long bytes)
{
    int zeroes = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    for (unsigned long done = 0; done < bytes; done += STEP_BYTES)
        if (read(zeroes, start + done, STEP_BYTES) != (ssize_t)STEP_BYTES)
            fail("read %lu bytes", bytes);
    close(zeroes);
}

__attribute__((noipa)) static char *populate_mapping(unsigned long bytes)
{
    return mapped(bytes, MAP_POPULATE);
}

SITE populate_by_advice(char *start, unsigned long bytes)
{
    if (madvise(start, bytes, MADV_POPULATE_WRITE))
        fail("populate %lu bytes", bytes);
}

SITE lock_memory(char *start, unsigned long bytes)
{
    if (mlock(start, bytes))
        fail("lock %lu bytes", bytes);
}

SITE collapse_pages(char *start, unsigned long bytes)
{
    if (madvise(start, bytes, MADV_COLLAPSE))
        fail("collapse %lu bytes", bytes);
}

__attribute__((noipa)) static char *move_memory(char *start, unsigned long bytes)
{
    /* Where it is to go is taken first, so that it cannot stay where it is. */
    char *to = mapped(bytes, 0);
    if (mremap(start, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, to) == MAP_FAILED)
        fail("move %lu bytes", bytes);
    return to;
}

SITE churn(unsigned long bytes)
{
    const unsigned long piece = 8 * STEP_BYTES;
    char *kept = mapped(piece, 0);
    for (unsigned long done = 0; done < bytes; done += 3 * piece) {
        char *start = mapped(piece, 0);
        touch(start, piece, PAGE_BYTES);
        munmap(start, piece);
        touch(kept, piece, PAGE_BYTES);
        madvise(kept, piece, MADV_DONTNEED);
        char *heap = sbrk(piece);
        touch(heap, piece, PAGE_BYTES);
        sbrk(-(long)piece);
    }
}

static unsigned long run(const char *verb, unsigned long bytes)
{
    char *start;
    if (!strcmp(verb, "huge")) {
        start = mapped_for_huge(bytes);
        touch_huge_pages(start, bytes);
    } else if (!strcmp(verb, "around")) {
        start = mapped_file(bytes);
        read_here_and_there(start, bytes);
    } else if (!strcmp(verb, "copy")) {
        start = mapped_file(bytes);
        read_every_page(start, bytes);
        write_copies(start, bytes / 2);
    } else if (!strcmp(verb, "fork")) {
        start = mapped(bytes, 0);
        touch_first(start, bytes);
        rewrite_after_fork(start, bytes);
    } else if (!strcmp(verb, "syscall")) {
        start = mapped(bytes, 0);
        fill_by_read(start, bytes);
    } else if (!strcmp(verb, "populate")) {
        start = populate_mapping(bytes);
    } else if (!strcmp(verb, "advise")) {
        start = mapped(bytes, 0);
        populate_by_advice(start, bytes);
    } else if (!strcmp(verb, "lock")) {
        start = mapped(bytes, 0);
        lock_memory(start, bytes);
    } else if (!strcmp(verb, "collapse")) {
        start = mapped_for_huge(bytes);
        madvise(start, bytes, MADV_NOHUGEPAGE);
        touch(start, bytes, HUGE_BYTES);
        madvise(start, bytes, MADV_HUGEPAGE);
        collapse_pages(start, bytes);
    } else if (!strcmp(verb, "move")) {
        start = mapped(bytes, 0);
        touch_first(start, bytes);
        start = move_memory(start, bytes);
    } else if (!strcmp(verb, "carry")) {
        /* What was resident before the window is carried elsewhere. */
        start = moved_before = move_memory(moved_before, moved_bytes);
        bytes = moved_bytes;
    } else if (!strcmp(verb, "free")) {
        start = mapped(bytes, 0);
        touch_first(start, bytes);
        if (madvise(start, bytes / 2, MADV_FREE))
            fail("free %lu bytes", bytes / 2);
    } else if (!strcmp(verb, "churn")) {
        churn(bytes);
        return 0;
    } else {
        return ~0UL;
    }
    return resident(start, bytes);
}

int main(void)
{
    struct command command;
    page_map = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    moved_bytes = 24 * STEP_BYTES;
    moved_before = mapped(moved_bytes, 0);
    touch(moved_before, moved_bytes, PAGE_BYTES);
    answer("{\"workload\":\"c/retention\",\"pid\":%d}", getpid());
    while (next_command(&command)) {
        unsigned long bytes = run(command.verb, command.count * STEP_BYTES);
        if (bytes == ~0UL)
            answer("{\"error\":\"unknown command %s\"}", command.verb);
        else
            answer("{\"resident_bytes\":%lu}", bytes);
    }
    return 0;
}
