//! DaemonSets: one pod on every node that accepts it.

use std::collections::BTreeMap;
use std::sync::Arc;

use drover_common::cluster::{Node, ObjectKey, Pod, PodTemplate};
use drover_common::taint::{Taint, TaintEffect, Toleration};
use serde::Deserialize;
use serde_json::{Value, json};

use super::index::PodEntry;
use super::scheduler::NodeRules;
use super::{Turn, replica_set, template};
use crate::world::object;
use crate::world::resource::{DAEMON_SETS, PODS};
use crate::world::store::WriteOptions;

const REVISION_LABEL: &str = "controller-revision-hash";

/// Key and effect of what every daemon tolerates; the last only on the host's network.
const TOLERATED: [(&str, &str); 7] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
    ("node.kubernetes.io/network-unavailable", "NoSchedule"),
];

pub(super) fn sync(turn: &mut Turn<'_>, key: &ObjectKey) {
    let Some(set) = turn.store.get(&DAEMON_SETS, key).cloned() else { return };
    let wishes = Wishes::of(turn, &set);
    if !object::is_deleting(&set) {
        step(turn, &set, key, &wishes);
    }
    write_status(turn, &set, key, &wishes);
}

/// What a DaemonSet wants of each node.
struct Wishes {
    revision: String,
    tolerations: Vec<Value>,
    /// Whether each node should have a pod, and whether one that is there may stay.
    nodes: BTreeMap<String, (bool, bool)>,
}

impl Wishes {
    fn of(turn: &Turn<'_>, set: &Value) -> Self {
        let template = set.pointer("/spec/template").unwrap_or(&Value::Null);
        let typed = PodTemplate::deserialize(template).unwrap_or_default();
        let added = tolerations(typed.spec.host_network);
        let mut pod = Pod { spec: typed.spec, ..Pod::default() };
        let read = added.iter().filter_map(|value| Toleration::deserialize(value).ok());
        pod.spec.tolerations.extend(read);
        let rules = NodeRules::of(&pod);
        let nodes = turn
            .index
            .nodes
            .iter()
            .map(|(name, node)| (name.clone(), wish(&rules, &pod, node)))
            .collect();
        Self { revision: template::hash(template), tolerations: added, nodes }
    }
}

fn tolerations(host_network: bool) -> Vec<Value> {
    let count = if host_network { TOLERATED.len() } else { TOLERATED.len() - 1 };
    TOLERATED
        .iter()
        .take(count)
        .map(|(key, effect)| json!({"key": key, "operator": "Exists", "effect": effect}))
        .collect()
}

fn wish(rules: &NodeRules, pod: &Pod, node: &Node) -> (bool, bool) {
    let matches = rules.match_node(node);
    let tolerated = |taint: &Taint| pod.spec.tolerations.iter().any(|own| own.tolerates(taint));
    let bars = |effect: TaintEffect| {
        node.spec.taints.iter().any(|taint| taint.effect == effect && !tolerated(taint))
    };
    let stays = matches && !bars(TaintEffect::NoExecute);
    (stays && !bars(TaintEffect::NoSchedule), stays)
}

/// The node that a daemon's pod is made for.
fn target(pod: &Pod) -> Option<&str> {
    if !pod.spec.node_name.is_empty() {
        return Some(&pod.spec.node_name);
    }
    let terms = &pod.spec.affinity.node_affinity.as_ref()?.required.as_ref()?.node_selector_terms;
    let field = terms.iter().flat_map(|term| &term.match_fields).next()?;
    field.values.first().map(String::as_str)
}

fn by_node(turn: &Turn<'_>, set: &Value) -> BTreeMap<String, Vec<Arc<PodEntry>>> {
    let mut pods: BTreeMap<String, Vec<Arc<PodEntry>>> = BTreeMap::new();
    for entry in turn.index.controlled_pods(object::uid(set)) {
        if let Some(node) = target(&entry.pod) {
            pods.entry(node.to_owned()).or_default().push(entry);
        }
    }
    pods
}

fn step(turn: &mut Turn<'_>, set: &Arc<Value>, key: &ObjectKey, wishes: &Wishes) {
    let pods = by_node(turn, set);
    let none = Vec::new();
    for (node, (should, stays)) in &wishes.nodes {
        let own = pods.get(node).unwrap_or(&none);
        if *should && own.is_empty() {
            create(turn, set, key, node, wishes);
        }
        for entry in own {
            let surplus = !stays || entry.pod.is_terminal();
            if surplus && !entry.pod.is_terminating() {
                replica_set::delete(turn, &entry.pod);
            }
        }
    }
    // Unbound pods for nodes that went; bound ones are the pod garbage collector's affair.
    for (node, own) in &pods {
        let unbound = own.iter().filter(|entry| entry.pod.spec.node_name.is_empty());
        for entry in unbound.filter(|_| !wishes.nodes.contains_key(node)) {
            replica_set::delete(turn, &entry.pod);
        }
    }
    if object::text(set, "/spec/updateStrategy/type") != "OnDelete" {
        update_some(turn, set, wishes, &pods);
    }
}

