//! Leading claims out: why one must go, its drain, its instance's end, its objects' removal.
//!
//! ```text
//!   CommitDisruption → (taint, replacements, checks) → StartDrain → objects deleted, pods leave
//!     → RecordDrained → (volumes come off) → CommitTermination → TerminateInstances
//!     → RecordTerminated
//!     → finalizers removed → ForgetClaim
//! ```

use drover_common::call::{Call, Kind, KubernetesCall, Target};
use drover_common::cluster::Node;
use drover_common::crd::NodeClaim;
use drover_common::drain;
use drover_common::ec2::{Ec2Call, InstanceState};
use drover_common::id::{DisruptionId, NodeClaimName, NodeName};
use drover_common::labels;
use drover_common::protocol::NoticeKind;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::Control;
use super::calls::CallKey;
use super::clocks::has_time_left;
use super::intent::short_hash;
use super::object;
use crate::command::{Change, Disruption, DisruptionReason};
use crate::state::{ClaimRecord, DisruptionRecord, Stage, State};

/// A terminate that EC2 took, and whose instance still runs after this long, is sent again.
const TERMINATE_AGAIN: SignedDuration = SignedDuration::from_mins(2);

impl Control {
    pub(super) fn lead_out(&mut self, state: &State, now: Timestamp) {
        for (name, record) in &state.claims {
            self.see_to_claim(state, name, record, now);
        }
        let mut ready = Vec::new();
        for (id, record) in &state.disruptions {
            if self.see_to_disruption(state, id, record, now) {
                ready.push(id);
            }
        }
        self.start_consolidations(state, &ready, now);
        self.finish_terminations(state, now);
    }

    fn see_to_claim(
        &mut self,
        state: &State,
        name: &NodeClaimName,
        record: &ClaimRecord,
        now: Timestamp,
    ) {
        let object = self.view.claims().get(name).cloned();
        let node = self.node_of(record);
        match record.stage {
            Stage::Gone => self.remove_objects(name, object.as_deref(), node.as_deref(), now),
            Stage::Terminating => {
                self.delete_objects(name, object.as_deref(), node.as_deref(), now);
            }
            Stage::Draining => {
                self.hasten(state, name, record, now);
                self.delete_objects(name, object.as_deref(), node.as_deref(), now);
                self.see_to_drain(state, name, record, node.as_deref(), now);
            }
            Stage::Disrupting
                if state.reason_of(name).is_some_and(|reason| !reason.is_voluntary()) =>
            {
                self.hasten(state, name, record, now);
            }
            _ => {
                let why =
                    self.must_leave(state, name, record, object.as_deref(), node.as_deref(), now);
                if let Some((reason, explanation)) = why {
                    self.commit_disruption(state, vec![name.clone()], reason, explanation, now);
                }
            }
        }
        self.see_instance_end(name, record, now);
    }

    /// Why a claim has to go at once, whatever budgets say.
    fn must_leave(
        &self,
        state: &State,
        name: &NodeClaimName,
        record: &ClaimRecord,
        claim: Option<&NodeClaim>,
        node: Option<&Node>,
        now: Timestamp,
    ) -> Option<(DisruptionReason, String)> {
        if let Some(notice) = state.hard_notice(name, now) {
            return Some((DisruptionReason::Interruption, notice.describe()));
        }
        let instance = self.shown(record);
        let hibernated = state.is_hibernated(name);
        let resumes = |state| {
            matches!(state, InstanceState::Pending | InstanceState::Running)
                || matches!(state, InstanceState::Stopping | InstanceState::Stopped) && hibernated
        };
        if let Some(instance) = instance.filter(|instance| !resumes(instance.state)) {
            let words = format!("EC2 shows instance {} as {:?}", instance.instance, instance.state);
            // What no notice came before ended for what it was launched with. Its pool's launches are to wait for that.
            let reason = match record.registered_at {
                Some(_) => DisruptionReason::Interruption,
                None => DisruptionReason::Liveness,
            };
            return Some((reason, words));
        }
        if claim.is_some_and(|claim| object::deleted_at(claim).is_some()) {
            return Some((DisruptionReason::Deletion, "its NodeClaim was deleted".to_owned()));
        }
        if node.is_some_and(|node| node.metadata.deletion_timestamp.is_some()) {
            return Some((DisruptionReason::Deletion, "its Node was deleted".to_owned()));
        }
        let launched_at = record.launched_at.filter(|_| record.registered_at.is_none());
        if launched_at
            .is_some_and(|at| now.duration_since(at) > self.settings.registration_liveness)
        {
            let words = format!("no Node joined within {:#}", self.settings.registration_liveness);
            return Some((DisruptionReason::Liveness, words));
        }
        let created = claim.and_then(object::created_at).unwrap_or(record.created_at);
        let expires = claim.and_then(|claim| claim.spec.expires_after());
        expires
            .filter(|age| record.instance.is_some() && now.duration_since(created) > *age)
            .map(|age| (DisruptionReason::Expiration, format!("older than {age:#}")))
    }

