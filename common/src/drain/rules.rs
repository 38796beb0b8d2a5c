//! Which pods leave, when, and in which order.

use jiff::{SignedDuration, Timestamp};

use super::go_duration::go_duration;
use super::{DrainInput, Purpose};
use crate::call::KubernetesFailure;
use crate::cluster::{ContainerStatus, MIRROR, Metadata, Pod, PodSpec, PodStatus, Volume};
use crate::labels;
use crate::taint::{Taint, TaintEffect};

/// The lowest priority of `system-cluster-critical`.
const CRITICAL_PRIORITY: i32 = 2_000_000_000;
/// Pods with hardly any grace are deleted so long before the deadline.
const SHORTEST_LAST_CALL: SignedDuration = SignedDuration::from_secs(3);
/// An API server asks for up to 32 s under load; a drain has not the time to stay away for so long, seconds.
pub(super) const LONGEST_PAUSE: i64 = 10;
/// Kubernetes' default for `terminationGracePeriodSeconds`.
const DEFAULT_GRACE_SECONDS: i64 = 30;

/// Why a pod stays on a node that is drained; `None` if it has to leave.
pub fn stays(pod: &Pod) -> Option<&'static str> {
    if pod.is_mirror() {
        return Some("it mirrors a static pod");
    }
    if pod.is_node_bound() {
        return Some("a DaemonSet owns it");
    }
    if pod.is_terminal() {
        return Some("it has ended");
    }
    let disrupted = disrupted_taint();
    let tolerated = pod.spec.tolerations.iter().any(|toleration| toleration.tolerates(&disrupted));
    tolerated.then_some("it tolerates the disrupted taint")
}

fn disrupted_taint() -> Taint {
    Taint {
        key: labels::DISRUPTED_TAINT.to_owned(),
        value: String::new(),
        effect: TaintEffect::NoSchedule,
    }
}

/// The pod with what its drain depends on and its containers' names and ids, and nothing else: whoever
/// keeps it for no other reason needs a fraction of the memory.
pub fn reduced(pod: Pod) -> Pod {
    let Pod { metadata, spec, status } = pod;
    let disrupted = disrupted_taint();
    let mut annotations = metadata.annotations;
    annotations.retain(|key, _| matches!(key.as_str(), MIRROR | labels::DO_NOT_DISRUPT));
    // One of each says as much as all. (What is filtered in place keeps the room of what is gone.)
    let tolerates = spec.tolerations.into_iter().find(|one| one.tolerates(&disrupted));
    let moves = spec.volumes.into_iter().find(moves);
    Pod {
        metadata: Metadata {
            name: metadata.name,
            namespace: metadata.namespace,
            uid: metadata.uid,
            deletion_timestamp: metadata.deletion_timestamp,
            deletion_grace_period_seconds: metadata.deletion_grace_period_seconds,
            annotations,
            owner_references: metadata.owner_references,
            ..Metadata::default()
        },
        spec: PodSpec {
            tolerations: tolerates.into_iter().collect(),
            volumes: moves.into_iter().collect(),
            priority: spec.priority,
            priority_class_name: spec.priority_class_name,
            termination_grace_period_seconds: spec.termination_grace_period_seconds,
            ..PodSpec::default()
        },
        status: PodStatus {
            phase: status.phase,
            start_time: status.start_time,
            container_statuses: named(status.container_statuses),
            init_container_statuses: named(status.init_container_statuses),
            ..PodStatus::default()
        },
    }
}

/// Containers' names and ids alone.
fn named(statuses: Vec<ContainerStatus>) -> Vec<ContainerStatus> {
    let one = |ContainerStatus { name, container_id, .. }| ContainerStatus {
        name,
        container_id,
        ..ContainerStatus::default()
    };
    let mut statuses: Vec<_> = statuses.into_iter().map(one).collect();
    statuses.shrink_to_fit();
    statuses
}

/// The pods that have to leave, each after those it should follow.
pub(super) fn leaving<'a>(pods: &[&'a Pod]) -> Vec<&'a Pod> {
    let mut leaving: Vec<&Pod> = pods.iter().copied().filter(|pod| stays(pod).is_none()).collect();
    leaving.sort_by_cached_key(|pod| {
        (
            is_critical(pod),
            !is_stateful(pod),
            pod.spec.priority.unwrap_or(0),
            pod.metadata.namespace.clone(),
            pod.metadata.name.clone(),
        )
    });
    leaving
}

