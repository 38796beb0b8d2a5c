//! Deployments: a ReplicaSet for each template, rolled from the old ones to the new.

use std::sync::Arc;

use drover_common::cluster::ObjectKey;
use serde_json::{Value, json};

use super::{Turn, template};
use crate::world::object;
use crate::world::resource::{DEPLOYMENTS, REPLICA_SETS};
use crate::world::store::{DeleteOptions, Part, WriteOptions};

const HASH_LABEL: &str = "pod-template-hash";
const REVISION: &str = "deployment.kubernetes.io/revision";

pub(super) fn sync(turn: &mut Turn<'_>, key: &ObjectKey) {
    let Some(deployment) = turn.store.get(&DEPLOYMENTS, key).cloned() else { return };
    let sets = replica_sets(turn, &deployment);
    if !object::is_deleting(&deployment) {
        let hash = template::hash(deployment.pointer("/spec/template").unwrap_or(&Value::Null));
        let (current, old): (Vec<_>, Vec<_>) =
            sets.into_iter().partition(|set| object::label(set, HASH_LABEL) == Some(&hash));
        match current.first() {
            Some(current) => {
                mark_current(turn, &deployment, current, &old);
                roll(turn, &deployment, current, &old);
                forget_oldest(turn, &deployment, &old);
            }
            None => create_set(turn, &deployment, key, &hash, &old),
        }
    }
    write_status(turn, &deployment, key);
}

fn replica_sets(turn: &Turn<'_>, deployment: &Value) -> Vec<Arc<Value>> {
    turn.index
        .dependents(object::uid(deployment), &REPLICA_SETS)
        .filter_map(|key| turn.store.get(&REPLICA_SETS, key))
        .cloned()
        .collect()
}

fn revision(value: &Value) -> i64 {
    object::annotation(value, REVISION).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn create_set(
    turn: &mut Turn<'_>,
    deployment: &Value,
    key: &ObjectKey,
    hash: &str,
    old: &[Arc<Value>],
) {
    let mut template = deployment.pointer("/spec/template").cloned().unwrap_or_default();
    object::set(&mut template, &["metadata", "labels", HASH_LABEL], hash);
    let mut selector = deployment.pointer("/spec/selector").cloned().unwrap_or_default();
    object::set(&mut selector, &["matchLabels", HASH_LABEL], hash);
    let next = old.iter().map(|set| revision(set)).max().unwrap_or(0).saturating_add(1);
    // The first set starts whole; a later one is scaled up by the roll.
    let replicas = if old.iter().all(|set| replicas(set) == 0) { wanted(deployment) } else { 0 };
    let set = json!({
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": format!("{}-{hash}", key.name),
            "namespace": key.namespace,
            "labels": template.pointer("/metadata/labels"),
            "annotations": {REVISION: next.to_string()},
            "ownerReferences": [template::controller_reference(deployment)],
        },
        "spec": {"replicas": replicas, "selector": selector, "template": template},
    });
    let created = turn.store.create(&REPLICA_SETS, set, &WriteOptions::default(), turn.now);
    turn.written(created, &DEPLOYMENTS, key);
}

/// The set in use carries the highest revision, and the Deployment the same.
fn mark_current(
    turn: &mut Turn<'_>,
    deployment: &Arc<Value>,
    current: &Arc<Value>,
    old: &[Arc<Value>],
) {
    let highest_old = old.iter().map(|set| revision(set)).max().unwrap_or(0);
    let number = revision(current).max(highest_old.saturating_add(1));
    for (resource, value) in [(&REPLICA_SETS, current), (&DEPLOYMENTS, deployment)] {
        if revision(value) == number {
            continue;
        }
        let written =
            turn.store.modify(resource, &object::key(value), Part::Whole, turn.now, |value| {
                object::set(value, &["metadata", "annotations", REVISION], number.to_string());
            });
        turn.written(written, &DEPLOYMENTS, &object::key(deployment));
    }
}

fn wanted(deployment: &Value) -> i64 {
    object::integer(deployment, "/spec/replicas").unwrap_or(1).max(0)
}

fn replicas(set: &Value) -> i64 {
    object::integer(set, "/spec/replicas").unwrap_or(1)
}

fn available(set: &Value) -> i64 {
    object::integer(set, "/status/availableReplicas").unwrap_or(0)
}

fn scale(turn: &mut Turn<'_>, set: &Arc<Value>, count: i64) {
    if replicas(set) != count {
        let key = object::key(set);
        let written = turn.store.modify(&REPLICA_SETS, &key, Part::Whole, turn.now, |set| {
            object::set(set, &["spec", "replicas"], count);
        });
        turn.written(written, &REPLICA_SETS, &key);
    }
}

