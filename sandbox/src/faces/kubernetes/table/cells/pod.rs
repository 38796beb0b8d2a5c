//! The cells of pods.

use serde_json::Value;

use super::{AGE, Known, or_none};
use crate::world::object::{self, integer, list, text};

pub(super) const COLUMNS: &[Known] = &[
    ("Ready", 0, |pod, _| {
        let ready = statuses(pod).iter().filter(|status| object::flag(status, "/ready")).count();
        format!("{ready}/{}", list(pod, "/spec/containers").len()).into()
    }),
    ("Status", 0, |pod, _| status(pod).into()),
    ("Restarts", 0, |pod, _| {
        let restarts = statuses(pod).iter().filter_map(|status| integer(status, "/restartCount"));
        restarts.sum::<i64>().into()
    }),
    AGE,
    ("IP", 1, |pod, _| or_none(text(pod, "/status/podIP"))),
    ("Node", 1, |pod, _| or_none(text(pod, "/spec/nodeName"))),
    ("Nominated Node", 1, |pod, _| or_none(text(pod, "/status/nominatedNodeName"))),
    ("Readiness Gates", 1, |pod, _| {
        let gates = list(pod, "/spec/readinessGates");
        let met = gates
            .iter()
            .filter(|gate| object::condition(pod, text(gate, "/conditionType")) == "True");
        match gates.len() {
            0 => "<none>".into(),
            all => format!("{}/{all}", met.count()).into(),
        }
    }),
];

fn statuses(pod: &Value) -> &[Value] {
    list(pod, "/status/containerStatuses")
}

/// The word that tells most: why it waits, how it ended, or its phase.
fn status(pod: &Value) -> String {
    if object::is_deleting(pod) {
        return "Terminating".to_owned();
    }
    let reason = text(pod, "/status/reason");
    let phase = if reason.is_empty() { text(pod, "/status/phase") } else { reason };
    let gated = list(pod, "/status/conditions").iter().any(|condition| {
        text(condition, "/type") == "PodScheduled"
            && text(condition, "/reason") == "SchedulingGated"
    });
    if gated {
        return "SchedulingGated".to_owned();
    }
    let waiting = statuses(pod).iter().rev().find_map(|status| {
        let waits = text(status, "/state/waiting/reason");
        let ended = text(status, "/state/terminated/reason");
        [waits, ended].into_iter().find(|reason| !reason.is_empty())
    });
    waiting.unwrap_or(phase).to_owned()
}
