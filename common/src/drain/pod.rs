//! One pod's way off the node.

use jiff::{SignedDuration, Timestamp};

use super::ending::Ending;
use super::rules::{LONGEST_PAUSE, after, grace_seconds, latest_start, seconds_left};
use super::{DrainCall, DrainKey};
use crate::call::{Kind, KubernetesCall, KubernetesFailure, KubernetesFailureKind, Target};
use crate::cluster::Pod;

/// A pod that was accepted for eviction but shows no sign of it after so long is evicted again.
const SIGN_AFTER: SignedDuration = SignedDuration::from_secs(5);
/// Once only the grace is left, an eviction that hangs is not waited for any longer than this.
const OVERTAKE_AFTER: SignedDuration = SignedDuration::from_secs(1);
/// Nor is a deletion that hangs: a second one changes nothing if the first was done, and is all there
/// is if it wasn't.
const REPEAT_AFTER: SignedDuration = SignedDuration::from_secs(3);

/// How soon a refused deletion is tried again.
const LAST_CALL_PACE: SignedDuration = SignedDuration::from_secs(1);

/// What was done for a pod so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct PodDrain {
    attempts: u32,
    in_flight: Option<InFlight>,
    not_before: Option<Timestamp>,
    refusals: u32,
    refusal: Option<Refusal>,
    accepted_at: Option<Timestamp>,
    counted: bool,
    /// When a running deletion was asked to end instead.
    shortened_to: Option<Timestamp>,
    /// Whether that failed, as far as is known.
    shortening_failed: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct Refusal {
    failure: KubernetesFailure,
    at: Timestamp,
    forced: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct InFlight {
    attempt: u32,
    since: Timestamp,
    forced: bool,
    clipped: bool,
}

/// A call that a pod needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Attempt {
    /// A deletion, past any budget.
    pub(super) forced: bool,
    /// The pod's last moment has come, or it ends already: each second of waiting is one of its grace.
    pub(super) is_last_call: bool,
    grace_seconds: Option<u32>,
}

/// What a pod needs now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Want {
    Call(Attempt),
    Wait(&'static str),
    Nothing,
}

/// A call that made a pod leave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Accepted {
    pub(super) forced: bool,
    pub(super) clipped: bool,
}

impl PodDrain {
    pub(super) fn has_accepted(&self) -> bool {
        self.accepted_at.is_some()
    }

    pub(super) fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// When a running deletion was asked to end instead.
    pub(super) fn shortened_to(&self) -> Option<Timestamp> {
        self.shortened_to
    }

    /// When a pod that was told to end has had its time: what its kubelet was asked for last ends then,
    /// whatever the object shows.
    pub(super) fn ends_at(&self, pod: &Pod) -> Option<Timestamp> {
        pod.metadata.deletion_timestamp.map(|end| self.shortened_to.map_or(end, |to| to.max(end)))
    }

    /// Whether this call is under way, and a deletion.
    pub(super) fn is_deleting(&self, attempt: u32) -> bool {
        self.in_flight.is_some_and(|call| call.attempt == attempt && call.forced)
    }

    /// What the pod needs at `now`. `deadline` is when budgets give way, `waits` why it isn't the
    /// pod's turn.
    pub(super) fn want(
        &self,
        pod: &Pod,
        deadline: Option<Timestamp>,
        waits: Option<&'static str>,
        now: Timestamp,
    ) -> Want {
        if pod.is_terminating() {
            return self.shorten(pod, deadline, now);
        }
        let accepted = self.accepted_at.is_some_and(|at| now < after(at, SIGN_AFTER));
        if accepted {
            return Want::Nothing;
        }
        let last_call = deadline.filter(|&deadline| now >= latest_start(pod, deadline));
        let Some(deadline) = last_call else {
            return match waits {
                Some(reason) => Want::Wait(reason),
                None if self.may_call(now) => {
                    Want::Call(Attempt { forced: false, is_last_call: false, grace_seconds: None })
                }
                None => Want::Nothing,
            };
        };
        self.last_call(pod, deadline, now)
    }

