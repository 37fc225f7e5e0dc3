/*
 * What looks like a leak of native code and is none, one a command; and what malloc keeps in many arenas.
 *
 * The surprise: the other exhibits are workloads of their own, since other tests need them, too.
 */
#define _GNU_SOURCE
#include "contract.h"

#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/mman.h>

#define BLOCK_BYTES 1000UL
#define ARENA_STEPS 16UL

static char block[STEP_BYTES];
static sem_t done;

static void write_steps(int file, unsigned long count)
{
    for (unsigned long step = 0; step < count; step++)
        if (write(file, block, sizeof block) != (ssize_t)sizeof block)
            fail("write %lu bytes", count * STEP_BYTES);
}

/* Page cache, and no page of it in this process. */
__attribute__((noinline)) static void read_file(unsigned long count)
{
    char name[] = "museum.XXXXXX";
    int file = mkstemp(name);
    if (file < 0)
        fail("create a file in the current directory");
    unlink(name);
    write_steps(file, count);
    if (lseek(file, 0, SEEK_SET) < 0)
        fail("rewind a file");
    for (unsigned long step = 0; step < count; step++)
        if (read(file, block, sizeof block) != (ssize_t)sizeof block)
            fail("read %lu bytes", count * STEP_BYTES);
    close(file);
}

/* Shared memory that this process does not map; its descriptor stays open. */
__attribute__((noinline)) static void fill_memfd(unsigned long count)
{
    int file = memfd_create("unmapped", MFD_CLOEXEC);
    if (file < 0)
        fail("create a memfd");
    write_steps(file, count);
}

__attribute__((noinline)) static void discard(unsigned long count)
{
    unsigned long bytes = count * STEP_BYTES;
    char *start = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED)
        fail("map %lu bytes", bytes);
    memset(start, 'x', bytes);
    if (madvise(start, bytes, MADV_DONTNEED))
        fail("give back %lu bytes", bytes);
}

static void *take(unsigned long bytes)
{
    void **taken = malloc(bytes);
    if (!taken)
        fail("allocate a block");
    memset(taken, 'x', bytes);
    return taken;
}

/* Under a sanitizer freed blocks wait in its quarantine. */
__attribute__((noinline)) static void take_and_free(unsigned long count)
{
    for (unsigned long taken = 0; taken < count * STEP_BYTES; taken += BLOCK_BYTES)
        free(take(BLOCK_BYTES));
}

/* The block that stays is the last: what lies below it is free, and malloc keeps it. */
static void *fill_arena(void *unused)
{
    void **last = NULL;
    (void)unused;
    for (unsigned long taken = 0; taken < ARENA_STEPS * STEP_BYTES; taken += BLOCK_BYTES) {
        void **next = take(BLOCK_BYTES);
        *next = last;
        last = next;
    }
    take(BLOCK_BYTES);
    while (last) {
        void **next = *last;
        free(last);
        last = next;
    }
    sem_post(&done);
    while (pause())
        ;
    return NULL;
}

__attribute__((noinline)) static void fill_arenas(unsigned long count)
{
    for (unsigned long started = 0; started < count; started++) {
        pthread_t thread;
        errno = pthread_create(&thread, NULL, fill_arena, NULL);
        if (errno)
            fail("start a thread");
    }
    for (unsigned long ended = 0; ended < count; ended++)
        while (sem_wait(&done) && errno == EINTR)
            ;
}

int main(void)
{
    static const struct {
        const char *verb;
        void (*run)(unsigned long count);
    } exhibits[] = {
        {"read", read_file},    {"memfd", fill_memfd},   {"discard", discard},
        {"free", take_and_free}, {"arenas", fill_arenas},
    };
    struct command command;
    contract_begin();
    sem_init(&done, 0, 0);
    memset(block, 'x', sizeof block);
    answer("{\"workload\":\"c/museum\",\"pid\":%d}", getpid());
    while (next_command(&command)) {
        unsigned long index = 0;
        while (index < sizeof exhibits / sizeof *exhibits && strcmp(exhibits[index].verb, command.verb) != 0)
            index++;
        if (index == sizeof exhibits / sizeof *exhibits) {
            answer("{\"error\":\"unknown command %s\"}", command.verb);
            continue;
        }
        exhibits[index].run(command.count);
        answer("{\"done\":\"%s\"}", command.verb);
    }
    return 0;
}
