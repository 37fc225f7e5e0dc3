//! Owners as people see them: the race detector's three components are one, and each has a name for a
//! table, for a narrow column and for a sentence.
//!
//! Sums over an owner are made here, once, for the headline and the table. The surprise: the growth of an
//! owner is unknown as soon as that of one of its rows is.

use std::cmp::Reverse;

use crate::claim::Component;
use crate::report::ComponentRow;

/// Who holds memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// TSan's shadow, meta and own allocations.
    RaceDetector,
    /// Any other component.
    One(Component),
}

impl Owner {
    /// The owner a component belongs to.
    pub fn of(component: Component) -> Self {
        if component.is_tsan() { Self::RaceDetector } else { Self::One(component) }
    }

    /// For a column of [`SHORT_COLUMNS`].
    pub const fn short(self) -> &'static str {
        match self {
            Self::RaceDetector => "Race detector",
            Self::One(Component::GoHeapInUse) => "Go heap",
            Self::One(Component::GoHeapIdle) => "Go heap, idle",
            Self::One(Component::GoStacks) => "Go stacks",
            Self::One(Component::GoMmap) => "Go mmap",
            Self::One(Component::CHeapInUse) => "C heap",
            Self::One(Component::CHeapFree) => "C heap, free",
            Self::One(Component::CMmap) => "Native mmap",
            Self::One(Component::TsanHeap) => "TSan C heap",
            Self::One(Component::AsanHeap) => "ASan C heap",
            Self::One(Component::AsanQuarantine) => "ASan freed",
            Self::One(Component::MsanHeap) => "MSan C heap",
            Self::One(Component::HwasanHeap) => "HWASan C heap",
            Self::One(Component::LsanHeap) => "LSan C heap",
            Self::One(Component::PythonHeap) => "Python heap",
            Self::One(Component::FileLibs) => "Libraries",
            Self::One(Component::FileMapped) => "Mapped files",
            Self::One(Component::Shmem) => "Shared memory",
            Self::One(component) => component.label(),
        }
    }

    /// For a sentence: the name, and whether it takes a verb in the plural.
    pub const fn in_sentence(self) -> (&'static str, bool) {
        match self {
            Self::RaceDetector => ("the race detector (TSan)", false),
            Self::One(component) => match component {
                Component::GoHeapInUse => ("the Go heap", false),
                Component::GoHeapIdle => ("the idle Go heap", false),
                Component::GoStacks => ("goroutine stacks", true),
                Component::GoRuntime => ("the Go runtime", false),
                Component::GoMmap => ("memory mapped by Go code", false),
                Component::TsanShadow | Component::TsanMeta | Component::TsanRuntime => ("TSan", false),
                Component::TsanHeap => ("the C heap under TSan", false),
                Component::AsanShadow => ("ASan's shadow", false),
                Component::AsanHeap => ("the C heap under ASan", false),
                Component::AsanQuarantine => ("freed memory in ASan's quarantine", false),
                Component::AsanRuntime => ("ASan", false),
                Component::MsanShadow => ("MSan's shadow", false),
                Component::MsanOrigins => ("MSan's origins", true),
                Component::MsanHeap => ("the C heap under MSan", false),
                Component::MsanRuntime => ("MSan", false),
                Component::HwasanShadow => ("HWASan's shadow", false),
                Component::HwasanHeap => ("the C heap under HWASan", false),
                Component::HwasanRuntime => ("HWASan", false),
                Component::LsanHeap => ("the C heap under LSan", false),
                Component::LsanRuntime => ("LSan", false),
                Component::CHeapInUse => ("the C heap (malloc)", false),
                Component::CHeapFree => ("freed memory that malloc keeps", false),
                Component::CMmap => ("memory mapped by native code", false),
                Component::PythonHeap => ("Python's small objects", true),
                Component::V8Heap => ("the V8 heap", false),
                Component::JvmHeap => ("the Java heap", false),
                Component::JvmRuntime => ("the Java virtual machine", false),
                Component::ThreadStacks => ("thread stacks", true),
                Component::FileExe => ("the executable", false),
                Component::FileLibs => ("shared libraries", true),
                Component::FileMapped => ("mapped files", true),
                Component::Shmem => ("shared memory", false),
                Component::KernelSpecial => ("the vdso", false),
                Component::AnonUnknown => ("memory nothing explains", false),
            },
        }
    }
}