    /// Only the pod's grace is left: one eviction if there was none yet, then deletion.
    fn last_call(&self, pod: &Pod, deadline: Timestamp, now: Timestamp) -> Want {
        let left = seconds_left(deadline, now);
        let clipped = i64::from(left) < grace_seconds(pod);
        if let Some(in_flight) = self.in_flight {
            let patience = if in_flight.forced { REPEAT_AFTER } else { OVERTAKE_AFTER };
            if now < after(in_flight.since, patience) {
                return Want::Nothing;
            }
        } else if self.attempts == 0 {
            // Its budget may well allow it, and then nothing has to be passed.
            let grace_seconds = clipped.then_some(left);
            return Want::Call(Attempt { forced: false, is_last_call: true, grace_seconds });
        }
        // Only what concerns deletions, too, is a reason to pause, and never for long.
        let pauses = self.refusal.as_ref().is_some_and(|refusal| {
            let overloaded = refusal.failure.kind == KubernetesFailureKind::TooManyRequests;
            (refusal.forced || overloaded) && now < after(refusal.at, LAST_CALL_PACE)
        });
        if pauses {
            return Want::Nothing;
        }
        let own = u32::try_from(grace_seconds(pod).max(1)).unwrap_or(u32::MAX);
        let grace_seconds = Some(left.min(own));
        Want::Call(Attempt { forced: true, is_last_call: true, grace_seconds })
    }

    /// A deletion under way that would outlast the deadline is shortened, once for each deadline.
    fn shorten(&self, pod: &Pod, deadline: Option<Timestamp>, now: Timestamp) -> Want {
        let (Some(deadline), Some(ending)) = (deadline, Ending::of(pod)) else {
            return Want::Nothing;
        };
        let slack = after(deadline, SignedDuration::from_secs(1));
        // A deadline that has passed leaves a second from then.
        let in_time = slack.max(after(now, SignedDuration::from_secs(1)));
        let shortened =
            !self.shortening_failed && self.shortened_to.is_some_and(|to| to <= in_time);
        // One that was done without an answer may have come late, and then ends late.
        let fits = !self.shortening_failed && self.ends_at(pod) <= Some(slack);
        if fits || shortened || !self.may_call(now) {
            return Want::Nothing;
        }
        let grace_seconds = ending.period_until(deadline, now);
        if grace_seconds.is_none() {
            return Want::Nothing;
        }
        Want::Call(Attempt { forced: true, is_last_call: true, grace_seconds })
    }

    fn may_call(&self, now: Timestamp) -> bool {
        self.in_flight.is_none() && self.not_before.is_none_or(|at| now >= at)
    }

    /// Starts a call.
    pub(super) fn start(&mut self, pod: &Pod, attempt: &Attempt, now: Timestamp) -> DrainCall {
        let key = DrainKey { uid: pod.metadata.uid.clone(), attempt: self.attempts };
        self.in_flight = Some(InFlight {
            attempt: self.attempts,
            since: now,
            forced: attempt.forced,
            clipped: attempt
                .grace_seconds
                .is_some_and(|grace| i64::from(grace) < grace_seconds(pod)),
        });
        self.attempts = self.attempts.saturating_add(1);
        if pod.is_terminating() {
            let grace = attempt.grace_seconds.unwrap_or(0);
            self.shortened_to = Some(after(now, SignedDuration::from_secs(grace.into())));
            self.shortening_failed = false;
        }
        let target = Target::namespaced(
            Kind::Pod,
            pod.metadata.namespace.as_str(),
            pod.metadata.name.as_str(),
        );
        let uid = pod.metadata.uid.clone();
        let grace_seconds = attempt.grace_seconds;
        let call = if attempt.forced {
            KubernetesCall::Delete { target, uid: Some(uid), grace_seconds }
        } else {
            KubernetesCall::Evict { target, uid, grace_seconds }
        };
        DrainCall { key, call }
    }

