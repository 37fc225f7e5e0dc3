//! Which share of the events gets a stack: all while they are rare, and so many a second when they are not.
//!
//! Faults and system calls have a rate each. A storm of faults is no reason to lose the stack of the one mmap
//! behind it.

/// Stacks a second at most, of either kind, so that they cost the target about a per cent of a core: ten thousand in
/// ten seconds.
const STACKS_PER_SECOND: f64 = 1000.0;
/// Weight of the newest tick in the running mean: it follows within some ten ticks.
const SMOOTHING: f64 = 0.2;
/// The sampling rate until the first look at how many there are: the kernel side thins out a burst.
const FIRST_PERIOD: u32 = 1;
/// The sparsest sample.
pub const MAX_PERIOD: u32 = 65_536;

/// Which share of the events is to get a stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StackRate {
    /// As the load allows.
    #[default]
    Auto,
    /// One in so many; all, where that is 1.
    OneIn(u32),
}

impl std::str::FromStr for StackRate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "all" => Ok(Self::OneIn(1)),
            text => {
                let period = text.strip_prefix("1/").and_then(|period| period.parse().ok());
                let period = period.filter(|period| (1..=MAX_PERIOD).contains(period));
                period
                    .map(Self::OneIn)
                    .ok_or_else(|| format!("try auto, all, or 1/N with N up to {MAX_PERIOD}"))
            }
        }
    }
}

/// The rate of one kind of event, adapted to how many there are.
#[derive(Clone, Copy, Debug)]
pub struct Sampler {
    rate: StackRate,
    /// One event in so many gets a stack.
    pub period: u32,
    /// The largest that `period` has been since the window began.
    pub sparsest_period: u32,
    seen: u64,
    per_second: f64,
}

impl Sampler {
    /// Before anything is known.
    pub fn new(rate: StackRate) -> Self {
        let period = match rate {
            StackRate::Auto => FIRST_PERIOD,
            StackRate::OneIn(period) => period,
        };
        Self { rate, period, sparsest_period: period, seen: 0, per_second: 0.0 }
    }

    /// Adapts to `seen` events in all, `elapsed_seconds` after the last time.
    pub fn adapt(&mut self, seen: u64, elapsed_seconds: f64) {
        let new = seen.saturating_sub(self.seen);
        self.seen = seen;
        // A burst is worth its stacks; only what lasts is thinned out.
        self.per_second += SMOOTHING * (new as f64 / elapsed_seconds.max(0.001) - self.per_second);
        if self.rate == StackRate::Auto {
            // A power of two, so that a little noise does not change it all the time.
            let wanted = (self.per_second / STACKS_PER_SECOND).clamp(1.0, f64::from(MAX_PERIOD)) as u32;
            self.period = wanted.next_power_of_two();
        }
        self.sparsest_period = self.sparsest_period.max(self.period);
    }

    /// Whether it is to be kept in a burst, too.
    pub fn is_fixed(&self) -> bool {
        self.rate != StackRate::Auto
    }

    /// The window begins.
    pub fn begin(&mut self) {
        self.sparsest_period = self.period;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_auto_all_or_one_in_so_many() {
        assert_eq!("auto".parse(), Ok(StackRate::Auto));
        assert_eq!("all".parse(), Ok(StackRate::OneIn(1)));
        assert_eq!("1/64".parse(), Ok(StackRate::OneIn(64)));
        for text in ["", "64", "1/0", "1/65537", "2/3", "1/-1"] {
            assert!(text.parse::<StackRate>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_lasts_is_thinned_out_and_a_fixed_rate_is_not_changed() {
        let mut sampler = Sampler::new(StackRate::Auto);
        let mut fixed = Sampler::new(StackRate::OneIn(64));
        for tick in 1..100 {
            sampler.adapt(tick * 20_000, 0.04);
            fixed.adapt(tick * 20_000, 0.04);
        }
        assert_eq!((sampler.period, fixed.period), (512, 64));
        for _ in 0..100 {
            sampler.adapt(99 * 20_000, 0.04);
        }
        assert_eq!((sampler.period, sampler.sparsest_period), (1, 512));
    }
}
