//! Cheap looks within the window: what the kernel's own counters say, evenly over its length.
//!
//! The surprise: nobody knows how long a window will be, since ^C ends it. When there are too many looks, every
//! second one is forgotten and the pace halved, so that an hour has as many as a minute.

use std::time::Duration;

use crate::diagnose::trend::Moment;
use crate::target::Status;

/// Looks in a window of usual length.
const LOOKS_USUAL: u32 = 20;
/// Reading the counters takes some 20 µs: this often it costs nothing worth mentioning.
const SHORTEST_PACE: Duration = Duration::from_millis(100);
const LONGEST_PACE: Duration = Duration::from_secs(1);
/// Looks at most.
const LOOKS_MAX: usize = 1200;

/// The looks so far.
pub struct Timeline {
    moments: Vec<Moment>,
    /// One of so many looks is kept.
    keep_one_of: usize,
    since_kept: usize,
}

impl Timeline {
    /// Without any look.
    pub const fn new() -> Self {
        Self { moments: Vec::new(), keep_one_of: 1, since_kept: 0 }
    }

    /// How often to look in a window of such a length.
    pub fn pace(duration: Duration) -> Duration {
        (duration / LOOKS_USUAL).clamp(SHORTEST_PACE, LONGEST_PACE)
    }

    /// Adds a look, if it is one to keep.
    pub fn add(&mut self, elapsed: Duration, status: &Status) {
        if self.since_kept > 0 {
            self.since_kept -= 1;
            return;
        }
        self.since_kept = self.keep_one_of - 1;
        self.moments.extend(moment(elapsed, status));
        if self.moments.len() >= LOOKS_MAX {
            let mut index = 0;
            self.moments.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.keep_one_of *= 2;
            // The last one of an even number is gone: the pace goes on from the one before it.
            self.since_kept = self.keep_one_of / 2 - 1;
        }
    }

    /// Adds the last look, whatever the pace.
    pub fn close(&mut self, elapsed: Duration, status: &Status) {
        self.moments.extend(moment(elapsed, status));
    }

    /// The looks in the order of time.
    pub fn moments(&self) -> &[Moment] {
        &self.moments
    }

    /// What is left when the window is over.
    pub fn into_moments(self) -> Vec<Moment> {
        self.moments
    }
}

/// None where the process is gone.
fn moment(elapsed: Duration, status: &Status) -> Option<Moment> {
    Some(Moment {
        seconds: (elapsed.as_secs_f64() * 1000.0).round() / 1000.0,
        rss: status.rss_bytes?,
        anon: status.anon_bytes,
        file: status.file_bytes,
        shmem: status.shmem_bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_window_is_thinned_evenly() {
        let mut timeline = Timeline::new();
        for second in 0..86_400 {
            let status = Status { rss_bytes: Some(second), ..Status::default() };
            timeline.add(Duration::from_secs(second), &status);
        }
        let moments = timeline.moments();
        assert!((LOOKS_MAX / 2 - 1..LOOKS_MAX).contains(&moments.len()), "{}", moments.len());
        let paces: Vec<f64> = moments.windows(2).map(|pair| pair[1].seconds - pair[0].seconds).collect();
        assert!(paces.iter().all(|pace| *pace == paces[0]), "{paces:?}");
        assert!(moments.iter().all(|moment| moment.rss as f64 == moment.seconds));
    }

    #[test]
    fn a_process_that_is_gone_adds_nothing() {
        let mut timeline = Timeline::new();
        timeline.add(Duration::ZERO, &Status::default());
        assert_eq!(timeline.moments(), []);
    }

    #[test]
    fn short_windows_are_looked_at_more_often() {
        assert_eq!(Timeline::pace(Duration::from_secs(10)), Duration::from_millis(500));
        assert_eq!(Timeline::pace(Duration::from_millis(300)), Duration::from_millis(100));
        assert_eq!(Timeline::pace(Duration::from_secs(3600)), Duration::from_secs(1));
    }
}
