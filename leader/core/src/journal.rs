//! The decision journal: what was decided, from what, why, and for how many dollars.
//!
//! It is part of replicated state, written by [`crate::state::State::apply`] alone, and keeps the
//! newest [`CAPACITY`] decisions.

use std::collections::VecDeque;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How many decisions are kept.
pub const CAPACITY: usize = 2_000;

/// One decision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Decision {
    /// Counts up from 1 over the life of the cluster's log.
    pub sequence: u64,
    /// The log entry that made it.
    pub index: u64,
    /// When it was proposed.
    pub at: Timestamp,
    /// What: the command's verb, e.g. `create-intent`.
    pub verb: String,
    /// The objects it is about: NodePool, NodeClaims, Node, instance, …
    pub subjects: Vec<String>,
    /// From what: shapes and counts.
    pub inputs: Vec<String>,
    /// Why.
    pub why: String,
    /// What it adds to (or, below zero, takes off) the bill, micro-dollars an hour.
    pub hourly_price_change_micro: i64,
}

/// The newest decisions, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Journal {
    decisions: VecDeque<Decision>,
    written: u64,
}

impl Journal {
    /// Appends a decision and numbers it; the oldest goes when there are too many.
    pub fn write(&mut self, mut decision: Decision) {
        self.written = self.written.saturating_add(1);
        decision.sequence = self.written;
        self.decisions.push_back(decision);
        while self.decisions.len() > CAPACITY {
            self.decisions.pop_front();
        }
    }

    /// The decisions kept, oldest first.
    pub fn decisions(&self) -> impl DoubleEndedIterator<Item = &Decision> {
        self.decisions.iter()
    }

    /// How many decisions were ever written.
    pub fn written(&self) -> u64 {
        self.written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_newest_and_counts_all() {
        let mut journal = Journal::default();
        for index in 0..CAPACITY as u64 + 5 {
            journal.write(Decision { index, ..Decision::default() });
        }
        assert_eq!(journal.decisions().count(), CAPACITY);
        assert_eq!(journal.written(), CAPACITY as u64 + 5);
        assert_eq!(journal.decisions().next().map(|d| (d.sequence, d.index)), Some((6, 5)));
    }
}
