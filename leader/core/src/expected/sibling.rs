//! Replicas that an owner has asked for and that nobody has seen or judged yet. They are planned for
//! with their siblings, so that a rollout is bought as one.

use std::collections::BTreeMap;
use std::sync::Arc;

use drover_common::cluster::{ObjectKey, Pod};
use jiff::{SignedDuration, Timestamp};

use crate::planner::{VirtualPods, is_provisionable};
use crate::view::View;

/// An owner whose youngest pod is older than this makes no more of them: a quota, or a webhook.
const STILL_CREATING: SignedDuration = SignedDuration::from_secs(10);

/// Siblings of pending pods that their owners have asked for, and that are not there or not
/// judged by the scheduler yet.
pub(crate) fn siblings_to_come(view: &View, now: Timestamp) -> Vec<VirtualPods> {
    let mut owners: BTreeMap<(ObjectKey, bool), Arc<Pod>> = BTreeMap::new();
    for key in view.unschedulable_pods() {
        let Some(pod) = view.pod(key).filter(|pod| is_provisionable(pod)) else {
            continue;
        };
        let Some(owner) = pod.metadata.controller() else { continue };
        let stateful = owner.kind == "StatefulSet";
        if stateful || owner.kind == "ReplicaSet" {
            let namespace = key.namespace.clone();
            let owner = ObjectKey::new(namespace, &owner.name);
            owners.entry((owner, stateful)).or_insert_with(|| Arc::clone(pod));
        }
    }
    owners
        .into_iter()
        .filter_map(|((owner, stateful), sibling)| {
            let missing = replicas_to_come(view, &owner, stateful, &sibling, now);
            let name = format!("{}/{}", if stateful { "sts" } else { "rs" }, owner.name);
            (missing > 0).then(|| VirtualPods::like(&sibling, &name, missing))
        })
        .collect()
}

fn replicas_to_come(
    view: &View,
    owner: &ObjectKey,
    stateful: bool,
    sibling: &Pod,
    now: Timestamp,
) -> usize {
    let wanted = if stateful {
        let set = view.stateful_sets().get(owner);
        // Others make the next pod when the last one is ready.
        set.filter(|set| set.spec.pod_management_policy == "Parallel")
            .map(|set| set.spec.replicas.unwrap_or(1))
    } else {
        let set = view.replica_sets().get(owner);
        let blocked = |set: &&Arc<drover_common::cluster::ReplicaSet>| {
            let mut conditions = set.status.conditions.iter();
            conditions.any(|c| c.kind == "ReplicaFailure" && c.status == "True")
        };
        set.filter(|set| !blocked(set)).map(|set| set.spec.replicas.unwrap_or(1))
    };
    let Some(wanted) = wanted else { return 0 };
    let uid = sibling.metadata.controller().map(|owner| owner.uid.clone());
    let (mut settled, mut youngest) = (0_usize, None);
    for pod in pods_named_after(view, owner) {
        let own = pod.metadata.controller().map(|owner| &owner.uid) == uid.as_ref();
        if !own || pod.is_terminal() || pod.is_terminating() {
            continue;
        }
        youngest = youngest.max(pod.metadata.creation_timestamp);
        // Gated and nominated pods are somebody else's to settle.
        let judged = !pod.spec.node_name.is_empty()
            || pod.is_unschedulable()
            || !pod.spec.scheduling_gates.is_empty()
            || !pod.status.nominated_node_name.is_empty();
        settled += usize::from(judged);
    }
    if youngest.is_none_or(|at| now.duration_since(at) > STILL_CREATING) {
        return 0;
    }
    usize::try_from(wanted).unwrap_or(0).saturating_sub(settled)
}

/// Pods whose names begin like those that an owner gives.
fn pods_named_after<'v>(view: &'v View, owner: &ObjectKey) -> impl Iterator<Item = &'v Arc<Pod>> {
    let prefix = format!("{}-", owner.name);
    let first = ObjectKey::new(owner.namespace.clone(), &prefix);
    let namespace = owner.namespace.clone();
    view.pods()
        .range(first..)
        .take_while(move |(key, _)| key.namespace == namespace && key.name.starts_with(&prefix))
        .map(|(_, entry)| &entry.pod)
}
