//! Pods of a dump: which wait, with which priority.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::cluster::{
    ClusterEvent, ClusterObject, NodeCondition, ObjectKey, Pod, PodCondition, PriorityClass,
};
use drover_common::id::NodePoolName;

use crate::planner::Unschedulable;
use crate::view::View;

/// Names that a warning lists at most.
const MOST_NAMES: usize = 3;

/// What priority class names stand for.
#[derive(Debug)]
pub(super) struct Priorities {
    by_class: BTreeMap<String, i32>,
    default: i32,
}

impl Default for Priorities {
    /// The two classes that every cluster has (`schedulingv1` of the API server).
    fn default() -> Self {
        let known =
            [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];
        let by_class = known.map(|(name, value)| (name.to_owned(), value)).into();
        Self { by_class, default: 0 }
    }
}

impl Priorities {
    pub(super) fn add(&mut self, class: &PriorityClass) {
        self.by_class.insert(class.metadata.name.clone(), class.value);
        if class.global_default {
            self.default = class.value;
        }
    }

    /// The priority of a pod, or the class it names in vain.
    fn of<'p>(&self, pod: &'p Pod) -> Result<i32, &'p str> {
        if let Some(priority) = pod.spec.priority {
            return Ok(priority);
        }
        let class = pod.spec.priority_class_name.as_str();
        if class.is_empty() {
            return Ok(self.default);
        }
        self.by_class.get(class).copied().ok_or(class)
    }
}

/// Puts pods into the view. Those without a node that leaders would not plan for are returned with
/// the reason; the others become unschedulable, as if the scheduler had looked at them.
pub(super) fn settle(
    view: &mut View,
    pods: Vec<Pod>,
    priorities: &Priorities,
    warnings: &mut Vec<String>,
) -> Vec<Unschedulable> {
    let mut set_aside: BTreeMap<ObjectKey, String> = BTreeMap::new();
    let mut dangling: BTreeSet<String> = BTreeSet::new();
    let mut nowhere: BTreeSet<String> = BTreeSet::new();
    for mut pod in pods {
        match priorities.of(&pod) {
            Ok(priority) => pod.spec.priority = Some(priority),
            Err(class) => drop(dangling.insert(class.to_owned())),
        }
        let key = ObjectKey::from(&pod.metadata);
        set_aside.remove(&key);
        if pod.spec.node_name.is_empty() && !pod.is_terminal() {
            match reason_to_wait(&pod) {
                Some(reason) => drop(set_aside.insert(key, reason)),
                None => mark_unschedulable(&mut pod),
            }
        } else if !pod.spec.node_name.is_empty()
            && !view.nodes().contains_key(&pod.spec.node_name.as_str().into())
        {
            nowhere.insert(pod.spec.node_name.clone());
        }
        view.apply(ClusterEvent::Applied(ClusterObject::Pod(Box::new(pod))));
    }
    if !dangling.is_empty() {
        warnings.push(format!(
            "PriorityClass {} is not in the input: pods that name it get priority 0",
            list(&dangling)
        ));
    }
    if !nowhere.is_empty() {
        warnings.push(format!(
            "Node {} is not in the input: pods on it are left out of account",
            list(&nowhere)
        ));
    }
    let each = set_aside.into_iter().map(|(pod, reason)| Unschedulable {
        pod,
        reasons: vec![(NodePoolName::default(), reason)],
    });
    each.collect()
}

/// Why leaders plan for no such pod, if they don't.
fn reason_to_wait(pod: &Pod) -> Option<String> {
    if pod.is_terminating() {
        return Some("it is being deleted".to_owned());
    }
    if pod.is_node_bound() {
        return Some(
            "it belongs to a DaemonSet or to a node, for which no node is launched".into(),
        );
    }
    if !pod.spec.scheduling_gates.is_empty() {
        let names: Vec<&str> = pod
            .spec
            .scheduling_gates
            .iter()
            .filter_map(|gate| gate.get("name").and_then(serde_json::Value::as_str))
            .collect();
        return Some(format!("its scheduling gates hold it back: {}", names.join(", ")));
    }
    let nominated = pod.status.nominated_node_name.as_str();
    (!nominated.is_empty()).then(|| format!("preemption makes room for it on node {nominated}"))
}

fn mark_unschedulable(pod: &mut Pod) {
    if pod.is_unschedulable() {
        return;
    }
    pod.status.conditions.retain(|condition| condition.kind != "PodScheduled");
    pod.status.conditions.push(PodCondition {
        kind: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: "Unschedulable".to_owned(),
        last_transition_time: None,
    });
}

/// The condition of a node that nothing is wrong with.
pub(super) fn ready_condition() -> NodeCondition {
    NodeCondition {
        kind: "Ready".to_owned(),
        status: "True".to_owned(),
        ..NodeCondition::default()
    }
}

/// The first names of a set, and how many more there are.
fn list(names: &BTreeSet<String>) -> String {
    let shown: Vec<&str> = names.iter().take(MOST_NAMES).map(String::as_str).collect();
    match names.len().checked_sub(MOST_NAMES) {
        Some(more @ 1..) => format!("{} (and {more} more)", shown.join(", ")),
        _ => shown.join(", "),
    }
}
