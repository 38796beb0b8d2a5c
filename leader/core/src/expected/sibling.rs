//! Replicas that an owner has asked for and that nobody has seen or judged yet. They are planned for
//! with their siblings, so that a rollout is bought as one.

use std::collections::BTreeMap;
use std::sync::Arc;

use drover_common::cluster::{ObjectKey, Pod};
use jiff::{SignedDuration, Timestamp};

use super::MOST_OF_ONE;
use crate::planner::{VirtualPods, is_provisionable};
use crate::view::View;

/// An owner whose youngest pod is older than this makes no more of them: a quota, or a webhook.
const STILL_CREATING: SignedDuration = SignedDuration::from_secs(10);

/// What makes pods that are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum OwnerKind {
    ReplicaSet,
    StatefulSet,
    Job,
}

impl OwnerKind {
    fn of(kind: &str) -> Option<Self> {
        match kind {
            "ReplicaSet" => Some(Self::ReplicaSet),
            "StatefulSet" => Some(Self::StatefulSet),
            "Job" => Some(Self::Job),
            _ => None,
        }
    }

    /// As kubectl abbreviates it, in the names of pods to come.
    fn prefix(self) -> &'static str {
        match self {
            Self::ReplicaSet => "rs",
            Self::StatefulSet => "sts",
            Self::Job => "job",
        }
    }
}

/// Siblings of pending pods that their owners have asked for, and that are not there or not
/// judged by the scheduler yet.
pub(crate) fn siblings_to_come(view: &View, now: Timestamp) -> Vec<VirtualPods> {
    let mut owners: BTreeMap<(ObjectKey, OwnerKind), Arc<Pod>> = BTreeMap::new();
    for key in view.unschedulable_pods() {
        let Some(pod) = view.pod(key).filter(|pod| is_provisionable(pod)) else {
            continue;
        };
        let Some(owner) = pod.metadata.controller() else { continue };
        if let Some(kind) = OwnerKind::of(&owner.kind) {
            let owner = ObjectKey::new(key.namespace.clone(), &owner.name);
            owners.entry((owner, kind)).or_insert_with(|| Arc::clone(pod));
        }
    }
    owners
        .into_iter()
        .filter_map(|((owner, kind), sibling)| {
            let missing = replicas_to_come(view, &owner, kind, &sibling, now);
            let name = format!("{}/{}", kind.prefix(), owner.name);
            let missing = missing.min(MOST_OF_ONE);
            (missing > 0).then(|| VirtualPods::like(&sibling, &name, missing))
        })
        .collect()
}

/// How many pods an owner wants at once; `None` where that is not to be waited for.
fn wanted(view: &View, owner: &ObjectKey, kind: OwnerKind) -> Option<i32> {
    match kind {
        OwnerKind::StatefulSet => {
            let set = view.stateful_sets().get(owner)?;
            // Others make the next pod when the last one is ready.
            (set.spec.pod_management_policy == "Parallel").then(|| set.spec.replicas.unwrap_or(1))
        }
        OwnerKind::ReplicaSet => {
            let set = view.replica_sets().get(owner)?;
            let mut conditions = set.status.conditions.iter();
            let blocked = conditions.any(|c| c.kind == "ReplicaFailure" && c.status == "True");
            (!blocked).then(|| set.spec.replicas.unwrap_or(1))
        }
        OwnerKind::Job => view.jobs().get(owner).map(|job| job.wanted()),
    }
}

fn replicas_to_come(
    view: &View,
    owner: &ObjectKey,
    kind: OwnerKind,
    sibling: &Pod,
    now: Timestamp,
) -> usize {
    let Some(wanted) = wanted(view, owner, kind) else { return 0 };
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

/// Of a name to make others from, the API server keeps so much before five letters of its own. Source:
/// `k8s.io/apiserver/pkg/storage/names`.
const LONGEST_GENERATED_FROM: usize = 58;

/// Pods whose names begin like those that an owner gives.
fn pods_named_after<'v>(view: &'v View, owner: &ObjectKey) -> impl Iterator<Item = &'v Arc<Pod>> {
    let mut prefix = format!("{}-", owner.name);
    if prefix.is_char_boundary(LONGEST_GENERATED_FROM) {
        prefix.truncate(LONGEST_GENERATED_FROM);
    }
    let first = ObjectKey::new(owner.namespace.clone(), &prefix);
    let namespace = owner.namespace.clone();
    view.pods()
        .range(first..)
        .take_while(move |(key, _)| key.namespace == namespace && key.name.starts_with(&prefix))
        .map(|(_, entry)| &entry.pod)
}
