//! PodDisruptionBudgets: how many of their pods may go now.

use std::collections::BTreeMap;
use std::sync::Arc;

use drover_common::cluster::ObjectKey;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

use super::index::PodEntry;
use super::{Turn, after, template};
use crate::world::object;
use crate::world::resource::{
    DEPLOYMENTS, POD_DISRUPTION_BUDGETS, PODS, REPLICA_SETS, Resource, STATEFUL_SETS,
};
use crate::world::store::selector::Selector;

/// How long an eviction that was charged may take to show up as a deletion.
const CHARGED_FOR: SignedDuration = SignedDuration::from_mins(2);

pub(super) fn sync(turn: &mut Turn<'_>, key: &ObjectKey) {
    let Some(budget) = turn.store.get(&POD_DISRUPTION_BUDGETS, key).cloned() else { return };
    let pods = covered(turn, &budget, key);
    let expected = expected(turn, &budget, &pods);
    let count = expected.1;
    let disrupted = still_charged(turn, &budget, key);
    let healthy = pods
        .iter()
        .filter(|entry| {
            template::is_available(&entry.pod) && !disrupted.contains_key(&entry.pod.metadata.name)
        })
        .count();
    let healthy = i64::try_from(healthy).unwrap_or(i64::MAX);
    let desired = expected.0;
    let allowed = if count > 0 { (healthy - desired).max(0) } else { 0 };
    let mut changed = Value::clone(&budget);
    let generation = object::integer(&budget, "/metadata/generation").unwrap_or(0);
    let status = object::entry(&mut changed, "status");
    template::set_counts(
        status,
        &[
            ("disruptionsAllowed", allowed),
            ("currentHealthy", healthy),
            ("desiredHealthy", desired),
            ("expectedPods", count),
            ("observedGeneration", generation),
        ],
        &[],
    );
    if disrupted.is_empty() {
        object::remove(status, &["disruptedPods"]);
    } else {
        object::set(status, &["disruptedPods"], disrupted);
    }
    let (state, reason) =
        if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    object::set_condition(&mut changed, "DisruptionAllowed", state, reason, "", turn.now);
    let status = changed.get("status").cloned().unwrap_or_default();
    if template::differs(&budget, &status) {
        let written =
            turn.store.update_status(&POD_DISRUPTION_BUDGETS, key, turn.now, |own| *own = status);
        turn.written(written, &POD_DISRUPTION_BUDGETS, key);
    }
}

fn covered(turn: &Turn<'_>, budget: &Value, key: &ObjectKey) -> Vec<Arc<PodEntry>> {
    let Some(selector) = Selector::from_label_selector(budget.pointer("/spec/selector")) else {
        return Vec::new();
    };
    turn.store
        .iter_namespace(&PODS, &key.namespace)
        .filter(|(_, pod)| selector.matches(pod))
        .filter_map(|(key, _)| turn.index.pods.get(key))
        .filter(|entry| !entry.pod.is_terminal())
        .cloned()
        .collect()
}

/// Healthy pods that must stay, and pods that there should be. An absolute `minAvailable` counts
/// the pods there are, everything else the replicas that their controllers want.
fn expected(turn: &Turn<'_>, budget: &Value, pods: &[Arc<PodEntry>]) -> (i64, i64) {
    let there = i64::try_from(pods.len()).unwrap_or(i64::MAX);
    let most_gone = budget.pointer("/spec/maxUnavailable").filter(|value| !value.is_null());
    let least = budget.pointer("/spec/minAvailable").filter(|value| !value.is_null());
    match (most_gone, least) {
        (Some(most), _) => {
            let wanted = wanted_by_controllers(turn, pods);
            (wanted.saturating_sub(template::scaled(Some(most), wanted, true, "1")).max(0), wanted)
        }
        (None, Some(Value::Number(least))) => (least.as_i64().unwrap_or(0), there),
        (None, least) => {
            let wanted = wanted_by_controllers(turn, pods);
            (template::scaled(least, wanted, true, "1"), wanted)
        }
    }
}

fn wanted_by_controllers(turn: &Turn<'_>, pods: &[Arc<PodEntry>]) -> i64 {
    let mut wanted: BTreeMap<String, i64> = BTreeMap::new();
    let mut bare = 0;
    for entry in pods {
        let metadata = &entry.pod.metadata;
        match metadata
            .controller()
            .and_then(|owner| scale(turn, &owner.kind, &metadata.namespace, &owner.name))
        {
            Some((uid, replicas)) => {
                wanted.insert(uid, replicas);
            }
            None => bare += 1,
        }
    }
    wanted.values().fold(bare, |sum, replicas| sum.saturating_add(*replicas))
}

/// Uid and replicas of the object that scales a pod: the Deployment of a ReplicaSet that has one.
fn scale(turn: &Turn<'_>, kind: &str, namespace: &str, name: &str) -> Option<(String, i64)> {
    let found =
        |resource: &Resource, name: &str| turn.store.find(resource, namespace, name).cloned();
    let mut scaled = match kind {
        "ReplicaSet" => found(&REPLICA_SETS, name)?,
        "StatefulSet" => found(&STATEFUL_SETS, name)?,
        _ => return None,
    };
    if let Some(owner) = object::controller(&scaled)
        && object::text(owner, "/kind") == "Deployment"
        && let Some(deployment) = found(&DEPLOYMENTS, object::text(owner, "/name"))
    {
        scaled = deployment;
    }
    let replicas = object::integer(&scaled, "/spec/replicas").unwrap_or(1);
    Some((object::uid(&scaled).to_owned(), replicas))
}

/// Evictions that were allowed and whose pods are not seen going yet.
fn still_charged(turn: &mut Turn<'_>, budget: &Value, key: &ObjectKey) -> Map<String, Value> {
    let mut charged = Map::new();
    let disrupted = budget.pointer("/status/disruptedPods").and_then(Value::as_object);
    for (name, since) in disrupted.into_iter().flatten() {
        let pod = ObjectKey::new(key.namespace.clone(), name.clone());
        let there = turn.index.pods.get(&pod).is_some_and(|entry| template::is_active(&entry.pod));
        let since_time: Option<Timestamp> = since.as_str().and_then(|text| text.parse().ok());
        let due = since_time.map(|since| after(since, CHARGED_FOR));
        if let Some(due) = due.filter(|due| there && *due > turn.now) {
            turn.at(due, &POD_DISRUPTION_BUDGETS, key);
            charged.insert(name.clone(), since.clone());
        }
    }
    charged
}
