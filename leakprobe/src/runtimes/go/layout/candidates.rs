//! Which layouts a program may have, the likeliest first.
//!
//! Its own debug information comes before the table, since experiments move fields too. Where the table does not know
//! the release, the rows around it stand for it, and the structures in the process decide. The surprise: patch releases
//! can differ as well (1.24.3 and 1.24.11 do), so between two that are known both rows are tried.

use anyhow::{Context as _, Result};

use super::dwarf::Types;
use super::fields::Places;
use super::table::{self, Row};
use super::{GoroutineLayout, Layout, paths};
use crate::claim::Gap;
use crate::runtimes::go::image::Arch;
use crate::target::build_info::GoVersion;
use crate::target::elf::ElfFile;

/// The oldest version whose structures are known at all.
const OLDEST_MINOR: u32 = 19;

/// A layout that may be the program's.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// Of the heap.
    pub heap: Layout,
    /// Of goroutines.
    pub goroutine: GoroutineLayout,
    /// The release it was taken from; `None` where it is the program's own debug information.
    pub release: Option<GoVersion>,
}

impl Candidate {
    fn from_places(arch: Arch, places: &dyn Places, release: Option<GoVersion>) -> Result<Self> {
        let heap = Layout::from_places(arch, places)?;
        Ok(Self { heap, goroutine: GoroutineLayout::from_places(arch, places)?, release })
    }

    /// What has to be said where this turned out to be the layout of a `version` that nobody has looked at: little
    /// where others of its minor version are known.
    pub fn note(&self, version: GoVersion) -> Option<Gap> {
        if is_known(version) {
            return None;
        }
        if let Some(nearest) = nearest_of_minor(version) {
            let how = match self.release {
                Some(release) => format!("like Go {release}"),
                None => "as its debug information says".to_owned(),
            };
            let why = format!("this release was not compared, {nearest} was; read {how}");
            return Some(Gap { what: format!("Go {version}"), why, bytes: None });
        }
        let newest = table::rows().iter().flat_map(|row| row.versions.clone()).max().unwrap_or_default();
        let how = if version > newest { "newer than what leakprobe knows" } else { "not known to leakprobe" };
        let looks = match self.release {
            Some(release) => format!("its heap looks like that of Go 1.{}", release.minor),
            None => "its heap was read as its debug information says".to_owned(),
        };
        Some(Gap { what: format!("Go 1.{}", version.minor), why: format!("{how}; {looks}"), bytes: None })
    }
}

/// Whether the table was made from that release, or from an earlier and a later one of its minor version that are the
/// same.
pub fn is_known(version: GoVersion) -> bool {
    table::rows().iter().any(|row| {
        let patches = || row.versions.iter().filter(|known| known.minor == version.minor);
        patches().any(|known| *known <= version) && patches().any(|known| *known >= version)
    })
}

/// The known release of the same minor version that is the nearest: the last one before, or else the first.
fn nearest_of_minor(version: GoVersion) -> Option<GoVersion> {
    let known: Vec<GoVersion> = table::rows().iter().flat_map(|row| row.versions.clone()).collect();
    let patches = || known.iter().copied().filter(|known| known.minor == version.minor);
    patches().rfind(|known| *known <= version).or_else(|| patches().next())
}

/// The layouts that the program `elf`, built by Go `version`, may have.
///
/// # Errors
/// Where its Go is older than what is known.
pub fn candidates(elf: &ElfFile, version: GoVersion, arch: Arch) -> Result<Vec<Candidate>> {
    let rows = table::rows();
    let likely = likely(&rows, version)
        .with_context(|| format!("Go 1.{} is older than what is known", version.minor))?;
    // Debug information that cannot be read is none: the table knows as well.
    let types = Types::read(elf, &paths()).ok().flatten();
    let own = types.and_then(|types| Candidate::from_places(arch, &types, None).ok());
    let listed = likely.into_iter().filter_map(|row| {
        let release = row.versions.iter().rfind(|known| **known <= version).or(row.versions.first());
        Candidate::from_places(arch, &row.on(arch), release.copied()).ok()
    });
    Ok(own.into_iter().chain(listed).collect())
}

