/*
 * Maps memory of every kind that has a name, says how much of each, and stays: a file that is kept, one that is
 * deleted, one of which half is overwritten privately, a file on a tmpfs, a memfd, System V and anonymous shared
 * memory, and locked pages of the kept file.
 *
 * The surprise: which directory is a tmpfs, the machine decides; /dev/shm is one wherever shm_open works.
 */
#define _GNU_SOURCE
#include "contract.h"

#include <fcntl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>

static char kept_path[64], tmpfs_path[64];

static int new_file(const char *path, unsigned long bytes)
{
    static char block[STEP_BYTES];
    int file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file < 0)
        fail("create %s", path);
    memset(block, 'x', sizeof block);
    for (unsigned long written = 0; written < bytes; written += sizeof block)
        if (write(file, block, sizeof block) != (ssize_t)sizeof block)
            fail("write %lu bytes to %s", bytes, path);
    /* Pages that are still to be written to the disk are not clean. */
    if (fsync(file))
        fail("write %s to the disk", path);
    return file;
}

static volatile char *mapped(int file, unsigned long bytes, int access, int flags)
{
    char *start = mmap(NULL, bytes, access, flags, file, 0);
    if (start == MAP_FAILED)
        fail("map %lu bytes", bytes);
    if (file >= 0)
        close(file);
    return start;
}

static void read_pages(const volatile char *start, unsigned long bytes)
{
    for (unsigned long offset = 0; offset < bytes; offset += PAGE_BYTES)
        (void)start[offset];
}

static void write_pages(volatile char *start, unsigned long bytes)
{
    for (unsigned long offset = 0; offset < bytes; offset += PAGE_BYTES)
        start[offset] = 1;
}

int main(void)
{
    struct command command;
    const unsigned long kept = 11 * STEP_BYTES, deleted = 7 * STEP_BYTES, copied = 6 * STEP_BYTES;
    const unsigned long tmpfs = 5 * STEP_BYTES, memfd = 9 * STEP_BYTES, sysv = 4 * STEP_BYTES;
    const unsigned long anonymous = 3 * STEP_BYTES;
    const int both = PROT_READ | PROT_WRITE;
    contract_begin();
    snprintf(kept_path, sizeof kept_path, "kept file.%d", getpid());
    snprintf(tmpfs_path, sizeof tmpfs_path, "/dev/shm/leakprobe.%d", getpid());
    int file = new_file(kept_path, kept);
    read_pages(mapped(dup(file), kept, PROT_READ, MAP_SHARED), kept);
    close(file);
    file = new_file("deleted", deleted);
    unlink("deleted");
    read_pages(mapped(file, deleted, PROT_READ, MAP_PRIVATE), deleted);
    file = new_file("copied", copied);
    unlink("copied");
    volatile char *start = mapped(file, copied, both, MAP_PRIVATE);
    read_pages(start, copied);
    write_pages(start, copied / 2);
    file = new_file(tmpfs_path, tmpfs);
    unlink(tmpfs_path);
    write_pages(mapped(file, tmpfs, both, MAP_SHARED), tmpfs);
    file = memfd_create("named", 0);
    if (file < 0 || ftruncate(file, memfd))
        fail("create a memfd of %lu bytes", memfd);
    write_pages(mapped(file, memfd, both, MAP_SHARED), memfd);
    int id = shmget(IPC_PRIVATE, sysv, IPC_CREAT | 0600);
    void *segment = id < 0 ? (void *)-1 : shmat(id, NULL, 0);
    if (segment == (void *)-1 || shmctl(id, IPC_RMID, NULL))
        fail("create a System V segment of %lu bytes", sysv);
    write_pages(segment, sysv);
    write_pages(mapped(-1, anonymous, both, MAP_SHARED | MAP_ANONYMOUS), anonymous);
    answer("{\"workload\":\"c/files\",\"pid\":%d,\"kept_path\":\"%s\",\"kept\":%lu,\"deleted\":%lu,"
           "\"copied\":%lu,\"tmpfs\":%lu,\"memfd\":%lu,\"sysv\":%lu,\"anonymous\":%lu}",
           getpid(), kept_path, kept, deleted, copied, tmpfs, memfd, sysv, anonymous);
    while (next_command(&command)) {
        if (strcmp(command.verb, "grow") == 0) {
            unsigned long bytes = command.count * STEP_BYTES;
            file = new_file("grown", bytes);
            unlink("grown");
            read_pages(mapped(file, bytes, PROT_READ, MAP_SHARED), bytes);
            answer("{\"grown_bytes\":%lu}", bytes);
        } else {
            answer("{\"error\":\"unknown command %s\"}", command.verb);
        }
    }
    unlink(kept_path);
    return 0;
}
