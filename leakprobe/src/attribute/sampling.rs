//! How far a row can be from the truth where only some faults kept their stack.
//!
//! How much a component's faults made resident is known exactly, page by page; a sample says only how it divides
//! among stacks. So a row is a share: of what the sampled faults of the component stand for, the part of those with
//! this stack. Faults differ in what they stand for, since the rate of sampling follows the load, and in what they
//! made resident, since one may map a huge page. Both are in the variance of the share (of a ratio, linearized),
//! and that says as how many equal draws the sample counts. The bound is Wilson's interval of so many draws,
//! which holds for rows with few stacks behind them, too; the side that reaches further is taken for both.
//!
//! The surprise: a stack that was to be kept and was lost makes the sample smaller, and the bound wider: weights
//! are scaled up to what is known of the component as a whole.

/// 95 of 100 rows lie within the bound: the normal distribution's quantile.
const Z: f64 = 1.96;

/// What the sampled faults behind a row, or a component, say.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sampled {
    /// Σ w·b: the bytes that they stand for.
    stood_for_bytes: f64,
    /// Σ w²·b².
    squares: f64,
    /// Σ w·b².
    own_squares: f64,
}

impl Sampled {
    /// Adds a fault that stands for `weight` ones, and made `bytes` resident.
    pub fn add(&mut self, weight: u32, bytes: u64) {
        let (weight, bytes) = (f64::from(weight), bytes as f64);
        self.stood_for_bytes += weight * bytes;
        self.squares += weight * weight * bytes * bytes;
        self.own_squares += weight * bytes * bytes;
    }

    /// Adds others.
    pub fn merge(&mut self, other: &Self) {
        self.stood_for_bytes += other.stood_for_bytes;
        self.squares += other.squares;
        self.own_squares += other.own_squares;
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.stood_for_bytes == 0.0
    }

    /// Estimated variance of the bytes stood for, with weights `scale` times as large.
    fn variance(&self, scale: f64) -> f64 {
        (scale * scale * self.squares - scale * self.own_squares).max(0.0)
    }
}

/// All faults of a component.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Population {
    /// What they made resident, those without a stack included.
    pub bytes: u64,
    /// Those with a stack.
    pub sampled: Sampled,
}

impl Population {
    /// The bytes of the row with these stacks.
    pub fn bytes_of(&self, row: &Sampled) -> u64 {
        (self.bytes as f64 * self.share_of(row)) as u64
    }

    /// By how much [`Self::bytes_of`] may be off, in 95 of 100 rows; `None` where it is exact.
    pub fn error_bytes(&self, row: &Sampled) -> Option<u64> {
        let stood_for_bytes = self.sampled.stood_for_bytes;
        if stood_for_bytes == 0.0 {
            return None;
        }
        let scale = (self.bytes as f64 / stood_for_bytes).max(1.0);
        let (all, own) = (self.sampled.variance(scale), row.variance(scale));
        let total_squared = (scale * stood_for_bytes).powi(2);
        // Less than a page: nothing was left out.
        if all < 1.0 || all < total_squared * 1e-12 {
            return None;
        }
        let share = self.share_of(row);
        let of_share = (own * (1.0 - share).powi(2) + (all - own).max(0.0) * share.powi(2)) / total_squared;
        let draws_of_row = share * (1.0 - share) / of_share;
        let draws_of_all = total_squared / all;
        let draws = if draws_of_row.is_finite() { draws_of_row.min(draws_of_all) } else { draws_of_all };
        let bytes = (self.bytes as f64 * half_width(share, draws)).ceil();
        Some(if draws_of_row == 0.0 { self.bytes } else { (bytes as u64).min(self.bytes) })
    }

    fn share_of(&self, row: &Sampled) -> f64 {
        if self.sampled.is_empty() { 0.0 } else { row.stood_for_bytes / self.sampled.stood_for_bytes }
    }
}

