//! The agent's own Node: what is known of it, and the patches it may need.

use std::net::{IpAddr, SocketAddr};

use drover_common::call::{Kind, KubernetesCall, Target};
use drover_common::cluster::Node;
use drover_common::drain::Purpose;
use drover_common::id::{BootId, DisruptionId, InstanceId, NodeName, instance_of_provider_id};
use drover_common::labels;
use drover_common::protocol::{Notice, NoticeKind};
use drover_common::taint::TaintEffect;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Who cordons, as written on the Node; the value of the load balancer label, too.
pub(crate) const AGENT: &str = "drover-agent";

/// The annotation [`labels::CORDONED`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CordonMark {
    /// Who.
    pub(crate) by: String,
    /// Why: the notice's kind.
    pub(crate) why: NoticeKind,
    /// Until when the node is expected to live.
    pub(crate) until: Option<Timestamp>,
    /// In which boot.
    pub(crate) boot: BootId,
    /// Whether the node was cordoned already; unknown if the Node could not be read before. Only a
    /// node that is known to have been schedulable is made so again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) was_unschedulable: Option<bool>,
}

/// Our own mark on a Node, if there is one.
pub(crate) fn own_mark(node: &Node) -> Option<CordonMark> {
    let text = node.metadata.annotations.get(labels::CORDONED)?;
    serde_json::from_str::<CordonMark>(text).ok().filter(|mark| mark.by == AGENT)
}

/// Whether the Node bears the cordon that this notice asks for.
pub(crate) fn is_cordoned_for(node: &Node, notice: &Notice) -> bool {
    let marked = own_mark(node).is_some_and(|mark| {
        mark.why == notice.kind && mark.until == notice.deadline && mark.boot == notice.boot
    });
    marked
        && node.spec.unschedulable
        && node.metadata.labels.contains_key(labels::EXCLUDE_FROM_LOAD_BALANCERS)
}

/// One patch that cordons, takes the node out of load balancers, and says why. It's conditional on
/// nothing but that it is the same Node: what it sets must hold, whatever else changed on it.
pub(crate) fn cordon(name: &NodeName, known: Option<&Node>, notice: &Notice) -> KubernetesCall {
    let was_unschedulable = known.map(|node| match own_mark(node) {
        Some(mark) => mark.was_unschedulable.unwrap_or(true),
        None => node.spec.unschedulable,
    });
    let mark = CordonMark {
        by: AGENT.to_owned(),
        why: notice.kind,
        until: notice.deadline,
        boot: notice.boot.clone(),
        was_unschedulable,
    };
    let mut metadata = json!({"annotations": {labels::CORDONED: json!(mark).to_string()}});
    // Another Node may have got the name since this one was seen.
    if let Some(uid) = known.map(|node| &node.metadata.uid).filter(|uid| !uid.is_empty()) {
        metadata["uid"] = json!(uid);
    }
    let labelled = known
        .is_some_and(|node| node.metadata.labels.contains_key(labels::EXCLUDE_FROM_LOAD_BALANCERS));
    // The label's presence is what counts; one that someone else set stays theirs.
    if !labelled {
        metadata["labels"] = json!({labels::EXCLUDE_FROM_LOAD_BALANCERS: AGENT});
    }
    patch(name, json!({"metadata": metadata, "spec": {"unschedulable": true}}))
}

/// Takes back what [`cordon`] did and nothing else; `None` if the Node bears no mark of ours. It's
/// conditional on the Node being as it was read.
pub(crate) fn undo(node: &Node) -> Option<KubernetesCall> {
    let mark = own_mark(node)?;
    let mut metadata = json!({
        "uid": node.metadata.uid,
        "resourceVersion": node.metadata.resource_version,
        "annotations": {labels::CORDONED: Value::Null},
    });
    let label = node.metadata.labels.get(labels::EXCLUDE_FROM_LOAD_BALANCERS);
    if label.is_some_and(|value| value == AGENT) {
        metadata["labels"] = json!({labels::EXCLUDE_FROM_LOAD_BALANCERS: Value::Null});
    }
    let mut body = json!({"metadata": metadata});
    if mark.was_unschedulable == Some(false) {
        body["spec"] = json!({"unschedulable": Value::Null});
    }
    Some(patch(&NodeName::from(node.metadata.name.as_str()), body))
}

fn patch(name: &NodeName, patch: Value) -> KubernetesCall {
    let target = Target::cluster(Kind::Node, name.as_str());
    KubernetesCall::MergePatch { target, status: false, patch }
}