/// The row for `version`, or those around it, the likelier first; `None` before 1.19.
pub fn likely(rows: &[Row], version: GoVersion) -> Option<Vec<&Row>> {
    if version.minor < OLDEST_MINOR {
        return None;
    }
    if let Some(row) = rows.iter().find(|row| row.versions.contains(&version)) {
        return Some(vec![row]);
    }
    let before = rows.iter().rfind(|row| row.versions.iter().any(|known| *known < version));
    let after = rows.iter().find(|row| row.versions.iter().any(|known| *known > version));
    // Before the first known patch release the minor version is nearer than the number.
    let starts_with_it = |row: &&Row| row.versions.iter().any(|known| known.minor == version.minor);
    let pair = match (before, after) {
        (Some(before), Some(after)) if !starts_with_it(&before) => [Some(after), Some(before)],
        pair => [pair.0, pair.1],
    };
    let mut likely: Vec<&Row> = pair.into_iter().flatten().collect();
    likely.dedup_by(|a, b| std::ptr::eq(*a, *b));
    Some(likely)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn releases(version: &str) -> Vec<String> {
        let rows = table::rows();
        let version = GoVersion::parse(version).unwrap();
        likely(&rows, version).unwrap().iter().map(|row| row.versions[0].to_string()).collect()
    }

    #[test]
    fn a_known_release_has_one_row_and_others_have_their_neighbours() {
        assert_eq!(releases("go1.27.3"), ["1.27.0"]);
        assert_eq!(releases("go1.24.7"), ["1.24.3", "1.24.11"], "they differ");
        assert_eq!(releases("go1.23.5"), ["1.23.1"], "between two that do not");
        assert_eq!(releases("go1.21.1"), ["1.21.13", "1.19.8"], "its own minor version first");
        assert_eq!(releases("go1.20.5"), ["1.21.13", "1.19.8"]);
        assert_eq!(releases("devel go1.99-0123abcd"), ["1.27.0"]);
        assert_eq!(likely(&table::rows(), GoVersion { minor: 18, patch: 9 }), None);
    }

    #[test]
    fn only_a_version_that_nobody_looked_at_is_noted() {
        let row = table::rows().pop().unwrap();
        let release = row.versions.last().copied();
        let candidate = Candidate::from_places(Arch::Amd64, &row.on(Arch::Amd64), release).unwrap();
        let note = |minor: u32, patch: u32| candidate.note(GoVersion { minor, patch });
        assert_eq!(
            (note(27, 3), note(27, 0), note(23, 5)),
            (None, None, None),
            "known, or between two alike"
        );
        let said = |minor: u32, patch: u32| {
            let gap = note(minor, patch).unwrap();
            format!("{}: {}", gap.what, gap.why)
        };
        assert_eq!(said(27, 9), "Go 1.27.9: this release was not compared, 1.27.3 was; read like Go 1.27.3");
        assert_eq!(said(22, 5), "Go 1.22.5: this release was not compared, 1.22.10 was; read like Go 1.27.3");
        assert!(said(24, 7).starts_with("Go 1.24.7: this release was not compared, 1.24.3 was"));
        let own = Candidate { release: None, ..candidate };
        let own = own.note(GoVersion { minor: 22, patch: 5 }).unwrap().why;
        assert!(own.ends_with("read as its debug information says"), "{own}");
        let newer = candidate.note(GoVersion { minor: 28, patch: 0 }).unwrap();
        assert_eq!(newer.what, "Go 1.28");
        assert_eq!(newer.why, "newer than what leakprobe knows; its heap looks like that of Go 1.27");
        let between = candidate.note(GoVersion { minor: 20, patch: 5 }).unwrap();
        assert!(between.why.starts_with("not known to leakprobe"), "{}", between.why);
    }
}
