//! A NodeClaim's status, as Karpenter's users know it.

use drover_common::cluster::Node;
use drover_common::crd::{
    Condition, ConditionStatus, NodeClaim, NodeClaimStatus, RawQuantity, RawResources,
};
use drover_common::id::provider_id;
use drover_common::instance_type::InstanceType;
use drover_common::labels;
use drover_common::resources::{Resources, format_amount};
use jiff::{SignedDuration, Timestamp};

use super::lifecycle::not_initialized;
use super::object::{self, after, condition, ready};
use crate::command::DisruptionReason;
use crate::state::{ClaimRecord, Stage};

/// A claim's `lastPodEventTime` is written at most this often.
const POD_EVENT_INTERVAL: SignedDuration = SignedDuration::from_secs(10);

/// What a status is made from.
pub(super) struct Inputs<'a> {
    pub(super) record: &'a ClaimRecord,
    pub(super) claim: &'a NodeClaim,
    pub(super) node: Option<&'a Node>,
    pub(super) instance_type: Option<&'a InstanceType>,
    /// Whether volumes of pods that leave are attached to the Node.
    pub(super) volumes_attached: bool,
    pub(super) last_pod_event: Option<Timestamp>,
    /// `None`: never.
    pub(super) consolidate_after: Option<SignedDuration>,
    /// The voluntary disruption it leaves by.
    pub(super) disrupted: Option<DisruptionReason>,
    pub(super) now: Timestamp,
}

/// The status the claim should have.
pub(super) fn wanted(inputs: &Inputs<'_>) -> NodeClaimStatus {
    let Inputs { record, claim, node, .. } = inputs;
    let mut status = object::status_of(claim);
    if let Some(instance) = &record.instance {
        status.provider_id = Some(provider_id(&instance.zone, &instance.id));
        if !instance.image.is_empty() {
            status.image_id = Some(instance.image.clone());
        }
    }
    let registered = record.registered_at.is_some();
    if registered && let Some(node) = node {
        status.node_name = Some(node.metadata.name.clone());
        set_resources(&mut status.capacity, &node.status.capacity);
        set_resources(&mut status.allocatable, &node.status.allocatable);
    } else if let Some(kind) = inputs.instance_type {
        set_resources(&mut status.capacity, &kind.capacity);
        set_resources(&mut status.allocatable, &kind.allocatable);
    }
    if let Some(event) = inputs.last_pod_event
        && status.last_pod_event_time.is_none_or(|t| event.duration_since(t) >= POD_EVENT_INTERVAL)
    {
        status.last_pod_event_time = Some(event);
    }
    for one in life_conditions(inputs).into_iter().chain(leaving_conditions(inputs)) {
        Condition::set(&mut status.conditions, one);
    }
    set_consolidatable(&mut status, inputs);
    set_disruption_reason(&mut status, inputs);
    let generation = claim.metadata.generation;
    let sum = ready(
        &status.conditions,
        &["Launched", "Registered", "Initialized"],
        generation,
        inputs.now,
    );
    Condition::set(&mut status.conditions, sum);
    status
}

fn life_conditions(inputs: &Inputs<'_>) -> Vec<Condition> {
    use ConditionStatus::{False, True, Unknown};
    let Inputs { record, claim, node, now, .. } = inputs;
    let make = |kind: &str, status, reason: &str, message: &str| {
        condition(kind, status, reason, message, claim.metadata.generation, *now)
    };
    let launched = match (&record.instance, &record.failure) {
        (Some(_), _) => make("Launched", True, "", ""),
        (None, Some(failure)) => make("Launched", False, "LaunchFailed", failure),
        (None, None) => {
            make("Launched", Unknown, "AwaitingReconciliation", "EC2 has not answered yet")
        }
    };
    let registered = match (record.registered_at, node) {
        (Some(_), _) => make("Registered", True, "", ""),
        (None, None) => {
            make("Registered", Unknown, "NodeNotFound", "Node not registered with cluster")
        }
        (None, Some(_)) => {
            make("Registered", Unknown, "RegistrationHookPending", "The Node is being labelled")
        }
    };
    let initialized = match (record.initialized_at, record.registered_at, node) {
        (Some(_), _, _) => make("Initialized", True, "", ""),
        (None, Some(_), Some(node)) => match not_initialized(claim, node) {
            Some((reason, message)) => make("Initialized", Unknown, reason, &message),
            None => make("Initialized", Unknown, "NodeNotReady", "The Node is being labelled"),
        },
        _ => make("Initialized", Unknown, "NodeNotFound", "Node not registered with cluster"),
    };
    vec![launched, registered, initialized]
}

