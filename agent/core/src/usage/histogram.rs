//! Histograms of CPU that forget: each sample weighs twice as much as one a half-life older.
//!
//! Buckets, half-life and checkpoints are those of the Vertical Pod Autoscaler's recommender, so that
//! percentiles are comparable with its own. Logarithms and powers are computed in Rust: those of the C library
//! differ from machine to machine, and half a megabyte of it would be mapped on every node for two functions.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// The version of buckets and weights; a checkpoint of another one is not taken up.
pub const HISTOGRAM_VERSION: u32 = 1;

/// Each bucket is by this factor wider than the one before.
const RATIO: f64 = 1.05;
/// After so long a sample weighs half.
const HALF_LIFE: SignedDuration = SignedDuration::from_hours(24);
/// Beyond this exponent of 2 the reference time moves, so that weights stay numbers.
const LARGEST_EXPONENT: f64 = 100.0;
/// A clock that goes back by more was wrong before: what was added then would outweigh, for as long as it was ahead,
/// all that is added now.
const SET_BACK: SignedDuration = SignedDuration::from_hours(48);
/// One that weighs less is empty.
const EPSILON: f64 = 1e-4;
/// The heaviest bucket of a checkpoint.
const CHECKPOINT_SCALE: f64 = 10_000.0;

/// Cores: where the first bucket ends and, about, where the last begins.
const FIRST: f64 = 0.01;
const LARGEST: f64 = 1_000.0;

/// How many buckets there are: 176.
fn buckets() -> u16 {
    exponent_of(LARGEST).ceil() as u16 + 1
}

/// `log_RATIO(cores × (RATIO − 1) / FIRST + 1)`: where a value lies, in buckets.
fn exponent_of(cores: f64) -> f64 {
    libm::log(cores * (RATIO - 1.0) / FIRST + 1.0) / libm::log(RATIO)
}

fn bucket_of(cores: f64) -> u16 {
    if cores.is_nan() || cores < FIRST {
        return 0;
    }
    (exponent_of(cores).floor() as u16).min(buckets().saturating_sub(1))
}

/// Where a bucket begins: `FIRST × (RATIO^bucket − 1) / (RATIO − 1)`.
fn start_of(bucket: u16) -> f64 {
    FIRST * (RATIO.powi(i32::from(bucket)) - 1.0) / (RATIO - 1.0)
}

/// A histogram of CPU use.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// A multiple of the half-life; a sample of that time weighs what it was added with.
    reference: Timestamp,
    /// When the latest sample was of.
    newest: Timestamp,
    weights: BTreeMap<u16, f64>,
}

/// What is kept of a [`Histogram`] over restarts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    version: u32,
    reference: Timestamp,
    /// Not in what older builds kept, which is taken as it is.
    #[serde(default)]
    newest: Timestamp,
    total: f64,
    /// Weights, the heaviest as 10,000.
    weights: BTreeMap<u16, u32>,
}

impl Histogram {
    /// Adds a sample, in cores.
    pub fn add(&mut self, cores: f64, weight: f64, at: Timestamp) {
        let weight = self.decayed(weight, at);
        *self.weights.entry(bucket_of(cores)).or_insert(0.0) += weight;
    }

    /// The end of the bucket in which a share of all weight is reached; `None` if nothing was added.
    pub fn percentile(&self, share: f64) -> Option<f64> {
        let total: f64 = self.weights.values().sum();
        if total < EPSILON {
            return None;
        }
        let mut sum = 0.0;
        let reached = self.weights.iter().find(|(_, weight)| {
            sum += **weight;
            sum >= share * total
        });
        let bucket = reached.or(self.weights.last_key_value()).map(|(bucket, _)| *bucket)?;
        Some(start_of(bucket.saturating_add(1)))
    }

    /// Adds another histogram; the order of merging makes no difference.
    pub fn merge(&mut self, other: &Self) {
        self.move_reference(self.reference.max(other.reference));
        self.newest = self.newest.max(other.newest);
        let factor = libm::exp2(-exponent(other.reference, self.reference));
        for (&bucket, weight) in &other.weights {
            *self.weights.entry(bucket).or_insert(0.0) += weight * factor;
        }
    }

    /// What to keep on disk.
    pub fn checkpoint(&self) -> Checkpoint {
        let heaviest = self.weights.values().copied().fold(0.0, f64::max);
        let scaled = |weight: f64| (weight / heaviest * CHECKPOINT_SCALE).round() as u32;
        let weights = self.weights.iter().map(|(&bucket, &weight)| (bucket, scaled(weight)));
        Checkpoint {
            version: HISTOGRAM_VERSION,
            reference: self.reference,
            newest: self.newest,
            total: self.weights.values().sum(),
            weights: weights.filter(|(_, weight)| *weight > 0).collect(),
        }
    }

    /// What was kept; `None` if it's of another version or makes no sense.
    pub fn restore(kept: &Checkpoint) -> Option<Self> {
        let sum: f64 = kept.weights.values().map(|&weight| f64::from(weight)).sum();
        let sound = kept.version == HISTOGRAM_VERSION
            && kept.total.is_finite()
            && kept.total >= 0.0
            && kept.weights.keys().all(|&bucket| bucket < buckets());
        if !sound {
            return None;
        }
        let factor = if sum > 0.0 { kept.total / sum } else { 0.0 };
        let weights =
            kept.weights.iter().map(|(&bucket, &weight)| (bucket, f64::from(weight) * factor));
        let Checkpoint { reference, newest, .. } = *kept;
        Some(Self { reference, newest, weights: weights.collect() })
    }

