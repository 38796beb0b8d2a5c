//! Kubelets: pods start, become ready, end and stop after their delays.
//!
//! Annotations of a pod say how it behaves: `sandbox.drover.dev/start-seconds` (1 by default),
//! `stop-seconds` (1, at most its grace) and `run-seconds` (until it succeeds; pods of Jobs end
//! after 30 s by default, others never).

use std::sync::Arc;

use drover_common::cluster::{Node, ObjectKey, Pod};
use drover_common::ec2::InstanceState;
use drover_common::id::instance_of_provider_id;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::attachment;
use super::container::container_id;
use super::ends::{EndKind, PodEnd};
use super::index::PodEntry;
use super::{Turn, after};
use crate::world::object;
use crate::world::resource::PODS;
use crate::world::store::DeleteOptions;

const START: &str = "sandbox.drover.dev/start-seconds";
const STOP: &str = "sandbox.drover.dev/stop-seconds";
const RUN: &str = "sandbox.drover.dev/run-seconds";

/// How long a pod may outlive its Node object.
const ORPHANED_FOR: SignedDuration = SignedDuration::from_secs(5);

/// How long a pod that was told to stop may outlive a machine that is out of service.
const COLLECTED_AFTER: SignedDuration = SignedDuration::from_secs(2);

/// What a kubelet remembers of a pod, with more precision than its status has.
#[derive(Clone, Debug)]
pub(super) struct PodLife {
    uid: String,
    node: String,
    own_grace: i64,
    bound: Timestamp,
    started: Option<Timestamp>,
    /// Whether its processes ended since.
    ended: bool,
    stopping: Option<Timestamp>,
    /// The seconds that it was given last, and since when: a shorter time counts from when it's heard of.
    given: Option<(i64, Timestamp)>,
    node_gone: Option<Timestamp>,
    out_of_service: Option<Timestamp>,
    /// Since when its node bears NoExecute taints.
    pub(super) tainted_since: Option<Timestamp>,
}

pub(super) fn sync(turn: &mut Turn<'_>, key: &ObjectKey) {
    let entry = turn.index.pods.get(key).filter(|entry| !entry.pod.spec.node_name.is_empty());
    let Some(entry) = entry.cloned() else {
        note_end(turn, key, EndKind::Forced);
        turn.lives.remove(key);
        return;
    };
    note_life(turn, key, &entry.pod);
    let Some(node) = turn.index.nodes.get(&entry.pod.spec.node_name).cloned() else {
        collect_orphan(turn, key, &entry.pod);
        return;
    };
    if !is_alive(turn, &node) {
        if entry.pod.is_terminating() && !node.is_ready() && attachment::is_out_of_service(&node) {
            collect_out_of_service(turn, key, &entry.pod);
        }
        return;
    }
    if entry.pod.is_terminating() {
        stop(turn, key, &entry.pod);
    } else {
        match entry.pod.status.phase.as_str() {
            "" | "Pending" => start(turn, key, &entry, &node),
            "Running" => end(turn, key, &entry.pod),
            _ => {}
        }
    }
}

fn note_life(turn: &mut Turn<'_>, key: &ObjectKey, pod: &Pod) {
    let known = turn.lives.get(key).is_some_and(|life| life.uid == pod.metadata.uid);
    if !known {
        note_end(turn, key, EndKind::Forced);
        let life = PodLife {
            uid: pod.metadata.uid.clone(),
            node: pod.spec.node_name.clone(),
            own_grace: pod.spec.termination_grace_period_seconds.unwrap_or(30),
            bound: turn.now,
            started: None,
            ended: false,
            stopping: None,
            given: None,
            node_gone: None,
            out_of_service: None,
            tainted_since: None,
        };
        turn.lives.insert(key.clone(), life);
        // Taints were looked at before this life was known.
        turn.at(turn.now, &PODS, key);
    }
}

/// Remembers how a pod's processes ended, once.
fn note_end(turn: &mut Turn<'_>, key: &ObjectKey, how: EndKind) {
    let Some(life) = turn.lives.get_mut(key) else { return };
    if life.started.is_none() || std::mem::replace(&mut life.ended, true) {
        return;
    }
    turn.ends.note(PodEnd {
        pod: key.clone(),
        uid: life.uid.clone(),
        node: life.node.clone(),
        at: turn.now,
        own_grace: life.own_grace,
        how,
    });
}

/// The machine of these pods has ended.
pub(super) fn lose(turn: &mut Turn<'_>, node: &str) {
    let keys: Vec<_> = turn.index.on_node.get(node).into_iter().flatten().cloned().collect();
    keys.iter().for_each(|key| note_end(turn, key, EndKind::Lost));
}

