//! Histograms that forget: each sample weighs twice as much as one a half-life older.
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
/// Buckets that weigh less count as empty.
const EPSILON: f64 = 1e-4;
/// The heaviest bucket of a checkpoint.
const CHECKPOINT_SCALE: f64 = 10_000.0;

/// The buckets of one resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Buckets {
    /// Cores: the first bucket ends at 0.01, the last begins at about 1,000.
    Cpu,
    /// Bytes: the first bucket ends at 10 MB, the last begins at about 1 TB.
    Memory,
}

impl Buckets {
    fn first(self) -> f64 {
        match self {
            Buckets::Cpu => 0.01,
            Buckets::Memory => 1e7,
        }
    }

    fn largest(self) -> f64 {
        match self {
            Buckets::Cpu => 1_000.0,
            Buckets::Memory => 1e12,
        }
    }

    /// How many there are: 176 of either resource.
    fn count(self) -> u16 {
        self.exponent(self.largest()).ceil() as u16 + 1
    }

    /// `log_RATIO(value × (RATIO − 1) / first + 1)`: where a value lies, in buckets.
    fn exponent(self, value: f64) -> f64 {
        libm::log(value * (RATIO - 1.0) / self.first() + 1.0) / libm::log(RATIO)
    }

    fn of(self, value: f64) -> u16 {
        if value.is_nan() || value < self.first() {
            return 0;
        }
        (self.exponent(value).floor() as u16).min(self.count().saturating_sub(1))
    }

    /// Where a bucket begins: `first × (RATIO^bucket − 1) / (RATIO − 1)`.
    fn start(self, bucket: u16) -> f64 {
        self.first() * (RATIO.powi(i32::from(bucket)) - 1.0) / (RATIO - 1.0)
    }
}

/// A histogram of one resource's use.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    buckets: Buckets,
    /// A multiple of the half-life; a sample of that time weighs what it was added with.
    reference: Timestamp,
    weights: BTreeMap<u16, f64>,
}

/// What is kept of a [`Histogram`] over restarts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    version: u32,
    buckets: Buckets,
    reference: Timestamp,
    total: f64,
    /// Weights, the heaviest as 10,000.
    weights: BTreeMap<u16, u32>,
}

impl Histogram {
    /// An empty one.
    pub fn new(buckets: Buckets) -> Self {
        Self { buckets, reference: Timestamp::UNIX_EPOCH, weights: BTreeMap::new() }
    }

    /// Adds a sample, in cores or bytes.
    pub fn add(&mut self, value: f64, weight: f64, at: Timestamp) {
        let weight = self.decayed(weight, at);
        *self.weights.entry(self.buckets.of(value)).or_insert(0.0) += weight;
    }

    /// Takes a sample back that was added with the same weight and time.
    pub fn subtract(&mut self, value: f64, weight: f64, at: Timestamp) {
        let weight = self.decayed(weight, at);
        let bucket = self.buckets.of(value);
        if let Some(left) = self.weights.get_mut(&bucket) {
            *left -= weight;
            if *left < EPSILON {
                self.weights.remove(&bucket);
            }
        }
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
        Some(self.buckets.start(bucket.saturating_add(1)))
    }

    /// Adds another histogram of the same resource; the order of merging makes no difference.
    pub fn merge(&mut self, other: &Self) {
        if other.buckets != self.buckets {
            return;
        }
        self.move_reference(self.reference.max(other.reference));
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
            buckets: self.buckets,
            reference: self.reference,
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
            && kept.weights.keys().all(|&bucket| bucket < kept.buckets.count());
        if !sound {
            return None;
        }
        let factor = if sum > 0.0 { kept.total / sum } else { 0.0 };
        let weights =
            kept.weights.iter().map(|(&bucket, &weight)| (bucket, f64::from(weight) * factor));
        Some(Self { buckets: kept.buckets, reference: kept.reference, weights: weights.collect() })
    }

    /// The weight of a sample of `at`, moving the reference where that would become too great.
    fn decayed(&mut self, weight: f64, at: Timestamp) -> f64 {
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
        for buckets in [Buckets::Cpu, Buckets::Memory] {
            assert_eq!(buckets.count(), 176);
            assert_eq!(buckets.of(0.0), 0);
            assert_eq!(buckets.of(f64::NAN), 0);
            assert_eq!(buckets.of(f64::INFINITY), 175);
            assert!((buckets.start(1) - buckets.first()).abs() < 1e-9 * buckets.first());
            assert!(buckets.start(175) >= buckets.largest() * 0.9);
            for bucket in 1..175 {
                let middle = (buckets.start(bucket) + buckets.start(bucket + 1)) / 2.0;
                assert_eq!(buckets.of(middle), bucket);
            }
        }
    }

    #[test]
    fn a_sample_weighs_half_after_a_day_and_nothing_overflows_in_years() {
        let mut histogram = Histogram::new(Buckets::Cpu);
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
    fn what_is_taken_back_is_gone() {
        let mut histogram = Histogram::new(Buckets::Memory);
        histogram.add(5e8, 1.0, at(0.0));
        histogram.add(7e8, 1.0, at(1.0));
        histogram.subtract(7e8, 1.0, at(1.0));
        let most = histogram.percentile(1.0).unwrap();
        assert!((5e8..5.3e8).contains(&most), "{most}");
    }

    proptest! {
        #[test]
        fn checkpoints_and_merges_keep_percentiles(
            samples in prop::collection::vec((0.0..2_000.0, 0.1..10.0, 0.0..200.0), 1..60),
            split in 0..60_usize,
            share in 0.01..1.0,
        ) {
            let mut whole = Histogram::new(Buckets::Cpu);
            let mut parts = [Histogram::new(Buckets::Cpu), Histogram::new(Buckets::Cpu)];
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