    /// Proposes that claims leave. The id is made from the time and the claims.
    pub(super) fn commit_disruption(
        &mut self,
        state: &State,
        claims: Vec<NodeClaimName>,
        reason: DisruptionReason,
        explanation: String,
        now: Timestamp,
    ) -> bool {
        let deadline = self.drain_deadline(state, &claims, reason, now);
        let notice = pressing_notice(state, &claims, reason, now);
        let mut parts = vec![now.to_string(), reason.as_str().to_owned()];
        parts.extend(claims.iter().map(|claim| claim.to_string()));
        let id = DisruptionId::from(format!("d-{}", short_hash(&parts, 10)));
        let (word, warning) = match reason {
            DisruptionReason::Interruption => ("TerminatingOnInterruption", true),
            DisruptionReason::Liveness => ("Disrupted", true),
            _ => ("DisruptionTerminating", false),
        };
        for claim in &claims {
            let note = format!("Disrupting NodeClaim: {} ({explanation})", reason.as_str());
            self.claim_event(claim, word, &note, warning, now);
        }
        let replacements = Vec::new();
        let disruption =
            Disruption { id, reason, claims, replacements, deadline, notice, explanation };
        self.propose_disruption(disruption, Vec::new(), now)
    }

    /// When pods may be deleted past their budgets: the terminationGracePeriod's end, or, for an
    /// interruption, just before the first moment that EC2 announced by a notice which permits that,
    /// whichever comes first.
    pub(super) fn drain_deadline(
        &self,
        state: &State,
        claims: &[NodeClaimName],
        reason: DisruptionReason,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let grace = claims.iter().filter_map(|name| {
            let claim = self.view.claims().get(name)?;
            let from = object::deleted_at(claim).unwrap_or(now);
            Some(object::after(from, claim.spec.drain_deadline()?))
        });
        let interrupted = claims.iter().filter(|_| reason == DisruptionReason::Interruption);
        let notice = interrupted.filter_map(|name| loss_of(state, name, now));
        grace.chain(notice).min()
    }

    /// Sees to it that a claim which leaves already has no more time than a notice leaves it that came
    /// later.
    fn hasten(
        &mut self,
        state: &State,
        name: &NodeClaimName,
        record: &ClaimRecord,
        now: Timestamp,
    ) {
        let Some((change, explanation)) = tightening(state, name, record, now) else { return };
        if self.propose(change, now) {
            let note = format!("Disrupting NodeClaim: Interruption ({explanation})");
            self.claim_event(name, "TerminatingOnInterruption", &note, true, now);
        }
    }

    /// Carries a disruption on to its drain. Returns whether it is a consolidation that could begin
    /// now: those are looked at together once more.
    fn see_to_disruption(
        &mut self,
        state: &State,
        id: &DisruptionId,
        record: &DisruptionRecord,
        now: Timestamp,
    ) -> bool {
        if record.draining_since.is_some() {
            return false;
        }
        if record.disruption.reason.is_voluntary() {
            match self.check_voluntary(state, record, now) {
                Verdict::Go => {}
                Verdict::Wait => return false,
                Verdict::Cancel(reason) => {
                    self.give_up(state, id, reason, now);
                    return false;
                }
            }
        }
        // A launch whose outcome is open can't be drained; its outcome comes first.
        let open = record.disruption.claims.iter().any(|name| {
            let intent = state.claims.get(name).and_then(|claim| claim.intent.as_ref());
            intent.is_some_and(|intent| state.intents.contains_key(intent))
        });
        // What tightens it comes first, too: the entry that begins the drain says by when, and would give back what a
        // notice took, or give the time of a node that is lost to the others of a consolidation.
        let tightens = record.disruption.claims.iter().any(|name| {
            let claim = state.claims.get(name);
            claim.is_some_and(|claim| tightening(state, name, claim, now).is_some())
        });
        if record.disruption.reason == DisruptionReason::Consolidation {
            return !open && !tightens;
        }
        if !open && !tightens && self.is_announced(state, record, now) {
            let deadline = self.deadline_at_start(state, record, now);
            self.propose(Change::StartDrain { disruption: id.clone(), deadline }, now);
        }
        false
    }

