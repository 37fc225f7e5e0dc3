/*
 * Takes memory by itself, a little every 20 ms, in the way it was last told: `leak` keeps it all, `saw` gives it
 * back whenever it has 8 MiB, as a collector does, and `rest` takes none.
 */
#include "contract.h"

#include <poll.h>
#include <sys/mman.h>

#define ROOM_BYTES (1UL << 32)
#define BITE_BYTES (64 * PAGE_BYTES)
#define TOOTH_BYTES (8 * STEP_BYTES)
#define BREATH_MS 20

__attribute__((noinline)) static void breathe(volatile char *room, unsigned long *taken, char mode)
{
    if (mode == 's' && *taken >= TOOTH_BYTES) {
        madvise((void *)room, *taken, MADV_DONTNEED);
        *taken = 0;
    } else if (mode != 'r' && *taken < ROOM_BYTES) {
        for (unsigned long end = *taken + BITE_BYTES; *taken < end; *taken += PAGE_BYTES)
            room[*taken] = 1;
    }
}

int main(void)
{
    contract_begin();
    void *room = mmap(NULL, ROOM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED)
        fail("map %lu bytes", ROOM_BYTES);
    unsigned long taken = 0;
    struct command command = {.verb = "rest"};
    answer("{\"workload\":\"c/breathes\",\"pid\":%d}", getpid());
    for (;;) {
        struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
        if (poll(&input, 1, BREATH_MS) > 0) {
            if (!next_command(&command))
                return 0;
            answer("{\"now\":\"%s\"}", command.verb);
        } else {
            breathe(room, &taken, command.verb[0]);
        }
    }
}
