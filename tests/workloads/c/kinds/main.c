/*
 * Makes memory of the kinds that the kernel counts in its own ways, one at a command, and says how much: hugetlb
 * pages, equal pages that KSM merges, swapped and locked memory, rings that the kernel shares with a process, and
 * transparent huge pages.
 *
 * The surprise: what a kind is worth is the kernel's decision, so the truth of most is read back from the kernel
 * about this process alone, and beside it stands what was touched.
 */
#define _GNU_SOURCE
#include "contract.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/io_uring.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#define HUGE_PAGE_BYTES (2UL << 20)
#define ACCESS (PROT_READ | PROT_WRITE)
#define ANONYMOUS (MAP_PRIVATE | MAP_ANONYMOUS)

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

static char *mapped(unsigned long bytes, int flags, int file, unsigned long offset, const char *what)
{
    char *start = mmap(NULL, bytes, ACCESS, flags, file, offset);
    if (start == MAP_FAILED)
        fail("map %lu bytes of %s", bytes, what);
    return start;
}

/* Every page with `word` in it, or, if that is 0, with a word of its own. */
static void touch(char *start, unsigned long bytes, unsigned long step_bytes, unsigned long word)
{
    for (unsigned long offset = 0; offset < bytes; offset += step_bytes)
        *(volatile unsigned long *)(start + offset) = word ? word : offset + 1;
}

/* A number from a file about this process, behind `name`; from its beginning where that is empty. */
static unsigned long told(const char *path, const char *name)
{
    char line[256];
    unsigned long value = 0;
    int is_found = 0;
    FILE *file = fopen(path, "r");
    if (!file)
        fail("open %s", path);
    while (!is_found && fgets(line, sizeof line, file))
        is_found = strncmp(line, name, strlen(name)) == 0 && sscanf(line + strlen(name), "%lu", &value) == 1;
    fclose(file);
    if (!is_found)
        fail("find %s in %s", name, path);
    return value;
}

static void hugetlb(unsigned long bytes)
{
    touch(mapped(bytes, ANONYMOUS | MAP_HUGETLB, -1, 0, "hugetlb"), bytes, HUGE_PAGE_BYTES, 0);
    touch(mapped(bytes, MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0, "shared hugetlb"), bytes,
          HUGE_PAGE_BYTES, 0);
    answer("{\"touched\":%lu,\"hugetlb\":%lu}", 2 * bytes, told("/proc/self/status", "HugetlbPages:") << 10);
}

static void merge(unsigned long bytes)
{
    char *start = mapped(bytes, ANONYMOUS, -1, 0, "pages to be merged");
    touch(start, bytes, PAGE_BYTES, 0x6c65616b70726f62);
    if (madvise(start, bytes, MADV_MERGEABLE))
        fail("let KSM merge %lu bytes", bytes);
    /* Nothing can be waited on for this. */
    while (told("/proc/self/ksm_merging_pages", "") * PAGE_BYTES < bytes)
        sched_yield();
    answer("{\"touched\":%lu,\"merged\":%lu}", bytes, told("/proc/self/ksm_merging_pages", "") * PAGE_BYTES);
}

static char *paged_out;
static unsigned long paged_out_bytes;

static void answer_swapped(void)
{
    answer("{\"touched\":%lu,\"swapped\":%lu}", paged_out_bytes, told("/proc/self/status", "VmSwap:") << 10);
}

static void swap_out(unsigned long bytes)
{
    paged_out_bytes = bytes;
    paged_out = mapped(bytes, ANONYMOUS, -1, 0, "memory to be swapped");
    touch(paged_out, bytes, PAGE_BYTES, 0);
    if (madvise(paged_out, bytes, MADV_PAGEOUT))
        fail("swap out %lu bytes", bytes);
    answer_swapped();
}

static void swap_in(void)
{
    touch(paged_out, paged_out_bytes, PAGE_BYTES, 0);
    answer_swapped();
}

/* In the three ways there are; mlockall's is the last, for it locks whatever is mapped after it. */
static void lock(unsigned long bytes)
{
    char *start = mapped(2 * bytes, ANONYMOUS, -1, 0, "memory of which half is locked");
    touch(start, 2 * bytes, PAGE_BYTES, 0);
    if (mlock(start, bytes))
        fail("lock %lu bytes", bytes);
    mapped(bytes, ANONYMOUS | MAP_LOCKED, -1, 0, "locked memory");
    if (mlockall(MCL_FUTURE))
        fail("lock what will be mapped");
    mapped(bytes, ANONYMOUS, -1, 0, "memory after mlockall");
    answer("{\"touched\":%lu,\"locked\":%lu}", 4 * bytes, told("/proc/self/status", "VmLck:") << 10);
}

