/*
 * Forgets objects made with operator new, in vectors that it forgets too.
 *
 * The surprise: as many bytes are told as malloc's chunks have, so that what an object costs beyond its size is told.
 */
#include "contract.h"

#include <malloc.h>

#include <vector>

namespace {

struct Record {
    char bytes[1000];
};

__attribute__((noinline)) unsigned long leak_records(unsigned long count)
{
    unsigned long leaked = 0;
    for (unsigned long step = 0; step < count; step++) {
        auto *records = new std::vector<Record *>();
        records->reserve(1024);
        leaked += malloc_usable_size(records) + malloc_usable_size(records->data()) + 2 * sizeof(size_t);
        for (int i = 0; i < 1024; i++) {
            auto *record = new Record;
            memset(record->bytes, 'x', sizeof record->bytes);
            leaked += malloc_usable_size(record) + sizeof(size_t);
            records->push_back(record);
        }
        __asm__ volatile("" : : "r"(records) : "memory");
    }
    return leaked;
}

}

int main()
{
    contract_begin();
    return contract_leak("cpp/new_leak", 3, leak_records);
}
