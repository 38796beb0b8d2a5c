//! Nodes whose machine is off for certain. Its kubelet will never say that their pods have stopped and their
//! volumes are unmounted, so that Kubernetes waits: StatefulSets do not replace such a pod, and a volume is
//! detached by force only after six minutes. The taint `node.kubernetes.io/out-of-service`
//! (<https://kubernetes.io/docs/concepts/cluster-administration/node-shutdown/>) tells it not to. It is for machines
//! that EC2 shows as stopped or terminated: one that is merely silent may go on writing.

use drover_common::cluster::Node;
use drover_common::drain;
use drover_common::ec2::InstanceState;
use drover_common::id::{NodeClaimName, NodeName};
use jiff::{SignedDuration, Timestamp};

use super::Control;
use crate::state::{ClaimRecord, Stage, State};

/// Kubernetes collects pods every 20 s and detaches volumes then. Where that takes longer, the Node's
/// deletion helps, too: pods of a Node that is not there are collected after 40 s.
const HELD_FOR: SignedDuration = SignedDuration::from_mins(1);

/// What is to become of the taint, and of the Node that bears it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct OutOfService {
    /// Whether it is to bear the taint; `None` if it is to be left as it is.
    pub(super) taint: Option<bool>,
    /// Whether it is kept, although its machine is gone, until what the taint frees is free.
    pub(super) holds: bool,
}

impl Control {
    /// What a claim's Node is to show of its machine.
    pub(super) fn out_of_service(
        &self,
        state: &State,
        name: &NodeClaimName,
        record: &ClaimRecord,
        node: &Node,
        now: Timestamp,
    ) -> OutOfService {
        let nothing = OutOfService::default();
        if record.instance.is_none() {
            return nothing;
        }
        let shown = self.shown(record).map(|instance| instance.state);
        let gone = record.stage == Stage::Gone;
        // A hibernated machine goes on with its pods; one that was stopped otherwise is going to be terminated.
        let stopped = shown == Some(InstanceState::Stopped)
            && record.stage >= Stage::Draining
            && !state.is_hibernated(name);
        if gone || stopped || shown == Some(InstanceState::Terminated) {
            let waited_for = self.is_waited_for(node);
            // What EC2 no longer lists is most likely gone; the taint is for what it shows.
            let is_off = stopped || shown == Some(InstanceState::Terminated);
            // Before a Node is NotReady the taint frees nothing, and its deletion is as good.
            let frees = is_off && waited_for && !node.is_ready();
            let since = record.gone_at.filter(|_| gone && frees);
            let holds = since.is_some_and(|at| now.duration_since(at) < HELD_FOR);
            return OutOfService { taint: (waited_for && is_off).then_some(true), holds };
        }
        let runs = matches!(shown, Some(InstanceState::Pending | InstanceState::Running));
        OutOfService { taint: runs.then_some(false), holds: false }
    }

    /// Whether somebody waits for pods of the Node to end, or for its volumes.
    fn is_waited_for(&self, node: &Node) -> bool {
        let name = NodeName::from(node.metadata.name.as_str());
        let mut attachments = self.view.attachments().values();
        self.view.pods_on(&name).any(|pod| drain::stays(pod).is_none())
            || attachments.any(|attachment| attachment.spec.node_name == node.metadata.name)
    }
}
