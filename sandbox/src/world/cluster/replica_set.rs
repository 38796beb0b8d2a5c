//! ReplicaSets: as many pods as asked for.

use std::cmp::Reverse;
use std::sync::Arc;

use drover_common::cluster::{ObjectKey, Pod};
use serde_json::Value;

use super::index::PodEntry;
use super::{Turn, template};
use crate::world::object;
use crate::world::resource::{PODS, REPLICA_SETS};
use crate::world::store::{DeleteOptions, WriteOptions};

pub(super) fn sync(turn: &mut Turn<'_>, key: &ObjectKey) {
    let Some(set) = turn.store.get(&REPLICA_SETS, key).cloned() else { return };
    let pods = turn.index.controlled_pods(object::uid(&set));
    let mut active: Vec<_> =
        pods.into_iter().filter(|entry| template::is_active(&entry.pod)).collect();
    let wanted = object::integer(&set, "/spec/replicas").unwrap_or(1).max(0);
    let have = i64::try_from(active.len()).unwrap_or(i64::MAX);
    if !object::is_deleting(&set) {
        if have < wanted {
            create(turn, &set, key, wanted - have);
        } else if have > wanted {
            let surplus = usize::try_from(have - wanted).unwrap_or(0);
            order_for_removal(&mut active);
            for entry in active.iter().take(surplus) {
                delete(turn, &entry.pod);
            }
        }
    }
    write_status(turn, &set, key);
}

fn create(turn: &mut Turn<'_>, set: &Arc<Value>, key: &ObjectKey, count: i64) {
    let none = Value::Null;
    let template = set.pointer("/spec/template").unwrap_or(&none);
    for _ in 0..count {
        let mut pod = template::pod(set, template);
        object::set(&mut pod, &["metadata", "generateName"], format!("{}-", key.name));
        let created = turn.store.create(&PODS, pod, &WriteOptions::default(), turn.now);
        if turn.written(created, &REPLICA_SETS, key).is_none() {
            return;
        }
    }
}

/// Deletes a pod, with its own grace.
pub(super) fn delete(turn: &mut Turn<'_>, pod: &Pod) {
    let options = DeleteOptions { uid: Some(pod.metadata.uid.clone()), ..DeleteOptions::default() };
    // A pod that is gone already is what was wanted.
    let _ = turn.store.delete(&PODS, &ObjectKey::from(&pod.metadata), &options, turn.now);
}

/// The first are removed first: unbound, not running, not ready, cheap, then the youngest.
fn order_for_removal(pods: &mut [Arc<PodEntry>]) {
    pods.sort_by_cached_key(|entry| {
        let pod = &entry.pod;
        let cost: i64 = pod
            .metadata
            .annotations
            .get("controller.kubernetes.io/pod-deletion-cost")
            .and_then(|cost| cost.parse().ok())
            .unwrap_or(0);
        (
            !pod.spec.node_name.is_empty(),
            pod.status.phase == "Running",
            pod.is_ready(),
            cost,
            Reverse(pod.metadata.creation_timestamp),
            pod.metadata.name.clone(),
        )
    });
}

fn write_status(turn: &mut Turn<'_>, set: &Arc<Value>, key: &ObjectKey) {
    turn.index.absorb(turn.store);
    let pods = turn.index.controlled_pods(object::uid(set));
    let count = |holds: fn(&Pod) -> bool| {
        let held = pods.iter().filter(|entry| template::is_active(&entry.pod) && holds(&entry.pod));
        i64::try_from(held.count()).unwrap_or(i64::MAX)
    };
    let replicas = count(|_| true);
    let ready = count(Pod::is_ready);
    let generation = object::integer(set, "/metadata/generation").unwrap_or(0);
    let mut status = set.get("status").cloned().unwrap_or_default();
    template::set_counts(
        &mut status,
        &[("replicas", replicas)],
        &[
            ("fullyLabeledReplicas", replicas),
            ("readyReplicas", ready),
            ("availableReplicas", ready),
            ("observedGeneration", generation),
        ],
    );
    if template::differs(set, &status) {
        let written = turn.store.update_status(&REPLICA_SETS, key, turn.now, |own| *own = status);
        turn.written(written, &REPLICA_SETS, key);
    }
}
