//! The drain engine: which pods leave a node, in which order, and how each refusal is met.
//!
//! Pure: [`step`] takes the pods of one node, what the drain is for, the outcomes of earlier calls
//! and the time, and returns the calls to make now. The node's agent executes them; the leader does
//! so for an agent that is silent. Both step it a few times a second while a drain lasts.
//!
//! * DaemonSet, mirror and ended pods stay, and so do pods that tolerate the disrupted taint.
//! * Pods leave by the eviction API, so that PodDisruptionBudgets hold, with UID preconditions.
//! * Where the purpose may pass budgets, a pod that is still refused when only its own grace is left
//!   until the deadline is deleted with the grace that is left: at least a second, never 0, so that
//!   it sees SIGTERM before the machine goes.
//! * An interruption starts all pods at once, those with volumes first: their detach must fit in.
//!   A voluntary drain waits for `do-not-disrupt` and for the ordinary pods before critical ones, but
//!   not beyond the moment at which only a pod's own grace is left.

mod ending;
mod go_duration;
mod pod;
mod rules;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::call::{KubernetesCall, KubernetesFailure, KubernetesFailureKind};
use crate::cluster::{ObjectKey, Pod};
use crate::id::DisruptionId;
use crate::protocol::{DrainPhase, DrainReport, NoticeKind};

pub use ending::is_stuck;
use pod::{PodDrain, Want};
pub use rules::{grace, has_active_do_not_disrupt, reduced, stays};

/// Calls under way at a time: the API server's patience is the bound, not the node's.
pub const CONCURRENCY: usize = 32;

/// Evictions that hang, or were told to pause, must not keep the last calls from being sent when time runs out.
const LAST_CONCURRENCY: usize = 2 * CONCURRENCY;

/// A drain isn't done sooner than this after its start, so that pods which the scheduler bound just
/// before it saw the cordon are found (Karpenter waits as long).
pub const SHORTEST_DRAIN: SignedDuration = SignedDuration::from_secs(5);

/// Kept between a pod's last moment and the announced one: that is approximate, and volumes must
/// detach.
pub const RESERVE: SignedDuration = SignedDuration::from_secs(5);

/// What a drain is for; it may change while the drain runs (a spot notice overtakes a disruption).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Purpose {
    /// The leaders' disruption that it serves; `None` for an interruption that the agent acts on by
    /// itself.
    pub disruption: Option<DisruptionId>,
    /// Whether the machine is taken away in any case (see
    /// [`crate::protocol::NoticeKind::passes_budgets`]): no pod is kept waiting.
    pub hurries: bool,
    /// The last moment for pods, whatever it permits: the announced time less [`RESERVE`], or when
    /// budgets give way; `None` where no time was announced.
    pub end: Option<Timestamp>,
    /// When pods may be deleted past their budgets; never, if `None`.
    pub budgets_end: Option<Timestamp>,
}

impl Purpose {
    /// The leaders' disruption as its Node bears it: when budgets give way, and the kind of the notice
    /// that it follows, if it does.
    pub fn disruption(
        id: DisruptionId,
        deadline: Option<Timestamp>,
        notice: Option<NoticeKind>,
    ) -> Self {
        let hurries = notice.is_some_and(|kind| kind.ends_instance() && kind.passes_budgets());
        Self { disruption: Some(id), hurries, end: deadline, budgets_end: deadline }
    }

    /// The same with another's hurry and ends, where those come first.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let first = |one: Option<Timestamp>, other| one.into_iter().chain(other).min();
        Self {
            disruption: self.disruption,
            hurries: self.hurries || other.hurries,
            end: first(self.end, other.end),
            budgets_end: first(self.budgets_end, other.budgets_end),
        }
    }
}

/// The last moment for pods before an announced one.
pub fn last_moment(announced: Timestamp) -> Timestamp {
    announced.checked_sub(RESERVE).unwrap_or(Timestamp::MIN)
}

/// Identifies a call of a drain: the pod and how many calls were made for it before.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DrainKey {
    /// The pod's UID.
    pub uid: String,
    /// Counts up.
    pub attempt: u32,
}

/// A call to make now. Its outcome comes back under the same key.
#[derive(Clone, Debug, PartialEq)]
pub struct DrainCall {
    /// Which.
    pub key: DrainKey,
    /// The request; always an eviction or a deletion of a pod, with its UID.
    pub call: KubernetesCall,
}

/// What a step is made from.
#[derive(Clone, Copy, Debug)]
pub struct DrainInput<'a> {
    /// The pods bound to the node.
    pub pods: &'a [&'a Pod],
    /// Whether `pods` is known to be complete and fresh. If not, what is known still leaves, but
    /// absence proves nothing.
    pub complete: bool,
    /// What for.
    pub purpose: &'a Purpose,
    /// The time.
    pub now: Timestamp,
    /// Answers to earlier calls, each given once.
    pub outcomes: &'a [(DrainKey, Result<(), KubernetesFailure>)],
}

