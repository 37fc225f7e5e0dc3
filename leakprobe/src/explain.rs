//! `leakprobe explain`: the page of a finding, or a line about each.

use std::io::{self, BufWriter, Write as _};

use anyhow::Result;
use leakprobe::cli::Explain;
use leakprobe::diagnose::pages::{PAGES, page};

/// An id that no finding has.
#[derive(Debug, thiserror::Error)]
#[error("no finding has the id {id:?}; leakprobe explain lists all")]
pub struct NoSuchFinding {
    id: String,
}

/// Writes what was asked for to standard output.
pub fn explain(arguments: &Explain) -> Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    match &arguments.id {
        Some(id) => {
            let page = page(id).ok_or_else(|| NoSuchFinding { id: id.clone() })?;
            out.write_all(page.text.as_bytes())?;
        }
        None => {
            let columns = PAGES.iter().map(|page| page.id.len()).max().unwrap_or(0);
            for page in PAGES {
                writeln!(out, "{:columns$}  {}", page.id, page.title())?;
            }
        }
    }
    Ok(out.flush()?)
}
