//! Answers to calls: where each goes, and what every one has in common.

use drover_common::call::{
    Call, Kind, KubernetesCall, KubernetesFailure, KubernetesFailureKind, Outcome, Target,
};
use drover_common::cluster::{ClusterEvent, ClusterObject};
use drover_common::ec2::{Ec2Answer, Ec2FailureKind};
use drover_common::id::NodeClaimName;
use jiff::Timestamp;
use serde_json::Value;

use super::Control;
use super::calls::CallKey;
use super::problem::Subject;
use crate::state::State;

impl Control {
    pub(super) fn take_answer(
        &mut self,
        state: &State,
        key: &CallKey,
        outcome: Outcome,
        now: Timestamp,
    ) {
        let Some(call) = self.calls.answered(key) else { return };
        self.note_result(key, &call, &outcome, now);
        if let (Call::Kubernetes(call), Outcome::Kubernetes(Ok(object))) = (&call, &outcome) {
            self.learn(call, object, now);
        }
        match key {
            CallKey::Lease => self.take_lease_answer(&outcome, now),
            CallKey::Discover(_) => self.take_discovery(key, &call, &outcome, now),
            CallKey::DescribeInstances => {
                if let Outcome::Ec2(Ok(Ec2Answer::Instances(read))) = outcome {
                    self.cloud.record_all(state, read, now);
                    self.note_tagged(state);
                }
            }
            CallKey::DescribeInstance(id) => {
                if let Outcome::Ec2(answer) = outcome {
                    self.take_live_check(id, answer, now);
                }
            }
            CallKey::ReceiveMessages => self.take_messages(outcome, now),
            CallKey::DeleteMessages => self.take_messages_deleted(&call, &outcome),
            CallKey::DescribeIntent(intent) => self.take_intent_read(intent, outcome, now),
            CallKey::CreateLaunchTemplate(intent) => self.take_template(intent, &outcome),
            CallKey::Launch(intent) => self.take_fleet(intent, outcome),
            CallKey::DescribeLaunchTemplates => self.take_templates(outcome),
            CallKey::DeleteLaunchTemplate(name) => self.take_template_deleted(name, &outcome),
            CallKey::TagInstance(instance) if outcome_is_ok(&outcome) => {
                self.launches.note_tagged(instance.clone());
            }
            CallKey::CreateClaim(claim) => self.take_claim_created(state, claim, &outcome),
            CallKey::Drain(claim, uid, attempt) => {
                if let Outcome::Kubernetes(answer) = outcome {
                    self.drains.record(claim, uid, *attempt, answer.map(drop));
                }
            }
            CallKey::Terminate(instance) if outcome_is_ok(&outcome) => {
                self.launches.note_terminated(instance.clone(), now);
            }
            CallKey::ReadClaim(claim) => {
                if let Outcome::Kubernetes(answer) = outcome {
                    self.take_claim_check(claim, answer, now);
                }
            }
            _ => {}
        }
    }

    /// Success ends a key's waiting, failure begins or prolongs it and is told to operators.
    fn note_result(&mut self, key: &CallKey, call: &Call, outcome: &Outcome, now: Timestamp) {
        let words = match outcome {
            Outcome::Kubernetes(Ok(_)) | Outcome::Ec2(Ok(_)) => None,
            Outcome::Kubernetes(Err(failure)) if is_expected(key, call, failure) => None,
            Outcome::Ec2(Err(failure))
                if matches!(key, CallKey::DeleteLaunchTemplate(_))
                    && failure.kind == Ec2FailureKind::NotFound =>
            {
                None
            }
            Outcome::Ec2(Err(failure))
                if matches!(key, CallKey::Discover(_))
                    && failure.kind == Ec2FailureKind::Unsupported =>
            {
                // Told once and worked without: discovery does not ask again.
                if let CallKey::Discover(what) = key {
                    let words = format!("not offered here: {failure}");
                    self.problems.tell(Subject::Read(what.clone()), words, now);
                }
                return self.calls.succeeded(key);
            }
            Outcome::Kubernetes(Err(failure)) => Some(failure.to_string()),
            Outcome::Ec2(Err(failure)) => Some(failure.to_string()),
        };
        match words {
            None => {
                self.calls.succeeded(key);
                self.problems.mended(&Subject::Call(key.clone()));
            }
            Some(words) => {
                self.calls.failed(key, now);
                self.tell_failed_call(key, words, now);
            }
        }
    }

