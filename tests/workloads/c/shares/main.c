/*
 * Touches fresh pages from 24 places, each of which has its share in a thousand: what a sample must find again.
 *
 * "grow N" touches N thousand pages, of each place's share in turn.
 */
#include "contract.h"

#include <sys/mman.h>

static const unsigned long shares[] = { 300, 180, 120, 80, 60, 40, 30, 25, 20, 20, 15, 15,
                                        12, 12, 10, 10, 8, 8, 7, 7, 6, 5, 5, 5 };
#define PLACES (sizeof shares / sizeof shares[0])
#define ROUND_PAGES 1000UL

static char *touch_pages(volatile char *next, unsigned long pages)
{
    for (; pages > 0; pages--, next += PAGE_BYTES)
        *next = 1;
    return (char *)next;
}

#define PLACE(number)                                                                                        \
    __attribute__((noinline)) static char *place_##number(char *next, unsigned long pages)                   \
    {                                                                                                        \
        char *after = touch_pages(next, pages);                                                              \
        __asm__ volatile("" ::: "memory"); /* so that the call above stays a call */                         \
        return after;                                                                                        \
    }

PLACE(0) PLACE(1) PLACE(2) PLACE(3) PLACE(4) PLACE(5) PLACE(6) PLACE(7) PLACE(8) PLACE(9) PLACE(10) PLACE(11)
PLACE(12) PLACE(13) PLACE(14) PLACE(15) PLACE(16) PLACE(17) PLACE(18) PLACE(19) PLACE(20) PLACE(21) PLACE(22)
PLACE(23)

static char *(*const places[PLACES])(char *, unsigned long) = {
    place_0,  place_1,  place_2,  place_3,  place_4,  place_5,  place_6,  place_7,
    place_8,  place_9,  place_10, place_11, place_12, place_13, place_14, place_15,
    place_16, place_17, place_18, place_19, place_20, place_21, place_22, place_23,
};

__attribute__((noinline)) static unsigned long grow(unsigned long rounds)
{
    unsigned long bytes = rounds * ROUND_PAGES * PAGE_BYTES;
    char *next = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (next == MAP_FAILED)
        fail("map %lu bytes", bytes);
    for (unsigned long round = 0; round < rounds; round++)
        for (unsigned long place = 0; place < PLACES; place++)
            next = places[place](next, shares[place]);
    return bytes;
}

int main(void)
{
    struct command command;
    contract_begin();
    printf("{\"workload\":\"c/shares\",\"pid\":%d,\"shares\":[", getpid());
    for (unsigned long place = 0; place < PLACES; place++)
        printf("%s%lu", place > 0 ? "," : "", shares[place]);
    answer("]}");
    while (next_command(&command))
        answer("{\"grown_bytes\":%lu}", grow(command.count));
    return 0;
}
