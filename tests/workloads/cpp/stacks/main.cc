// Leaks objects at the end of a chain of C++ calls, each link of which throws and catches on the way.
#include <memory>
#include <stdexcept>
#include <vector>

#include "contract.h"
#include "stacks/chain.h"

static unsigned long wanted, leaked;
static std::vector<std::unique_ptr<std::vector<char>>> held;

INNERMOST static void innermost()
{
    held.push_back(std::make_unique<std::vector<char>>(BLOCK_BYTES, 'x'));
    leaked += BLOCK_BYTES;
    STAYS(&held);
}

struct Link {
    virtual ~Link() = default;
    virtual void follow(int depth) = 0;
};

struct Last : Link {
    BETWEEN void follow(int depth) override
    {
        PAD();
        try {
            if (depth > 0)
                throw std::runtime_error("on the way");
            innermost();
        } catch (const std::exception &) {
            follow(depth - 1);
        }
        STAYS(pad);
    }
};

template <typename Next> BETWEEN static void through(Next next)
{
    PAD();
    try {
        next();
        throw 1;
    } catch (int) {
        STAYS(pad);
    }
}

OUTERMOST static void outermost(Link &last)
{
    while (leaked < wanted)
        through([&] { through([&] { last.follow(2); }); });
    STAYS(&last);
}

int main()
{
    struct command command;
    Last last;

    contract_begin();
    answer("{\"workload\":\"stacks\",\"pid\":%d," CHAIN_ENDS "}", getpid(), CHAIN_ENDS_VALUES);
    while (next_command(&command)) {
        wanted = command.count * STEP_BYTES;
        leaked = 0;
        outermost(last);
        answer("{\"grown_bytes\":%lu}", leaked);
    }
    return 0;
}
