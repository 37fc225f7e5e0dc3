//! The report as stacks with bytes: what pprof's profile, folded stacks and flame graphs are made of.
//!
//! What is held adds up to RSS, row by row: a row without stacks is one sample. What grew is what is resident now
//! and was not before; what was given back meanwhile is no stack's. Nothing is negative, since pprof adds up without
//! signs and a flame graph has no such width: a residual below zero is left out. The surprise: a heap profile may count
//! more than is resident; then its sites get their shares of what is, below a step that says so.

use std::borrow::Cow;

use super::escape::printable;
use super::{CallSite, ComponentRow, Frame, GoroutineGroup, Report};
use crate::claim::Component;

/// Steps of a stack; of deeper ones the innermost are kept.
const MAX_FRAMES: usize = 256;

/// What the bytes of a stack are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Resident at the end.
    Held,
    /// Resident at the end and not at the start.
    Growth,
}

impl Measure {
    /// What a reader wants first: who makes it grow, where it was watched and grew.
    pub fn usual(report: &Report) -> Self {
        let grew = report.call_sites.iter().any(|site| !site.frames.is_empty());
        if grew { Self::Growth } else { Self::Held }
    }
}

/// Bytes of one owner under one stack.
#[derive(Debug)]
pub struct Sample<'a> {
    /// The owner; none for the residual.
    pub component: Option<Component>,
    /// Innermost first, the owner left out.
    pub steps: Vec<Step<'a>>,
    /// Resident bytes.
    pub held_bytes: u64,
    /// Objects or blocks alive, where they are counted.
    pub objects: u64,
    /// Resident bytes that were not so before.
    pub growth_bytes: u64,
}

/// A step of a stack.
#[derive(Debug)]
pub enum Step<'a> {
    /// Code.
    Code(&'a Frame),
    /// No code: a file, or a remark in parentheses.
    Word(Cow<'a, str>),
}

impl Step<'_> {
    /// Its name, fit for a terminal.
    pub fn name(&self) -> String {
        match self {
            Self::Code(frame) => name(frame),
            Self::Word(word) => printable(word).into_owned(),
        }
    }
}

impl<'a> Sample<'a> {
    /// The owner's id, which is the outermost step.
    pub fn owner(&self) -> &'static str {
        self.component.map_or("residual", Component::id)
    }

    /// The bytes that are meant.
    pub fn bytes(&self, measure: Measure) -> u64 {
        match measure {
            Measure::Held => self.held_bytes,
            Measure::Growth => self.growth_bytes,
        }
    }

    fn of(component: Component, steps: Vec<Step<'a>>) -> Self {
        Self { component: Some(component), steps, held_bytes: 0, objects: 0, growth_bytes: 0 }
    }
}

/// The function, or where the code lies.
pub fn name(frame: &Frame) -> String {
    match (&frame.function, &frame.module) {
        (Some(function), _) => printable(function).into_owned(),
        (None, Some(module)) => {
            let file = module.rsplit('/').next().unwrap_or(module);
            format!("{:#x} [{}]", frame.address, printable(file))
        }
        (None, None) => format!("{:#x}", frame.address),
    }
}

/// All samples, row by row.
pub fn samples(report: &Report) -> Vec<Sample<'_>> {
    let mut samples = Vec::new();
    for row in &report.components {
        held(report, row, &mut samples);
        grown(report, row, &mut samples);
    }
    if let Ok(bytes @ 1..) = u64::try_from(report.residual) {
        samples.push(Sample {
            component: None,
            steps: Vec::new(),
            held_bytes: bytes,
            objects: 0,
            growth_bytes: 0,
        });
    }
    samples
}

fn held<'a>(report: &'a Report, row: &'a ComponentRow, samples: &mut Vec<Sample<'a>>) {
    let first = samples.len();
    match row.id {
        Component::GoHeapInUse => samples.extend(report.heap_profile.sites.iter().map(|site| Sample {
            held_bytes: site.bytes,
            objects: site.objects,
            ..Sample::of(row.id, steps(&site.frames, site.note.as_deref()))
        })),
        Component::GoStacks => samples.extend(report.goroutines.iter().map(|group| Sample {
            held_bytes: group.stack_rss,
            objects: group.count,
            ..Sample::of(row.id, goroutine_steps(group))
        })),
        _ => samples.extend(row.files.iter().map(|file| {
            let path = file.path.as_deref().unwrap_or("(smaller files)");
            let steps = vec![Step::Word(Cow::Borrowed(path))];
            Sample { held_bytes: file.rss, ..Sample::of(row.id, steps) }
        })),
    }
    let told_bytes = samples[first..].iter().map(|sample| u128::from(sample.held_bytes)).sum();
    if told_bytes > u128::from(row.rss) {
        share_out(row.rss, told_bytes, &mut samples[first..]);
    }
    let left_bytes = row.rss - samples[first..].iter().map(|sample| sample.held_bytes).sum::<u64>();
    let counted = samples[first..].iter().map(|sample| sample.objects).fold(0, u64::saturating_add);
    let objects = objects(report, row).saturating_sub(counted);
    if left_bytes > 0 || objects > 0 {
        let rest = (samples.len() > first).then(|| Step::Word(Cow::Borrowed(rest_of(row))));
        let rest = Sample::of(row.id, rest.into_iter().collect());
        samples.push(Sample { held_bytes: left_bytes, objects, ..rest });
    }
}

