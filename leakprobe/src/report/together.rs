//! The processes of a cgroup, each with its ledger, and their sum.
//!
//! The surprise: pages that several of them share are in the RSS of each, so the sum is more than there is. It is not
//! corrected, for no row could be; what the kernel divides among those who share (PSS) stands beside it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CgroupMemory, ComponentRow, Report, Tool};
use crate::claim::{Component, Gap, Word};

/// Name and version of the JSON form.
pub const SCHEMA: &str = "leakprobe.cgroup/1";

/// All processes of a cgroup.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Together {
    /// Always [`SCHEMA`].
    pub schema: Word,
    /// Which leakprobe this was.
    pub tool: Tool,
    /// The cgroup's path.
    pub cgroup: String,
    /// What its memory controller charges it with; null where there is none.
    pub memory: Option<CgroupMemory>,
    /// The sum of the processes' RSS.
    pub rss: u64,
    /// The sum of their PSS: what they share with each other or with anybody else is divided by the number of those who
    /// have it. Null where the kernel does not say.
    pub pss: Option<u64>,
    /// The sum of their ledgers, largest first.
    pub components: Vec<Sum>,
    /// What the rows do not add up to.
    pub residual: i64,
    /// Each of them, largest first.
    pub processes: Vec<Share>,
    /// Those that could not be looked at.
    pub gaps: Vec<Gap>,
}

/// A row of the summed ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Sum {
    /// The owner.
    pub id: Component,
    /// Its name for people.
    pub label: Word,
    /// Resident bytes in all processes.
    pub rss: u64,
}

/// One of the processes.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Share {
    /// Process id.
    pub pid: i32,
    /// The kernel's short name of it.
    pub comm: String,
    /// Path of its executable.
    pub exe: String,
    /// Resident bytes.
    pub rss: u64,
    /// Its PSS; null where the kernel does not say.
    pub pss: Option<u64>,
    /// Its ledger.
    pub components: Vec<ComponentRow>,
    /// What its rows do not add up to.
    pub residual: i64,
}

impl Together {
    /// Sums up what was found of each process, with its PSS.
    pub fn of(
        tool: Tool,
        cgroup: String,
        memory: Option<CgroupMemory>,
        reports: Vec<(Report, Option<u64>)>,
        gaps: Vec<Gap>,
    ) -> Self {
        let share = |(report, pss): (Report, Option<u64>)| Share {
            pid: report.target.pid,
            comm: report.target.comm,
            exe: report.target.exe,
            rss: report.rss.end,
            pss,
            components: report.components,
            residual: report.residual,
        };
        let mut processes: Vec<Share> = reports.into_iter().map(share).collect();
        processes.sort_by(|one, other| other.rss.cmp(&one.rss).then(one.pid.cmp(&other.pid)));
        let rows = || processes.iter().flat_map(|share| &share.components);
        let held =
            |id: Component| rows().filter(|row| row.id == id).map(|row| row.rss).fold(0, u64::saturating_add);
        let sums = Component::ALL.map(|id| Sum { id, label: id.label().into(), rss: held(id) });
        let mut components: Vec<Sum> = sums.into_iter().filter(|sum| sum.rss > 0).collect();
        components.sort_by(|one, other| other.rss.cmp(&one.rss).then(one.id.cmp(&other.id)));
        Self {
            schema: SCHEMA.into(),
            tool,
            cgroup,
            memory,
            rss: processes.iter().map(|share| share.rss).fold(0, u64::saturating_add),
            pss: processes.iter().map(|share| share.pss).sum(),
            components,
            residual: processes.iter().map(|share| share.residual).fold(0, i64::saturating_add),
            processes,
            gaps,
        }
    }
}
