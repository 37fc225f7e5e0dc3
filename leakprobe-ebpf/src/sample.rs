//! Which events get a stack: on average one in so many, as user space set it, and fewer in a burst.
//!
//! User space looks at the rate some times a second, and much may happen in between: after every
//! [`BURST_STACKS`] stacks of a moment on a processor, the next ones are twice as rare. Each stack says how many
//! events it stands for, so that sums stay right. The surprise: no random number is drawn for an event that gets
//! no stack. How many of those follow is drawn with each stack, which comes to the same and costs a count down.
//! Faults and system calls are sampled apart.

use aya_ebpf::helpers::bpf_get_prandom_u32;
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;

use crate::maps::SETTINGS;

/// Where each processor stands: with system calls, and with faults. Written and read here only.
#[map]
static SAMPLING: PerCpuArray<Sampling> = PerCpuArray::with_max_entries(2, 0);

/// So many nanoseconds are a moment: some 8 ms.
const MOMENT_LOG2: u32 = 23;
/// Stacks of a moment on a processor before they get rarer.
const BURST_STACKS: u32 = 128;
const BURST_LEVELS: u32 = 12;
/// So rare at the most, that nothing below overflows.
const MAX_PERIOD: u32 = 1 << 18;

#[repr(C)]
struct Sampling {
    /// The moment, in units of its length.
    moment: u64,
    /// Events that get no stack before the next one that does.
    skipped: u32,
    /// What the next stack stands for.
    weight: u32,
    /// As user space had set it when `skipped` was drawn.
    period: u32,
    /// Stacks in this moment.
    stacks: u32,
}

/// How many events a stack taken now stands for; 0 for no stack.
#[inline(always)]
pub fn weight(time_ns: u64, is_fault: bool) -> u32 {
    let (Some(sampling), Some(settings)) = (SAMPLING.get_ptr_mut(is_fault as u32), SETTINGS.get(0)) else {
        return 1;
    };
    // SAFETY: the entry is this processor's. A program that interrupts this one here, in a fault of its own, at worst
    // has a stack more or less.
    let sampling = unsafe { &mut *sampling };
    let period = if is_fault { settings.fault_stack_period } else { settings.call_stack_period };
    let period = period.clamp(1, MAX_PERIOD);
    let burst_levels = if settings.is_fixed != 0 { 0 } else { BURST_LEVELS };
    let moment = time_ns >> MOMENT_LOG2;
    // What was drawn for another rate, or in a burst that is over, counts no more.
    let is_valid = sampling.period == period && (sampling.moment == moment || sampling.weight <= period);
    if !is_valid {
        draw(sampling, period, moment, burst_levels);
    }
    if sampling.skipped > 0 {
        sampling.skipped -= 1;
        return 0;
    }
    let weight = sampling.weight;
    sampling.stacks += 1;
    draw(sampling, period, moment, burst_levels);
    weight
}

/// Draws how many events get no stack before the next one: evenly, from none to twice the mean.
#[inline(always)]
fn draw(sampling: &mut Sampling, period: u32, moment: u64, burst_levels: u32) {
    if sampling.moment != moment {
        sampling.moment = moment;
        sampling.stacks = 0;
    }
    let level = (sampling.stacks / BURST_STACKS).min(burst_levels);
    sampling.period = period;
    sampling.weight = period << level;
    sampling.skipped = match sampling.weight {
        1 => 0,
        // SAFETY: the helper takes no pointer.
        weight => (unsafe { bpf_get_prandom_u32() }) % (2 * weight - 1),
    };
}