    /// What a write returned may be ahead of the watch. It may be behind it, too: another write of the same
    /// object was watched before this one's answer came, and nothing would be watched any more that tells.
    fn learn(&mut self, call: &KubernetesCall, object: &Value, now: Timestamp) {
        let (KubernetesCall::Create { target, .. } | KubernetesCall::MergePatch { target, .. }) =
            call
        else {
            return;
        };
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        if !matches!(
            target.kind,
            Kind::Node | Kind::NodeClaim | Kind::NodePool | Kind::Ec2NodeClass
        ) || text("/kind") != Some(target.kind.endpoint().kind)
        {
            return;
        }
        // An object that is being deleted and has lost its last finalizer is gone by now, and its
        // deletion may have been watched already.
        let going = text("/metadata/deletionTimestamp").is_some();
        let finalizers =
            object.pointer("/metadata/finalizers").and_then(Value::as_array).map_or(0, Vec::len);
        if going && finalizers == 0 {
            return;
        }
        let known = self.known(target);
        let same = known.as_ref().map(|(uid, _)| uid.as_str()) == text("/metadata/uid");
        let version = text("/metadata/resourceVersion").unwrap_or_default();
        let patched = matches!(call, KubernetesCall::MergePatch { .. });
        if (patched && !same) || known.is_some_and(|(_, known)| is_older(version, &known)) {
            return;
        }
        if let Ok(object) = ClusterObject::from_json(target.kind, object.clone()) {
            let event = ClusterEvent::Applied(object);
            self.activity.observe(&self.view, &event, now);
            self.view.apply(event);
        }
    }

    /// UID and version of an object as it is known.
    fn known(&self, target: &Target) -> Option<(String, String)> {
        let name = target.name.as_str();
        let both = |uid: Option<&String>, version: Option<&String>| {
            Some((uid?.clone(), version.cloned().unwrap_or_default()))
        };
        match target.kind {
            Kind::Node => {
                let node = &self.view.nodes().get(&name.into())?.metadata;
                Some((node.uid.clone(), node.resource_version.clone()))
            }
            Kind::NodeClaim => {
                let claim = &self.view.claims().get(&NodeClaimName::from(name))?.metadata;
                both(claim.uid.as_ref(), claim.resource_version.as_ref())
            }
            Kind::NodePool => {
                let pool = &self.view.pools().get(&name.into())?.metadata;
                both(pool.uid.as_ref(), pool.resource_version.as_ref())
            }
            Kind::Ec2NodeClass => {
                let class = &self.view.classes().get(name)?.metadata;
                both(class.uid.as_ref(), class.resource_version.as_ref())
            }
            _ => None,
        }
    }
}

/// Whether a version comes before another. They are numbers, and grow with each write (KEP-5504: Kubernetes makes a
/// promise of it); of others nothing is said.
fn is_older(version: &str, known: &str) -> bool {
    let number = |text: &str| text.parse::<u64>().ok();
    number(version).zip(number(known)).is_some_and(|(version, known)| version < known)
}

fn outcome_is_ok(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Kubernetes(Ok(_)) | Outcome::Ec2(Ok(_)))
}

/// Failures that say that what was wanted is so already.
fn is_expected(key: &CallKey, call: &Call, failure: &KubernetesFailure) -> bool {
    match (call, failure.kind) {
        (
            Call::Kubernetes(KubernetesCall::Delete { .. } | KubernetesCall::Evict { .. }),
            KubernetesFailureKind::NotFound,
        )
        | (Call::Kubernetes(KubernetesCall::Create { .. }), KubernetesFailureKind::AlreadyExists) => {
            true
        }
        (Call::Kubernetes(KubernetesCall::Get { .. }), KubernetesFailureKind::NotFound) => true,
        // The drain engine waits by its own rules; an event lost is not worth a second try.
        _ => matches!(key, CallKey::Drain(..) | CallKey::Event(_)),
    }
}
