/*
 * Where each sanitizer's ABI on x86_64 puts what it keeps of an address, as its own documentation of the
 * mapping says (compiler-rt: asan_mapping.h, tsan_platform.h, msan.h, hwasan_mapping.h).
 *
 * The surprise: which sanitizer it is, the compiler says in two different ways.
 */
#ifndef SHADOW_H
#define SHADOW_H

#include <stddef.h>
#include <stdint.h>

#ifndef __has_feature
#define __has_feature(x) 0
#endif

#ifndef __clang__
#define __clang__ 0
#define __clang_major__ 0
#endif

/* HWAddressSanitizer without tagged addresses has each page at several, side by side. */
#if __has_feature(hwaddress_sanitizer)
#define VIEWS 8
extern uintptr_t __hwasan_shadow_memory_dynamic_address;
#else
#define VIEWS 1
#endif
/* AddressSanitizer marks what it maps and hands out to nobody, too: all of the process has shadow. */
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define SHADOWS_EVERYTHING 1
#else
#define SHADOWS_EVERYTHING 0
#endif

#define VIEW_BYTES (1UL << 39)

static inline uintptr_t first_view(uintptr_t addr)
{
    return addr & ~((VIEWS - 1) * VIEW_BYTES);
}

/* The shadow (`level` 0), or origins and metadata (`level` 1), of the page at `page`; no bytes for none. */
static inline uintptr_t shadow_of(uintptr_t page, int level, size_t *bytes)
{
    (void)page, (void)level;
    *bytes = 0;
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
    if (level == 0) {
        *bytes = 4096 / 8;
        return (page >> 3) + 0x7fff8000;
    }
#elif defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
#if __clang_major__ >= 18
    uintptr_t place = page & ~0x700000000000;
    *bytes = level ? 4096 / 2 : 4096 * 2;
    return level ? place / 2 | 0x300000000000 : place * 2 + 0x100000000000;
#else
    /* Four times as much with TSan v2, which gcc has to 12; twice with LLVM's to 17. */
    uintptr_t place = page & ~0x780000000000, times = __clang__ + 0 ? 2 : 4;
    *bytes = level ? 4096 / 2 : 4096 * times;
    return level ? place / 2 | 0x300000000000 : (place ^ 0x040000000000) * times;
#endif
#elif __has_feature(memory_sanitizer)
    *bytes = 4096;
    return (page ^ 0x500000000000) + (level ? 0x100000000000 : 0);
#elif __has_feature(hwaddress_sanitizer)
    if (level == 0) {
        *bytes = 4096 / 16;
        return (first_view(page) >> 4) + __hwasan_shadow_memory_dynamic_address;
    }
#endif
    return 0;
}

#endif