/// Whether other pods may need it to leave in good order.
pub(super) fn is_critical(pod: &Pod) -> bool {
    let class = pod.spec.priority_class_name.as_str();
    pod.spec.priority.unwrap_or(0) >= CRITICAL_PRIORITY
        || matches!(class, "system-cluster-critical" | "system-node-critical")
}

/// Whether volumes or an identity have to move with it.
fn is_stateful(pod: &Pod) -> bool {
    pod.spec.volumes.iter().any(moves)
        || pod.metadata.controller().is_some_and(|owner| owner.kind == "StatefulSet")
}

/// The pod's own grace, seconds.
pub(super) fn grace_seconds(pod: &Pod) -> i64 {
    pod.spec.termination_grace_period_seconds.unwrap_or(DEFAULT_GRACE_SECONDS).max(0)
}

/// The pod's own grace.
pub fn grace(pod: &Pod) -> SignedDuration {
    SignedDuration::from_secs(grace_seconds(pod))
}

/// Why a pod isn't evicted yet although it has to leave.
pub(super) fn waits(
    pod: &Pod,
    input: &DrainInput<'_>,
    critical_may_go: bool,
) -> Option<&'static str> {
    // Nothing is gained by keeping a pod until its machine dies under it.
    if input.purpose.end.is_some_and(|end| input.now >= latest_start(pod, end)) {
        return None;
    }
    if !input.purpose.hurries && has_active_do_not_disrupt(pod, input.now) {
        return Some("karpenter.sh/do-not-disrupt");
    }
    if !critical_may_go && is_critical(pod) {
        return Some("waits for the pods that aren't critical");
    }
    None
}

/// Whether the volume has to be detached here and attached elsewhere.
fn moves(volume: &Volume) -> bool {
    volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some()
}

/// Whether the pod's `karpenter.sh/do-not-disrupt` holds: `"true"`, or a positive Go duration that
/// hasn't passed since the pod started (it holds before the start). What can't be read was meant to protect.
pub fn has_active_do_not_disrupt(pod: &Pod, now: Timestamp) -> bool {
    let Some(value) = pod.metadata.annotations.get(labels::DO_NOT_DISRUPT) else { return false };
    match go_duration(value) {
        Some(duration) if duration.is_positive() => {
            pod.status.start_time.is_none_or(|start| now < after(start, duration))
        }
        Some(_) => false,
        None => value != "false",
    }
}

/// Until when API priority and fairness wants no more calls.
pub(super) fn pause(failure: &KubernetesFailure, now: Timestamp) -> Timestamp {
    let seconds = i64::from(failure.retry_after_seconds.unwrap_or(1)).clamp(1, LONGEST_PAUSE);
    after(now, SignedDuration::from_secs(seconds))
}

/// `time` plus `duration`, at most the end of time.
pub(super) fn after(time: Timestamp, duration: SignedDuration) -> Timestamp {
    time.checked_add(duration).unwrap_or(Timestamp::MAX)
}

/// `time` less `duration`, at least the beginning of time.
pub(super) fn before(time: Timestamp, duration: SignedDuration) -> Timestamp {
    time.checked_sub(duration).unwrap_or(Timestamp::MIN)
}

/// The moment at which only the pod's own grace is left before `deadline`, or just enough time for
/// a deletion to arrive and be tried again.
pub(super) fn latest_start(pod: &Pod, deadline: Timestamp) -> Timestamp {
    let grace = SignedDuration::from_secs(grace_seconds(pod)).max(SHORTEST_LAST_CALL);
    before(deadline, grace)
}

/// Whole seconds from `now` until `deadline`: at least 1, because 0 would drop the object while its
/// containers may still run.
pub(super) fn seconds_left(deadline: Timestamp, now: Timestamp) -> u32 {
    u32::try_from(deadline.duration_since(now).as_secs().max(1)).unwrap_or(u32::MAX)
}

impl Purpose {
    /// In words, for reports.
    pub fn describe(&self) -> String {
        match (&self.disruption, self.end) {
            (Some(id), _) => format!("disruption {id}"),
            (None, Some(end)) => format!("interruption at {end}"),
            (None, None) => "interruption".to_owned(),
        }
    }
}
