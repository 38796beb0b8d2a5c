//! Volumes that have to come off a node before its instance ends: where they are still attached when
//! it does, the pods that moved wait for minutes until they may be attached elsewhere.

use std::collections::BTreeSet;

use drover_common::cluster::{Node, ObjectKey};
use drover_common::drain;
use drover_common::id::NodeName;
use jiff::{SignedDuration, Timestamp};

use super::Control;
use crate::state::{ClaimRecord, State};

/// Kubernetes detaches a volume by force after so long (`maxWaitForUnmountDuration`): a driver that
/// has not detached by then is not waited for.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_mins(6);

impl Control {
    /// Whether the end of a drained node's instance waits for volumes. The wait ends with the
    /// drain's deadline, and when Kubernetes would detach by force. A kubelet that is silent unmounts nothing: there the instance's end is what
    /// takes the volumes off.
    pub(super) fn awaits_volumes(
        &self,
        state: &State,
        record: &ClaimRecord,
        node: Option<&Node>,
        now: Timestamp,
    ) -> bool {
        let Some(node) = node.filter(|node| node.is_ready()) else { return false };
        let disruption = record.disruption.as_ref().and_then(|id| state.disruptions.get(id));
        let deadline = disruption.and_then(|record| record.disruption.deadline);
        let waited = record.drained_at.is_some_and(|at| now.duration_since(at) > LONGEST_WAIT);
        if waited || deadline.is_some_and(|end| now >= end) {
            return false;
        }
        // Attachments that a broken watch does not show may well be there.
        self.view.is_stale() || self.has_attached_volumes(node)
    }

    /// Whether volumes are attached to the node, save those of pods that stay on it to the end.
    pub(super) fn has_attached_volumes(&self, node: &Node) -> bool {
        let name = &node.metadata.name;
        let staying = self.volumes_of_staying_pods(&NodeName::from(name.as_str()));
        self.view
            .attachments()
            .values()
            .filter(|attachment| attachment.spec.node_name == *name)
            .any(|attachment| {
                let volume = attachment.spec.source.persistent_volume_name.as_deref();
                volume.is_none_or(|volume| !staying.contains(volume))
            })
    }

    fn volumes_of_staying_pods(&self, node: &NodeName) -> BTreeSet<&str> {
        self.view
            .pods_on(node)
            .filter(|pod| drain::stays(pod).is_some() && !pod.is_terminal())
            .flat_map(|pod| {
                pod.spec.volumes.iter().filter_map(|volume| {
                    let name = match (&volume.persistent_volume_claim, &volume.ephemeral) {
                        (Some(claim), _) => claim.claim_name.clone(),
                        (None, Some(_)) => format!("{}-{}", pod.metadata.name, volume.name),
                        (None, None) => return None,
                    };
                    Some(ObjectKey::new(&pod.metadata.namespace, name))
                })
            })
            .filter_map(|key| Some(self.view.volume_claims().get(&key)?.spec.volume_name.as_str()))
            .collect()
    }
}
