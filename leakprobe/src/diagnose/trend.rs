//! Does it grow, and how surely? A slope through several looks within the window, and what it may be off by.
//!
//! It judges the looks it is given and no cause. The surprise: the looks hang together (a collector's saw-tooth
//! rises for seconds on end), so the scatter of single looks says too little. The interval is the widest of those
//! that blocks of different length give: a swing that comes back within the window widens it, a leak does not.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Looks that a judgement needs at least.
const LOOKS_MIN: usize = 5;
/// Blocks into which the looks are cut for the interval; also each look by itself.
const BLOCKS: [usize; 4] = [4, 5, 8, 16];
/// Less than this in the whole window is noise: a page of code here, a thread's cache there.
const MOVES_MIN_BYTES: f64 = (64 << 10) as f64;
/// A single step that makes up so much of the rise is no slope.
const ONE_STEP_SHARE: f64 = 0.8;
/// In the window's second half less than this share of the rise: it levels off.
const LEVEL_SHARE: f64 = 0.15;
/// A fall of this share of the rise: what is taken is given back.
const FALL_SHARE: f64 = 0.5;

/// A cheap look at the process: the kernel's own counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Moment {
    /// Since the window began.
    pub seconds: f64,
    /// VmRSS, in bytes.
    pub rss: u64,
    /// RssAnon; null where not read.
    pub anon: Option<u64>,
    /// RssFile; null where not read.
    pub file: Option<u64>,
    /// RssShmem; null where not read.
    pub shmem: Option<u64>,
}

/// What the looks say together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Too few looks to say.
    #[default]
    Unknown,
    /// Nothing moves.
    Steady,
    /// It rises, more than the uncertainty and more than it ever fell.
    Grows,
    /// It rose and has all but stopped.
    LevelsOff,
    /// It rose in one step.
    GrewOnce,
    /// It rose, and too unevenly for a slope.
    GrewUnevenly,
    /// It falls as it rises: a trend, if there is one, is less than that.
    RisesAndFalls,
    /// It became less.
    Shrinks,
}

/// How the RSS changed within the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Trend {
    /// In a word.
    pub verdict: Verdict,
    /// Least squares, in bytes a second; null with too few looks.
    pub per_second: Option<f64>,
    /// With 95 % confidence it is no further off than this, in bytes a second.
    pub uncertainty: Option<f64>,
    /// How far it fell below where it had been before, in bytes.
    pub largest_fall: u64,
    /// Looks it rests on.
    pub looks: usize,
}

impl Trend {
    /// Whether a straight line may be drawn beyond the window: not where it came to an end or falls again.
    pub fn goes_on(&self) -> bool {
        matches!(self.verdict, Verdict::Unknown | Verdict::Grows | Verdict::GrewUnevenly)
    }
}

/// Judges the looks; they are in the order of time.
pub fn trend(moments: &[Moment]) -> Trend {
    let largest_fall = largest_fall_bytes(moments);
    let unknown = Trend { largest_fall, looks: moments.len(), ..Trend::default() };
    if moments.len() < LOOKS_MIN {
        return unknown;
    }
    let Some(line) = Line::through(moments) else { return unknown };
    let half_width = line.half_width(moments);
    Trend {
        verdict: verdict(moments, &line, half_width, largest_fall as f64),
        per_second: Some(line.slope),
        uncertainty: Some(half_width),
        ..unknown
    }
}

