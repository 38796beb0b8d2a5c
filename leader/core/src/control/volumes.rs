//! Volumes of a drained node: they are detached before its instance ends, so that the pods that moved
//! need not wait until Kubernetes detaches them by force.

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
    /// Whether volumes of pods that left are still attached to a drained node, and there is time to
    /// wait for them.
    pub(super) fn awaits_volumes(
        &self,
        state: &State,
        record: &ClaimRecord,
        node: Option<&Node>,
        now: Timestamp,
    ) -> bool {
        let Some(node) = node else { return false };
        let waited = record.drained_at.is_some_and(|at| now.duration_since(at) > LONGEST_WAIT);
        let disruption = record.disruption.as_ref().and_then(|id| state.disruptions.get(id));
        let late = disruption
            .and_then(|disruption| disruption.disruption.deadline)
            .is_some_and(|deadline| now >= deadline);
        if waited || late {
            return false;
        }
        let name = NodeName::from(node.metadata.name.as_str());
        let staying = self.volumes_of_staying_pods(&name);
        self.view.attachments().values().any(|attachment| {
            attachment.spec.node_name == name.as_str()
                && attachment
                    .spec
                    .source
                    .persistent_volume_name
                    .as_ref()
                    .is_some_and(|volume| !staying.contains(volume.as_str()))
        })
    }

    /// PersistentVolumes of pods that a drain leaves where they are.
    fn volumes_of_staying_pods(&self, node: &NodeName) -> BTreeSet<&str> {
        let staying = self.view.pods_on(node).filter(|pod| drain::stays(pod).is_some());
        let claims = staying.flat_map(|pod| {
            pod.spec.volumes.iter().filter_map(|volume| {
                let claim = volume.persistent_volume_claim.as_ref()?;
                Some(ObjectKey {
                    namespace: pod.metadata.namespace.clone(),
                    name: claim.claim_name.clone(),
                })
            })
        });
        claims
            .filter_map(|key| self.view.volume_claims().get(&key))
            .map(|claim| claim.spec.volume_name.as_str())
            .collect()
    }
}
