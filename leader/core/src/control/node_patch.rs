//! What a Node's metadata and taints should be, as one conditional patch.

use std::collections::BTreeMap;

use drover_common::cluster::{Node, OwnerReference};
use drover_common::crd::NodeClaim;
use drover_common::id::NodeClaimName;
use drover_common::instance_type::CapacityType;
use drover_common::labels;
use drover_common::taint::{Taint, TaintEffect};
use serde_json::{Map, Value, json};

use super::object;
use super::out_of_service::OutOfService;
use crate::command::Disruption;
use crate::state::{ClaimRecord, Stage};

/// Labels that a kubelet or cloud controller sets itself.
const DO_NOT_SYNC_TAINTS: &str = "karpenter.sh/do-not-sync-taints";

/// What the Node is compared with.
pub(super) struct Wanted<'a> {
    pub(super) name: &'a NodeClaimName,
    pub(super) record: &'a ClaimRecord,
    pub(super) claim: Option<&'a NodeClaim>,
    /// The disruption it is being drained for.
    pub(super) draining: Option<&'a Disruption>,
    /// Whether it is ready for pods.
    pub(super) initializes: bool,
    /// Whether the last repack would take it down; `None` if that is not known yet.
    pub(super) candidate: Option<bool>,
    /// Whether EC2 recommends to leave it.
    pub(super) recommended: bool,
    /// What it is to show of a machine that is off.
    pub(super) out_of_service: OutOfService,
}

/// The patch that brings a Node to what is wanted; `None` if it is so already. It carries UID and
/// resourceVersion, because lists (taints, finalizers, owners) are replaced whole.
pub(super) fn patch(node: &Node, wanted: &Wanted<'_>) -> Option<Value> {
    let registered = is_set(node, labels::REGISTERED);
    let mut metadata = Map::new();
    let labels = wanted_labels(node, wanted, registered);
    if !labels.is_empty() {
        metadata.insert("labels".to_owned(), json!(labels));
    }
    let annotations = wanted_annotations(node, wanted, registered);
    if !annotations.is_empty() {
        metadata.insert("annotations".to_owned(), json!(annotations));
    }
    if let Some(finalizers) = wanted_finalizers(node, wanted) {
        metadata.insert("finalizers".to_owned(), json!(finalizers));
    }
    if let Some(owners) = wanted_owners(node, wanted) {
        metadata.insert("ownerReferences".to_owned(), owners);
    }
    let taints = wanted_taints(node, wanted, registered);
    let taints_change = taints != node.spec.taints;
    if metadata.is_empty() && !taints_change {
        return None;
    }
    metadata.insert("uid".to_owned(), json!(node.metadata.uid));
    metadata.insert("resourceVersion".to_owned(), json!(node.metadata.resource_version));
    let mut patch = json!({ "metadata": metadata });
    if taints_change && let Some(patch) = patch.as_object_mut() {
        let taints = if taints.is_empty() { Value::Null } else { json!(taints) };
        patch.insert("spec".to_owned(), json!({ "taints": taints }));
    }
    Some(patch)
}

fn is_set(node: &Node, label: &str) -> bool {
    node.metadata.labels.get(label).is_some_and(|value| value == "true")
}

