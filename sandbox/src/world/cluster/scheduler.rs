//! The scheduler: binds pending pods to nodes that take them, as kube-scheduler's default plugins do.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use drover_common::cluster::{Node, ObjectKey, Pod};
use drover_common::resources::ResourceName;
use drover_common::taint::{self, Taint, TaintEffect};
use jiff::Timestamp;

use super::index::PodEntry;
use super::{Turn, volume};
use crate::world::object;
use crate::world::resource::PODS;
use crate::world::store::Part;

mod rules;
mod topology;

pub(super) use rules::{NodeRules, claim_names};

use rules::{Claims, HostPorts};
use topology::Topology;

/// Most pods bound in one tick: a world is locked while it ticks.
const MOST_BINDINGS: usize = 200;

/// Whether a run is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// It bound as many as it may in one tick.
    More,
    /// Every pending pod was looked at.
    Complete,
}

/// Binds what can be bound now.
pub(super) fn run(turn: &mut Turn<'_>) -> Progress {
    if !std::mem::take(&mut turn.index.scheduling) {
        return Progress::Complete;
    }
    let mut run = Run::default();
    for key in queue(turn) {
        let Some(entry) = turn.index.pods.get(&key).cloned() else { continue };
        if !entry.pod.spec.scheduling_gates.is_empty() {
            let message = "Scheduling is blocked due to non-empty scheduling gates";
            tell(turn, &key, "SchedulingGated", message);
            continue;
        }
        if let Some(message) = run.failed.get(&entry.shape) {
            let message = message.clone();
            tell(turn, &key, "Unschedulable", &message);
            continue;
        }
        match run.place(turn, &entry) {
            Ok(node) => {
                bind(turn, &key, &entry, &node);
                turn.index.absorb(turn.store);
                run.bound += 1;
                if run.bound >= MOST_BINDINGS {
                    turn.index.scheduling = true;
                    return Progress::More;
                }
            }
            Err(message) => {
                tell(turn, &key, "Unschedulable", &message);
                run.failed.insert(entry.shape.clone(), message);
            }
        }
    }
    Progress::Complete
}

/// Pending pods: the important first, then the oldest.
fn queue(turn: &Turn<'_>) -> Vec<ObjectKey> {
    let mut keyed: Vec<(Reverse<i32>, Option<Timestamp>, ObjectKey)> = turn
        .index
        .pending
        .iter()
        .filter_map(|key| {
            let pod = &turn.index.pods.get(key)?.pod;
            let priority = Reverse(pod.spec.priority.unwrap_or(0));
            Some((priority, pod.metadata.creation_timestamp, key.clone()))
        })
        .collect();
    keyed.sort();
    keyed.into_iter().map(|(_, _, key)| key).collect()
}

/// Nodes that a shape's own rules and the nodes' taints leave, and why the others fell away.
struct Candidates {
    nodes: Vec<String>,
    reasons: BTreeMap<String, usize>,
}

/// What one run has found out.
#[derive(Default)]
struct Run {
    bound: usize,
    /// Shapes that no node takes now, and the message.
    failed: BTreeMap<String, String>,
    candidates: BTreeMap<String, Arc<Candidates>>,
}

impl Run {
    fn place(&mut self, turn: &Turn<'_>, entry: &PodEntry) -> Result<String, String> {
        let total = turn.index.nodes.len();
        if total == 0 {
            return Err("no nodes available to schedule pods".to_owned());
        }
        let claims = Claims::of(turn.store, &entry.pod)
            .map_err(|reason| format!("0/{total} nodes are available: {reason}."))?;
        let candidates = Arc::clone(
            self.candidates
                .entry(entry.shape.clone())
                .or_insert_with(|| Arc::new(candidates(turn, &entry.pod))),
        );
        let topology = Topology::of(turn, &entry.pod);
        let ports = HostPorts::of(&entry.pod);
        let mut reasons = candidates.reasons.clone();
        let mut best: Option<(i64, &str)> = None;
        for name in &candidates.nodes {
            let Some(node) = turn.index.nodes.get(name) else { continue };
            let refusals = refusals(turn, entry, node, &claims, &topology, &ports);
            if refusals.is_empty() {
                let score = score(turn, entry, node);
                if best.is_none_or(|(highest, _)| score > highest) {
                    best = Some((score, name));
                }
            }
            for reason in refusals {
                *reasons.entry(reason).or_default() += 1;
            }
        }
        best.map(|(_, name)| name.to_owned()).ok_or_else(|| explain(total, &reasons))
    }
}

/// kube-scheduler's words, the most frequent reasons sorted by their text.
fn explain(total: usize, reasons: &BTreeMap<String, usize>) -> String {
    let mut texts: Vec<String> =
        reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    texts.sort();
    let list = texts.join(", ");
    format!(
        "0/{total} nodes are available: {list}. preemption: 0/{total} nodes are available: {total} Preemption is not helpful for scheduling."
    )
}

fn candidates(turn: &Turn<'_>, pod: &Pod) -> Candidates {
    let rules = NodeRules::of(pod);
    let mut nodes = Vec::new();
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for (name, node) in &turn.index.nodes {
        let refusal = if is_cordoned(node, pod) {
            Some("node(s) were unschedulable".to_owned())
        } else if let Err(taint) = taint::tolerates_all(&node.spec.taints, &pod.spec.tolerations) {
            Some(format!("node(s) had untolerated taint {{{}: {}}}", taint.key, taint.value))
        } else if !rules.match_node(node) {
            Some("node(s) didn't match Pod's node affinity/selector".to_owned())
        } else {
            None
        };
        match refusal {
            Some(reason) => *reasons.entry(reason).or_default() += 1,
            None => nodes.push(name.clone()),
        }
    }
    Candidates { nodes, reasons }
}

