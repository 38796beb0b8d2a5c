//! The last resort: a spot loss while the API server is out of reach.
//!
//! Nobody else can end the pods then. Powering the machine off makes the kubelet stop them in good
//! order (its graceful shutdown), so that they see SIGTERM before the machine is taken. An API server that refuses each
//! and every eviction and deletion (401, 403, 429 without a budget) is no better than one that is gone; while a pod
//! ends, whoever asked it to, a shutdown would cut its grace short.
//!
//! Who may not evict may well delete, which the drain asks for when only a pod's grace is left. That the machine stays
//! on until it was tried costs the pods nothing: it takes no longer than [`DELETION_PATIENCE`], which is less than
//! [`drain::RESERVE`], so that their grace still ends before the machine does.

use drover_common::call::{KubernetesCall, KubernetesFailure, KubernetesFailureKind};
use drover_common::cluster::Pod;
use drover_common::drain::{self, DrainCall, DrainKey};
use drover_common::protocol::NoticeKind;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{Agent, Effect, Fact};
use crate::moment::Moment;

/// An API server that was silent for less time may just be slow.
const CUT_OFF_AFTER: SignedDuration = SignedDuration::from_secs(5);
/// What pods are given where nothing is known of them: Kubernetes' default.
const DEFAULT_GRACE: SignedDuration = SignedDuration::from_secs(30);
/// A deletion that was asked for so long ago, and is not let through yet, counts as refused: the drain itself waits no
/// longer before it asks again.
const DELETION_PATIENCE: SignedDuration = SignedDuration::from_secs(3);
/// Even pods without any grace need a moment to be stopped.
const SHORTEST_GRACE: SignedDuration = SignedDuration::from_secs(3);

/// Whether the API server did not answer. A load balancer without a server behind it answers with 5xx for it.
pub(super) fn is_silent(failure: &KubernetesFailure) -> bool {
    matches!(failure.kind, KubernetesFailureKind::Unreachable | KubernetesFailureKind::ServerError)
}

/// What the API server makes of it that pods are asked to go. Times are on the steady clock.
#[derive(Clone, Debug, Default)]
pub(super) struct Refusals {
    /// Since when it has refused all that it answered.
    since: Option<SignedDuration>,
    /// When it was first asked for a deletion, of which none was let through since.
    deletion_asked: Option<SignedDuration>,
    /// Since when those that were answered were refused.
    deletion_refused: Option<SignedDuration>,
}

impl Refusals {
    /// Whether evictions and deletions are refused alike.
    fn are_complete(&self, now: Moment) -> bool {
        let for_long = |at| now.is_past(at, DELETION_PATIENCE);
        // Where a budget held the evictions, all that is refused are deletions.
        self.deletion_refused.is_some_and(for_long)
            || self.since.is_some_and(|at| now.is_past(at, CUT_OFF_AFTER))
                && (self.deletion_refused.is_some() || self.deletion_asked.is_some_and(for_long))
    }

    /// These calls are made.
    pub(super) fn ask(&mut self, calls: &[DrainCall], now: Moment) {
        if calls.iter().any(|made| matches!(made.call, KubernetesCall::Delete { .. })) {
            self.deletion_asked.get_or_insert(now.steady);
        }
    }
}

impl Agent {
    /// The API server answered something, or a call of it was not answered.
    pub(super) fn hear_api(&mut self, now: Moment, answered: bool) {
        let is_cut_off = self.is_cut_off(now);
        if answered {
            if let Some(drain) = self.drain.as_mut().filter(|_| is_cut_off) {
                drain.try_unanswered_again();
            }
            self.cut_off_since = None;
        } else {
            self.cut_off_since.get_or_insert(now.steady);
        }
    }

    pub(super) fn is_cut_off(&self, now: Moment) -> bool {
        self.cut_off_since.is_some_and(|at| now.is_past(at, CUT_OFF_AFTER))
    }

