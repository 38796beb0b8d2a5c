//! StatefulSets: numbered pods, one after the other, each with claims of its own.

use std::sync::Arc;

use drover_common::cluster::ObjectKey;
use serde_json::{Value, json};

use super::index::PodEntry;
use super::{Turn, replica_set, template};
use crate::world::object;
use crate::world::resource::{PERSISTENT_VOLUME_CLAIMS, PODS, STATEFUL_SETS};
use crate::world::store::WriteOptions;

const REVISION_LABEL: &str = "controller-revision-hash";

pub(super) fn sync(turn: &mut Turn<'_>, key: &ObjectKey) {
    let Some(set) = turn.store.get(&STATEFUL_SETS, key).cloned() else { return };
    let revision = revision(&set);
    if !object::is_deleting(&set) {
        step(turn, &set, key, &revision);
    }
    write_status(turn, &set, key, &revision);
}

fn revision(set: &Value) -> String {
    let hash = template::hash(set.pointer("/spec/template").unwrap_or(&Value::Null));
    format!("{}-{hash}", object::name(set))
}

/// Its pods by ordinal.
fn pods(turn: &Turn<'_>, set: &Value) -> Vec<(i64, Arc<PodEntry>)> {
    let prefix = format!("{}-", object::name(set));
    let mut pods: Vec<_> = turn
        .index
        .controlled_pods(object::uid(set))
        .into_iter()
        .filter_map(|entry| {
            let ordinal = entry.pod.metadata.name.strip_prefix(&prefix)?.parse().ok()?;
            Some((ordinal, entry))
        })
        .collect();
    pods.sort_by_key(|(ordinal, _)| *ordinal);
    pods
}

fn step(turn: &mut Turn<'_>, set: &Arc<Value>, key: &ObjectKey, revision: &str) {
    let wanted = object::integer(set, "/spec/replicas").unwrap_or(1).max(0);
    let first = object::integer(set, "/spec/ordinals/start").unwrap_or(0);
    let parallel = object::text(set, "/spec/podManagementPolicy") == "Parallel";
    let pods = pods(turn, set);
    let last = first.saturating_add(wanted);
    for ordinal in first..last {
        match pods.iter().find(|(own, _)| *own == ordinal) {
            None => {
                create(turn, set, key, ordinal, revision);
                if !parallel {
                    return;
                }
            }
            Some((_, entry)) if entry.pod.is_terminal() && !entry.pod.is_terminating() => {
                replica_set::delete(turn, &entry.pod);
                return;
            }
            Some((_, entry)) if !parallel && !template::is_available(&entry.pod) => return,
            Some(_) => {}
        }
    }
    // The highest goes first, and alone.
    for (ordinal, entry) in pods.iter().rev() {
        if *ordinal >= last || *ordinal < first {
            if !entry.pod.is_terminating() {
                replica_set::delete(turn, &entry.pod);
            }
            if !parallel {
                return;
            }
        }
    }
    if object::text(set, "/spec/updateStrategy/type") != "OnDelete" {
        update_one(turn, set, &pods, revision);
    }
}

/// Replaces the highest pod of an old revision, while all others are available.
fn update_one(turn: &mut Turn<'_>, set: &Value, pods: &[(i64, Arc<PodEntry>)], revision: &str) {
    let partition =
        object::integer(set, "/spec/updateStrategy/rollingUpdate/partition").unwrap_or(0);
    if pods.iter().any(|(_, entry)| !template::is_available(&entry.pod)) {
        return;
    }
    let old = pods.iter().rev().find(|(ordinal, entry)| {
        let own = entry.pod.metadata.labels.get(REVISION_LABEL);
        *ordinal >= partition && own.is_none_or(|own| own != revision)
    });
    if let Some((_, entry)) = old {
        replica_set::delete(turn, &entry.pod);
    }
}

