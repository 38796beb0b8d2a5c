//! Signs of life of the loops that matter, for a watchdog outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts the turns of an agent's loops. A stuck one shows by standing still.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pulse(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    decisions: AtomicU64,
    polls: AtomicU64,
}

impl Pulse {
    /// A decision was made and its effects were begun.
    pub(crate) fn decided(&self) {
        self.0.decisions.fetch_add(1, Ordering::Relaxed);
    }

    /// IMDS was asked, whatever came of it.
    pub(crate) fn polled(&self) {
        self.0.polls.fetch_add(1, Ordering::Relaxed);
    }

    /// Turns of the deciding and of the polling loop so far.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let counts = &self.0;
        (counts.decisions.load(Ordering::Relaxed), counts.polls.load(Ordering::Relaxed))
    }
}
