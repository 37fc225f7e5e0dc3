/* Leaks malloc'ed blocks at the end of a chain of calls: directly, and in a handler of a signal. */
#include "contract.h"
#include "stacks/chain.h"

#include <signal.h>

static unsigned long wanted, leaked;

INNERMOST static void innermost(void)
{
    char *block = malloc(BLOCK_BYTES);
    if (!block)
        abort();
    memset(block, 'x', BLOCK_BYTES);
    STAYS(block);
    leaked += BLOCK_BYTES;
}

BETWEEN static void third(int depth)
{
    PAD();
    if (depth > 0)
        third(depth - 1);
    else
        innermost();
    STAYS(pad);
}

BETWEEN static void second(void (*next)(int))
{
    PAD();
    next(2);
    STAYS(pad);
}

BETWEEN static void by_signal(int depth)
{
    PAD();
    raise(depth > 0 ? SIGUSR1 : SIGUSR2);
    STAYS(pad);
}

static void handler(int signal)
{
    PAD();
    third(signal == SIGUSR1);
    STAYS(pad);
}

OUTERMOST static void outermost(void (*next)(int))
{
    unsigned long until = leaked + wanted;
    while (leaked < until)
        second(next);
    STAYS(next);
}

int main(void)
{
    struct command command;
    struct sigaction action = {.sa_handler = handler};
    stack_t other = {.ss_sp = malloc(256 << 10), .ss_size = 256 << 10};

    contract_begin();
    if (!other.ss_sp)
        fail("allocate a stack for signals");
    memset(other.ss_sp, 1, other.ss_size);
    sigaltstack(&other, NULL);
    answer("{\"workload\":\"stacks\",\"pid\":%d," CHAIN_ENDS "}", getpid(), CHAIN_ENDS_VALUES);
    while (next_command(&command)) {
        wanted = command.count * STEP_BYTES;
        leaked = 0;
        if (strcmp(command.verb, "grow") == 0)
            outermost(third);
        else {
            action.sa_flags = strcmp(command.verb, "onstack") == 0 ? SA_ONSTACK : 0;
            sigaction(SIGUSR1, &action, NULL);
            outermost(by_signal);
        }
        answer("{\"grown_bytes\":%lu}", leaked);
    }
    return 0;
}