impl Owner {
    /// What this memory is for, where nothing is the matter with it: a sentence.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::RaceDetector => "Most of it is what the race detector keeps of what it saw.",
            Self::One(component) => match component {
                Component::GoHeapInUse => "Most of it is live objects, and garbage not yet collected.",
                Component::GoHeapIdle => "Most of it was freed, and waits for new objects.",
                Component::GoStacks => "Most of it is stacks of goroutines, and those kept for new ones.",
                Component::GoRuntime => "Most of it is what the Go runtime knows of its heap.",
                Component::GoMmap => "Most of it is memory that Go code mapped and holds.",
                Component::CHeapInUse
                | Component::TsanHeap
                | Component::AsanHeap
                | Component::MsanHeap
                | Component::HwasanHeap
                | Component::LsanHeap => "Most of it is blocks that the program has not freed.",
                Component::TsanShadow
                | Component::TsanMeta
                | Component::TsanRuntime
                | Component::AsanShadow
                | Component::AsanQuarantine
                | Component::AsanRuntime
                | Component::MsanShadow
                | Component::MsanOrigins
                | Component::MsanRuntime
                | Component::HwasanShadow
                | Component::HwasanRuntime
                | Component::LsanRuntime => "Most of it is what the sanitizer needs to check the program.",
                Component::CHeapFree => "Most of it was freed, and malloc keeps it for the next blocks.",
                Component::CMmap => "Most of it is memory that native code mapped and holds.",
                Component::PythonHeap => "Most of it is Python's objects, and room for more beside them.",
                Component::V8Heap | Component::JvmHeap => {
                    "Most of it is live objects, and garbage not yet collected."
                }
                Component::JvmRuntime => "Most of it is classes, compiled code and tables of the Java VM.",
                Component::ThreadStacks => "Most of it is what calls once touched of the threads' stacks.",
                Component::FileExe | Component::FileLibs => {
                    "Most of it is code and constants, which the kernel can reread."
                }
                Component::FileMapped => "Most of it is pages of files, which the kernel can drop or write.",
                Component::Shmem => "Most of it is shared: it stays until nobody maps it or names it.",
                Component::KernelSpecial => "Most of it is the kernel's.",
                Component::AnonUnknown => "Whose it is, nothing says.",
            },
        }
    }
}

/// Columns of the longest [`Owner::short`].
pub const SHORT_COLUMNS: usize = 13;

/// An owner with its rows.
#[derive(Clone, Debug)]
pub struct Account<'a> {
    /// Who.
    pub owner: Owner,
    /// The rows, largest first.
    pub rows: Vec<&'a ComponentRow>,
    /// Resident bytes.
    pub rss_bytes: u64,
    /// Their growth in the window.
    pub growth_bytes: Option<i64>,
}

impl Account<'_> {
    /// The growth, if there was any.
    pub fn grown_bytes(&self) -> Option<u64> {
        self.growth_bytes.and_then(|bytes| u64::try_from(bytes).ok()).filter(|bytes| *bytes > 0)
    }
}

/// The owners, largest first.
pub fn accounts(rows: &[ComponentRow]) -> Vec<Account<'_>> {
    let mut accounts: Vec<Account<'_>> = Vec::new();
    for row in rows {
        let owner = Owner::of(row.id);
        if let Some(account) = accounts.iter_mut().find(|account| account.owner == owner) {
            account.rss_bytes = account.rss_bytes.saturating_add(row.rss);
            account.growth_bytes =
                account.growth_bytes.zip(row.growth).map(|(sum, more)| sum.saturating_add(more));
            account.rows.push(row);
        } else {
            accounts.push(Account { owner, rows: vec![row], rss_bytes: row.rss, growth_bytes: row.growth });
        }
    }
    for account in &mut accounts {
        account.rows.sort_by_key(|row| Reverse(row.rss));
    }
    accounts.sort_by_key(|account| Reverse(account.rss_bytes));
    accounts
}

/// The one that grew most, and all growth of those that grew: the whole of which it has a share.
pub fn top_grower<'a, 'b>(accounts: &'b [Account<'a>]) -> Option<(&'b Account<'a>, u64)> {
    let grown_bytes = accounts.iter().filter_map(Account::grown_bytes).fold(0, u64::saturating_add);
    let top =
        accounts.iter().filter(|account| account.grown_bytes().is_some()).max_by_key(|it| it.growth_bytes)?;
    Some((top, grown_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_memory_is_for_fits_the_third_line() {
        for owner in Component::ALL.map(Owner::of) {
            let line = format!("Nothing grows. {}", owner.meaning());
            assert!(line.chars().count() <= 80 && line.ends_with('.'), "{line}");
        }
    }

    #[test]
    fn short_names_fit_their_column() {
        let owners = Component::ALL.map(Owner::of);
        assert_eq!(owners.iter().map(|owner| owner.short().len()).max(), Some(SHORT_COLUMNS));
    }
}