/// How far Wilson's interval of a share, drawn so many times, reaches from it.
fn half_width(share: f64, draws: f64) -> f64 {
    let z_squared = Z * Z;
    let center = (share + z_squared / (2.0 * draws)) / (1.0 + z_squared / draws);
    let reach = Z / (1.0 + z_squared / draws)
        * (share * (1.0 - share) / draws + z_squared / (4.0 * draws * draws)).max(0.0).sqrt();
    (center + reach - share).max(share - (center - reach))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGE: u64 = 4096;

    /// A stream of numbers that look random (xorshift).
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 11) % bound
        }
    }

    /// Faults of sites, by how many each has, with a rate of sampling that changes on the way: what came of it, as
    /// (rows within their bound, rows).
    fn rows_within(
        faults: &[u64],
        periods: [u32; 2],
        huge_in: u64,
        busy_in: u64,
        random: &mut Random,
    ) -> (u64, u64) {
        let mut all = Population::default();
        let mut rows = vec![(0, Sampled::default()); faults.len()];
        for (row, count) in rows.iter_mut().zip(faults) {
            for _ in 0..*count {
                let bytes = if random.below(huge_in) == 0 { 512 * PAGE } else { PAGE };
                let period = periods[random.below(2) as usize];
                row.0 += bytes;
                all.bytes += bytes;
                if random.below(u64::from(period)) == 0 && random.below(busy_in) != 0 {
                    row.1.add(period, bytes);
                    all.sampled.add(period, bytes);
                }
            }
        }
        let listed = rows.iter().filter(|(_, sampled)| !sampled.is_empty());
        let is_within = |(truth, row): &&(u64, Sampled)| {
            all.bytes_of(row).abs_diff(*truth) <= all.error_bytes(row).unwrap_or(1)
        };
        (listed.clone().filter(is_within).count() as u64, listed.count() as u64)
    }

    #[test]
    fn the_truth_is_within_the_bound_in_95_of_100_rows() {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let sites = [20_000, 8_000, 5_000, 1_500, 700, 300, 120, 60, 20, 20, 5, 5, 1];
        for (periods, huge_in, busy_in) in [
            ([64, 64], u64::MAX, u64::MAX),
            ([8, 8], u64::MAX, u64::MAX),
            ([64, 4], u64::MAX, u64::MAX),
            ([256, 1], u64::MAX, u64::MAX),
            ([64, 64], 300, u64::MAX),
            ([1, 1], u64::MAX, 2),
        ] {
            let (mut within, mut rows) = (0, 0);
            for _ in 0..200 {
                let (more_within, more) = rows_within(&sites, periods, huge_in, busy_in, &mut random);
                (within, rows) = (within + more_within, rows + more);
            }
            let covered = within as f64 / rows as f64;
            assert!(covered >= 0.945, "{covered:.3} of {rows} rows at {periods:?}, {huge_in}, {busy_in}");
        }
    }

    #[test]
    fn a_bound_is_no_wider_than_it_must_be() {
        let mut random = Random(7);
        let mut all = Population { bytes: 0, ..Population::default() };
        let mut row = Sampled::default();
        for fault in 0..200_000 {
            all.bytes += PAGE;
            if random.below(64) == 0 {
                all.sampled.add(64, PAGE);
                if fault % 4 == 0 {
                    row.add(64, PAGE);
                }
            }
        }
        // Of some 3,125 draws, a quarter: 1.96 · √(¼ · ¾ / 3125) = 1.5 %.
        let part = all.error_bytes(&row).unwrap() as f64 / all.bytes as f64;
        assert!((0.013..0.018).contains(&part), "{part}");
    }

    proptest! {
        #[test]
        fn all_stacks_are_exact(faults in proptest::collection::vec((0usize..4, 1u64..600), 1..200)) {
            let mut all = Population::default();
            let mut rows = [Sampled::default(); 4];
            let mut truth = [0; 4];
            for (site, pages) in faults {
                all.bytes += pages * PAGE;
                truth[site] += pages * PAGE;
                all.sampled.add(1, pages * PAGE);
                rows[site].add(1, pages * PAGE);
            }
            for (row, truth) in rows.iter().zip(truth) {
                prop_assert!(all.bytes_of(row).abs_diff(truth) <= 1);
                prop_assert_eq!(all.error_bytes(row), None);
            }
        }

        #[test]
        fn no_bound_is_beyond_the_component(
            faults in proptest::collection::vec((any::<bool>(), 1u32..100_000, 1u64..600), 1..50),
            lost_bytes in 0u64..1 << 40,
        ) {
            let mut all = Population { bytes: lost_bytes, ..Population::default() };
            let mut row = Sampled::default();
            for (is_own, weight, pages) in faults {
                all.bytes += pages * PAGE;
                all.sampled.add(weight, pages * PAGE);
                if is_own {
                    row.add(weight, pages * PAGE);
                }
            }
            prop_assert!(all.bytes_of(&row) <= all.bytes);
            prop_assert!(all.error_bytes(&row).is_none_or(|error| error <= all.bytes));
        }
    }
}
