//! Memory that was given back with MADV_FREE counts in RSS; the report says in which row, and how much.

use anyhow::{Result, ensure};
use leakprobe_tests::{Probe, Workload, expect};

/// The kernel marks freed pages some dozen at a time, and the runtime frees a little of its own.
const TOLERANCE_BYTES: i64 = 1 << 20;
/// What the runtime takes of freed memory for a few objects of its own.
const REUSED_BYTES: i64 = 256 << 10;

#[test]
fn lazily_freed_pages_are_counted_where_they_lie() -> Result<()> {
    let workload = Workload::start("go/heap_lazily_freed")?;
    let freed_bytes = expect::number(&workload.hello, "/freed_bytes")?;
    let kept_bytes = expect::number(&workload.hello, "/kept_bytes")?;
    let report = Probe::start(&workload, &["--duration", "0"])?.finish()?.report()?;
    expect::ledger_balances(&report)?;
    let idle = expect::component(&report, "go.heap.idle")?;
    let objects = expect::component(&report, "go.heap.inuse")?;
    let found_bytes = expect::number(idle, "/lazy_free")?;
    ensure!(
        found_bytes.abs_diff(freed_bytes) <= TOLERANCE_BYTES.unsigned_abs(),
        "{freed_bytes} freed: {idle}"
    );
    ensure!(expect::number(idle, "/rss")? >= found_bytes, "they are resident: {idle}");
    ensure!(expect::number(objects, "/rss")? >= kept_bytes, "what is kept is in use: {objects}");
    // Pages taken into use again stay marked until they are written.
    ensure!(expect::number(objects, "/lazy_free")? <= REUSED_BYTES, "nothing in use was freed: {objects}");
    let total_bytes = expect::number(&report, "/rss/lazy_free")?;
    ensure!(total_bytes.abs_diff(found_bytes) <= TOLERANCE_BYTES.unsigned_abs(), "{}", report["rss"]);
    Ok(())
}