static unsigned long packet_ring(unsigned long bytes)
{
    struct tpacket_req ring = {.tp_block_size = STEP_BYTES,
                               .tp_block_nr = bytes / STEP_BYTES,
                               .tp_frame_size = PAGE_BYTES,
                               .tp_frame_nr = bytes / PAGE_BYTES};
    int packets = socket(AF_PACKET, SOCK_RAW, 0);
    if (packets < 0 || setsockopt(packets, SOL_PACKET, PACKET_RX_RING, &ring, sizeof ring))
        fail("make a ring of %lu bytes for packets", bytes);
    mapped(bytes, MAP_SHARED, packets, 0, "a packet socket's ring");
    return bytes;
}

static unsigned long io_ring(unsigned long bytes)
{
    struct io_uring_params params = {0};
    long ring = syscall(SYS_io_uring_setup, bytes / sizeof(struct io_uring_sqe), &params);
    if (ring < 0)
        fail("make a ring of %lu bytes for io_uring", bytes);
    mapped(bytes, MAP_SHARED | MAP_POPULATE, (int)ring, IORING_OFF_SQES, "io_uring's ring");
    return bytes;
}

/* One page for its head, and a power of two of others. */
static unsigned long event_ring(unsigned long bytes)
{
    struct perf_event_attr attributes = {.type = PERF_TYPE_SOFTWARE,
                                         .size = sizeof attributes,
                                         .config = PERF_COUNT_SW_DUMMY};
    long events = syscall(SYS_perf_event_open, &attributes, 0, -1, -1, 0);
    if (events < 0)
        fail("count events");
    mapped(bytes + PAGE_BYTES, MAP_SHARED, (int)events, 0, "perf's ring");
    return bytes + PAGE_BYTES;
}

static void rings(unsigned long bytes)
{
    unsigned long packets = packet_ring(bytes), io = io_ring(STEP_BYTES / 4), events = event_ring(STEP_BYTES);
    int zeroes = open("/dev/zero", O_RDWR);
    if (zeroes < 0)
        fail("open /dev/zero");
    touch(mapped(bytes, MAP_PRIVATE, zeroes, 0, "/dev/zero"), bytes, PAGE_BYTES, 0);
    answer("{\"packets\":%lu,\"io\":%lu,\"events\":%lu,\"zeroes\":%lu}", packets, io, events, bytes);
}

/* One word of each huge page is touched; how much became resident the kernel says. */
static void huge(unsigned long bytes)
{
    prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);
    char *start = mapped(bytes + HUGE_PAGE_BYTES, ANONYMOUS, -1, 0, "memory for huge pages");
    start += -(unsigned long)start % HUGE_PAGE_BYTES;
    if (madvise(start, bytes, MADV_HUGEPAGE))
        fail("ask for huge pages in %lu bytes", bytes);
    touch(start, bytes, HUGE_PAGE_BYTES, 0);
    unsigned char *pages = malloc(bytes / PAGE_BYTES);
    if (!pages || mincore(start, bytes, pages))
        fail("ask which of %lu bytes are resident", bytes);
    unsigned long resident = 0;
    for (unsigned long page = 0; page < bytes / PAGE_BYTES; page++)
        resident += (pages[page] & 1) * PAGE_BYTES;
    answer("{\"resident\":%lu,\"huge\":%lu}", resident,
           told("/proc/self/smaps_rollup", "AnonHugePages:") << 10);
}

int main(void)
{
    struct command command;
    contract_begin();
    answer("{\"workload\":\"c/kinds\",\"pid\":%d}", getpid());
    while (next_command(&command)) {
        unsigned long bytes = command.count * STEP_BYTES;
        if (strcmp(command.verb, "hugetlb") == 0)
            hugetlb(bytes);
        else if (strcmp(command.verb, "merge") == 0)
            merge(bytes);
        else if (strcmp(command.verb, "swap_out") == 0)
            swap_out(bytes);
        else if (strcmp(command.verb, "swapped") == 0)
            answer_swapped();
        else if (strcmp(command.verb, "swap_in") == 0)
            swap_in();
        else if (strcmp(command.verb, "lock") == 0)
            lock(bytes);
        else if (strcmp(command.verb, "rings") == 0)
            rings(bytes);
        else if (strcmp(command.verb, "huge") == 0)
            huge(bytes);
        else
            answer("{\"error\":\"unknown command %s\"}", command.verb);
    }
    return 0;
}