/// Labels to set, or to remove where `None`.
fn wanted_labels(
    node: &Node,
    wanted: &Wanted<'_>,
    registered: bool,
) -> BTreeMap<String, Option<String>> {
    let mut labels: BTreeMap<String, Option<String>> = BTreeMap::new();
    if wanted.record.stage == Stage::Gone {
        return labels;
    }
    // The claim's labels are final once it has an instance's; a Node is labelled from them once.
    if !registered && let Some(claim) = wanted.claim.filter(|claim| has_instance_labels(claim)) {
        labels.extend(object::labels_of(claim).into_iter().map(|(key, value)| (key, Some(value))));
        labels.insert(labels::REGISTERED.to_owned(), Some("true".to_owned()));
    }
    // A Node whose reservation is over is one on demand. Its kubelet may have set the labels itself,
    // before it registered.
    let instance = wanted.record.instance.as_ref();
    if instance.is_some_and(|instance| instance.capacity_type == CapacityType::OnDemand) {
        let billing = node.metadata.labels.get(labels::CAPACITY_TYPE);
        if billing.is_some_and(|value| value == CapacityType::Reserved.as_str()) {
            let on_demand = CapacityType::OnDemand.to_string();
            labels.insert(labels::CAPACITY_TYPE.to_owned(), Some(on_demand));
        }
        labels.extend(labels::RESERVATION_LABELS.map(|key| (key.to_owned(), None)));
    }
    if registered && wanted.initializes && !is_set(node, labels::INITIALIZED) {
        labels.insert(labels::INITIALIZED.to_owned(), Some("true".to_owned()));
    }
    let excluded = node.metadata.labels.get(labels::EXCLUDE_FROM_LOAD_BALANCERS);
    if wanted.draining.is_some() {
        labels.insert(labels::EXCLUDE_FROM_LOAD_BALANCERS.to_owned(), Some("karpenter".to_owned()));
    } else if excluded.is_some_and(|by| by == "karpenter") && !wanted.record.is_leaving() {
        labels.insert(labels::EXCLUDE_FROM_LOAD_BALANCERS.to_owned(), None);
    }
    labels.retain(|key, value| node.metadata.labels.get(key) != value.as_ref());
    labels
}

/// Whether the claim bears the labels of its instance.
fn has_instance_labels(claim: &NodeClaim) -> bool {
    object::labels_of(claim).contains_key(labels::INSTANCE_TYPE)
}

fn wanted_annotations(
    node: &Node,
    wanted: &Wanted<'_>,
    registered: bool,
) -> BTreeMap<String, Option<String>> {
    let mut annotations: BTreeMap<String, Option<String>> = BTreeMap::new();
    // Who else may have put the taint there keeps it.
    match wanted.out_of_service.taint {
        Some(true) if !node.spec.taints.iter().any(is_out_of_service) => {
            let instance = wanted.record.instance.as_ref().map(|instance| instance.id.to_string());
            annotations.insert(labels::OUT_OF_SERVICE.to_owned(), instance);
        }
        Some(false) => drop(annotations.insert(labels::OUT_OF_SERVICE.to_owned(), None)),
        _ => {}
    }
    if wanted.record.stage == Stage::Gone {
        annotations.retain(|key, value| node.metadata.annotations.get(key) != value.as_ref());
        return annotations;
    }
    if !registered && let Some(claim) = wanted.claim {
        let of_claim = claim.metadata.annotations.clone().unwrap_or_default();
        annotations.extend(of_claim.into_iter().map(|(key, value)| (key, Some(value))));
    }
    // What the agent acts on: it takes no leader's word for it but the Node's.
    let drain = wanted.draining;
    let deadline = drain.and_then(|drain| drain.deadline).map(|deadline| deadline.to_string());
    for (key, value) in [
        (labels::DISRUPTION, drain.map(|drain| drain.id.to_string())),
        (labels::DISRUPTION_DEADLINE, deadline),
        (labels::DISRUPTION_REASON, drain.map(|drain| drain.why().to_owned())),
    ] {
        annotations.insert(key.to_owned(), value);
    }
    annotations.retain(|key, value| node.metadata.annotations.get(key) != value.as_ref());
    annotations
}

/// The finalizer holds the Node until its instance is gone.
fn wanted_finalizers(node: &Node, wanted: &Wanted<'_>) -> Option<Vec<String>> {
    let mut finalizers = node.metadata.finalizers.clone();
    let held = finalizers.iter().any(|f| f == labels::TERMINATION_FINALIZER);
    let gone = wanted.record.stage == Stage::Gone;
    if gone && wanted.out_of_service.holds {
        return None;
    }
    if gone && held {
        finalizers.retain(|f| f != labels::TERMINATION_FINALIZER);
        return Some(finalizers);
    }
    // None can be added to an object that is being deleted.
    if !gone && !held && node.metadata.deletion_timestamp.is_none() {
        finalizers.push(labels::TERMINATION_FINALIZER.to_owned());
        return Some(finalizers);
    }
    None
}