fn leaving_conditions(inputs: &Inputs<'_>) -> Vec<Condition> {
    use ConditionStatus::{True, Unknown};
    let Inputs { record, claim, now, .. } = inputs;
    let make = |kind: &str, status, reason: &str, message: &str| {
        condition(kind, status, reason, message, claim.metadata.generation, *now)
    };
    let mut conditions = Vec::new();
    if record.stage >= Stage::Draining {
        conditions.push(match record.drained_at {
            Some(_) => make("Drained", True, "", ""),
            None => make("Drained", Unknown, "Draining", "Pods are leaving the Node"),
        });
    }
    conditions.extend(volumes_detached(inputs));
    if record.stage == Stage::Terminating {
        conditions.push(make("InstanceTerminating", True, "", ""));
    }
    conditions
}

/// VolumesDetached: what came of it is settled when the instance's end is committed.
fn volumes_detached(inputs: &Inputs<'_>) -> Option<Condition> {
    const KIND: &str = "VolumesDetached";
    let Inputs { record, claim, .. } = inputs;
    inputs.node.filter(|_| record.drained_at.is_some())?;
    let conditions = claim.status.as_ref().map_or(&[][..], |status| &status.conditions);
    let settled = record.stage >= Stage::Terminating
        && Condition::find(conditions, KIND).is_some_and(|c| c.status != ConditionStatus::Unknown);
    if settled {
        return None;
    }
    let (status, reason, message) = match (inputs.volumes_attached, record.stage) {
        (false, _) => (ConditionStatus::True, "", ""),
        (true, Stage::Terminating) => (
            ConditionStatus::False,
            "TerminationGracePeriodElapsed",
            "Volumes were attached when the wait for them ended",
        ),
        (true, _) => (
            ConditionStatus::Unknown,
            "AwaitingVolumeDetachment",
            "Volumes of pods that left are still attached",
        ),
    };
    Some(condition(KIND, status, reason, message, claim.metadata.generation, inputs.now))
}

/// Consolidatable: initialized, and no pod came or went for `consolidateAfter`.
fn set_consolidatable(status: &mut NodeClaimStatus, inputs: &Inputs<'_>) {
    let quiet_since = inputs
        .record
        .initialized_at
        .map(|initialized| status.last_pod_event_time.unwrap_or(initialized).max(initialized));
    let quiet_long_enough = match (quiet_since, inputs.consolidate_after) {
        (Some(since), Some(wait)) => after(since, wait) <= inputs.now,
        _ => false,
    };
    if quiet_long_enough && !inputs.record.is_leaving() {
        let generation = inputs.claim.metadata.generation;
        let made =
            condition("Consolidatable", ConditionStatus::True, "", "", generation, inputs.now);
        Condition::set(&mut status.conditions, made);
    } else {
        status.conditions.retain(|condition| condition.type_ != "Consolidatable");
    }
}

/// DisruptionReason: it was chosen to leave; gone again if that was given up.
fn set_disruption_reason(status: &mut NodeClaimStatus, inputs: &Inputs<'_>) {
    match inputs.disrupted {
        Some(reason) => {
            let generation = inputs.claim.metadata.generation;
            let made = condition(
                "DisruptionReason",
                ConditionStatus::True,
                reason.as_str(),
                "",
                generation,
                inputs.now,
            );
            Condition::set(&mut status.conditions, made);
        }
        None => status.conditions.retain(|condition| condition.type_ != "DisruptionReason"),
    }
}

/// Writes amounts into a status, keeping the spelling of those that are the same already. Merge
/// patches can't take a key away, so what the node no longer has stays as it was.
fn set_resources(raw: &mut RawResources, amounts: &Resources) {
    for (name, amount) in amounts.iter() {
        let same = raw.get(name.as_str()).is_some_and(|quantity| {
            let text = quantity.to_string();
            Resources::from_quantities([(name.as_str(), text.as_str())])
                .is_ok_and(|parsed| parsed.get(name) == amount)
        });
        if !same {
            raw.insert(name.as_str().to_owned(), RawQuantity::Text(format_amount(name, amount)));
        }
    }
}

/// The label by which a claim's pool is found.
pub(super) fn pool_label(claim: &NodeClaim) -> Option<String> {
    object::labels_of(claim).get(labels::NODEPOOL).cloned()
}