fn verdict(moments: &[Moment], line: &Line, half_width: f64, fall: f64) -> Verdict {
    let (Some(first), Some(last)) = (moments.first(), moments.last()) else { return Verdict::Unknown };
    let seconds = last.seconds - first.seconds;
    let net = last.rss as f64 - first.rss as f64;
    let rise = largest_rise_bytes(moments) as f64;
    if fall < MOVES_MIN_BYTES && rise < MOVES_MIN_BYTES {
        return Verdict::Steady;
    }
    if net <= -MOVES_MIN_BYTES && (line.slope + half_width < 0.0 || rise < FALL_SHARE * fall) {
        return Verdict::Shrinks;
    }
    let is_sure = line.slope - half_width > 0.0 && line.slope * seconds > fall;
    if !is_sure && fall >= FALL_SHARE * rise {
        return Verdict::RisesAndFalls;
    }
    if net < MOVES_MIN_BYTES {
        return Verdict::RisesAndFalls;
    }
    let half = moments.partition_point(|moment| moment.seconds < first.seconds + seconds / 2.0);
    let late = last.rss as f64 - moments[half.min(moments.len() - 1)].rss as f64;
    let largest_step = moments.windows(2).map(|pair| pair[1].rss.saturating_sub(pair[0].rss)).max();
    if largest_step.unwrap_or(0) as f64 >= ONE_STEP_SHARE * net {
        Verdict::GrewOnce
    } else if late < LEVEL_SHARE * net {
        Verdict::LevelsOff
    } else if is_sure {
        Verdict::Grows
    } else {
        Verdict::GrewUnevenly
    }
}

/// The least-squares line through the looks.
struct Line {
    mean_seconds: f64,
    mean_bytes: f64,
    slope: f64,
    /// Sum of the squared distances in time from the mean.
    spread: f64,
}

impl Line {
    /// None where all looks are of one moment.
    fn through(moments: &[Moment]) -> Option<Self> {
        let count = moments.len() as f64;
        let mean_seconds = moments.iter().map(|it| it.seconds).sum::<f64>() / count;
        let mean_bytes = moments.iter().map(|it| it.rss as f64).sum::<f64>() / count;
        let spread: f64 = moments.iter().map(|it| (it.seconds - mean_seconds).powi(2)).sum();
        let along: f64 =
            moments.iter().map(|it| (it.seconds - mean_seconds) * (it.rss as f64 - mean_bytes)).sum();
        (spread.is_finite() && spread > 0.0).then(|| Self {
            mean_seconds,
            mean_bytes,
            slope: along / spread,
            spread,
        })
    }

    /// Half the 95 % interval, by sums over blocks of looks: whatever hangs together within a block does not
    /// count as if it were independent.
    fn half_width(&self, moments: &[Moment]) -> f64 {
        let counts = BLOCKS.into_iter().filter(|blocks| *blocks < moments.len()).chain([moments.len()]);
        counts.map(|blocks| self.half_width_by(moments, blocks)).fold(0.0, f64::max)
    }

    fn half_width_by(&self, moments: &[Moment], blocks: usize) -> f64 {
        let mut sums = vec![0.0; blocks];
        for (index, moment) in moments.iter().enumerate() {
            let away = moment.seconds - self.mean_seconds;
            let error = moment.rss as f64 - self.mean_bytes - self.slope * away;
            sums[index * blocks / moments.len()] += away * error;
        }
        let degrees = blocks.saturating_sub(2).max(1);
        let variance = sums.iter().map(|sum| sum * sum).sum::<f64>() / self.spread.powi(2);
        students_t(degrees) * (variance * blocks as f64 / degrees as f64).sqrt()
    }
}

/// Student's t, two-sided 95 %; beyond the table within 1 %.
fn students_t(degrees: usize) -> f64 {
    const TABLE: [f64; 10] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228];
    TABLE.get(degrees.saturating_sub(1)).copied().unwrap_or(1.96 + 2.6 / degrees as f64)
}

/// From a moment down to a later one.
fn largest_fall_bytes(moments: &[Moment]) -> u64 {
    let mut highest = 0;
    let falls = moments.iter().map(|moment| {
        highest = highest.max(moment.rss);
        highest - moment.rss
    });
    falls.max().unwrap_or(0)
}

