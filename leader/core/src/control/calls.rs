//! Which calls are under way, which wait after a failure, and which commands are proposed.
//!
//! Decisions are level-triggered: each step states everything that is missing. This table keeps what
//! is already being done from being done again.

use std::collections::BTreeMap;

use drover_common::call::Call;
use drover_common::cluster::ObjectKey;
use drover_common::id::{InstanceId, IntentId, NodeClaimName, NodeName, NodePoolName};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::Effect;
use crate::command::{Change, Command};

/// The first wait after a failure; it doubles with every further one.
const FIRST_BACKOFF: SignedDuration = SignedDuration::from_millis(200);
/// The longest wait.
const LONGEST_BACKOFF: SignedDuration = SignedDuration::from_secs(10);
/// A call without an answer for this long is taken as lost: whether it was done is unknown.
const LOST_AFTER: SignedDuration = SignedDuration::from_mins(3);
/// A proposal that State does not show after this long is made again.
const PROPOSAL_PATIENCE: SignedDuration = SignedDuration::from_secs(5);

/// What a call is for. Of each key at most one call is under way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum CallKey {
    /// Reading, taking or renewing the lease.
    Lease,
    /// A read of types, prices, subnets, … named by the call's own words.
    Discover(String),
    /// All instances of the cluster.
    DescribeInstances,
    /// Messages of the interruption queue.
    ReceiveMessages,
    /// The end of messages that were heeded.
    DeleteMessages,
    /// One instance, asked for by id.
    DescribeInstance(InstanceId),
    /// The instances of an intent, asked for by tag.
    DescribeIntent(IntentId),
    /// The launch template of an intent.
    CreateLaunchTemplate(IntentId),
    /// The cluster's launch templates.
    DescribeLaunchTemplates,
    /// The end of a launch template, by name.
    DeleteLaunchTemplate(String),
    /// The intent's fleet.
    Launch(IntentId),
    /// The tags that name an instance's claim.
    TagInstance(InstanceId),
    /// The end of an instance.
    Terminate(InstanceId),
    /// A NodeClaim's creation.
    CreateClaim(NodeClaimName),
    /// A NodeClaim's metadata.
    PatchClaim(NodeClaimName),
    /// A NodeClaim's status.
    PatchClaimStatus(NodeClaimName),
    /// A NodeClaim's deletion.
    DeleteClaim(NodeClaimName),
    /// A Node's labels, annotations, taints, finalizers.
    PatchNode(NodeName),
    /// A Node's deletion.
    DeleteNode(NodeName),
    /// A live read of a NodeClaim.
    ReadClaim(NodeClaimName),
    /// The eviction or deletion of a pod in place of a silent agent: claim, pod uid and attempt.
    Drain(NodeClaimName, String, u32),
    /// A NodePool's status.
    PatchPoolStatus(NodePoolName),
    /// An EC2NodeClass's metadata.
    PatchClass(String),
    /// An EC2NodeClass's status.
    PatchClassStatus(String),
    /// A NodeOverlay's status.
    PatchOverlayStatus(String),
    /// A CapacityBuffer's status.
    PatchBufferStatus(ObjectKey),
    /// An event on an object; named by its own name.
    Event(String),
}

#[derive(Clone, Debug)]
struct InFlight {
    call: Call,
    since: Timestamp,
}

#[derive(Clone, Copy, Debug)]
struct Backoff {
    failures: u32,
    until: Timestamp,
}

/// The calls and proposals under way.
#[derive(Clone, Debug, Default)]
pub(super) struct CallTable {
    in_flight: BTreeMap<CallKey, InFlight>,
    backoff: BTreeMap<CallKey, Backoff>,
    proposals: BTreeMap<String, Timestamp>,
    effects: Vec<Effect>,
}

impl CallTable {
    /// Asks for a call, unless one of its key is under way or waits after a failure.
    pub(super) fn call(&mut self, key: CallKey, call: Call, now: Timestamp) -> bool {
        if !self.is_free(&key, now) {
            return false;
        }
        self.in_flight.insert(key.clone(), InFlight { call: call.clone(), since: now });
        self.effects.push(Effect::Call { key, call: Box::new(call) });
        true
    }

    /// Whether a call of the key could be made now.
    pub(super) fn is_free(&self, key: &CallKey, now: Timestamp) -> bool {
        let busy =
            self.in_flight.get(key).is_some_and(|call| now.duration_since(call.since) < LOST_AFTER);
        !busy && self.backoff.get(key).is_none_or(|backoff| backoff.until <= now)
    }

    /// The answer to a key arrived: the call it belongs to.
    pub(super) fn answered(&mut self, key: &CallKey) -> Option<Call> {
        self.in_flight.remove(key).map(|entry| entry.call)
    }

    pub(super) fn succeeded(&mut self, key: &CallKey) {
        self.backoff.remove(key);
    }

    /// Makes a key wait: 200 ms, doubling to 10 s.
    pub(super) fn failed(&mut self, key: &CallKey, now: Timestamp) {
        let failures = self.backoff.get(key).map_or(0, |backoff| backoff.failures);
        let factor = 1_i32 << failures.min(10);
        let wait = FIRST_BACKOFF.saturating_mul(factor).min(LONGEST_BACKOFF);
        let until = now.checked_add(wait).unwrap_or(Timestamp::MAX);
        let failures = failures.saturating_add(1);
        self.backoff.insert(key.clone(), Backoff { failures, until });
    }

