//! The fuzzer: a Go program with the race detector and with C is started, read, remembered and ended; from
//! then on libFuzzer writes the damage, and every reader must come to an end.
//!
//! Start it with `cargo xtask fuzz`. It stops at the first panic, at an input that takes longer than 20 s, and
//! at 2 GiB of memory, and leaves the input behind; put that into `fuzz/found`, where a live test reads it.

#![no_main]

use std::sync::OnceLock;

use leakprobe_tests::Workload;
use leakprobe_tests::compile::{GoBuild, Kind, Symbols};
use leakprobe_tests::places::NEWEST_GO;
use libfuzzer_sys::fuzz_target;

#[path = "../../tests/live/damage.rs"]
#[expect(dead_code, reason = "the live test uses more of it")]
mod damage;

use damage::Image;

/// Only this one thread uses it.
struct OnlyHere(Image);

// SAFETY: libFuzzer calls the target from one thread.
unsafe impl Send for OnlyHere {}
// SAFETY: as above.
unsafe impl Sync for OnlyHere {}

static IMAGE: OnceLock<OnlyHere> = OnceLock::new();

fn image() -> &'static Image {
    let image = IMAGE.get_or_init(|| {
        let build = GoBuild { version: NEWEST_GO, kind: Kind::Race, symbols: Symbols::Dwarf };
        let workload = Workload::start_built("go/cgo_malloc", build).expect("start the program");
        OnlyHere(Image::record(workload.pid()).expect("read the program"))
    });
    &image.0
}

fuzz_target!(|script: &[u8]| {
    let image = image();
    let damaged = image.damaged(script);
    if script.first().is_some_and(|mood| mood & 0xf8 == 8) {
        image.find_and_read_all(&damaged);
    } else {
        image.read_all(&damaged);
    }
});