fn wanted_owners(node: &Node, wanted: &Wanted<'_>) -> Option<Value> {
    let uid = wanted.claim?.metadata.uid.clone()?;
    let known = |owner: &OwnerReference| owner.kind == "NodeClaim" && owner.uid == uid;
    if wanted.record.stage == Stage::Gone || node.metadata.owner_references.iter().any(known) {
        return None;
    }
    let mut owners: Vec<Value> =
        node.metadata.owner_references.iter().map(|owner| json!(owner)).collect();
    owners.push(json!({
        "apiVersion": "karpenter.sh/v1",
        "kind": "NodeClaim",
        "name": wanted.name,
        "uid": uid,
        "blockOwnerDeletion": true,
    }));
    Some(json!(owners))
}

fn wanted_taints(node: &Node, wanted: &Wanted<'_>, registered: bool) -> Vec<Taint> {
    let mut taints = node.spec.taints.clone();
    match wanted.out_of_service.taint {
        Some(true) => add(
            &mut taints,
            Taint {
                key: labels::OUT_OF_SERVICE_TAINT.to_owned(),
                value: labels::OUT_OF_SERVICE_VALUE.to_owned(),
                effect: TaintEffect::NoExecute,
            },
        ),
        Some(false) if node.metadata.annotations.contains_key(labels::OUT_OF_SERVICE) => {
            taints.retain(|taint| !is_out_of_service(taint));
        }
        _ => {}
    }
    if wanted.record.stage == Stage::Gone {
        return taints;
    }
    if !registered && let Some(claim) = wanted.claim.filter(|claim| has_instance_labels(claim)) {
        if !object::labels_of(claim).contains_key(DO_NOT_SYNC_TAINTS) {
            for taint in claim.spec.taints.iter().chain(&claim.spec.startup_taints) {
                add(&mut taints, taint.clone());
            }
        }
        taints.retain(|taint| taint.key != labels::UNREGISTERED_TAINT);
    }
    let disrupted = Taint {
        key: labels::DISRUPTED_TAINT.to_owned(),
        value: String::new(),
        effect: TaintEffect::NoSchedule,
    };
    if wanted.record.is_leaving() {
        add(&mut taints, disrupted);
    } else {
        taints.retain(|taint| taint.key != labels::DISRUPTED_TAINT);
    }
    // The scheduler had better not put more onto a node that is to go.
    match wanted.candidate {
        Some(true) if !wanted.record.is_leaving() => add(
            &mut taints,
            Taint {
                key: labels::CANDIDATE_TAINT.to_owned(),
                value: String::new(),
                effect: TaintEffect::PreferNoSchedule,
            },
        ),
        Some(_) => taints.retain(|taint| taint.key != labels::CANDIDATE_TAINT),
        None => {}
    }
    if wanted.recommended {
        add(
            &mut taints,
            Taint {
                key: labels::REBALANCE_TAINT.to_owned(),
                value: String::new(),
                effect: TaintEffect::PreferNoSchedule,
            },
        );
    } else {
        taints.retain(|taint| taint.key != labels::REBALANCE_TAINT);
    }
    taints
}

fn is_out_of_service(taint: &Taint) -> bool {
    taint.key == labels::OUT_OF_SERVICE_TAINT && taint.effect == TaintEffect::NoExecute
}

/// Adds a taint unless one of its key and effect is there.
fn add(taints: &mut Vec<Taint>, taint: Taint) {
    if !taints.iter().any(|other| other.key == taint.key && other.effect == taint.effect) {
        taints.push(taint);
    }
}