/// The machine of these pods runs again: those that were running do, with containers started anew unless its boot
/// `goes_on`. Containers keep their ids here.
pub(super) fn restart(turn: &mut Turn<'_>, node: &str, goes_on: bool) {
    let keys: Vec<_> = turn.index.on_node.get(node).into_iter().flatten().cloned().collect();
    let now = turn.now;
    for key in keys {
        let pod = turn.store.get(&PODS, &key);
        // What has finished stays so.
        if pod.is_none_or(|pod| object::text(pod, "/status/phase") != "Running") {
            continue;
        }
        let Some(life) = turn.lives.get_mut(&key).filter(|life| life.ended) else { continue };
        (life.started, life.ended) = (Some(now), false);
        (life.stopping, life.given) = (None, None);
        let written =
            turn.store.modify(&PODS, &key, crate::world::store::Part::Whole, now, |pod| {
                let statuses =
                    pod.pointer_mut("/status/containerStatuses").and_then(Value::as_array_mut);
                for status in statuses.into_iter().flatten().filter(|_| !goes_on) {
                    let restarts = status["restartCount"].as_u64().unwrap_or(0).saturating_add(1);
                    object::set(status, &["restartCount"], restarts);
                    let state = json!({"running": {"startedAt": object::seconds(now)}});
                    object::set(status, &["state"], state);
                }
                for kind in ["Ready", "ContainersReady"] {
                    object::set_condition(pod, kind, "True", "", "", now);
                }
            });
        turn.written(written, &PODS, &key);
    }
}

/// Whether the node's machine runs. A node without a simulated instance is taken to.
pub(super) fn is_alive(turn: &Turn<'_>, node: &Node) -> bool {
    let id = instance_of_provider_id(&node.spec.provider_id);
    let instance = id.and_then(|id| turn.cloud.instance(&id).map(|instance| instance.state));
    instance.is_none_or(|state| state == InstanceState::Running)
}

/// A delay from an annotation, shortened as the world's options say.
fn delay(turn: &Turn<'_>, pod: &Pod, annotation: &str) -> Option<SignedDuration> {
    let seconds: f64 = pod.metadata.annotations.get(annotation)?.parse().ok()?;
    let delay = SignedDuration::try_from_secs_f64(seconds.max(0.0)).ok()?;
    Some(turn.options.scaled(delay))
}

fn second(turn: &Turn<'_>) -> SignedDuration {
    turn.options.scaled(SignedDuration::from_secs(1))
}

/// Deletes a pod whose Node object is gone: nobody will ever tell of its end.
fn collect_orphan(turn: &mut Turn<'_>, key: &ObjectKey, pod: &Pod) {
    let wait = turn.options.scaled(ORPHANED_FOR);
    let now = turn.now;
    let Some(life) = turn.lives.get_mut(key) else { return };
    let due = after(*life.node_gone.get_or_insert(now), wait);
    if due <= now {
        remove(turn, key, pod);
    } else {
        turn.at(due, &PODS, key);
    }
}

/// Deletes a pod whose machine is known to be off, as the pod garbage collector does.
fn collect_out_of_service(turn: &mut Turn<'_>, key: &ObjectKey, pod: &Pod) {
    let wait = turn.options.scaled(COLLECTED_AFTER);
    let now = turn.now;
    let Some(life) = turn.lives.get_mut(key) else { return };
    let due = after(*life.out_of_service.get_or_insert(now), wait);
    if due <= now {
        remove(turn, key, pod);
    } else {
        turn.at(due, &PODS, key);
    }
}

/// Takes a stopped pod out of the API.
fn remove(turn: &mut Turn<'_>, key: &ObjectKey, pod: &Pod) {
    let options = DeleteOptions {
        uid: Some(pod.metadata.uid.clone()),
        grace_seconds: Some(0),
        ..DeleteOptions::default()
    };
    let deleted = turn.store.delete(&PODS, key, &options, turn.now);
    turn.written(deleted, &PODS, key);
}

fn stop(turn: &mut Turn<'_>, key: &ObjectKey, pod: &Pod) {
    let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0).max(0);
    let own = delay(turn, pod, STOP).unwrap_or_else(|| second(turn));
    let wait = turn.options.scaled(SignedDuration::from_secs(grace));
    let now = turn.now;
    let Some(life) = turn.lives.get_mut(key) else { return };
    let stops = after(*life.stopping.get_or_insert(now), own);
    let given = life.given.filter(|(given, _)| *given <= grace).unwrap_or((grace, now));
    life.given = Some(given);
    let killed = after(given.1, wait);
    let due = stops.min(killed);
    if due > now {
        turn.at(due, &PODS, key);
        return;
    }
    let by_itself = stops <= killed;
    note_end(
        turn,
        key,
        if by_itself { EndKind::Stopped { grace } } else { EndKind::Killed { grace } },
    );
    if !pod.metadata.finalizers.is_empty() && !pod.is_terminal() {
        // Something else holds the object: it shows as ended until that lets go.
        finish(turn, key, "Failed", 143, "Error");
    }
    if pod.metadata.finalizers.is_empty() || grace > 0 {
        remove(turn, key, pod);
    }
}

