/*
 * How a C workload talks to the harness: one JSON line of its own truth when it is ready, then one
 * answer for each line on stdin, and the end of stdin is its end.
 *
 * The surprise: transparent huge pages are off for the whole process. The truth is counted in the
 * bytes a program touched, and a huge page would make up to 2 MiB resident for one of them.
 */
#ifndef CONTRACT_H
#define CONTRACT_H

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define STEP_BYTES (1UL << 20)
#define PAGE_BYTES 4096UL

struct command {
    char verb[16];
    unsigned long count; /* 1 where the line names none */
};

static inline void contract_begin(void)
{
    prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
}

__attribute__((format(printf, 1, 2))) static inline void answer(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
    fflush(stdout);
}

__attribute__((noreturn, format(printf, 1, 2))) static inline void fail(const char *format, ...)
{
    int cause = errno;
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, ": %s\n", strerror(cause));
    exit(1);
}

/* Blocks until the harness says something; 0 when it is gone. */
static inline int next_command(struct command *command)
{
    char line[64];
    if (!fgets(line, sizeof line, stdin))
        return 0;
    command->count = 1;
    if (sscanf(line, "%15s %lu", command->verb, &command->count) < 1)
        command->verb[0] = 0;
    return 1;
}

/* The whole life of a leak: some of it before the handshake, the rest on demand. `leak` makes
 * `count` more steps resident for good and says how many bytes that were. */
static inline int contract_leak(const char *name, unsigned long first_steps,
                                unsigned long (*leak)(unsigned long count))
{
    struct command command;
    unsigned long leaked = leak(first_steps);
    answer("{\"workload\":\"%s\",\"pid\":%d,\"leaked_bytes\":%lu}", name, getpid(), leaked);
    while (next_command(&command)) {
        if (strcmp(command.verb, "grow") != 0) {
            answer("{\"error\":\"unknown command %s\"}", command.verb);
            continue;
        }
        unsigned long grown = leak(command.count);
        leaked += grown;
        answer("{\"grown_bytes\":%lu,\"leaked_bytes\":%lu}", grown, leaked);
    }
    return 0;
}

#endif