    /// How often a key failed in a row.
    pub(super) fn failures(&self, key: &CallKey) -> u32 {
        self.backoff.get(key).map_or(0, |backoff| backoff.failures)
    }

    /// Proposes a command, unless the same was proposed moments ago.
    pub(super) fn propose(&mut self, change: Change, now: Timestamp) -> bool {
        let subject = proposal_key(&change);
        let waiting = self
            .proposals
            .get(&subject)
            .is_some_and(|since| now.duration_since(*since) < PROPOSAL_PATIENCE);
        if waiting {
            return false;
        }
        self.proposals.insert(subject, now);
        self.effects.push(Effect::Propose(Box::new(Command { at: now, change })));
        true
    }

    /// A proposal that the log did not take may be made again.
    pub(super) fn proposal_rejected(&mut self, change: &Change) {
        self.proposals.remove(&proposal_key(change));
    }

    /// Forgets proposals and waits that are long over.
    pub(super) fn expire(&mut self, now: Timestamp) {
        self.proposals.retain(|_, since| now.duration_since(*since) < PROPOSAL_PATIENCE);
        let kept = LONGEST_BACKOFF.saturating_mul(6);
        self.backoff.retain(|_, backoff| now.duration_since(backoff.until) < kept);
    }

    pub(super) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }
}

/// Verb and subject: what makes two proposals the same.
fn proposal_key(change: &Change) -> String {
    match change {
        Change::CreateIntent { intent } => format!("create-intent {}", intent.id),
        Change::RecordLaunched { intent, .. } | Change::RecordLaunchFailed { intent, .. } => {
            format!("record-launched {intent}")
        }
        Change::AdoptClaim { claim } => format!("adopt {}", claim.name),
        Change::RecordRegistered { claim, .. } => format!("registered {claim}"),
        Change::RecordInitialized { claim } => format!("initialized {claim}"),
        Change::RecordReservationLapsed { claim, .. } => format!("lapsed {claim}"),
        Change::RecordNotice { notice, .. } => format!(
            "notice {} {:?} {} {:?}",
            notice.instance, notice.kind, notice.boot, notice.deadline
        ),
        Change::CommitDisruption { disruption, .. } => {
            let claims: Vec<&str> = disruption.claims.iter().map(NodeClaimName::as_str).collect();
            format!("disrupt {}", claims.join(" "))
        }
        Change::WithdrawNotice { instance, kind } => format!("withdraw {instance} {kind:?}"),
        Change::TightenDisruption { claim, notice, deadline, .. } => {
            format!("tighten {claim} {notice:?} {deadline:?}")
        }
        Change::StartDrain { disruption, .. } => format!("drain {disruption}"),
        Change::CancelDisruption { disruption, .. } => format!("cancel {disruption}"),
        Change::RecordDrained { claim, .. } => format!("drained {claim}"),
        Change::CommitTermination { instance, .. } => format!("terminate {instance}"),
        Change::RecordTerminated { instance, claim, .. } => {
            format!("terminated {instance:?} {claim:?}")
        }
        Change::ForgetClaim { claim } => format!("forget {claim}"),
        Change::RecordUsage { .. } => "usage".to_owned(),
        Change::SetPause { nodepool, .. } => format!("pause {nodepool:?}"),
        Change::Unknown => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_common::ec2::Ec2Call;

    #[test]
    fn a_key_is_called_once_until_answered_and_waits_after_failures() {
        let mut table = CallTable::default();
        let call = Call::Ec2(Ec2Call::DescribeInstanceTypes);
        let at = |millis: i64| Timestamp::from_millisecond(1_000_000 + millis).unwrap();
        assert!(table.call(CallKey::Lease, call.clone(), at(0)));
        assert!(!table.call(CallKey::Lease, call.clone(), at(1)));
        assert_eq!(table.answered(&CallKey::Lease), Some(call.clone()));
        assert_eq!(table.answered(&CallKey::Lease), None);
        table.failed(&CallKey::Lease, at(2));
        assert!(!table.is_free(&CallKey::Lease, at(201)));
        assert!(table.is_free(&CallKey::Lease, at(202)));
        table.failed(&CallKey::Lease, at(202));
        assert!(!table.is_free(&CallKey::Lease, at(601)));
        for _ in 0..40 {
            table.failed(&CallKey::Lease, at(1_000));
        }
        assert!(table.is_free(&CallKey::Lease, at(11_000)));
        table.succeeded(&CallKey::Lease);
        assert_eq!(table.failures(&CallKey::Lease), 0);
        assert_eq!(table.take_effects().len(), 1);
    }

    #[test]
    fn a_call_without_an_answer_is_made_again_in_the_end() {
        let mut table = CallTable::default();
        let call = Call::Ec2(Ec2Call::DescribeInstanceTypes);
        let start = Timestamp::from_second(1_000).unwrap();
        assert!(table.call(CallKey::Lease, call.clone(), start));
        assert!(!table.call(CallKey::Lease, call.clone(), start + SignedDuration::from_secs(179)));
        assert!(table.call(CallKey::Lease, call, start + SignedDuration::from_secs(180)));
    }
}