fn start(turn: &mut Turn<'_>, key: &ObjectKey, entry: &Arc<PodEntry>, node: &Node) {
    if !entry.pod.spec.scheduling_gates.is_empty() {
        return;
    }
    let wait = delay(turn, &entry.pod, START).unwrap_or_else(|| second(turn));
    let Some(bound) = turn.lives.get(key).map(|life| life.bound) else { return };
    let due = after(bound, wait);
    if due > turn.now {
        turn.at(due, &PODS, key);
        return;
    }
    // It is looked at again when they are.
    if !attachment::all_attached(turn, &entry.pod) {
        return;
    }
    if let Some(life) = turn.lives.get_mut(key) {
        life.started = Some(turn.now);
    }
    let host = node_address(turn, &node.metadata.name);
    let address =
        if entry.pod.spec.host_network { host.clone() } else { next_address(turn.addresses) };
    let now = turn.now;
    let written = turn.store.modify(&PODS, key, crate::world::store::Part::Whole, now, |pod| {
        let time = object::seconds(now);
        let spec = pod.get("spec").cloned().unwrap_or_default();
        let uid = object::text(pod, "/metadata/uid").to_owned();
        let status = object::entry(pod, "status");
        object::set(status, &["phase"], "Running");
        object::set_default(status, &["startTime"], time.clone());
        object::set(status, &["podIP"], address.clone());
        object::set(status, &["podIPs"], json!([{"ip": address}]));
        object::set(status, &["hostIP"], host.clone());
        object::set(status, &["hostIPs"], json!([{"ip": host}]));
        let running = |member: &str| statuses(&uid, &spec, member, &time);
        object::set(status, &["containerStatuses"], running("containers"));
        if spec.get("initContainers").is_some() {
            object::set(status, &["initContainerStatuses"], running("initContainers"));
        }
        for kind in ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"] {
            object::set_condition(pod, kind, "True", "", "", now);
        }
    });
    turn.written(written, &PODS, key);
}

/// Container statuses of a pod that just started.
fn statuses(uid: &str, spec: &Value, member: &str, time: &str) -> Value {
    let containers = object::list(spec, &format!("/{member}"));
    let status = |container: &Value| {
        let sidecar = object::text(container, "/restartPolicy") == "Always";
        let ended = member == "initContainers" && !sidecar;
        let state = if ended {
            json!({"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": time, "finishedAt": time}})
        } else {
            json!({"running": {"startedAt": time}})
        };
        let image = object::text(container, "/image");
        let name = object::text(container, "/name");
        json!({
            "name": name, "image": image, "imageID": format!("sandbox://{image}"),
            "containerID": format!("containerd://{}", container_id(uid, name, 0)), "ready": true, "started": !ended,
            "restartCount": 0, "state": state,
        })
    };
    containers.iter().map(status).collect()
}

fn node_address(turn: &Turn<'_>, node: &str) -> String {
    let Some(node) = turn.store.find(&crate::world::resource::NODES, "", node) else {
        return String::new();
    };
    object::list(node, "/status/addresses")
        .iter()
        .find(|address| object::text(address, "/type") == "InternalIP")
        .map_or("", |address| object::text(address, "/address"))
        .to_owned()
}

fn next_address(counter: &mut u32) -> String {
    *counter = counter.wrapping_add(1);
    let [_, b, c, d] = counter.to_be_bytes();
    // 100.64.0.0/10 is what EKS gives pods of custom networking.
    format!("100.{}.{c}.{d}", 64 | (b & 63))
}

/// A pod that has run for as long as it was to run succeeds.
fn end(turn: &mut Turn<'_>, key: &ObjectKey, pod: &Pod) {
    let of_job = pod.metadata.controller().is_some_and(|owner| owner.kind == "Job");
    let default = of_job.then(|| turn.options.scaled(SignedDuration::from_secs(30)));
    let Some(run) = delay(turn, pod, RUN).or(default) else { return };
    let now = turn.now;
    let Some(life) = turn.lives.get_mut(key) else { return };
    let due = after(*life.started.get_or_insert(now), run);
    if due > now {
        turn.at(due, &PODS, key);
    } else {
        finish(turn, key, "Succeeded", 0, "Completed");
    }
}

fn finish(turn: &mut Turn<'_>, key: &ObjectKey, phase: &str, exit_code: i64, reason: &str) {
    let now = turn.now;
    if let Some(life) = turn.lives.get_mut(key) {
        life.ended = true;
    }
    let written = turn.store.modify(&PODS, key, crate::world::store::Part::Whole, now, |pod| {
        object::set(pod, &["status", "phase"], phase);
        let statuses = pod.pointer_mut("/status/containerStatuses").and_then(Value::as_array_mut);
        for status in statuses.into_iter().flatten() {
            let started = object::text(status, "/state/running/startedAt").to_owned();
            let ended = json!({"terminated": {
                "exitCode": exit_code, "reason": reason,
                "startedAt": started, "finishedAt": object::seconds(now),
            }});
            object::set(status, &["state"], ended);
            object::set(status, &["ready"], false);
            object::set(status, &["started"], false);
        }
        let why = if phase == "Succeeded" { "PodCompleted" } else { "PodFailed" };
        for kind in ["Ready", "ContainersReady"] {
            object::set_condition(pod, kind, "False", why, "", now);
        }
    });
    turn.written(written, &PODS, key);
}
