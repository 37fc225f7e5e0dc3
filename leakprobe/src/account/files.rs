//! What the rows of files and shared memory are made of, at the window's two ends, and the names of large variables.

use std::collections::BTreeMap;

use crate::attribute::files::{self, FileName, FileUse, Part, Variable, largest};
use crate::attribute::ledger::Ledger;
use crate::claim::Component;
use crate::look::Look;
use crate::report::{FileRow, PartRow, VariableRow};
use crate::symbolize::variables;
use crate::target::modules::Module;

/// Files listed in a row; the rest is summed up.
const MAX_FILES: usize = 1000;
/// A .bss of which this much is resident is worth looking into.
const LARGE_BSS_BYTES: u64 = 1 << 20;
/// Variables listed of a file.
const MAX_VARIABLES: usize = 10;

/// What is resident of each file.
#[derive(Default)]
pub struct Files {
    end: BTreeMap<FileName, FileUse>,
    start: Option<BTreeMap<FileName, FileUse>>,
    variables: Vec<(Component, VariableRow)>,
}

impl Files {
    /// Divides the rows of both ledgers, each drawn up of its look.
    pub fn of(start: Option<(&Look, &Ledger)>, end: (&Look, &Ledger), modules: &[Module]) -> Self {
        let uses =
            |(look, ledger): (&Look, &Ledger)| files::uses(&look.snapshot, ledger, modules, &look.in_memory);
        let at_end = uses(end);
        let variables = large_variables(&at_end, end.0, modules);
        Self { end: at_end, start: start.map(uses), variables }
    }

    /// Text, data and .bss of a row; empty of rows that are nothing of the kind.
    pub fn parts(&self, component: Component) -> Vec<PartRow> {
        if !matches!(component, Component::FileExe | Component::FileLibs) {
            return Vec::new();
        }
        let sum = |uses: &BTreeMap<FileName, FileUse>, part: Part| -> u64 {
            let own = uses.iter().filter(|(name, _)| name.component == component);
            own.filter_map(|(_, found)| found.parts.get(&part)).sum()
        };
        let part = |part: Part| {
            let rss = sum(&self.end, part);
            let before = self.start.as_ref().map(|start| sum(start, part));
            PartRow { what: part.word().into(), rss, growth: before.map(|before| super::signed(rss, before)) }
        };
        Part::ALL.into_iter().map(part).collect()
    }

    /// The files of a row, largest first, those included that are no longer resident.
    pub fn files(&self, component: Component) -> Vec<FileRow> {
        let own = |(name, _): &(&FileName, &FileUse)| name.component == component;
        let mut rows: Vec<FileRow> =
            self.end.iter().filter(own).map(|(name, found)| self.row(name, found)).collect();
        let gone = self.start.iter().flatten().filter(own).filter(|(name, _)| !self.end.contains_key(*name));
        rows.extend(gone.map(|(name, before)| FileRow {
            mappings: 0,
            rss: 0,
            growth: Some(super::signed(0, before.rss_bytes())),
            copied: 0,
            reclaimable: 0,
            ..self.row(name, before)
        }));
        rows.sort_by(|a, b| b.rss.cmp(&a.rss).then_with(|| a.path.cmp(&b.path)));
        let smaller = rows.split_off(rows.len().min(MAX_FILES));
        rows.extend(sum_up(&smaller));
        rows
    }

    /// What the kernel can drop of a row.
    pub fn reclaimable_bytes(&self, component: Component) -> u64 {
        let own = self.end.iter().filter(|(name, _)| name.component == component);
        own.map(|(_, found)| found.reclaimable_bytes).sum()
    }

    /// The largest variables of a row whose .bss is large.
    pub fn variables(&self, component: Component) -> Vec<VariableRow> {
        let own = self.variables.iter().filter(|(owner, _)| *owner == component);
        own.map(|(_, variable)| variable.clone()).collect()
    }

    fn row(&self, name: &FileName, found: &FileUse) -> FileRow {
        let rss = found.rss_bytes();
        let before = self.start.as_ref().map(|start| start.get(name).map_or(0, FileUse::rss_bytes));
        FileRow {
            path: Some(name.path.clone()),
            kind: Some(found.backing),
            files: 1,
            mappings: found.mappings,
            rss,
            growth: before.map(|before| super::signed(rss, before)),
            copied: found.parts.get(&Part::Data).copied().unwrap_or(0),
            reclaimable: found.reclaimable_bytes,
            deleted: name.is_deleted,
            shared: found.is_shared,
        }
    }
}

fn sum_up(rows: &[FileRow]) -> Option<FileRow> {
    let sum = |figure: fn(&FileRow) -> u64| rows.iter().map(figure).sum();
    (!rows.is_empty()).then(|| FileRow {
        path: None,
        kind: None,
        files: rows.len() as u64,
        mappings: sum(|row| row.mappings),
        rss: sum(|row| row.rss),
        growth: rows.iter().map(|row| row.growth).sum(),
        copied: sum(|row| row.copied),
        reclaimable: sum(|row| row.reclaimable),
        deleted: rows.iter().all(|row| row.deleted),
        shared: rows.iter().all(|row| row.shared),
    })
}

/// The largest variables of each file whose .bss is large.
fn large_variables(
    uses: &BTreeMap<FileName, FileUse>,
    end: &Look,
    modules: &[Module],
) -> Vec<(Component, VariableRow)> {
    let mut found: Vec<(Component, VariableRow)> = Vec::new();
    for (name, file) in uses {
        let bss_bytes = file.parts.get(&Part::Bss).copied().unwrap_or(0);
        let module = modules.iter().find(|module| module.path == name.path);
        let Some(module) = module.filter(|_| bss_bytes >= LARGE_BSS_BYTES) else { continue };
        let row =
            |name: Option<String>, size, rss| VariableRow { name, path: module.path.clone(), size, rss };
        let bss = module.elf.bss_ranges(module.load_bias);
        let rows: Vec<VariableRow> = match variables::within(module, &bss) {
            Some(variables) => {
                let largest: Vec<(Variable, u64)> = largest(variables, &end.snapshot.runs, MAX_VARIABLES);
                let row = |(variable, rss): (Variable, u64)| {
                    row(Some(variable.name), variable.range.len_bytes(), rss)
                };
                largest.into_iter().map(row).collect()
            }
            None => vec![row(None, bss.iter().map(|range| range.len_bytes()).sum(), bss_bytes)],
        };
        found.extend(rows.into_iter().map(|row| (name.component, row)));
    }
    found.sort_by(|a, b| b.1.rss.cmp(&a.1.rss).then_with(|| a.1.name.cmp(&b.1.name)));
    found
}
