//! What a report must say, as checks that fail with the ledger in the message.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

const KIB: u64 = 1024;

/// How far a figure may lie from a program's own truth: its libraries, its runtime's bookkeeping and
/// the pages its own stack touches are in the report too.
pub fn tolerance_bytes(truth_bytes: u64) -> u64 {
    (truth_bytes / 50).max(256 * KIB)
}

/// Every resident byte is in one row, and what is in none is under 1 %.
pub fn ledger_balances(report: &Value) -> Result<()> {
    let rss = number(report, "/rss/end")?;
    let residual = number(report, "/residual")?;
    let mut sum: i64 = 0;
    for row in rows(report)? {
        sum += number(row, "/rss")?;
    }
    ensure!(
        sum + residual == rss,
        "the ledger does not balance: rows {sum} + residual {residual} ≠ RSS {rss}\n{}",
        ledger(report)
    );
    ensure!(
        residual.unsigned_abs() * 100 < rss.unsigned_abs(),
        "the residual {residual} is 1 % of the RSS {rss} or more\n{}",
        ledger(report)
    );
    Ok(())
}

/// One row has the largest growth, and it is what the program says it leaked.
pub fn grew_most(report: &Value, id: &str, truth_bytes: u64) -> Result<()> {
    let grown = growth(report, id)?;
    for row in rows(report)? {
        let other = number(row, "/growth")?;
        ensure!(
            row["id"] == id || other < grown,
            "{} grew by {other} bytes, {id} by {grown}: the latter should be more\n{}",
            row["id"],
            ledger(report)
        );
    }
    let truth = i64::try_from(truth_bytes).context("a program's truth fits in 63 bits")?;
    ensure!(
        grown.abs_diff(truth) <= tolerance_bytes(truth_bytes),
        "{id} grew by {grown} bytes in the report, by {truth} in truth\n{}",
        ledger(report)
    );
    Ok(())
}

/// No row but one (or none, with an empty id) moved by more than so many bytes.
pub fn others_stayed(report: &Value, id: &str, bound_bytes: u64) -> Result<()> {
    for row in rows(report)?.iter().filter(|row| row["id"] != id) {
        let growth = number(row, "/growth")?;
        ensure!(
            growth.unsigned_abs() <= bound_bytes,
            "{} moved by {growth} bytes and should not by more than {bound_bytes}\n{}",
            row["id"],
            ledger(report)
        );
    }
    Ok(())
}

/// A row holds at least so many bytes, a tolerance apart.
pub fn holds(report: &Value, id: &str, truth_bytes: u64) -> Result<()> {
    let rss = number(component(report, id)?, "/rss")?;
    let least = truth_bytes - tolerance_bytes(truth_bytes).min(truth_bytes);
    ensure!(
        rss >= least.cast_signed(),
        "{id} holds {rss} bytes in the report, {truth_bytes} in truth\n{}",
        ledger(report)
    );
    Ok(())
}

/// Growth of a row.
pub fn growth(report: &Value, id: &str) -> Result<i64> {
    number(component(report, id)?, "/growth")
}

/// Resident bytes of a row; none where there is no such row.
pub fn resident(report: &Value, id: &str) -> i64 {
    component(report, id).and_then(|row| number(row, "/rss")).unwrap_or(0)
}

/// A row by its id.
pub fn component<'a>(report: &'a Value, id: &str) -> Result<&'a Value> {
    let row = rows(report)?.iter().find(|row| row["id"] == id);
    row.with_context(|| format!("the report has no row {id}\n{}", ledger(report)))
}

/// All rows.
pub fn rows(report: &Value) -> Result<&Vec<Value>> {
    report["components"].as_array().context("the report has no array `components`")
}

/// A whole number by its JSON pointer.
pub fn number(value: &Value, pointer: &str) -> Result<i64> {
    let found = value.pointer(pointer).with_context(|| format!("there is no {pointer} in {value}"))?;
    found.as_i64().with_context(|| format!("{pointer} is no whole number but {found}"))
}

/// The rows as lines for a message.
pub fn ledger(report: &Value) -> String {
    let Ok(rows) = rows(report) else { return report.to_string() };
    let line = |row: &Value| {
        let id = row["id"].as_str().unwrap_or("?");
        format!("  {id:16} rss {} growth {}", row["rss"], row["growth"])
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}
