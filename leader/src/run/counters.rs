//! What is counted while running. Labels come from closed sets, so that a scrape never grows without
//! bound.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Party, call and result.
pub(crate) type CallLabels = (&'static str, &'static str, &'static str);

/// Counters of one replica.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    calls: Mutex<BTreeMap<CallLabels, (u64, f64)>>,
    /// NodeClaims created.
    pub(crate) claims_created: AtomicU64,
    /// NodeClaims whose deletion was asked for.
    pub(crate) claims_deleted: AtomicU64,
    /// Steps of the brain.
    pub(crate) steps: AtomicU64,
    /// Time they took, microseconds.
    pub(crate) step_micros: AtomicU64,
    /// The longest, microseconds.
    pub(crate) longest_step_micros: AtomicU64,
    /// Commands that entered the log.
    pub(crate) proposals_committed: AtomicU64,
    /// Commands that did not, or not for sure.
    pub(crate) proposals_failed: AtomicU64,
    /// Commands the state refused.
    pub(crate) proposals_refused: AtomicU64,
    /// Agents' reports taken.
    pub(crate) reports: AtomicU64,
    /// Agents' requests that were not let in.
    pub(crate) agents_refused: AtomicU64,
}

impl Counters {
    /// One more of something.
    pub(crate) fn add_one(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// A call was answered.
    pub(crate) fn answered(&self, labels: CallLabels, took: Duration) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, seconds) = calls.entry(labels).or_default();
        *count = count.saturating_add(1);
        *seconds += took.as_secs_f64();
    }

    /// Calls answered and the seconds they took, by labels.
    pub(crate) fn calls(&self) -> BTreeMap<CallLabels, (u64, f64)> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The brain took `count` steps.
    pub(crate) fn stepped(&self, count: u64, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.steps.fetch_add(count, Ordering::Relaxed);
        self.step_micros.fetch_add(micros, Ordering::Relaxed);
        self.longest_step_micros.fetch_max(micros, Ordering::Relaxed);
    }
}