/// Whether the same Node was read before `other`. Versions are etcd's revisions, which grow; any that
/// are no numbers tell nothing.
pub(crate) fn is_older(node: &Node, other: &Node) -> bool {
    let version = |node: &Node| node.metadata.resource_version.parse::<u64>().ok();
    let versions = version(node).zip(version(other));
    node.metadata.uid == other.metadata.uid && versions.is_some_and(|(own, other)| own < other)
}

/// Whether the Node is this instance's. A Node without a providerID may be.
pub(crate) fn is_of(node: &Node, instance: Option<&InstanceId>) -> bool {
    match (instance_of_provider_id(&node.spec.provider_id), instance) {
        (Some(of_node), Some(own)) => of_node == *own,
        _ => true,
    }
}

/// Where a Node says that its kubelet listens: https at its `InternalIP`. `None` if it names no address.
pub fn kubelet_address(node: &Value) -> Option<String> {
    /// Where a kubelet listens that does not say.
    const PORT: u16 = 10_250;
    let addresses = node.pointer("/status/addresses").and_then(Value::as_array)?;
    let internal = addresses
        .iter()
        .find(|address| address.get("type").and_then(Value::as_str) == Some("InternalIP"))?;
    let address: IpAddr = internal.get("address")?.as_str()?.parse().ok()?;
    let port = node.pointer("/status/daemonEndpoints/kubeletEndpoint/Port").and_then(Value::as_u64);
    let port = port.and_then(|port| u16::try_from(port).ok()).filter(|&port| port > 0);
    Some(format!("https://{}", SocketAddr::new(address, port.unwrap_or(PORT))))
}

/// Whether a condition says that the Node is broken: one of node-problem-detector's permanent ones
/// is `True`, or one of the `…Ready` kind that EKS's monitoring agent sets is `False`. The kubelet's
/// own (`Ready`, pressures) are the leaders' and the scheduler's business.
pub(crate) fn is_broken(node: &Node) -> bool {
    node.status.conditions.iter().any(|condition| match condition.kind.as_str() {
        "KernelDeadlock"
        | "ReadonlyFilesystem"
        | "CorruptDockerOverlay2"
        | "KubeletUnhealthy"
        | "ContainerRuntimeUnhealthy"
        | "FrequentKubeletRestart"
        | "FrequentContainerdRestart"
        | "FrequentDockerRestart"
        | "FrequentUnregisterNetDevice"
        | "XfsHasShutDown" => condition.status == "True",
        "AcceleratedHardwareReady"
        | "ContainerRuntimeReady"
        | "KernelReady"
        | "NetworkingReady"
        | "StorageReady" => condition.status == "False",
        _ => false,
    })
}

/// Whether the Node is disrupted under this id: its taint and its annotation say so.
pub(crate) fn is_disrupted(node: &Node, id: &DisruptionId) -> bool {
    let annotation = node.metadata.annotations.get(labels::DISRUPTION);
    annotation.is_some_and(|text| text == id.as_str())
        && node.spec.taints.iter().any(|taint| {
            taint.key == labels::DISRUPTED_TAINT && taint.effect == TaintEffect::NoSchedule
        })
}

/// What a Node's disruption is for. Time and reason are taken from it alone, where whoever may write
/// them may evict pods, too; what can't be read lets budgets hold.
pub(crate) fn purpose_of(node: &Node, id: DisruptionId) -> Purpose {
    let annotation = |key| node.metadata.annotations.get(key).map(String::as_str);
    let deadline = annotation(labels::DISRUPTION_DEADLINE).and_then(|time| time.parse().ok());
    let notice = annotation(labels::DISRUPTION_REASON).and_then(NoticeKind::from_name);
    Purpose::disruption(id, deadline, notice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubelet_is_where_its_node_says() {
        let node = |addresses: Value, port: Value| {
            json!({"status": {"addresses": addresses,
                "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}})
        };
        let address = |text: &str| json!([{"type": "Hostname", "address": "h"}, {"type": "InternalIP", "address": text}]);
        let told = |node: Value| kubelet_address(&node);
        let expected = Some("https://10.0.0.1:10250".to_owned());
        assert_eq!(told(node(address("10.0.0.1"), json!(10_250))), expected);
        assert_eq!(told(node(address("10.0.0.1"), json!(70_000))), expected);
        assert_eq!(
            told(node(address("fd00::1"), json!(1))),
            Some("https://[fd00::1]:1".to_owned())
        );
        for none in ["", "evil.example/x", "10.0.0.1:80@evil"] {
            assert_eq!(told(node(address(none), json!(1))), None, "{none}");
        }
        assert_eq!(told(json!({})), None);
    }
}