    /// Takes in an answer; returns how the pod leaves if it was the first that made it leave.
    pub(super) fn record(
        &mut self,
        attempt: u32,
        outcome: &Result<(), KubernetesFailure>,
        now: Timestamp,
    ) -> Option<Accepted> {
        let current = self.in_flight.filter(|in_flight| in_flight.attempt == attempt);
        if current.is_some() {
            self.in_flight = None;
        }
        match outcome {
            Ok(()) => {
                self.accepted_at = Some(now);
                self.refusal = None;
                self.refusals = 0;
                self.not_before = None;
                let first = !std::mem::replace(&mut self.counted, true);
                // An overtaken eviction that was accepted after all counts as one.
                let forced = current.is_some_and(|in_flight| in_flight.forced);
                let clipped = current.is_some_and(|in_flight| in_flight.clipped);
                first.then_some(Accepted { forced, clipped })
            }
            // Gone, or another pod bears the name by now.
            Err(failure) if is_gone(failure.kind) => {
                self.accepted_at = Some(now);
                None
            }
            Err(failure) => {
                if let Some(in_flight) = current {
                    self.refusals = self.refusals.saturating_add(1);
                    self.not_before = Some(after(now, pace(failure, self.refusals)));
                    self.shortening_failed = true;
                    let forced = in_flight.forced;
                    self.refusal = Some(Refusal { failure: failure.clone(), at: now, forced });
                }
                None
            }
        }
    }

    /// What was not answered, or failed, is due at once.
    pub(super) fn try_unanswered_again(&mut self) {
        use KubernetesFailureKind::{ServerError, Unreachable};
        let unanswered =
            |refusal: &Refusal| matches!(refusal.failure.kind, ServerError | Unreachable);
        if self.refusal.as_ref().is_some_and(unanswered) {
            self.refusals = 0;
            self.not_before = None;
        }
    }

    /// Why the pod is still there, for people.
    pub(super) fn reason(&self, pod: &Pod, want: &Want, now: Timestamp) -> String {
        if let Some(ends_at) = self.ends_at(pod) {
            let left = ends_at.duration_since(now).as_secs();
            return if left >= 0 {
                format!("terminating, {left} s left")
            } else {
                format!("terminating, overdue for {} s", left.saturating_neg())
            };
        }
        match (want, &self.refusal) {
            (Want::Wait(reason), _) => (*reason).to_owned(),
            (_, Some(refusal)) => refusal.failure.to_string(),
            (_, None) if self.accepted_at.is_some() => "eviction accepted".to_owned(),
            (_, None) => "eviction under way".to_owned(),
        }
    }
}

fn is_gone(kind: KubernetesFailureKind) -> bool {
    matches!(kind, KubernetesFailureKind::NotFound | KubernetesFailureKind::Conflict)
}

/// How long to wait after the nth refusal. A budget recovers as soon as a replacement is ready, so
/// the first retries are quick; what can't succeed is asked rarely, in case people repair it.
fn pace(failure: &KubernetesFailure, refusals: u32) -> SignedDuration {
    use KubernetesFailureKind as Failure;
    let doubling = |first: i64, longest: i64| {
        let factor = 1_i64 << refusals.saturating_sub(1).min(10);
        SignedDuration::from_millis(first.saturating_mul(factor).min(longest))
    };
    let pace = match failure.kind {
        Failure::OverlappingBudgets | Failure::Invalid => SignedDuration::from_secs(30),
        Failure::Forbidden => doubling(2_000, 10_000),
        // Its pods go by themselves; an eviction is made only if the namespace's end is not what it looked like.
        Failure::NamespaceTerminating => SignedDuration::from_secs(5),
        Failure::TooManyRequests => SignedDuration::from_secs(1),
        Failure::DisruptionBudget => doubling(500, 5_000),
        _ => doubling(250, 5_000),
    };
    let asked = i64::from(failure.retry_after_seconds.unwrap_or(0));
    let longest = match failure.kind {
        Failure::TooManyRequests => LONGEST_PAUSE,
        _ => 30,
    };
    pace.max(SignedDuration::from_secs(asked.min(longest)))
}
