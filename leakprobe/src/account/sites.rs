//! The call sites of the report: stacks with names, and those that are too small to list summed up.
//!
//! The surprise: how far a row of a sample can be off is worked out when all stacks of a row are known, since two that
//! become one are better known together.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::Account;
use crate::attribute::sampling::Sampled;
use crate::attribute::sites::{Cause, RawCallSite};
use crate::claim::{Component, Word};
use crate::report::{CallSite, FAULTS, Frame, SMALLER_SITES, THREAD_CREATION};
use crate::symbolize::Symbolizer;
use crate::trace::recording::{Ending, Recording};

/// Stacks that get names, the largest first: naming some thousands takes a fraction of a second.
const MAX_NAMED_STACKS: usize = 8192;
/// Call sites in the report; the rest is summed up by component.
const MAX_CALL_SITES: usize = 2000;
/// Of them, sites that another source than faults tells of.
const MAX_RETOLD_SITES: usize = 1000;

/// A row, and what its faults say of all of the component's.
type Row = (CallSite, Sampled);

impl Account {
    /// The call sites with names, largest first: stacks through the same lines are one. What is beyond
    /// the first ones is summed up by component.
    pub fn named_sites(&self, recording: &Recording, symbolizer: &mut Symbolizer<'_>) -> Vec<CallSite> {
        let raw = &self.sites.rows;
        let (named, unnamed) = raw.split_at(raw.len().min(MAX_NAMED_STACKS));
        let mut merged: HashMap<SiteKey, Row> = HashMap::new();
        for site in named {
            let stack = site.stack.map(|stack| recording.stack(stack));
            let frames = stack.map_or_else(Vec::new, |stack| symbolizer.frames(stack.code_addrs()));
            let (row, sampled) = without_frames(site);
            let note = site.note.map(Word::from).or_else(|| early_end(stack?.ending, &frames));
            let row = CallSite { frames, note, ..row };
            merge(&mut merged, SiteKey::of(&row), (row, sampled));
        }
        let mut rows: Vec<Row> = merged.into_values().collect();
        sort_by(&mut rows, |(site, _)| site);
        let mut smaller: HashMap<SiteKey, Row> = HashMap::new();
        let cut = rows.split_off(rows.len().min(MAX_CALL_SITES));
        for (site, sampled) in cut.into_iter().chain(unnamed.iter().map(without_frames)) {
            let site = CallSite { frames: Vec::new(), cause: None, note: Some(SMALLER_SITES.into()), ..site };
            merge(&mut smaller, SiteKey::of(&site), (site, sampled));
        }
        let rows = rows.into_iter().chain(smaller.into_values());
        let mut sites: Vec<CallSite> = rows.map(|row| self.with_error(row)).collect();
        sort(&mut sites);
        sites
    }

    fn with_error(&self, (site, sampled): Row) -> CallSite {
        let faults = self.sites.faults.get(&site.component);
        let error_bytes = faults.filter(|_| !sampled.is_empty()).and_then(|all| all.error_bytes(&sampled));
        CallSite { error_bytes, ..site }
    }
}

/// Another source than faults, which knows better whose one component's new bytes are.
pub struct Retold {
    /// The component.
    pub component: Component,
    /// The source, as in the JSON.
    pub source: &'static str,
    /// The note of what that source does not explain.
    pub rest: &'static str,
}

