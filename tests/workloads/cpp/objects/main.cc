/*
 * Holds objects of classes with virtual functions, so many of each, and leaks those of one class on demand.
 *
 * The surprise: the rest are traps. Freed objects stay in malloc's caches, blocks that are no objects begin with
 * pointers into the program too, and one class is as large as a mapping of its own.
 */
#include "contract.h"

#include <malloc.h>

#include <memory>
#include <vector>

namespace net
{
struct Session {
    virtual ~Session() = default;
    virtual int id() const { return 1; }
    char state[150];
};

struct Listener : Session {
    int id() const override { return 2; }
    char backlog[600];
};
}

template <typename T> struct Cache {
    virtual ~Cache() = default;
    T slots[6];
};

namespace
{
struct Hidden {
    virtual ~Hidden() = default;
    char state[40];
};
}

/* Its vtable begins with where the virtual base is. */
struct Node {
    virtual ~Node() = default;
    long key;
};
struct Left : virtual Node {
    long left;
};
struct Right : virtual Node {
    long right;
};
struct Both : Left, Right {
    long both;
};

struct Huge {
    virtual ~Huge() = default;
    char bytes[1 << 20];
};

/* No objects of a class: their first words lead into the program's data and its code. */
struct Named {
    const char *name;
    long value;
};
struct Hook {
    int (*call)(struct command *);
    long value;
};

struct Count {
    const char *name;
    unsigned long objects, bytes;
};

static std::vector<void *> kept;

static unsigned long block_bytes(void *block)
{
    unsigned long usable = malloc_usable_size(block);
    /* A mapped block has a header of two words. */
    return usable >= sizeof(Huge) ? usable + 2 * sizeof(size_t) : usable + sizeof(size_t);
}

template <typename T> __attribute__((noinline)) static Count make(const char *name, unsigned long objects)
{
    Count count = {name, objects, 0};
    std::vector<T *> freed;
    for (unsigned long i = 0; i < objects; i++) {
        T *object = new T();
        count.bytes += block_bytes(object);
        kept.push_back(object);
        if (i % 8 == 0)
            freed.push_back(new T());
    }
    for (T *object : freed)
        delete object;
    return count;
}

__attribute__((noinline)) static unsigned long leak_sessions(unsigned long count)
{
    unsigned long leaked = 0;
    while (leaked < count * STEP_BYTES) {
        net::Session *session = new net::Session();
        memset(session->state, 'x', sizeof session->state);
        kept.push_back(session);
        leaked += block_bytes(session);
    }
    return leaked;
}

int main()
{
    struct command command;
    contract_begin();
    kept.reserve(1 << 20);
    std::vector<std::shared_ptr<net::Session>> shared;
    Count counts[] = {
        make<net::Session>("net::Session", 5000),
        make<net::Listener>("net::Listener", 700),
        make<Cache<long>>("Cache<long>", 300),
        make<Hidden>("(anonymous namespace)::Hidden", 40),
        make<Both>("Both", 11),
        make<Huge>("Huge", 2),
    };
    for (int i = 0; i < 100; i++) {
        kept.push_back(new Named{"a name", i});
        kept.push_back(new Hook{next_command, i});
        shared.push_back(std::make_shared<net::Session>());
    }
    printf("{\"workload\":\"cpp/objects\",\"classes\":{");
    for (const Count &count : counts)
        printf("%s\"%s\":{\"blocks\":%lu,\"bytes\":%lu}", &count == counts ? "" : ",", count.name,
               count.objects, count.bytes);
    answer("},\"shared\":%zu}", shared.size());
    while (next_command(&command)) {
        size_t before = kept.size();
        unsigned long grown = leak_sessions(command.count);
        answer("{\"grown_bytes\":%lu,\"grown_objects\":%zu}", grown, kept.size() - before);
    }
    return 0;
}