    /// Asks Kubernetes to delete the claim and its Node; finalizers hold both until the instance is
    /// gone, and both show users what goes on.
    fn delete_objects(
        &mut self,
        name: &NodeClaimName,
        claim: Option<&NodeClaim>,
        node: Option<&Node>,
        now: Timestamp,
    ) {
        if let Some(claim) = claim.filter(|claim| object::deleted_at(claim).is_none()) {
            self.delete_claim(name, claim, now);
        }
        if let Some(node) = node.filter(|node| {
            node.metadata.deletion_timestamp.is_none()
                && node.metadata.finalizers.iter().any(|f| f == labels::TERMINATION_FINALIZER)
        }) {
            self.delete_node(node, now);
        }
    }

    pub(super) fn delete_claim(&mut self, name: &NodeClaimName, claim: &NodeClaim, now: Timestamp) {
        let call = KubernetesCall::Delete {
            target: Target::cluster(Kind::NodeClaim, name.to_string()),
            uid: claim.metadata.uid.clone(),
            grace_seconds: None,
        };
        self.calls.call(CallKey::DeleteClaim(name.clone()), Call::Kubernetes(call), now);
    }

    fn delete_node(&mut self, node: &Node, now: Timestamp) {
        let call = KubernetesCall::Delete {
            target: Target::cluster(Kind::Node, node.metadata.name.clone()),
            uid: Some(node.metadata.uid.clone()),
            grace_seconds: None,
        };
        let name = NodeName::from(node.metadata.name.as_str());
        self.calls.call(CallKey::DeleteNode(name), Call::Kubernetes(call), now);
    }

    /// Records a drain as done and commits the instance's end.
    fn see_to_drain(
        &mut self,
        state: &State,
        name: &NodeClaimName,
        record: &ClaimRecord,
        node: Option<&Node>,
        now: Timestamp,
    ) {
        let Some(instance) = &record.instance else { return };
        if record.drained_at.is_none() {
            if let Some(by) = self.drained_by(state, name, record, node, now) {
                self.propose(Change::RecordDrained { claim: name.clone(), by }, now);
            }
            return;
        }
        if self.awaits_volumes(state, record, node, now) {
            return;
        }
        let reason = state.reason_of(name).map_or("drained", DisruptionReason::as_str);
        let change = Change::CommitTermination {
            instance: instance.id.clone(),
            claim: Some(name.clone()),
            reason: reason.to_owned(),
        };
        self.propose(change, now);
    }

    /// Whether nothing that should leave is left, and who or what tells.
    fn drained_by(
        &self,
        state: &State,
        name: &NodeClaimName,
        record: &ClaimRecord,
        node: Option<&Node>,
        now: Timestamp,
    ) -> Option<String> {
        let disruption = record.disruption.as_ref().and_then(|id| state.disruptions.get(id))?;
        let since = disruption.draining_since?;
        let Some(node) = node else {
            // A Node that a broken watch does not show may well be there.
            let proven = record.node.is_none() || !self.view.is_stale();
            return proven.then(|| "there is no Node".to_owned());
        };
        let node_name = NodeName::from(node.metadata.name.as_str());
        let deadline = disruption.disruption.deadline;
        if self.view.is_stale() || self.has_pods_to_move(&node_name, deadline, now) {
            let passed = !has_time_left(state, name, now)
                && deadline
                    .is_some_and(|end| now.duration_since(end) > SignedDuration::from_secs(30));
            return passed.then(|| "the drain's deadline passed".to_owned());
        }
        // Pods that the scheduler bound just before it saw the taint are found within this time; an
        // empty node was watched under its taint before its drain began.
        let settled = disruption.disruption.reason.is_voluntary()
            || now.duration_since(since) >= drain::SHORTEST_DRAIN;
        if !settled {
            return None;
        }
        let agent = self.agent_says_drained(&node_name, &disruption.disruption.id);
        Some(if agent { "its agent" } else { "no pod that should leave is on it" }.to_owned())
    }

    /// Whether a pod that a drain would move is on the node; one whose deletion should have ended long ago is
    /// not waited for. `deadline` is the drain's, to which deletions may have been shortened.
    pub(super) fn has_pods_to_move(
        &self,
        node: &NodeName,
        deadline: Option<Timestamp>,
        now: Timestamp,
    ) -> bool {
        let mut pods = self.view.pods_on(node);
        pods.any(|pod| drain::stays(pod).is_none() && !drain::is_stuck(pod, deadline, now))
    }

