//! Keeps boxes and vectors, drops others, fills a table of its own in .bss; with threads that do so too.
//!
//! The surprise: it allocates nothing to say which pages hold what, and prints that without a formatter: under
//! MemorySanitizer the standard library, which is not instrumented, would be accused of its every byte.

use std::ffi::{c_char, c_int, c_void};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Barrier, Mutex};

const PAGE: usize = 4096;
const THREADS: usize = 12;

extern "C" {
    fn open(path: *const c_char, flags: c_int, ...) -> c_int;
    fn pread(file: c_int, to: *mut c_void, bytes: usize, offset: i64) -> isize;
    fn read(file: c_int, to: *mut c_void, bytes: usize) -> isize;
    fn write(file: c_int, from: *const c_void, bytes: usize) -> isize;
    fn prctl(option: c_int, ...) -> c_int;
    fn _exit(code: c_int) -> !;
}

/// All of the program's own .bss.
static OWN: Mutex<Own> = Mutex::new(Own {
    table: [0; 6 << 20],
    kept: List::EMPTY,
    freed: List::EMPTY,
    pages: [const { List::EMPTY }; 4],
});

static ONLY_READ: [AtomicU8; 3 * PAGE] = [const { AtomicU8::new(0) }; 3 * PAGE];

struct Own {
    table: [u8; 6 << 20],
    /// Address and length in turn.
    kept: List,
    freed: List,
    /// Pages of kept blocks, of freed ones, of all that is shadowed, of the shadow.
    pages: [List; 4],
}

struct List {
    count: usize,
    all: [usize; 1 << 18],
}

impl List {
    const EMPTY: Self = Self { count: 0, all: [0; 1 << 18] };

    fn push(&mut self, item: usize) {
        self.all[self.count] = item;
        self.count += 1;
    }

    fn items(&self) -> &[usize] {
        &self.all[..self.count]
    }

    fn push_pages(&mut self, addr: usize, bytes: usize) {
        (addr & !(PAGE - 1)..addr + bytes).step_by(PAGE).for_each(|page| self.push(page));
    }

    /// Ascending, and each once.
    fn sort(&mut self) {
        self.all[..self.count].sort_unstable();
        let count = std::mem::take(&mut self.count);
        for index in 0..count {
            let item = self.all[index];
            if index == 0 || self.all[self.count - 1] != item {
                self.push(item);
            }
        }
    }

    fn set_to_pages_of(&mut self, blocks: &List) {
        self.count = 0;
        for block in blocks.items().chunks_exact(2) {
            self.push_pages(block[0], block[1]);
        }
        self.sort();
    }
}

fn note(kept: bool, block: &[u8]) {
    let mut own = OWN.lock().unwrap();
    let list = if kept { &mut own.kept } else { &mut own.freed };
    list.push(block.as_ptr() as usize);
    list.push(block.len());
}

fn random(state: &mut u32) -> usize {
    *state = state.wrapping_mul(1103515245).wrapping_add(12345);
    (*state >> 8) as usize
}

fn block(bytes: usize) -> Box<[u8]> {
    std::hint::black_box(vec![b'x'; bytes].into_boxed_slice())
}

fn keep(bytes: usize) {
    note(true, Box::leak(block(bytes)));
}

fn fill(blocks: usize, mut state: u32) {
    for _ in 0..blocks {
        keep(random(&mut state) % 1500 + 1);
    }
    let dropped: Vec<Box<[u8]>> = (0..blocks).map(|_| block(random(&mut state) % 1500 + 1)).collect();
    let list_addr = dropped.as_ptr() as usize;
    for (number, block) in dropped.into_iter().enumerate() {
        note(number % 64 == 0, &block);
        if number % 64 == 0 {
            Box::leak(block);
        }
    }
    let mut own = OWN.lock().unwrap();
    own.freed.push(list_addr);
    own.freed.push(blocks * size_of::<Box<[u8]>>());
}

fn resident_bytes(pagemap: c_int, pages: impl IntoIterator<Item = usize>) -> usize {
    let mut bytes = 0;
    let zero_page = entry_of(pagemap, ONLY_READ.as_ptr() as usize + PAGE) << 9;
    for page in pages {
        let entry = entry_of(pagemap, page);
        // A page that was only ever read is the kernel's page of zeros, which counts for nobody.
        bytes += if entry >> 63 == 1 && entry << 9 != zero_page { PAGE } else { 0 };
    }
    bytes
}

fn entry_of(pagemap: c_int, page: usize) -> u64 {
    let mut entry = 0u64;
    // SAFETY: the kernel writes at most 8 bytes to `entry`.
    let got = unsafe { pread(pagemap, (&raw mut entry).cast(), 8, (page / PAGE * 8) as i64) };
    if got == 8 {
        entry
    } else {
        0
    }
}

/// The shadow (level 0), or origins and metadata (level 1), of a page; see tests/workloads/c/sanitized/shadow.h.
fn shadow_of(page: usize, level: usize) -> Option<(usize, usize)> {
    let place = page & !0x7000_0000_0000;
    match level {
        0 if cfg!(shadow = "address") => Some(((page >> 3) + 0x7fff_8000, PAGE / 8)),
        0 if cfg!(shadow = "thread") => Some((place * 2 + 0x1000_0000_0000, PAGE * 2)),
        1 if cfg!(shadow = "thread") => Some((place / 2 | 0x3000_0000_0000, PAGE / 2)),
        _ if cfg!(shadow = "memory") => Some(((page ^ 0x5000_0000_0000) + level * 0x1000_0000_0000, PAGE)),
        _ => None,
    }
}

