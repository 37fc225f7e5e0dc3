//! Leaks at the end of a chain of calls whose two ends are known by address ("grow"), as `c/stacks` does, with a panic
//! caught on the way; and in collections, each filled by a function of its own ("vec", "map", "tree", "text").

use std::collections::{BTreeMap, HashMap};
use std::hint::black_box;
use std::io::{BufRead, Write};
use std::mem::forget;
use std::panic::{catch_unwind, set_hook};

const STEP_BYTES: usize = 1 << 20;
const BLOCK_BYTES: usize = 20_000;

unsafe extern "C" {
    // The linker gives each section a start and an end.
    static __start_innermost_code: u8;
    static __stop_innermost_code: u8;
    static __start_outermost_code: u8;
    static __stop_outermost_code: u8;
    fn prctl(option: i32, ...) -> i32;
}

#[inline(never)]
#[unsafe(link_section = "innermost_code")]
fn innermost() -> usize {
    forget(black_box(vec![b'x'; BLOCK_BYTES].into_boxed_slice()));
    BLOCK_BYTES
}

trait Link {
    fn follow(&self, depth: usize) -> usize;
}

struct Last;

impl Link for Last {
    #[inline(never)]
    fn follow(&self, depth: usize) -> usize {
        let pad = black_box([1_u8; 700]);
        let caught = catch_unwind(|| if depth > 0 { panic!("on the way") } else { innermost() });
        caught.unwrap_or_else(|_| self.follow(depth - 1)) + usize::from(pad[7] == 0)
    }
}

#[inline(never)]
fn through<Next: Fn() -> usize>(next: Next) -> usize {
    let pad = black_box([1_u8; 700]);
    next() + usize::from(pad[7] == 0)
}

#[inline(never)]
#[unsafe(link_section = "outermost_code")]
fn outermost(last: &dyn Link, bytes: usize) -> usize {
    let mut leaked = 0;
    while leaked < bytes {
        leaked += through(|| through(|| last.follow(2)));
    }
    leaked
}

#[inline(never)]
fn fill_vec(bytes: usize) -> usize {
    let mut list = Vec::new();
    for number in 0..bytes / size_of::<u64>() {
        list.push(black_box(number as u64));
    }
    let bytes = list.len() * size_of::<u64>();
    forget(list);
    bytes
}

#[inline(never)]
fn fill_map(bytes: usize) -> usize {
    let mut map = HashMap::new();
    for number in 0..bytes / size_of::<(u64, [u64; 3])>() {
        map.insert(black_box(number as u64), [1_u64; 3]);
    }
    let bytes = map.len() * size_of::<(u64, [u64; 3])>();
    forget(map);
    bytes
}

#[inline(never)]
fn fill_tree(bytes: usize) -> usize {
    let mut tree = BTreeMap::new();
    for number in 0..bytes / size_of::<[u64; 4]>() {
        tree.insert(black_box(number as u64), [1_u64; 3]);
    }
    let bytes = tree.len() * size_of::<[u64; 4]>();
    forget(tree);
    bytes
}

#[inline(never)]
fn fill_text(bytes: usize) -> usize {
    let text: String = (0..bytes / 8).map(|number| format!("{number:8}")).collect();
    let bytes = text.len();
    forget(text);
    bytes
}

fn main() {
    const PR_SET_THP_DISABLE: i32 = 41;
    // SAFETY: it takes integers only. A huge page would make 2 MiB resident for one byte.
    unsafe { prctl(PR_SET_THP_DISABLE, 1_u64, 0_u64, 0_u64, 0_u64) };
    set_hook(Box::new(|_| {}));
    let ends = [
        &raw const __start_innermost_code,
        &raw const __stop_innermost_code,
        &raw const __start_outermost_code,
        &raw const __stop_outermost_code,
    ];
    let [inner_start, inner_stop, outer_start, outer_stop] = ends.map(|end| end.addr());
    let mut out = std::io::stdout().lock();
    let mut say = |answer: String| writeln!(out, "{answer}").and_then(|()| out.flush()).expect("a pipe");
    say(format!(
        "{{\"workload\":\"rust/stacks\",\"innermost\":[{inner_start},{inner_stop}],\
         \"outermost\":[{outer_start},{outer_stop}]}}"
    ));
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("stdin is a pipe");
        let (verb, steps) = line.split_once(' ').expect("\"VERB STEPS\"");
        let bytes = steps.parse::<usize>().expect("a number of steps") * STEP_BYTES;
        let grown = match verb {
            "vec" => fill_vec(bytes),
            "map" => fill_map(bytes),
            "tree" => fill_tree(bytes),
            "text" => fill_text(bytes),
            _ => outermost(&Last, bytes),
        };
        say(format!("{{\"grown_bytes\":{grown}}}"));
    }
}
