// Keeps and drops C++ objects: vectors, strings in maps, arrays; with threads that do so too.
//
// The surprise: what the standard library allocates is counted by an allocator of its own that notes each
// block, since only so the program knows where its nodes lie.
#include "../../c/sanitized/truth.h"

#include <map>
#include <new>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr int threads = 12;
constexpr int entries = 9000;
constexpr int thread_entries = 300;

template <typename T> struct Noting {
    using value_type = T;
    blocks *in;
    explicit Noting(blocks *in) : in(in) {}
    template <typename U> Noting(const Noting<U> &other) : in(other.in) {}
    T *allocate(std::size_t count)
    {
        void *block = ::operator new(count * sizeof(T));
        memset(block, 0, count * sizeof(T));
        note(in, block, count * sizeof(T));
        return static_cast<T *>(block);
    }
    void deallocate(T *block, std::size_t) { ::operator delete(block); }
    template <typename U> bool operator==(const Noting<U> &) const { return true; }
    template <typename U> bool operator!=(const Noting<U> &) const { return false; }
};

using String = std::basic_string<char, std::char_traits<char>, Noting<char>>;
using Map = std::map<unsigned, String, std::less<unsigned>, Noting<std::pair<const unsigned, String>>>;

void fill(Map &map, blocks *in, int count, unsigned state)
{
    for (int i = 0; i < count; i++)
        map.emplace(next_random(&state), String(next_random(&state) % 3000 + 32, 'x', Noting<char>(in)));
}

void work(int count, unsigned state)
{
    auto *kept = new Map(Noting<Map::value_type>(&own.kept));
    note(&own.kept, kept, sizeof *kept);
    fill(*kept, &own.kept, count, state);
    Map dropped{Noting<Map::value_type>(&own.freed)};
    fill(dropped, &own.freed, count, state + 1);
}

} // namespace

int main()
{
    truth_begin();
    work(entries, 3);
    for (int i = 0; i < 6; i++) {
        auto *numbers = new std::vector<long, Noting<long>>(1 << 17, 1L, Noting<long>(&own.kept));
        note(&own.kept, numbers, sizeof *numbers);
        std::vector<long, Noting<long>>(1 << 18, 1L, Noting<long>(&own.freed));
    }
    pthread_barrier_t filled;
    pthread_barrier_init(&filled, nullptr, threads + 1);
    for (int number = 0; number < threads; number++)
        std::thread([&filled, number] {
            work(thread_entries, 100 + number);
            pthread_barrier_wait(&filled);
            for (;;)
                pause();
        }).detach();
    pthread_barrier_wait(&filled);
    tell("cpp/sanitized");
    command command;
    while (next_command(&command))
        tell("cpp/sanitized");
    _exit(0);
}
