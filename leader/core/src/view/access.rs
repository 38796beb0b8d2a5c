//! Reading the view.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use drover_common::cluster::{
    CsiNode, DaemonSet, Job, NamedPodTemplate, Namespace, Node, ObjectKey, PersistentVolume,
    PersistentVolumeClaim, Pod, PodDisruptionBudget, ReplicaSet, StatefulSet, StorageClass,
    VolumeAttachment,
};
use drover_common::crd::{CapacityBuffer, Ec2NodeClass, NodeClaim, NodeOverlay, NodePool};
use drover_common::id::{InstanceId, NodeClaimName, NodeName, NodePoolName};
use drover_common::resources::Resources;

use super::{NodePods, PodEntry, PodShape, ShapeId, View};

impl View {
    /// All pods by key.
    pub fn pods(&self) -> &BTreeMap<ObjectKey, PodEntry> {
        &self.pods
    }

    /// One pod.
    pub fn pod(&self, key: &ObjectKey) -> Option<&Arc<Pod>> {
        self.pods.get(key).map(|entry| &entry.pod)
    }

    /// The shape behind an id that this view gave out.
    pub fn shape(&self, id: ShapeId) -> Option<&Arc<PodShape>> {
        self.shapes.get(id)
    }

    /// Every shape that some pod has, bound or not, ended or not.
    pub fn shapes(&self) -> impl Iterator<Item = (ShapeId, &Arc<PodShape>)> {
        self.shapes.iter()
    }

    /// Pods the scheduler found no place for, that are neither ended nor going away.
    pub fn unschedulable_pods(&self) -> &BTreeSet<ObjectKey> {
        &self.unschedulable
    }

    /// Pods bound to a node.
    pub fn pods_on(&self, node: &NodeName) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods_by_node
            .get(node)
            .into_iter()
            .flat_map(|pods| pods.all.values())
            .map(|entry| &entry.pod)
    }

    /// Pods bound to a node, as shapes and counts.
    pub fn node_pods(&self, node: &NodeName) -> Option<&NodePods> {
        self.pods_by_node.get(node)
    }

    /// All nodes.
    pub fn nodes(&self) -> &BTreeMap<NodeName, Arc<Node>> {
        &self.nodes
    }

    /// All nodes by name, with the pods bound to each.
    pub fn nodes_with_pods(
        &self,
    ) -> impl Iterator<Item = (&NodeName, &Arc<Node>, Option<&NodePods>)> {
        // Both are in the order of names: a look at each beats a search for each.
        let mut bound = self.pods_by_node.iter().peekable();
        self.nodes.iter().map(move |(name, node)| {
            let pods = loop {
                let Some((other, _)) = bound.peek() else { break None };
                match (*other).cmp(name) {
                    Ordering::Less => drop(bound.next()),
                    Ordering::Equal => break bound.next().map(|(_, pods)| pods),
                    Ordering::Greater => break None,
                }
            };
            (name, node, pods)
        })
    }

    /// The node of an instance.
    pub fn node_of_instance(&self, instance: &InstanceId) -> Option<&Arc<Node>> {
        self.nodes.get(self.node_by_instance.get(instance)?)
    }

    /// All NodeClaims.
    pub fn claims(&self) -> &BTreeMap<NodeClaimName, Arc<NodeClaim>> {
        &self.claims
    }

    /// The NodeClaim of an instance.
    pub fn claim_of_instance(&self, instance: &InstanceId) -> Option<&Arc<NodeClaim>> {
        self.claims.get(self.claim_by_instance.get(instance)?)
    }

    /// The NodeClaim of a node, found by the instance they share.
    pub fn claim_of_node(&self, node: &Node) -> Option<&Arc<NodeClaim>> {
        let instance = drover_common::id::instance_of_provider_id(&node.spec.provider_id)?;
        self.claim_of_instance(&instance)
    }

    /// All NodePools.
    pub fn pools(&self) -> &BTreeMap<NodePoolName, Arc<NodePool>> {
        &self.pools
    }

    /// All EC2NodeClasses.
    pub fn classes(&self) -> &BTreeMap<String, Arc<Ec2NodeClass>> {
        &self.classes
    }

    /// All NodeOverlays.
    pub fn overlays(&self) -> &BTreeMap<String, Arc<NodeOverlay>> {
        &self.overlays
    }

    /// All CapacityBuffers.
    pub fn buffers(&self) -> &BTreeMap<ObjectKey, Arc<CapacityBuffer>> {
        &self.buffers
    }

    /// All PodTemplates.
    pub fn pod_templates(&self) -> &BTreeMap<ObjectKey, Arc<NamedPodTemplate>> {
        &self.pod_templates
    }

    /// All namespaces.
    pub fn namespaces(&self) -> &BTreeMap<String, Arc<Namespace>> {
        &self.namespaces
    }

    /// All PersistentVolumeClaims.
    pub fn volume_claims(&self) -> &BTreeMap<ObjectKey, Arc<PersistentVolumeClaim>> {
        &self.volume_claims
    }

    /// All PersistentVolumes.
    pub fn volumes(&self) -> &BTreeMap<String, Arc<PersistentVolume>> {
        &self.volumes
    }

    /// All StorageClasses.
    pub fn storage_classes(&self) -> &BTreeMap<String, Arc<StorageClass>> {
        &self.storage_classes
    }

    /// All CSINodes by node.
    pub fn csi_nodes(&self) -> &BTreeMap<NodeName, Arc<CsiNode>> {
        &self.csi_nodes
    }

    /// All VolumeAttachments.
    pub fn attachments(&self) -> &BTreeMap<String, Arc<VolumeAttachment>> {
        &self.attachments
    }

    /// All PodDisruptionBudgets.
    pub fn budgets(&self) -> &BTreeMap<ObjectKey, Arc<PodDisruptionBudget>> {
        &self.budgets
    }

    /// All DaemonSets.
    pub fn daemon_sets(&self) -> &BTreeMap<ObjectKey, Arc<DaemonSet>> {
        &self.daemon_sets
    }

    /// What the youngest pod of a DaemonSet requests: a LimitRange or a webhook may have made it another than the
    /// template says.
    pub fn daemon_requests(&self, daemon: &ObjectKey) -> Option<&Resources> {
        self.daemon_requests.get(daemon).map(|(_, requests)| requests)
    }

    /// All ReplicaSets.
    pub fn replica_sets(&self) -> &BTreeMap<ObjectKey, Arc<ReplicaSet>> {
        &self.replica_sets
    }

    /// All StatefulSets.
    pub fn stateful_sets(&self) -> &BTreeMap<ObjectKey, Arc<StatefulSet>> {
        &self.stateful_sets
    }

    /// All Jobs.
    pub fn jobs(&self) -> &BTreeMap<ObjectKey, Arc<Job>> {
        &self.jobs
    }
}