/// Replaces pods of an old template, within `maxUnavailable`.
fn update_some(
    turn: &mut Turn<'_>,
    set: &Value,
    wishes: &Wishes,
    pods: &BTreeMap<String, Vec<Arc<PodEntry>>>,
) {
    let desired = wishes.nodes.values().filter(|(should, _)| *should).count();
    let desired = i64::try_from(desired).unwrap_or(i64::MAX);
    let limit = set.pointer("/spec/updateStrategy/rollingUpdate/maxUnavailable");
    let limit = template::scaled(limit, desired, true, "1").max(1);
    let entries = || pods.values().flatten();
    let available = entries().filter(|entry| template::is_available(&entry.pod)).count();
    let mut room =
        limit.saturating_sub(desired.saturating_sub(i64::try_from(available).unwrap_or(0)));
    for entry in entries() {
        let own = entry.pod.metadata.labels.get(REVISION_LABEL);
        let old = own.is_none_or(|own| *own != wishes.revision);
        if !old || entry.pod.is_terminating() {
            continue;
        }
        // One that is not available costs nothing.
        let costs = i64::from(template::is_available(&entry.pod));
        if room >= costs {
            room -= costs;
            replica_set::delete(turn, &entry.pod);
        }
    }
}

fn create(turn: &mut Turn<'_>, set: &Arc<Value>, key: &ObjectKey, node: &str, wishes: &Wishes) {
    let mut pod = template::pod(set, set.pointer("/spec/template").unwrap_or(&Value::Null));
    object::set(&mut pod, &["metadata", "generateName"], format!("{}-", key.name));
    let revision = wishes.revision.clone();
    object::set(&mut pod, &["metadata", "labels", REVISION_LABEL], revision);
    let tolerations = object::entry(object::entry(&mut pod, "spec"), "tolerations");
    if !tolerations.is_array() {
        *tolerations = Value::Array(Vec::new());
    }
    if let Value::Array(own) = tolerations {
        own.extend(wishes.tolerations.iter().cloned());
    }
    pin(&mut pod, node);
    let created = turn.store.create(&PODS, pod, &WriteOptions::default(), turn.now);
    turn.written(created, &DAEMON_SETS, key);
}

/// Adds the node's name to every alternative of the pod's required node affinity.
fn pin(pod: &mut Value, node: &str) {
    let field = json!([{"key": "metadata.name", "operator": "In", "values": [node]}]);
    let path = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
    match pod.pointer_mut(path).and_then(Value::as_array_mut) {
        Some(terms) if !terms.is_empty() => {
            for term in terms {
                object::set(term, &["matchFields"], field.clone());
            }
        }
        _ => {
            let terms = json!({"nodeSelectorTerms": [{"matchFields": field}]});
            let path = [
                "spec",
                "affinity",
                "nodeAffinity",
                "requiredDuringSchedulingIgnoredDuringExecution",
            ];
            object::set(pod, &path, terms);
        }
    }
}

fn write_status(turn: &mut Turn<'_>, set: &Arc<Value>, key: &ObjectKey, wishes: &Wishes) {
    turn.index.absorb(turn.store);
    let pods = by_node(turn, set);
    let wanted = |node: &str| {
        wishes
            .nodes
            .get(node)
            .is_some_and(|(should, stays)| *should || *stays && pods.contains_key(node))
    };
    let count = |holds: &dyn Fn(&str, &PodEntry) -> bool| {
        let nodes = pods.iter().filter(|(node, own)| own.iter().any(|entry| holds(node, entry)));
        i64::try_from(nodes.count()).unwrap_or(i64::MAX)
    };
    let desired = wishes.nodes.keys().filter(|node| wanted(node)).count();
    let current = count(&|node, entry| wanted(node) && !entry.pod.is_terminal());
    let ready = count(&|node, entry| wanted(node) && template::is_available(&entry.pod));
    let updated = count(&|node, entry| {
        let own = entry.pod.metadata.labels.get(REVISION_LABEL);
        wanted(node) && own.is_some_and(|own| *own == wishes.revision)
    });
    let misplaced = count(&|node, entry| !wanted(node) && !entry.pod.is_terminal());
    let desired = i64::try_from(desired).unwrap_or(i64::MAX);
    let generation = object::integer(set, "/metadata/generation").unwrap_or(0);
    let mut status = set.get("status").cloned().unwrap_or_default();
    template::set_counts(
        &mut status,
        &[
            ("currentNumberScheduled", current),
            ("desiredNumberScheduled", desired),
            ("numberMisscheduled", misplaced),
            ("numberReady", ready),
        ],
        &[
            ("numberAvailable", ready),
            ("numberUnavailable", desired.saturating_sub(ready)),
            ("updatedNumberScheduled", updated),
            ("observedGeneration", generation),
        ],
    );
    if template::differs(set, &status) {
        let written = turn.store.update_status(&DAEMON_SETS, key, turn.now, |own| *own = status);
        turn.written(written, &DAEMON_SETS, key);
    }
}
