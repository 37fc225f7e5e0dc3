//! Reads a report that was saved as JSON, for `render` and `diff`.
//!
//! A file is as hostile as a process: its size and depth are bounded, and its figures too, since the formats add
//! them up. Fields that are not known here are passed over, so that a newer leakprobe may add some; another major
//! version of the schema is refused. The surprise: the rows are added up again. What does not balance was not
//! written by leakprobe.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;

use super::{Report, SCHEMA};

/// A report with thousands of call sites has some ten MiB.
pub const MAX_FILE_BYTES: u64 = 256 << 20;

/// Why a file is no report.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// Larger than any report.
    #[error("it has more than {} MiB: that is no report of leakprobe", MAX_FILE_BYTES >> 20)]
    TooLarge,
    /// No JSON, or something else is missing.
    #[error("it is not what `leakprobe --format json` writes: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Another schema.
    #[error(
        "its schema is {found:?}, and this leakprobe reads {SCHEMA}: use the leakprobe that wrote it, or a newer one"
    )]
    OtherSchema {
        /// The file's.
        found: String,
    },
    /// Figures that no process has.
    #[error("its figures are larger than any process's")]
    TooMuch,
    /// A row is there more than once.
    #[error("it has the row {id} more than once: it was changed after leakprobe wrote it")]
    Repeated {
        /// The row's.
        id: &'static str,
    },
    /// Σ rows + residual is not the RSS.
    #[error("its rows do not add up to its RSS: it was changed after leakprobe wrote it")]
    DoesNotBalance,
}

/// The only field that all schemas have.
#[derive(Deserialize)]
struct Head {
    schema: String,
}

impl Report {
    /// The report that was written as this JSON.
    ///
    /// # Errors
    /// [`Unreadable`], where it is none, or one that cannot be right.
    pub fn from_json(json: &[u8]) -> Result<Self, Unreadable> {
        if json.len() as u64 > MAX_FILE_BYTES {
            return Err(Unreadable::TooLarge);
        }
        let Head { schema } = serde_json::from_slice(json)?;
        if schema != SCHEMA {
            return Err(Unreadable::OtherSchema { found: schema.chars().take(80).collect() });
        }
        let report: Self = serde_json::from_slice(json)?;
        // Where all figures together fit, no sum of some of them overflows.
        let sum = sum_of_figures(&serde_json::to_value(&report)?);
        if sum.is_none_or(|sum| sum > i64::MAX.unsigned_abs()) {
            return Err(Unreadable::TooMuch);
        }
        if let Some(id) = report.repeated_row() {
            return Err(Unreadable::Repeated { id });
        }
        if !report.balances() {
            return Err(Unreadable::DoesNotBalance);
        }
        Ok(report)
    }

    /// Each row has its own sites and files, which no format is to write twice.
    fn repeated_row(&self) -> Option<&'static str> {
        let mut seen = BTreeSet::new();
        self.components.iter().find(|row| !seen.insert(row.id)).map(|row| row.id.id())
    }

    fn balances(&self) -> bool {
        let rows: i128 = self.components.iter().map(|row| i128::from(row.rss)).sum();
        rows + i128::from(self.residual) == i128::from(self.rss.end)
    }
}

/// All whole numbers but addresses, without their signs; none where they are too large.
fn sum_of_figures(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => {
            let unsigned = number.as_u64().or_else(|| number.as_i64().map(i64::unsigned_abs));
            Some(unsigned.unwrap_or(0))
        }
        Value::Array(values) => {
            values.iter().try_fold(0, |sum: u64, it| sum.checked_add(sum_of_figures(it)?))
        }
        Value::Object(fields) => {
            let mut figures = fields.iter().filter(|(name, _)| *name != "address").map(|(_, value)| value);
            figures.try_fold(0, |sum: u64, it| sum.checked_add(sum_of_figures(it)?))
        }
        Value::Null | Value::Bool(_) | Value::String(_) => Some(0),
    }
}
