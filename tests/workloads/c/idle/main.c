/* Does nothing at all: whatever a report says grew here is the reporter's mistake. */
#include "contract.h"

int main(void)
{
    struct command command;
    contract_begin();
    answer("{\"workload\":\"c/idle\",\"pid\":%d,\"leaked_bytes\":0}", getpid());
    while (next_command(&command))
        answer("{\"error\":\"unknown command %s\"}", command.verb);
    return 0;
}