fn create(turn: &mut Turn<'_>, set: &Arc<Value>, key: &ObjectKey, ordinal: i64, revision: &str) {
    let name = format!("{}-{ordinal}", key.name);
    let mut pod = template::pod(set, set.pointer("/spec/template").unwrap_or(&Value::Null));
    object::set(&mut pod, &["metadata", "name"], name.clone());
    let ordinal = ordinal.to_string();
    for (label, value) in [
        ("statefulset.kubernetes.io/pod-name", name.as_str()),
        ("apps.kubernetes.io/pod-index", ordinal.as_str()),
        (REVISION_LABEL, revision),
    ] {
        object::set(&mut pod, &["metadata", "labels", label], value);
    }
    object::set(&mut pod, &["spec", "hostname"], name.clone());
    object::set_default(&mut pod, &["spec", "subdomain"], object::text(set, "/spec/serviceName"));
    for claim in object::list(set, "/spec/volumeClaimTemplates") {
        if !create_claim(turn, set, key, claim, &name, &mut pod) {
            return;
        }
    }
    let created = turn.store.create(&PODS, pod, &WriteOptions::default(), turn.now);
    turn.written(created, &STATEFUL_SETS, key);
}

/// Makes the claim of one template and has the pod mount it; whether the claim is there.
fn create_claim(
    turn: &mut Turn<'_>,
    set: &Value,
    key: &ObjectKey,
    claim: &Value,
    pod_name: &str,
    pod: &mut Value,
) -> bool {
    let volume = object::name(claim);
    let claim_name = format!("{volume}-{pod_name}");
    if turn.store.find(&PERSISTENT_VOLUME_CLAIMS, &key.namespace, &claim_name).is_none() {
        let mut value = json!({
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {
                "name": claim_name,
                "namespace": key.namespace,
                "labels": set.pointer("/spec/selector/matchLabels"),
            },
            "spec": claim.get("spec"),
        });
        if let Some(annotations) = claim.pointer("/metadata/annotations") {
            object::set(&mut value, &["metadata", "annotations"], annotations.clone());
        }
        let options = WriteOptions::default();
        let created = turn.store.create(&PERSISTENT_VOLUME_CLAIMS, value, &options, turn.now);
        if turn.written(created, &STATEFUL_SETS, key).is_none() {
            return false;
        }
    }
    let volumes = object::entry(object::entry(pod, "spec"), "volumes");
    if !volumes.is_array() {
        *volumes = Value::Array(Vec::new());
    }
    if let Value::Array(volumes) = volumes {
        volumes.retain(|own| object::text(own, "/name") != volume);
        volumes.push(json!({
            "name": volume,
            "persistentVolumeClaim": {"claimName": claim_name},
        }));
    }
    true
}

fn write_status(turn: &mut Turn<'_>, set: &Arc<Value>, key: &ObjectKey, revision: &str) {
    turn.index.absorb(turn.store);
    let pods = pods(turn, set);
    let count = |holds: &dyn Fn(&PodEntry) -> bool| {
        i64::try_from(pods.iter().filter(|(_, entry)| holds(entry)).count()).unwrap_or(i64::MAX)
    };
    let replicas = count(&|entry| !entry.pod.is_terminal());
    let ready = count(&|entry| template::is_available(&entry.pod));
    let is_new = |entry: &PodEntry| {
        entry.pod.metadata.labels.get(REVISION_LABEL).is_some_and(|own| own == revision)
    };
    let updated = count(&|entry| is_new(entry) && !entry.pod.is_terminal());
    let generation = object::integer(set, "/metadata/generation").unwrap_or(0);
    let mut status = set.get("status").cloned().unwrap_or_default();
    template::set_counts(
        &mut status,
        &[("replicas", replicas), ("availableReplicas", ready)],
        &[
            ("readyReplicas", ready),
            ("updatedReplicas", updated),
            ("currentReplicas", updated),
            ("observedGeneration", generation),
        ],
    );
    object::set(&mut status, &["updateRevision"], revision);
    if updated == replicas || status.get("currentRevision").is_none() {
        object::set(&mut status, &["currentRevision"], revision);
    }
    if template::differs(set, &status) {
        let written = turn.store.update_status(&STATEFUL_SETS, key, turn.now, |own| *own = status);
        turn.written(written, &STATEFUL_SETS, key);
    }
}
