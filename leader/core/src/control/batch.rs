//! Which pending pods are planned for together.
//!
//! A batch opens with the first pod that the scheduler found no place for, and ends when none came
//! for a while, or after a longer while. Their siblings that are still to come are planned for with
//! them (`expected`).

use std::collections::BTreeSet;

use drover_common::cluster::ObjectKey;
use jiff::{SignedDuration, Timestamp};

use super::object::after;
use crate::planner::is_provisionable;
use crate::view::View;

/// Pods that came since the last plan.
#[derive(Clone, Debug, Default)]
pub(super) struct Batches {
    /// Pods that the last plan looked at and that still wait.
    considered: BTreeSet<ObjectKey>,
    open: Option<Batch>,
}

#[derive(Clone, Debug)]
struct Batch {
    opened_at: Timestamp,
    grown_at: Timestamp,
    pods: BTreeSet<ObjectKey>,
}

impl Batches {
    /// Opens or extends the batch by pods that no plan has looked at.
    pub(super) fn grow(&mut self, view: &View, now: Timestamp) {
        let pending = view.unschedulable_pods();
        self.considered.retain(|pod| pending.contains(pod));
        let fresh: BTreeSet<ObjectKey> = pending
            .difference(&self.considered)
            .filter(|key| view.pod(key).is_some_and(|pod| is_provisionable(pod)))
            .cloned()
            .collect();
        match (&mut self.open, fresh.is_empty()) {
            (batch, true) => *batch = None,
            (Some(batch), false) => {
                if !fresh.is_subset(&batch.pods) {
                    batch.grown_at = now;
                }
                batch.pods = fresh;
            }
            (batch, false) => {
                *batch = Some(Batch { opened_at: now, grown_at: now, pods: fresh });
            }
        }
    }

    /// When the open batch ends.
    pub(super) fn ends(&self, idle: SignedDuration, max: SignedDuration) -> Option<Timestamp> {
        let batch = self.open.as_ref()?;
        Some(after(batch.grown_at, idle).min(after(batch.opened_at, max)))
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// A plan has looked at everything that waits.
    pub(super) fn close(&mut self, view: &View) {
        self.considered.clone_from(view.unschedulable_pods());
        self.open = None;
    }
}