/// The call sites with one component's retold: `gained`, most bytes first, each named by `frames`. What is too small to
/// list, and what became resident beyond them, is summed up.
pub fn retold<T>(
    faults: Vec<CallSite>,
    told: &Retold,
    gained: &[(T, u64)],
    mut frames: impl FnMut(&T) -> Vec<Frame>,
) -> Vec<CallSite> {
    let resident_bytes = bytes_of(&faults, told.component);
    let mut sites: Vec<CallSite> =
        faults.into_iter().filter(|site| site.component != told.component).collect();
    let site = |bytes, frames, note: Option<&'static str>| CallSite {
        component: told.component,
        source: told.source.into(),
        cause: None,
        bytes,
        error_bytes: None,
        lazy_free: 0,
        faults: 0,
        weight: 0.0,
        frames,
        note: note.map(Into::into),
    };
    let (listed, smaller) = gained.split_at(gained.len().min(MAX_RETOLD_SITES));
    sites.extend(listed.iter().map(|(it, bytes)| site(*bytes, frames(it), None)));
    let sum = |all: &[(T, u64)]| all.iter().fold(0, |sum: u64, (_, bytes)| sum.saturating_add(*bytes));
    for (bytes, note) in
        [(sum(smaller), SMALLER_SITES), (resident_bytes.saturating_sub(sum(gained)), told.rest)]
    {
        sites.extend((bytes > 0).then(|| site(bytes, Vec::new(), Some(note))));
    }
    sort(&mut sites);
    sites
}

/// What of the component became resident, by these sites.
pub fn bytes_of(sites: &[CallSite], component: Component) -> u64 {
    let of_component = sites.iter().filter(|site| site.component == component);
    of_component.map(|site| site.bytes).fold(0, u64::saturating_add)
}

/// Largest first, and in the same order every time.
pub fn sort(sites: &mut [CallSite]) {
    sort_by(sites, |site| site);
}

fn sort_by<T>(rows: &mut [T], site: impl Fn(&T) -> &CallSite) {
    rows.sort_by(|a, b| {
        let (a, b) = (site(a), site(b));
        let by_place = || a.frames.iter().map(|f| f.address).cmp(b.frames.iter().map(|f| f.address));
        b.bytes.cmp(&a.bytes).then_with(|| a.component.cmp(&b.component)).then_with(by_place)
    });
}

/// What makes two call sites one: the component, the lines, how the stack ends.
#[derive(PartialEq, Eq, Hash)]
struct SiteKey {
    component: Component,
    lines: Vec<(Option<String>, Option<String>, Option<u32>)>,
    note: Option<Word>,
}

impl SiteKey {
    fn of(site: &CallSite) -> Self {
        // Code without a name is told apart by its address.
        let function =
            |frame: &Frame| frame.function.clone().or_else(|| Some(format!("{:#x}", frame.address)));
        let lines =
            site.frames.iter().map(|frame| (function(frame), frame.file.clone(), frame.line)).collect();
        Self { component: site.component, lines, note: site.note.clone() }
    }
}

fn merge(rows: &mut HashMap<SiteKey, Row>, key: SiteKey, (site, sampled): Row) {
    match rows.entry(key) {
        Entry::Vacant(place) => {
            place.insert((site, sampled));
        }
        Entry::Occupied(mut place) => {
            let (kept, kept_sampled) = place.get_mut();
            let faults = kept.faults + site.faults;
            let stood_for = kept.weight * kept.faults as f64 + site.weight * site.faults as f64;
            kept.weight = if faults == 0 { 0.0 } else { stood_for / faults as f64 };
            kept.bytes += site.bytes;
            kept.lazy_free += site.lazy_free;
            kept.faults = faults;
            kept_sampled.merge(&sampled);
        }
    }
}

/// Why a stack ends early, where it does.
fn early_end(ending: Ending, frames: &[Frame]) -> Option<Word> {
    let module = || frames.last()?.module.as_deref()?.rsplit('/').next();
    let in_file = |module: &str| Word::from(format!("{} in {module}", ending.words()));
    match ending {
        Ending::Root => None,
        Ending::NoTables => Some(module().map_or(ending.words().into(), in_file)),
        _ => Some(ending.words().into()),
    }
}

fn without_frames(site: &RawCallSite) -> Row {
    let row = CallSite {
        component: site.component,
        source: if site.cause == Cause::NewThread { THREAD_CREATION } else { FAULTS }.into(),
        cause: site.cause.word().map(Into::into),
        bytes: site.bytes,
        error_bytes: None,
        lazy_free: site.lazy_free_bytes,
        faults: site.faults,
        weight: site.weight,
        frames: Vec::new(),
        note: site.note.map(Into::into),
    };
    (row, site.sampled)
}
