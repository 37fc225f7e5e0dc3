//! A report of a busy process: stacks were sampled, and some memory came without a fault.

use leakprobe::claim::Component;
use leakprobe::report::{CallSite, Report};

use crate::parts::{KIB, MIB, settle, site};
use crate::reports::native_leak;

/// The same as [`native_leak`] under load: stacks were sampled, and some memory came without a fault.
pub fn sampled() -> Report {
    let mut report = native_leak();
    report.tracing.events.faults = 4_218_338;
    report.tracing.stack_sample_rate = Some(512);
    for site in report.call_sites.iter_mut().filter(|site| !site.frames.is_empty()) {
        site.weight = 512.0;
        site.faults = (site.bytes >> 21).max(1);
        site.error_bytes = Some(site.bytes / 9);
    }
    report.call_sites[0].lazy_free = 3 * MIB;
    let populate = Some("populate".into());
    report.call_sites.push(CallSite {
        cause: populate,
        note: Some("filled by mmap at once".into()),
        ..site(Component::CMmap, 900 * KIB, &["mmap"], &[("ring_open", "/src/ingest/ring.c", 31)])
    });
    report.call_sites.push(CallSite {
        cause: Some("khugepaged".into()),
        note: Some("filled by khugepaged, for a huge page".into()),
        ..site(Component::CHeapInUse, 800 * KIB, &[], &[])
    });
    // A name that leaves no room for its error beside it.
    report.call_sites.push(CallSite {
        weight: 512.0,
        error_bytes: Some(90 * KIB),
        ..site(
            Component::CHeapInUse,
            700 * KIB,
            &["malloc"],
            &[("ingest_decoder_for_nested_records_grow", "/src/ingest/decoder.c", 208)],
        )
    });
    settle(&mut report);
    report
}