/// One step from the old sets to the current one, within surge and unavailability.
fn roll(turn: &mut Turn<'_>, deployment: &Value, current: &Arc<Value>, old: &[Arc<Value>]) {
    let wanted = wanted(deployment);
    let old_total: i64 = old.iter().map(|set| replicas(set)).sum();
    if old_total == 0 {
        scale(turn, current, wanted);
        return;
    }
    if object::text(deployment, "/spec/strategy/type") == "Recreate" {
        for set in old {
            scale(turn, set, 0);
        }
        let left = old.iter().any(|set| object::integer(set, "/status/replicas").unwrap_or(0) > 0);
        if !left {
            scale(turn, current, wanted);
        }
        return;
    }
    let limit = |name: &str, round_up| {
        let value = deployment.pointer(&format!("/spec/strategy/rollingUpdate/{name}"));
        template::scaled(value, wanted, round_up, "25%")
    };
    let surge = limit("maxSurge", true);
    // Neither surge nor unavailability would never move on; Kubernetes then allows one to go.
    let unavailable = limit("maxUnavailable", false).max(i64::from(surge == 0));
    let total = old_total.saturating_add(replicas(current));
    let room = wanted.saturating_add(surge).saturating_sub(total).max(0);
    scale(turn, current, wanted.min(replicas(current).saturating_add(room)));
    let not_yet = replicas(current).saturating_sub(available(current)).max(0);
    let least = wanted.saturating_sub(unavailable);
    let mut surplus = total.saturating_sub(least).saturating_sub(not_yet).max(0);
    // Replicas of old sets that are not available anyway go first: they cost no availability.
    for broken_first in [true, false] {
        for set in old {
            let broken = replicas(set).saturating_sub(available(set)).max(0);
            let cut = surplus.min(if broken_first { broken } else { replicas(set) });
            if cut > 0 {
                scale(turn, set, replicas(set).saturating_sub(cut));
                surplus -= cut;
                if broken_first {
                    // The other replicas of this set wait for the next look.
                    return;
                }
            }
        }
    }
}

/// Empty sets beyond the history's length go, the oldest first.
fn forget_oldest(turn: &mut Turn<'_>, deployment: &Value, old: &[Arc<Value>]) {
    let kept = object::integer(deployment, "/spec/revisionHistoryLimit").unwrap_or(10);
    let mut empty: Vec<_> = old
        .iter()
        .filter(|set| {
            replicas(set) == 0 && object::integer(set, "/status/replicas").unwrap_or(0) == 0
        })
        .collect();
    empty.sort_by_key(|set| revision(set));
    let surplus = empty.len().saturating_sub(usize::try_from(kept).unwrap_or(0));
    for set in empty.into_iter().take(surplus) {
        // Gone already is what was wanted.
        let _ = turn.store.delete(
            &REPLICA_SETS,
            &object::key(set),
            &DeleteOptions::default(),
            turn.now,
        );
    }
}

fn write_status(turn: &mut Turn<'_>, deployment: &Arc<Value>, key: &ObjectKey) {
    turn.index.absorb(turn.store);
    let sets = replica_sets(turn, deployment);
    let hash = template::hash(deployment.pointer("/spec/template").unwrap_or(&Value::Null));
    let sum = |pointer: &str| -> i64 {
        sets.iter().map(|set| object::integer(set, pointer).unwrap_or(0)).sum()
    };
    let total = sum("/status/replicas");
    let ready = sum("/status/readyReplicas");
    let available = sum("/status/availableReplicas");
    let updated: i64 = sets
        .iter()
        .filter(|set| object::label(set, HASH_LABEL) == Some(&hash))
        .map(|set| object::integer(set, "/status/replicas").unwrap_or(0))
        .sum();
    let wanted = wanted(deployment);
    let missing = wanted.max(total).saturating_sub(available).max(0);
    let generation = object::integer(deployment, "/metadata/generation").unwrap_or(0);
    let mut changed = Value::clone(deployment);
    let status = object::entry(&mut changed, "status");
    template::set_counts(
        status,
        &[],
        &[
            ("replicas", total),
            ("updatedReplicas", updated),
            ("readyReplicas", ready),
            ("availableReplicas", available),
            ("unavailableReplicas", missing),
            ("observedGeneration", generation),
        ],
    );
    set_conditions(turn, &mut changed, wanted, updated, available, total);
    let status = changed.get("status").cloned().unwrap_or_default();
    if template::differs(deployment, &status) {
        let written = turn.store.update_status(&DEPLOYMENTS, key, turn.now, |own| *own = status);
        turn.written(written, &DEPLOYMENTS, key);
    }
}

fn set_conditions(
    turn: &Turn<'_>,
    deployment: &mut Value,
    wanted: i64,
    updated: i64,
    available: i64,
    total: i64,
) {
    let limit = deployment.pointer("/spec/strategy/rollingUpdate/maxUnavailable");
    let least = wanted.saturating_sub(template::scaled(limit, wanted, false, "25%"));
    let (status, reason, message) = if available >= least {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    object::set_condition(deployment, "Available", status, reason, message, turn.now);
    let complete = updated >= wanted && total == updated && available >= wanted;
    let (reason, message) = if complete {
        ("NewReplicaSetAvailable", "ReplicaSet has successfully progressed.")
    } else {
        ("ReplicaSetUpdated", "ReplicaSet is progressing.")
    };
    object::set_condition(deployment, "Progressing", "True", reason, message, turn.now);
}