/// From a moment up to a later one.
fn largest_rise_bytes(moments: &[Moment]) -> u64 {
    let mut lowest = u64::MAX;
    let rises = moments.iter().map(|moment| {
        lowest = lowest.min(moment.rss);
        moment.rss - lowest
    });
    rises.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: f64 = (1 << 20) as f64;

    /// Half-second looks, in MiB.
    fn looks(values: impl IntoIterator<Item = f64>) -> Vec<Moment> {
        let moment = |(index, mib): (usize, f64)| Moment {
            seconds: index as f64 / 2.0,
            rss: ((100.0 + mib) * MIB) as u64,
            ..Moment::default()
        };
        values.into_iter().enumerate().map(moment).collect()
    }

    fn verdict_of(values: impl IntoIterator<Item = f64>) -> Verdict {
        trend(&looks(values)).verdict
    }

    /// A number that looks random, between -0.5 and 0.5.
    fn noise(index: usize) -> f64 {
        let mut mixed = (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) as f64 / u64::MAX as f64 - 0.5
    }

    #[test]
    fn a_leak_grows_by_its_slope() {
        let leak = trend(&looks((0..21).map(|index| 2.0 * index as f64 + noise(index))));
        assert_eq!(leak.verdict, Verdict::Grows);
        let (slope, off) = (leak.per_second.unwrap(), leak.uncertainty.unwrap());
        assert!((slope - 4.0 * MIB).abs() <= off && off < 0.4 * MIB, "{slope} {leak:?}");
    }

    #[test]
    fn a_saw_tooth_is_no_leak_whatever_its_phase() {
        for count in [11, 21, 61, 241] {
            for period in [2, 3, 5, 7, 10].into_iter().filter(|period| period * 2 <= count) {
                for phase in 0..period {
                    let saw = (0..count).map(|i| ((i + phase) % period) as f64 * 3.0 + noise(i) / 10.0);
                    let verdict = verdict_of(saw);
                    assert_eq!(verdict, Verdict::RisesAndFalls, "{count} looks, period {period}, {phase}");
                }
            }
        }
    }

    #[test]
    fn a_leak_under_a_saw_tooth_shows_in_time() {
        let leaking = |count: usize| (0..count).map(|i| (i % 10) as f64 * 2.0 + 0.5 * i as f64);
        assert_eq!(verdict_of(leaking(15)), Verdict::RisesAndFalls);
        let later = trend(&looks(leaking(121)));
        assert_eq!(later.verdict, Verdict::Grows);
        assert!((later.per_second.unwrap() - MIB).abs() <= later.uncertainty.unwrap(), "{later:?}");
    }

    #[test]
    fn what_stops_growing_is_told_from_what_goes_on() {
        assert_eq!(verdict_of((0..21).map(|i| 20.0 * (1.0 - (-0.5 * i as f64).exp()))), Verdict::LevelsOff);
        assert_eq!(verdict_of((0..21).map(|i| if i < 15 { 0.0 } else { 20.0 })), Verdict::GrewOnce);
        assert_eq!(verdict_of((0..21).map(|i| (i / 3) as f64 * 4.0)), Verdict::Grows);
        assert_eq!(verdict_of((0..21).map(|i| 40.0 - 2.0 * i as f64)), Verdict::Shrinks);
        assert_eq!(verdict_of((0..21).map(|i| if i < 15 { 20.0 } else { 0.0 })), Verdict::Shrinks);
        assert_eq!(verdict_of((0..21).map(|_| 0.0)), Verdict::Steady);
        assert_eq!(verdict_of((0..21).map(|i| noise(i) / 20.0)), Verdict::Steady);
        assert_eq!(verdict_of((0..4).map(f64::from)), Verdict::Unknown);
        let bursts = trend(&looks((0..17).map(|i: usize| [0.0, 15.0, 40.0][i.max(12) / 2 - 6])));
        assert_eq!(bursts.verdict, Verdict::GrewUnevenly, "{bursts:?}");
    }

    proptest! {
        #[test]
        fn any_looks_have_a_verdict(looks in prop::collection::vec((any::<f64>(), any::<u64>()), 0..40)) {
            let moments: Vec<Moment> =
                looks.into_iter().map(|(seconds, rss)| Moment { seconds, rss, ..Moment::default() }).collect();
            let trend = trend(&moments);
            prop_assert_eq!(trend.looks, moments.len());
        }
    }
}