    /// Terminates what was committed, and records what EC2 says is gone.
    fn finish_terminations(&mut self, state: &State, now: Timestamp) {
        for (id, termination) in &state.terminations {
            let seen = self.cloud.get(id);
            let gone = seen.is_some_and(|instance| instance.state == InstanceState::Terminated)
                || self.cloud.is_missing_twice(id, self.settings.absence_interval);
            if gone {
                let change = Change::RecordTerminated {
                    instance: Some(id.clone()),
                    claim: termination.claim.clone(),
                    reason: "EC2 says that it is terminated".to_owned(),
                };
                self.propose(change, now);
                continue;
            }
            let sent = self.launches.terminated_at(id);
            let due = sent.is_none_or(|at| now.duration_since(at) > TERMINATE_AGAIN);
            let ending = seen.is_some_and(|instance| instance.state.is_gone());
            if due && !ending {
                let call = Call::Ec2(Ec2Call::TerminateInstances(vec![id.clone()]));
                self.calls.call(CallKey::Terminate(id.clone()), call, now);
            }
        }
    }

    /// An instance that ended without us: spot, a user, EC2's own retirement.
    fn see_instance_end(&mut self, name: &NodeClaimName, record: &ClaimRecord, now: Timestamp) {
        let Some(instance) = &record.instance else { return };
        if record.stage == Stage::Gone || record.stage == Stage::Terminating {
            return;
        }
        let seen = self.cloud.get(&instance.id);
        if seen.is_some_and(|instance| instance.state == InstanceState::Terminated) {
            let change = Change::RecordTerminated {
                instance: Some(instance.id.clone()),
                claim: Some(name.clone()),
                reason: "EC2 terminated it".to_owned(),
            };
            self.propose(change, now);
        }
    }

    /// The instance is gone, or never was: so go the objects.
    fn remove_objects(
        &mut self,
        name: &NodeClaimName,
        claim: Option<&NodeClaim>,
        node: Option<&Node>,
        now: Timestamp,
    ) {
        if let Some(node) = node.filter(|node| node.metadata.deletion_timestamp.is_none()) {
            self.delete_node(node, now);
        }
        let Some(claim) = claim else {
            if node.is_none() && !self.view.is_stale() {
                self.propose(Change::ForgetClaim { claim: name.clone() }, now);
            }
            return;
        };
        if object::deleted_at(claim).is_none() {
            self.delete_claim(name, claim, now);
            return;
        }
        let finalizers = object::finalizers(claim);
        if node.is_none() && finalizers.iter().any(|f| f == labels::TERMINATION_FINALIZER) {
            let left: Vec<&String> =
                finalizers.iter().filter(|f| *f != labels::TERMINATION_FINALIZER).collect();
            let patch = json!({"metadata": {
                "finalizers": left,
                "uid": claim.metadata.uid,
                "resourceVersion": claim.metadata.resource_version,
            }});
            self.patch_claim(name, CallKey::PatchClaim(name.clone()), false, patch, now);
        }
    }
}

/// What leaves a claim no more time than its notices do, and why; `None` if its disruption has no more. It is due
/// until the log has it.
fn tightening(
    state: &State,
    name: &NodeClaimName,
    record: &ClaimRecord,
    now: Timestamp,
) -> Option<(Change, String)> {
    let id = record.disruption.as_ref()?;
    let own = &state.disruptions.get(id)?.disruption;
    let notice = state.hard_notice(name, now)?;
    let (kind, explanation) = (notice.notice.kind, notice.describe());
    let deadline = loss_of(state, name, now);
    if !kind.passes_budgets() || own.tightened(kind, deadline, &explanation) == *own {
        return None;
    }
    let claims = [name.to_string(), id.to_string(), kind.name().to_owned()];
    let change = Change::TightenDisruption {
        claim: name.clone(),
        disruption: DisruptionId::from(format!("d-{}", short_hash(&claims, 10))),
        notice: kind,
        deadline,
        explanation: explanation.clone(),
    };
    Some((change, explanation))
}

/// The last moment for a claim's pods, by the first notice that passes budgets.
pub(super) fn loss_of(state: &State, name: &NodeClaimName, now: Timestamp) -> Option<Timestamp> {
    let passing = state.hard_notices(name, now).map(|record| &record.notice);
    let passing = passing.filter(|notice| notice.kind.passes_budgets());
    passing.filter_map(|notice| notice.deadline).min().map(drain::last_moment)
}

/// The notice that an interruption follows.
pub(super) fn pressing_notice(
    state: &State,
    claims: &[NodeClaimName],
    reason: DisruptionReason,
    now: Timestamp,
) -> Option<NoticeKind> {
    let claims = claims.iter().filter(|_| reason == DisruptionReason::Interruption);
    let notices = claims.filter_map(|name| state.hard_notice(name, now));
    notices.map(|record| record.notice.kind).min_by_key(|kind| !kind.passes_budgets())
}

/// What the checks before a voluntary drain say.
pub(super) enum Verdict {
    /// It may begin.
    Go,
    /// Something is still to be seen.
    Wait,
    /// Its ground has gone.
    Cancel(String),
}
