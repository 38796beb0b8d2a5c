//! How long things took, as a histogram of fixed buckets, so that those of many leaders can be added up.

use jiff::SignedDuration;
use serde::Serialize;

/// The buckets' upper bounds, milliseconds: from what an agent's cordon takes to the days ahead of which maintenance is
/// announced, and closer together where spot notices lie.
pub const TIME_BOUNDS: [u64; 20] = [
    50, 100, 250, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 30_000, 60_000, 90_000, 100_000,
    105_000, 110_000, 115_000, 120_000, 300_000, 3_600_000, 86_400_000,
];

/// How often something took a time, and how long all in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Times {
    /// How often.
    pub count: u64,
    /// The sum.
    pub milliseconds: u64,
    /// How often within each of [`TIME_BOUNDS`] and above the bound before it.
    pub buckets: [u64; TIME_BOUNDS.len()],
}

impl Times {
    /// Counts one more; a negative one as none at all.
    pub fn add(&mut self, took: SignedDuration) {
        let milliseconds = u64::try_from(took.as_millis()).unwrap_or(0);
        self.count = self.count.saturating_add(1);
        self.milliseconds = self.milliseconds.saturating_add(milliseconds);
        let mut buckets = TIME_BOUNDS.iter().zip(&mut self.buckets);
        if let Some((_, bucket)) = buckets.find(|(bound, _)| milliseconds <= **bound) {
            *bucket = bucket.saturating_add(1);
        }
    }

    /// How often it took at most so many milliseconds, bound by bound.
    pub fn within(&self) -> impl Iterator<Item = (u64, u64)> {
        TIME_BOUNDS.into_iter().zip(self.buckets).scan(0_u64, |sum, (bound, count)| {
            *sum = sum.saturating_add(count);
            Some((bound, *sum))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_is_in_the_first_bucket_that_holds_it() {
        let mut times = Times::default();
        for milliseconds in [-5, 50, 51, 107_000, 120_000, 90_000_000] {
            times.add(SignedDuration::from_millis(milliseconds));
        }
        assert_eq!((times.count, times.milliseconds), (6, 90_227_101));
        let within = |bound| times.within().find(|(one, _)| *one == bound).unwrap().1;
        let counts = [50, 100, 105_000, 110_000, 115_000, 120_000, 86_400_000].map(within);
        assert_eq!(counts, [2, 3, 3, 4, 4, 5, 5]);
        assert!(TIME_BOUNDS.is_sorted());
    }
}