fn add(text: &mut [u8], used: &mut usize, key: &str, number: usize) {
    let mut put = |byte: u8| {
        text[*used] = byte;
        *used += 1;
    };
    put(b',');
    put(b'"');
    key.bytes().for_each(&mut put);
    put(b'"');
    put(b':');
    let mut divisor = 1;
    while number / divisor >= 10 {
        divisor *= 10;
    }
    while divisor > 0 {
        put(b'0' + (number / divisor % 10) as u8);
        divisor /= 10;
    }
}

/// AddressSanitizer marks what it maps and hands out to nobody, too: all of the process has shadow. Adds each page
/// of which a page of shadow is made; mappings as long as the shadow itself are that.
fn push_all_mappings(pages: &mut List) {
    // SAFETY: the path ends with a zero.
    let maps = unsafe { open(c"/proc/self/maps".as_ptr(), 0) };
    let (mut numbers, mut field, mut byte) = ([0usize; 2], 0, 0u8);
    let mut place = 0;
    // SAFETY: the kernel writes at most one byte.
    while unsafe { read(maps, (&raw mut byte).cast(), 1) } == 1 {
        place += 1;
        match (byte, field) {
            (b'-', 0) => field = 1,
            (b' ', 0 | 1) => (field, place) = (2, 0),
            (b'w', 2) if place == 2 && numbers[1] - numbers[0] <= 1 << 32 => {
                let first = numbers[0] & !(8 * PAGE - 1);
                (first..numbers[1]).step_by(8 * PAGE).for_each(|page| pages.push(page));
            }
            (b'\n', _) => (numbers, field) = ([0; 2], 0),
            (digit, 0 | 1) => {
                numbers[field] = numbers[field] * 16 + (digit as char).to_digit(16).unwrap_or(0) as usize;
            }
            _ => {}
        }
    }
}

fn tell(pagemap: c_int) {
    let mut own = OWN.lock().unwrap();
    let (own_addr, own_bytes) = (&raw const *own as usize, size_of::<Own>());
    let Own { kept, freed, pages: [kept_pages, freed_pages, shadowed, shadow], .. } = &mut *own;
    kept_pages.set_to_pages_of(kept);
    freed_pages.set_to_pages_of(freed);
    shadowed.count = 0;
    kept_pages.items().iter().chain(freed_pages.items()).for_each(|page| shadowed.push(*page));
    let own_pages = || (own_addr & !(PAGE - 1)..own_addr + own_bytes).step_by(PAGE);
    own_pages().filter(|page| resident_bytes(pagemap, [*page]) > 0).for_each(|page| shadowed.push(page));
    if cfg!(shadow = "address") {
        push_all_mappings(shadowed);
    }
    shadowed.sort();
    let mut shadow_bytes = |level| {
        shadow.count = 0;
        for (addr, bytes) in shadowed.items().iter().filter_map(|page| shadow_of(*page, level)) {
            shadow.push_pages(addr, bytes);
        }
        shadow.sort();
        resident_bytes(pagemap, shadow.items().iter().copied())
    };
    let is_only_freed = |page: &usize| kept_pages.items().binary_search(page).is_err();
    let figures = [
        ("kept_bytes", resident_bytes(pagemap, kept_pages.items().iter().copied())),
        ("freed_bytes", resident_bytes(pagemap, freed_pages.items().iter().copied().filter(is_only_freed))),
        ("shadow_bytes", shadow_bytes(0)),
        ("second_shadow_bytes", shadow_bytes(1)),
        ("variable_bytes", resident_bytes(pagemap, own_pages())),
    ];
    let mut text = [0u8; 512];
    let mut used = 0;
    figures.into_iter().for_each(|(key, number)| add(&mut text, &mut used, key, number));
    text[0] = b'{';
    text[used] = b'}';
    text[used + 1] = b'\n';
    // SAFETY: `text` lives until the call returns.
    unsafe { write(1, text.as_ptr().cast(), used + 2) };
}

fn main() {
    const PR_SET_THP_DISABLE: c_int = 41;
    // SAFETY: system calls with sound arguments.
    let pagemap = unsafe {
        prctl(PR_SET_THP_DISABLE, 1usize, 0usize, 0usize, 0usize);
        open(c"/proc/self/pagemap".as_ptr(), 0)
    };
    OWN.lock().unwrap().table.fill(1);
    std::hint::black_box(ONLY_READ[2 * PAGE - 1].load(Ordering::Relaxed));
    std::hint::black_box(ONLY_READ[PAGE].load(Ordering::Relaxed));
    fill(24000, 5);
    for _ in 0..9 {
        keep(1 << 20);
        note(false, &block(2 << 20));
    }
    let filled: &'static Barrier = Box::leak(Box::new(Barrier::new(THREADS + 1)));
    for number in 0..THREADS {
        // With a size, since without one it would ask the environment.
        let thread = std::thread::Builder::new().stack_size(1 << 20);
        let spawned = thread.spawn(move || {
            fill(400, 7 * number as u32 + 1);
            filled.wait();
            loop {
                std::thread::park();
            }
        });
        std::mem::forget(spawned.unwrap());
    }
    filled.wait();
    tell(pagemap);
    let mut line = [0u8; 64];
    // SAFETY: the kernel writes at most 64 bytes to `line`.
    while unsafe { read(0, line.as_mut_ptr().cast(), line.len()) } > 0 {
        tell(pagemap);
    }
    // SAFETY: nothing has to be done before the end. Leaks are what it is for, and nobody should look for them.
    unsafe { _exit(0) };
}
