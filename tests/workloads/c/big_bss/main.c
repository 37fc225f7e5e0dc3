/*
 * Touches large variables: one without a value in the file (.bss) wholly, another in part, a third not at all; and
 * one with a value (.data), of which it overwrites a part.
 */
#include "contract.h"

#define TOUCHED_BYTES (23 * STEP_BYTES)
#define HALF_BYTES (10 * STEP_BYTES)
#define DATA_BYTES (6 * STEP_BYTES)

char touched_table[TOUCHED_BYTES];
char half_touched[HALF_BYTES];
char never_touched[64 * STEP_BYTES];
/* A value makes the linker keep all of it in the file. */
char with_value[DATA_BYTES] = {1};

static void write_pages(volatile char *start, unsigned long bytes)
{
    for (unsigned long offset = 0; offset < bytes; offset += PAGE_BYTES)
        start[offset] = 2;
}

int main(int argument_count, char **arguments)
{
    contract_begin();
    write_pages(touched_table, sizeof touched_table);
    write_pages(half_touched, sizeof half_touched / 2);
    write_pages(with_value, sizeof with_value);
    if (argument_count > 1000)
        never_touched[argument_count] = arguments[0][0];
    answer("{\"workload\":\"c/big_bss\",\"pid\":%d,\"touched_table\":%lu,\"half_touched\":%lu,\"data\":%lu}",
           getpid(), TOUCHED_BYTES, HALF_BYTES / 2, DATA_BYTES);
    struct command command;
    while (next_command(&command))
        answer("{\"error\":\"unknown command %s\"}", command.verb);
    return 0;
}
