//! How pods ended: what happened to their processes, which no object tells once it is gone.

use std::collections::VecDeque;

use drover_common::cluster::ObjectKey;
use jiff::Timestamp;

/// Ends that are kept; older ones are forgotten.
const MOST_KEPT: usize = 20_000;

/// The end of a pod that ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodEnd {
    /// The pod.
    pub pod: ObjectKey,
    /// Its uid.
    pub uid: String,
    /// The node it ran on.
    pub node: String,
    /// When its processes were gone.
    pub at: Timestamp,
    /// Its own terminationGracePeriodSeconds.
    pub own_grace: i64,
    /// How.
    pub how: EndKind,
}

/// How a pod ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndKind {
    /// It was told to stop, and did so by itself.
    Stopped {
        /// The seconds it was given.
        grace: i64,
    },
    /// It was told to stop, and had not when its time was over.
    Killed {
        /// The seconds it was given.
        grace: i64,
    },
    /// Its object was deleted at once, whatever its processes did.
    Forced,
    /// Its machine ended under it.
    Lost,
}

impl PodEnd {
    /// The seconds it was given to stop in, where it was told to.
    pub fn grace(&self) -> Option<i64> {
        match self.how {
            EndKind::Stopped { grace } | EndKind::Killed { grace } => Some(grace),
            EndKind::Forced | EndKind::Lost => None,
        }
    }

    /// Whether it was given less time than it asks for.
    pub fn is_clipped(&self) -> bool {
        self.grace().is_some_and(|grace| grace < self.own_grace)
    }
}

/// The ends of pods, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Ends(VecDeque<PodEnd>);

impl Ends {
    pub(super) fn note(&mut self, end: PodEnd) {
        if self.0.len() >= MOST_KEPT {
            self.0.pop_front();
        }
        self.0.push_back(end);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &PodEnd> {
        self.0.iter()
    }
}