    /// The weight of a sample of `at`, moving the reference where that would become too great.
    fn decayed(&mut self, weight: f64, at: Timestamp) -> f64 {
        if self.newest.max(self.reference).duration_since(at) > SET_BACK {
            *self = Self::default();
        }
        self.newest = at;
        if exponent(self.reference, at) > LARGEST_EXPONENT {
            let half_lives = at.as_second().div_euclid(HALF_LIFE.as_secs());
            let multiple = half_lives.saturating_mul(HALF_LIFE.as_secs());
            self.move_reference(Timestamp::from_second(multiple).unwrap_or(at));
        }
        weight * libm::exp2(exponent(self.reference, at).min(LARGEST_EXPONENT))
    }

    fn move_reference(&mut self, to: Timestamp) {
        let factor = libm::exp2(-exponent(self.reference, to));
        self.weights.values_mut().for_each(|weight| *weight *= factor);
        self.weights.retain(|_, weight| *weight > 0.0);
        self.reference = to;
    }
}

/// Half-lives from one time to another.
fn exponent(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64() / HALF_LIFE.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(hours: f64) -> Timestamp {
        Timestamp::from_millisecond(1_700_000_000_000 + (hours * 3_600_000.0) as i64).unwrap()
    }

    #[test]
    fn buckets_are_the_recommenders() {
        assert_eq!(buckets(), 176);
        assert_eq!(bucket_of(0.0), 0);
        assert_eq!(bucket_of(f64::NAN), 0);
        assert_eq!(bucket_of(f64::INFINITY), 175);
        assert!((start_of(1) - FIRST).abs() < 1e-9 * FIRST);
        assert!(start_of(175) >= LARGEST * 0.9);
        for bucket in 1..175 {
            let middle = (start_of(bucket) + start_of(bucket + 1)) / 2.0;
            assert_eq!(bucket_of(middle), bucket);
        }
    }

    #[test]
    fn a_sample_weighs_half_after_a_day_and_nothing_overflows_in_years() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(0.5), None);
        histogram.add(1.0, 1.0, at(0.0));
        histogram.add(4.0, 0.6, at(24.0));
        let median = histogram.percentile(0.5).unwrap();
        assert!((4.0..4.3).contains(&median), "the younger weighs more: {median}");
        for day in 0..4_000 {
            histogram.add(0.5, 1.0, at(f64::from(day) * 24.0));
        }
        let median = histogram.percentile(0.5).unwrap();
        assert!((0.5..0.53).contains(&median), "{median}");
        assert!(histogram.weights.values().all(|weight| weight.is_finite()));
    }

    #[test]
    fn a_clock_that_was_ahead_freezes_nothing() {
        for days_ahead in [10.0, 1_000.0] {
            let mut histogram = Histogram::default();
            histogram.add(1.0, 1.0, at(0.0));
            histogram.add(8.0, 1.0, at(days_ahead * 24.0));
            let kept = serde_json::to_string(&histogram.checkpoint()).unwrap();
            let mut restored = Histogram::restore(&serde_json::from_str(&kept).unwrap()).unwrap();
            for histogram in [&mut histogram, &mut restored] {
                for hour in 1..4 {
                    histogram.add(0.5, 1.0, at(f64::from(hour)));
                }
                let highest = histogram.percentile(0.9).unwrap();
                assert!((0.5..0.53).contains(&highest), "{days_ahead} days: {highest}");
            }
        }
        // An hour or a day is a time change, and costs no history.
        let mut histogram = Histogram::default();
        histogram.add(8.0, 1.0, at(24.0));
        histogram.add(0.5, 1.0, at(0.0));
        assert!(histogram.percentile(0.9).unwrap() > 8.0);
    }

    proptest! {
        #[test]
        fn checkpoints_and_merges_keep_percentiles(
            samples in prop::collection::vec((0.0..2_000.0, 0.1..10.0, 0.0..200.0), 1..60),
            split in 0..60_usize,
            share in 0.01..1.0,
        ) {
            let mut whole = Histogram::default();
            let mut parts = [Histogram::default(), Histogram::default()];
            let mut samples = samples;
            samples.sort_by(|a: &(f64, f64, f64), b| a.2.total_cmp(&b.2));
            for (index, &(value, weight, hour)) in samples.iter().enumerate() {
                whole.add(value, weight, at(hour));
                parts[usize::from(index < split)].add(value, weight, at(hour));
            }
            let expected = whole.percentile(share).unwrap();
            let text = serde_json::to_string(&whole.checkpoint()).unwrap();
            let restored = Histogram::restore(&serde_json::from_str(&text).unwrap()).unwrap();
            // A bucket under a ten-thousandth of the heaviest is lost, which may move a share.
            let [low, high] = [share - 0.01, share + 0.01].map(|s| whole.percentile(s).unwrap());
            let close = |found: f64| (low..=high).contains(&found);
            prop_assert!(close(restored.percentile(share).unwrap()));
            let [mut merged, other] = parts;
            merged.merge(&other);
            prop_assert!(close(merged.percentile(share).unwrap()), "{expected}");
        }
    }
}
