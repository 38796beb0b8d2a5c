//! From when a terminationGracePeriod counts: from a drain's beginning, which everybody can see by then.
//!
//! Karpenter counts it from the NodeClaim's deletionTimestamp, which shows users and pods' owners that a drain begins.
//! Here the log says that first, and the claim's deletion may fail for long; so a drain waits for a sign at the API
//! server, its deadline stands in the entry that begins it, and no later sign moves that.

use drover_common::cluster::Node;
use drover_common::id::NodeClaimName;
use drover_common::labels;
use jiff::{SignedDuration, Timestamp};

use super::Control;
use super::leave::loss_of;
use super::object;
use crate::state::{DisruptionRecord, State};

/// A drain begins after so long even if no sign of it can be made.
const UNSEEN_AT_MOST: SignedDuration = SignedDuration::from_mins(1);
/// The same where the machine is about to be taken away.
const UNSEEN_AT_LOSS: SignedDuration = SignedDuration::from_secs(10);

impl Control {
    /// Whether a disruption's drains may begin: each of its claims that has a terminationGracePeriod shows it, by its
    /// deletionTimestamp or by its Node's taint, or that was waited for long enough.
    pub(super) fn is_announced(
        &self,
        state: &State,
        record: &DisruptionRecord,
        now: Timestamp,
    ) -> bool {
        let claims = &record.disruption.claims;
        let lost = claims.iter().any(|name| loss_of(state, name, now).is_some());
        let patience = if lost { UNSEEN_AT_LOSS } else { UNSEEN_AT_MOST };
        now.duration_since(record.committed_at) >= patience
            || claims.iter().all(|name| !self.has_period(name) || self.shows_drain(state, name))
    }

    fn has_period(&self, name: &NodeClaimName) -> bool {
        self.view.claims().get(name).is_some_and(|claim| claim.spec.drain_deadline().is_some())
    }

    fn shows_drain(&self, state: &State, name: &NodeClaimName) -> bool {
        let claim = self.view.claims().get(name);
        let node = state.claims.get(name).and_then(|record| self.node_of(record));
        claim.is_some_and(|claim| object::deleted_at(claim).is_some())
            || node.is_none_or(|node| is_tainted(&node))
    }

    /// What the entry that begins a disruption's drains says of their deadline; `None` if it stays what it is. By that
    /// entry none gets more time than a notice leaves it.
    pub(super) fn deadline_at_start(
        &self,
        state: &State,
        record: &DisruptionRecord,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let disruption = &record.disruption;
        let claims = &disruption.claims;
        let fresh = if disruption.reason.is_voluntary() {
            record.deadline_from(now)
        } else if claims.iter().any(|name| self.has_period(name)) {
            self.drain_deadline(state, claims, disruption.reason, now)
        } else {
            None
        };
        let loss = claims.iter().filter_map(|name| loss_of(state, name, now)).min();
        let noticed = loss.into_iter().chain(loss.and_then(|_| self.noticed_deadline(record)));
        let deadline = fresh.into_iter().chain(noticed).min();
        deadline.filter(|_| disruption.deadline != deadline)
    }

    /// The deadline that a disruption has already, if a notice set it: it is before the end of each
    /// terminationGracePeriod, counted from the disruption's beginning.
    fn noticed_deadline(&self, record: &DisruptionRecord) -> Option<Timestamp> {
        let begun = record.committed_at;
        let mut ends = record.disruption.claims.iter().filter_map(|name| {
            let claim = self.view.claims().get(name)?;
            let from = object::deleted_at(claim).filter(|at| *at < begun).unwrap_or(begun);
            Some(object::after(from, claim.spec.drain_deadline()?))
        });
        record.disruption.deadline.filter(|own| ends.all(|end| *own < end))
    }
}

pub(super) fn is_tainted(node: &Node) -> bool {
    node.spec.taints.iter().any(|taint| taint.key == labels::DISRUPTED_TAINT)
}