/// Gives each its share of what is resident; what rounding leaves goes to the first one.
fn share_out(resident_bytes: u64, told_bytes: u128, samples: &mut [Sample<'_>]) {
    let mut left_bytes = resident_bytes;
    for sample in &mut *samples {
        sample.held_bytes = share(sample.held_bytes, resident_bytes, told_bytes);
        sample.steps.push(Step::Word(Cow::Borrowed("(its share of what is resident)")));
        left_bytes -= sample.held_bytes;
    }
    if let Some(first) = samples.first_mut() {
        first.held_bytes += left_bytes;
    }
}

/// What a row's bytes are that no site or file explains.
fn rest_of(row: &ComponentRow) -> &'static str {
    match row.id {
        Component::GoHeapInUse => "(in no object of the heap profile)",
        Component::GoStacks => "(in no listed goroutine's stack)",
        _ => "(in no file)",
    }
}

/// What is alive in a row, where something counted it.
fn objects(report: &Report, row: &ComponentRow) -> u64 {
    match (row.id, &report.malloc) {
        (Component::GoHeapInUse, _) => report.heap_profile.in_use_objects.unwrap_or(0),
        (Component::GoStacks, _) => report.goroutine_totals.map_or(0, |totals| totals.count),
        (Component::CHeapInUse, Some(malloc)) => malloc.in_use.blocks + malloc.mapped.blocks,
        _ => 0,
    }
}

fn grown<'a>(report: &'a Report, row: &'a ComponentRow, samples: &mut Vec<Sample<'a>>) {
    let first = samples.len();
    let sites = report.call_sites.iter().filter(|site| site.component == row.id);
    let sample = |site: &'a CallSite| Sample {
        growth_bytes: site.bytes,
        ..Sample::of(row.id, steps(&site.frames, site.note.as_deref()))
    };
    samples.extend(sites.map(sample));
    let told_bytes = samples[first..].iter().map(|sample| sample.growth_bytes).sum::<u64>();
    let growth_bytes = row.growth.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0);
    let left_bytes = growth_bytes.saturating_sub(told_bytes);
    if left_bytes > 0 {
        let rest = Sample::of(row.id, vec![Step::Word(Cow::Borrowed("(without a stack)"))]);
        samples.push(Sample { growth_bytes: left_bytes, ..rest });
    }
}

/// What the goroutines do, and outermost the `go` statement they come from.
fn goroutine_steps(group: &GoroutineGroup) -> Vec<Step<'_>> {
    let mut steps = steps(&group.frames, None);
    steps.extend(group.created_by.as_ref().map(Step::Code));
    steps
}

/// The stack, with what is to be said of it at its outer end: there it ends early, or has no frames.
fn steps<'a>(frames: &'a [Frame], note: Option<&str>) -> Vec<Step<'a>> {
    let kept = &frames[..frames.len().min(MAX_FRAMES)];
    let mut steps: Vec<Step<'a>> = kept.iter().map(Step::Code).collect();
    if kept.len() < frames.len() {
        steps.push(Step::Word(Cow::Owned(format!("({} more callers)", frames.len() - kept.len()))));
    }
    steps.extend(note.map(|note| Step::Word(Cow::Owned(format!("({note})")))));
    steps
}

/// `bytes` × `part` / `whole`, rounded down.
fn share(bytes: u64, part: u64, whole: u128) -> u64 {
    u64::try_from(u128::from(bytes) * u128::from(part) / whole.max(1)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_without_a_name_says_where_it_lies() {
        let frame =
            Frame { address: 0x1234, module: Some("/lib/libx\x1b.so.1".to_owned()), ..Frame::default() };
        assert_eq!(name(&frame), "0x1234 [libx\\x1b.so.1]");
        assert_eq!(name(&Frame { module: None, ..frame.clone() }), "0x1234");
        assert_eq!(name(&Frame { function: Some("a\nb".to_owned()), ..frame }), "a\\nb");
    }

    #[test]
    fn a_stack_too_deep_keeps_its_inner_end() {
        let frames = vec![Frame::default(); MAX_FRAMES + 7];
        let steps = steps(&frames, Some("the stack ends early"));
        assert_eq!(steps.len(), MAX_FRAMES + 2);
        assert_eq!(steps[MAX_FRAMES].name(), "(7 more callers)");
        assert_eq!(steps[MAX_FRAMES + 1].name(), "(the stack ends early)");
    }

    #[test]
    fn shares_do_not_overflow() {
        assert_eq!(share(u64::MAX, u64::MAX, u128::from(u64::MAX)), u64::MAX);
        assert_eq!(share(10, 3, 4), 7);
        assert_eq!(share(0, 0, 0), 0);
    }
}
