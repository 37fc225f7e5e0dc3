/*
 * Executes itself anew on "exec": the PID stays, the address space goes, and nothing an observer
 * knew of it holds any more. The second life says hello again, with "again" set.
 */
#include "contract.h"

int main(int argc, char **argv)
{
    struct command command;
    contract_begin();
    answer("{\"workload\":\"c/exec_self\",\"pid\":%d,\"again\":%s}", getpid(), argc > 1 ? "true" : "false");
    while (next_command(&command)) {
        if (strcmp(command.verb, "exec") != 0) {
            answer("{\"error\":\"unknown command %s\"}", command.verb);
            continue;
        }
        execl("/proc/self/exe", argv[0], "again", (char *)NULL);
        fail("execute %s again", argv[0]);
    }
    return 0;
}
