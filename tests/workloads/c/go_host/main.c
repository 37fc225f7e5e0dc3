/*
 * Loads the Go libraries named on its command line, each with a runtime of its own, and has each hold
 * some heap and goroutines: the first 16 MiB and 40, the next twice that, and so on.
 */
#include "contract.h"

#include <dlfcn.h>

#define BLOCKS 16ULL
#define GOROUTINES 40ULL

typedef unsigned long long number;

static void *function_of(void *library, const char *name)
{
    void *function = dlsym(library, name);
    if (!function)
        fail("find %s in a library", name);
    return function;
}

int main(int argc, char **argv)
{
    number heap_inuse = 0, goroutines = 0;
    struct command command;
    contract_begin();
    for (int index = 1; index < argc; index++) {
        void *library = dlopen(argv[index], RTLD_NOW | RTLD_LOCAL);
        if (!library)
            fail("load %s: %s", argv[index], dlerror());
        void (*hold)(number, number) = function_of(library, "library_hold");
        number (*heap)(void) = function_of(library, "library_heap_inuse");
        number (*count)(void) = function_of(library, "library_goroutines");
        hold(index * BLOCKS, index * GOROUTINES);
        heap_inuse += heap();
        goroutines += count();
    }
    answer("{\"workload\":\"c/go_host\",\"pid\":%d,\"runtimes\":%d,\"heap_inuse\":%llu,\"goroutines\":%llu}",
           getpid(), argc - 1, heap_inuse, goroutines);
    while (next_command(&command))
        answer("{\"error\":\"unknown command %s\"}", command.verb);
    return 0;
}