    /// What came of asking a pod to go; the drain itself has not heard it yet.
    pub(super) fn hear_of_pod(
        &mut self,
        now: Moment,
        key: &DrainKey,
        outcome: &Result<Value, KubernetesFailure>,
    ) {
        let refuses_us = |failure: &KubernetesFailure| {
            matches!(
                failure.kind,
                KubernetesFailureKind::Forbidden | KubernetesFailureKind::TooManyRequests
            )
        };
        match outcome {
            Err(failure) if refuses_us(failure) => {
                self.refusals.since.get_or_insert(now.steady);
                if self.drain.as_ref().is_some_and(|drain| drain.is_deletion(key)) {
                    self.refusals.deletion_refused.get_or_insert(now.steady);
                }
            }
            // Silence says nothing of whether it would.
            Err(failure) if is_silent(failure) => {}
            // A budget's refusal is none of the agent's identity, nor is that of a namespace that ends.
            Ok(_) | Err(_) => self.refusals = Refusals::default(),
        }
    }

    /// Whether nothing else than refusals was heard for a while, and no pod has a grace that runs.
    fn is_refused(&self, now: Moment) -> bool {
        let drain = self.drain.as_ref();
        let end_of = |pod: &Pod| match drain {
            Some(drain) => drain.ends_at(pod),
            None => pod.metadata.deletion_timestamp,
        };
        let ends = |pod: &Pod| match end_of(pod) {
            // One that was to have ended by then is stuck, and owed nothing.
            Some(end) => now.wall < end,
            None => drain.is_some_and(|drain| drain.has_accepted(&pod.metadata.uid)),
        };
        self.refusals.are_complete(now)
            && !self.pods.values().any(|pod| drain::stays(pod).is_none() && ends(pod))
    }

    pub(super) fn take_powered_off(
        &mut self,
        attempt: u32,
        outcome: Result<(), String>,
        now: Moment,
    ) {
        match outcome {
            // The machine goes down, or should: a bus that lies is asked again after a while.
            Ok(()) => self.power_off.succeed(attempt, DEFAULT_GRACE, now),
            Err(reason) => {
                self.power_off.fail(attempt, self.spread, now);
                self.tell(Fact::PowerOffFailed(reason));
            }
        }
    }

    pub(super) fn decide_power_off(&mut self, now: Moment) {
        if self.drain.is_none() {
            self.refusals = Refusals::default();
        }
        if !self.is_cut_off(now) && !self.is_refused(now) {
            self.told_cut_off = false;
            return;
        }
        if !self.owns_node() {
            return;
        }
        let Some(deadline) = self.loss() else { return };
        let Some(longest) = self.unasked_grace() else { return };
        let given = self.power_off_grace.unwrap_or(DEFAULT_GRACE);
        let grace = longest.min(given).max(SHORTEST_GRACE);
        if now.wall < deadline.checked_sub(grace).unwrap_or(Timestamp::MIN) {
            return;
        }
        let can_power_off = self.power_off_grace.is_some();
        if !std::mem::replace(&mut self.told_cut_off, true) {
            self.tell(Fact::CutOff { can_power_off });
        }
        if can_power_off && let Some(attempt) = self.power_off.start(now) {
            self.effects.push(Effect::PowerOff(attempt));
        }
    }

    /// The last moment for pods before EC2 takes or stops the machine.
    fn loss(&self) -> Option<Timestamp> {
        let losses = self.notices.list().into_iter().filter(|notice| {
            matches!(notice.kind, NoticeKind::SpotTerminate | NoticeKind::SpotStop)
        });
        losses.filter_map(|notice| notice.deadline).min().map(drain::last_moment)
    }

    /// The longest grace among the pods that nobody has asked to end yet; `None` if there are none.
    fn unasked_grace(&self) -> Option<SignedDuration> {
        if !self.pods_complete && self.pods.is_empty() {
            return Some(DEFAULT_GRACE);
        }
        let drain = self.drain.as_ref();
        let unasked = self.pods.values().filter(|pod| {
            drain::stays(pod).is_none()
                && !pod.is_terminating()
                && !drain.is_some_and(|drain| drain.has_accepted(&pod.metadata.uid))
        });
        unasked.map(|pod| drain::grace(pod)).max()
    }
}