fn is_cordoned(node: &Node, pod: &Pod) -> bool {
    let taint = Taint {
        key: "node.kubernetes.io/unschedulable".to_owned(),
        value: String::new(),
        effect: TaintEffect::NoSchedule,
    };
    node.spec.unschedulable && !pod.spec.tolerations.iter().any(|own| own.tolerates(&taint))
}

/// Why a node does not take a pod now; nothing if it does.
fn refusals(
    turn: &Turn<'_>,
    entry: &PodEntry,
    node: &Node,
    claims: &Claims,
    topology: &Topology,
    ports: &HostPorts,
) -> Vec<String> {
    let short = missing_resources(turn, entry, node);
    if !short.is_empty() {
        return short;
    }
    let name = &node.metadata.name;
    if !ports.is_empty() {
        let there = turn.index.on_node.get(name).into_iter().flatten();
        let taken = there
            .filter_map(|key| turn.index.pods.get(key))
            .filter(|other| other.takes_room())
            .any(|other| ports.clash_with(&HostPorts::of(&other.pod)));
        if taken {
            return vec!["node(s) didn't have free ports for the requested pod ports".to_owned()];
        }
    }
    if !claims.match_node(node) {
        return vec!["node(s) had volume node affinity conflict".to_owned()];
    }
    topology.refusal(node).map(str::to_owned).into_iter().collect()
}

fn missing_resources(turn: &Turn<'_>, entry: &PodEntry, node: &Node) -> Vec<String> {
    let used = turn.index.used.get(&node.metadata.name);
    let short = |name: &ResourceName, amount: i64| {
        let taken = used.map_or(0, |used| used.get(name));
        amount > 0 && taken.saturating_add(amount) > node.status.allocatable.get(name)
    };
    entry
        .requests
        .iter()
        .filter(|(name, amount)| short(name, *amount))
        .map(|(name, _)| match name {
            ResourceName::Pods => "Too many pods".to_owned(),
            name => format!("Insufficient {name}"),
        })
        .collect()
}

/// Free share of cpu and memory after the pod, in thousandths, and preferred node affinity: the
/// emptiest node wins, as by default in Kubernetes.
fn score(turn: &Turn<'_>, entry: &PodEntry, node: &Node) -> i64 {
    let used = turn.index.used.get(&node.metadata.name);
    let free = |name: &ResourceName| {
        let allocatable = node.status.allocatable.get(name).max(1);
        let taken = used.map_or(0, |used| used.get(name)).saturating_add(entry.requests.get(name));
        let left = i128::from(allocatable.saturating_sub(taken).max(0)) * 1000;
        i64::try_from(left / i128::from(allocatable)).unwrap_or(0)
    };
    let least_allocated = (free(&ResourceName::Cpu) + free(&ResourceName::Memory)) / 2;
    least_allocated + 1000 * rules::preference(&entry.pod, node) / 100
}

fn bind(turn: &mut Turn<'_>, key: &ObjectKey, entry: &PodEntry, node: &str) {
    let zone = turn
        .index
        .nodes
        .get(node)
        .and_then(|node| node.metadata.labels.get("topology.kubernetes.io/zone").cloned())
        .unwrap_or_default();
    for claim in rules::claim_names(&entry.pod) {
        let place = ObjectKey::new(key.namespace.clone(), claim);
        let state = volume::state(turn.store, &place.namespace, &place.name);
        if matches!(state, volume::ClaimState::WaitsForPod(_)) {
            volume::provision(turn, &place, &zone);
        }
    }
    let now = turn.now;
    let written = turn.store.modify(&PODS, key, Part::Whole, now, |pod| {
        object::set(pod, &["spec", "nodeName"], node);
        object::set_condition(pod, "PodScheduled", "True", "", "", now);
    });
    turn.written(written, &PODS, key);
}

/// Says on a pod why it waits. A message that only counts nodes differently is not worth a write,
/// once it is there.
fn tell(turn: &mut Turn<'_>, key: &ObjectKey, reason: &str, message: &str) {
    let told = turn.index.pods.get(key).is_some_and(|entry| {
        entry.pod.status.conditions.iter().any(|condition| {
            condition.kind == "PodScheduled"
                && condition.status == "False"
                && condition.reason == reason
        })
    });
    if told && !is_told_anew(turn, key, message) {
        return;
    }
    let now = turn.now;
    let written = turn.store.modify(&PODS, key, Part::Whole, now, |pod| {
        object::set_default(pod, &["status", "phase"], "Pending");
        object::set_condition(pod, "PodScheduled", "False", reason, message, now);
    });
    turn.written(written, &PODS, key);
}

/// Whether the message says something new: other reasons, whatever the counts.
fn is_told_anew(turn: &Turn<'_>, key: &ObjectKey, message: &str) -> bool {
    let without_counts =
        |text: &str| text.chars().filter(|mark| !mark.is_ascii_digit()).collect::<String>();
    let Some(pod) = turn.store.get(&PODS, key) else { return false };
    let condition = object::list(pod, "/status/conditions")
        .iter()
        .find(|condition| object::text(condition, "/type") == "PodScheduled");
    condition.is_none_or(|condition| {
        without_counts(object::text(condition, "/message")) != without_counts(message)
    })
}