/// The drain of one node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DrainState {
    started_at: Option<Timestamp>,
    pods: BTreeMap<String, PodDrain>,
    /// API priority and fairness asked for a pause until then.
    paused_until: Option<Timestamp>,
    evicted: u32,
    clipped: u32,
    forced: u32,
    disruption: Option<DisruptionId>,
    remaining: Vec<(String, String)>,
    drained: bool,
}

impl DrainState {
    /// How it goes, as of the last step.
    pub fn report(&self) -> DrainReport {
        DrainReport {
            disruption: self.disruption.clone(),
            phase: if self.drained { DrainPhase::Drained } else { DrainPhase::Draining },
            evicted: self.evicted,
            clipped: self.clipped,
            forced: self.forced,
            remaining: self.remaining.clone(),
        }
    }

    /// Whether the API server has accepted that this pod leaves.
    pub fn has_accepted(&self, uid: &str) -> bool {
        self.pods.get(uid).is_some_and(PodDrain::has_accepted)
    }

    /// When a pod that was told to end has had its time, as far as this drain knows.
    pub fn ends_at(&self, pod: &Pod) -> Option<Timestamp> {
        let known = self.pods.get(&pod.metadata.uid).and_then(|progress| progress.ends_at(pod));
        known.or(pod.metadata.deletion_timestamp)
    }

    /// Whether it is a deletion that is under way.
    pub fn is_deletion(&self, key: &DrainKey) -> bool {
        self.pods.get(&key.uid).is_some_and(|pod| pod.is_deleting(key.attempt))
    }

    /// The API server answers again: calls that it did not answer, or failed, are due at once.
    pub fn try_unanswered_again(&mut self) {
        self.pods.values_mut().for_each(PodDrain::try_unanswered_again);
    }

    /// When the first step was made.
    pub fn started_at(&self) -> Option<Timestamp> {
        self.started_at
    }

    fn record(&mut self, input: &DrainInput<'_>) {
        for (key, outcome) in input.outcomes {
            let Some(pod) = self.pods.get_mut(&key.uid) else { continue };
            let Some(accepted) = pod.record(key.attempt, outcome, input.now) else {
                if let Err(failure) = outcome
                    && failure.kind == KubernetesFailureKind::TooManyRequests
                {
                    self.paused_until = Some(rules::pause(failure, input.now));
                }
                continue;
            };
            let counter = if accepted.forced { &mut self.forced } else { &mut self.evicted };
            *counter = counter.saturating_add(1);
            if accepted.clipped {
                self.clipped = self.clipped.saturating_add(1);
            }
        }
    }

    fn is_paused(&self, now: Timestamp) -> bool {
        self.paused_until.is_some_and(|until| now < until)
    }
}

/// Takes in the outcomes and returns the calls to make now.
///
/// A call whose answer never arrives is the shell's to time out: it must report every call's
/// outcome, as [`KubernetesFailureKind::Unreachable`] if there was none.
pub fn step(state: &mut DrainState, input: DrainInput<'_>) -> Vec<DrainCall> {
    let started_at = *state.started_at.get_or_insert(input.now);
    state.record(&input);
    let leaving = rules::leaving(input.pods);
    let present: BTreeSet<&str> = input.pods.iter().map(|pod| pod.metadata.uid.as_str()).collect();
    state.pods.retain(|uid, pod| pod.is_in_flight() || present.contains(uid.as_str()));
    let critical_may_go =
        input.purpose.hurries || leaving.iter().all(|pod| rules::is_critical(pod));

    let mut in_flight = state.pods.values().filter(|pod| pod.is_in_flight()).count();
    let paused = state.is_paused(input.now);
    let mut calls = Vec::new();
    let mut remaining = Vec::with_capacity(leaving.len());
    let mut all_stuck = true;
    for pod in leaving {
        let progress = state.pods.entry(pod.metadata.uid.clone()).or_default();
        let waits = rules::waits(pod, &input, critical_may_go);
        let want = progress.want(pod, input.purpose.budgets_end, waits, input.now);
        if let Want::Call(attempt) = &want
            && (if attempt.is_last_call {
                in_flight < LAST_CONCURRENCY
            } else {
                !paused && in_flight < CONCURRENCY
            })
        {
            calls.push(progress.start(pod, attempt, input.now));
            in_flight = in_flight.saturating_add(1);
        }
        let given_until = input.purpose.budgets_end.max(progress.shortened_to());
        all_stuck &= is_stuck(pod, given_until, input.now);
        let reason = progress.reason(pod, &want, input.now);
        remaining.push((ObjectKey::from(&pod.metadata).to_string(), reason));
    }
    let settled = input.now >= rules::after(started_at, SHORTEST_DRAIN);
    state.drained = input.complete && all_stuck && settled && calls.is_empty();
    state.remaining = remaining;
    state.disruption.clone_from(&input.purpose.disruption);
    calls
}
