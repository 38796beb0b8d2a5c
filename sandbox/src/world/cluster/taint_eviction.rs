//! NoExecute taints: pods that do not tolerate them are deleted, at once or after a while.

use drover_common::cluster::{Node, ObjectKey, Pod};
use drover_common::taint::TaintEffect;
use jiff::SignedDuration;

use super::{Turn, after, replica_set};
use crate::world::resource::PODS;

pub(super) fn sync(turn: &mut Turn<'_>, key: &ObjectKey) {
    let Some(entry) = turn.index.pods.get(key).cloned() else { return };
    let pod = &entry.pod;
    if pod.is_terminal() || pod.is_terminating() {
        return;
    }
    let Some(node) = turn.index.nodes.get(&pod.spec.node_name).cloned() else { return };
    let bearable = bearable_for(pod, &node);
    let now = turn.now;
    let Some(life) = turn.lives.get_mut(key) else {
        // The kubelet has not seen it yet: it looks again.
        return;
    };
    let Some(bearable) = bearable else {
        life.tainted_since = None;
        return;
    };
    let since = *life.tainted_since.get_or_insert(now);
    let due = after(since, bearable);
    if due <= now {
        replica_set::delete(turn, pod);
    } else {
        turn.at(due, &PODS, key);
    }
}

/// How long a pod bears its node's NoExecute taints; `None` if for ever.
fn bearable_for(pod: &Pod, node: &Node) -> Option<SignedDuration> {
    let taints = node.spec.taints.iter().filter(|taint| taint.effect == TaintEffect::NoExecute);
    taints
        .filter_map(|taint| {
            let mut shortest = Some(SignedDuration::ZERO);
            let matching = pod.spec.tolerations.iter().filter(|own| own.tolerates(taint));
            for (index, toleration) in matching.enumerate() {
                let own = toleration
                    .toleration_seconds
                    .map(|seconds| SignedDuration::from_secs(seconds.max(0)));
                shortest = match (index, shortest, own) {
                    (0, _, own) => own,
                    (_, Some(before), Some(own)) => Some(before.min(own)),
                    (_, before, own) => before.or(own),
                };
            }
            shortest
        })
        .min()
}
