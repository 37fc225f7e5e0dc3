//! Sanitizers of C, C++ and Rust programs: what they add to the program's own memory. Go's race detector has a rule of
//! its own.

use super::{Confidence, Facts, Finding, is_percent_of};
use crate::claim::Component;

/// From here on, with [`COST_MIN_PERCENT`] of the RSS, what a sanitizer adds is worth a word.
const COST_MIN_BYTES: u64 = 8 << 20;
const COST_MIN_PERCENT: u64 = 20;

/// A sanitizer by its rows.
struct Sanitizer {
    name: &'static str,
    flag: &'static str,
    /// What it adds: the heap it has in its place is the program's own.
    adds: &'static [Component],
}

const SANITIZERS: [Sanitizer; 5] = [
    Sanitizer {
        name: "AddressSanitizer",
        flag: "-fsanitize=address",
        adds: &[Component::AsanShadow, Component::AsanQuarantine, Component::AsanRuntime],
    },
    Sanitizer {
        name: "MemorySanitizer",
        flag: "-fsanitize=memory",
        adds: &[Component::MsanShadow, Component::MsanOrigins, Component::MsanRuntime],
    },
    Sanitizer {
        name: "HWAddressSanitizer",
        flag: "-fsanitize=hwaddress",
        adds: &[Component::HwasanShadow, Component::HwasanRuntime],
    },
    Sanitizer { name: "LeakSanitizer", flag: "-fsanitize=leak", adds: &[Component::LsanRuntime] },
    Sanitizer {
        name: "ThreadSanitizer",
        flag: "-fsanitize=thread",
        adds: &[Component::TsanShadow, Component::TsanMeta, Component::TsanRuntime],
    },
];

pub(super) fn build(facts: &Facts<'_>) -> Option<Finding> {
    SANITIZERS.iter().filter(|_| !facts.is_go).find_map(|sanitizer| sanitizer.finding(facts))
}

impl Sanitizer {
    fn finding(&self, facts: &Facts<'_>) -> Option<Finding> {
        let sum = facts.sum(|component| self.adds.contains(&component))?;
        let costs = sum.rss_bytes >= COST_MIN_BYTES
            && is_percent_of(sum.rss_bytes, facts.rss_bytes, COST_MIN_PERCENT);
        if !costs && !facts.is_notable_growth(sum.growth_bytes) {
            return None;
        }
        let name = self.name;
        let quarantine_fills = facts.gained_bytes(Component::AsanQuarantine)
            > sum.growth_bytes.unwrap_or(0) / 2
            && facts.is_notable_growth(sum.growth_bytes);
        let percent = sum.rss_bytes as f64 / facts.rss_bytes.max(1) as f64 * 100.0;
        let mut evidence = vec![
            format!("{name}'s runtime and its fixed address ranges are in the process"),
            format!("they make {percent:.0} % of what it holds"),
        ];
        evidence.extend(facts.growth_evidence(sum.growth_bytes));
        Some(Finding {
            id: "sanitizer-build".into(),
            owner: sum.largest,
            bytes: sum.rss_bytes,
            growth: sum.growth_bytes,
            summary: match quarantine_fills {
                true => format!("A build with {name}: what was freed waits in its quarantine. No leak."),
                false => format!("A build with {name}: this memory is what its checks cost."),
            },
            confidence: Confidence::Certain,
            evidence,
            remedy: match quarantine_fills {
                true => format!(
                    "Run a build without {}. Until then bound the quarantine: \
                     ASAN_OPTIONS=quarantine_size_mb=16:thread_local_quarantine_size_kb=64.",
                    self.flag
                ),
                false => format!("Run a build without {}: it is made for tests.", self.flag),
            },
            references: Vec::new(),
        })
    }
}
