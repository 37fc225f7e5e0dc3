//! The command.
use leakprobe::trace::*;
fn main() {
    let pid = std::env::args().nth(1).unwrap().parse().unwrap();
    let mut t = Tracer::attach(&Watched { pid, go_text: leakprobe::address::AddrRange::new(0x400000,0x900000), race_calls: leakprobe::address::AddrRange::new(0x480000,0x481000), go_heap: leakprobe::address::AddrRange::new(0xc000000000,0xe000000000) }, true).unwrap();
    let mut r = recording::Recording::new(0, None);
    for _ in 0..20 { std::thread::sleep(std::time::Duration::from_millis(100));
      t.drain(&mut r, |s| recording::Unwound { addrs: s.frames().collect(), truncated: false });
      t.adapt(0.1).unwrap(); }
    eprintln!("{:#?}", t.summary(&r).unwrap());
}
