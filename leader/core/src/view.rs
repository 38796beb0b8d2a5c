//! The cluster as the watches tell it: slim objects, indexes, and pods interned into shapes.
//!
//! Fed by plain calls and cheap per event: planning looks at shapes and nodes, not at every pod.

mod access;
mod shape;
mod sync;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use drover_common::call::Kind;
use drover_common::cluster::{
    ClusterEvent, ClusterObject, CsiNode, DaemonSet, Job, NamedPodTemplate, Namespace, Node,
    ObjectKey, PersistentVolume, PersistentVolumeClaim, Pod, PodDisruptionBudget, ReplicaSet,
    StatefulSet, StorageClass, VolumeAttachment,
};
use drover_common::crd::{CapacityBuffer, Ec2NodeClass, NodeClaim, NodeOverlay, NodePool};
use drover_common::id::{
    InstanceId, NodeClaimName, NodeName, NodePoolName, instance_of_provider_id,
};
use drover_common::resources::Resources;
use jiff::Timestamp;

pub(crate) use shape::ShapeTable;
pub use shape::{HostPort, PodShape, ShapeId, ShapeVolume};
use sync::SyncTable;

/// A pod and its shape.
#[derive(Clone, Debug)]
pub struct PodEntry {
    /// The pod.
    pub pod: Arc<Pod>,
    /// Its shape.
    pub shape: ShapeId,
}

/// The pods bound to one node.
#[derive(Clone, Debug, Default)]
pub struct NodePods {
    /// All of them.
    pub all: BTreeMap<ObjectKey, PodEntry>,
    /// How many of each shape take room (ended pods don't).
    pub shapes: BTreeMap<ShapeId, u32>,
    /// How many of those are being deleted.
    pub ending: BTreeMap<ShapeId, u32>,
    /// How many pods of each DaemonSet take room.
    pub daemons: BTreeMap<ObjectKey, u32>,
    /// What pods that take room request together.
    pub requests: Resources,
    /// How many of those have host ports or volumes.
    pub specials: u32,
}

impl NodePods {
    fn enter(&mut self, key: ObjectKey, entry: &PodEntry, shape: &PodShape) {
        let (pod, id) = (&entry.pod, entry.shape);
        self.all.insert(key, entry.clone());
        if pod.is_terminal() {
            return;
        }
        self.requests.add(&shape.requests);
        self.specials += u32::from(shape.is_special());
        *self.shapes.entry(id).or_default() += 1;
        if pod.is_terminating() {
            *self.ending.entry(id).or_default() += 1;
        }
        if let Some(daemon) = daemon_of(pod) {
            *self.daemons.entry(daemon).or_default() += 1;
        }
    }

    fn leave(&mut self, key: &ObjectKey, entry: &PodEntry, shape: &PodShape) {
        let (pod, id) = (&entry.pod, entry.shape);
        self.all.remove(key);
        if pod.is_terminal() {
            return;
        }
        self.requests.subtract(&shape.requests);
        self.specials = self.specials.saturating_sub(u32::from(shape.is_special()));
        decrease(&mut self.shapes, &id);
        if pod.is_terminating() {
            decrease(&mut self.ending, &id);
        }
        if let Some(daemon) = daemon_of(pod) {
            decrease(&mut self.daemons, &daemon);
        }
    }
}

fn decrease<K: Ord>(counts: &mut BTreeMap<K, u32>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// The DaemonSet a pod belongs to.
fn daemon_of(pod: &Pod) -> Option<ObjectKey> {
    let owner = pod.metadata.controller().filter(|owner| owner.kind == "DaemonSet")?;
    Some(ObjectKey::new(&pod.metadata.namespace, &owner.name))
}

/// Objects in the view by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ViewCounts {
    /// Pods.
    pub pods: usize,
    /// Distinct pod shapes.
    pub shapes: usize,
    /// Pods the scheduler found no place for.
    pub unschedulable_pods: usize,
    /// Nodes.
    pub nodes: usize,
    /// NodeClaims.
    pub claims: usize,
    /// NodePools.
    pub pools: usize,
    /// EC2NodeClasses.
    pub classes: usize,
}

/// The cluster. Objects are shared, so a clone is cheap.
#[derive(Clone, Debug, Default)]
pub struct View {
    pods: BTreeMap<ObjectKey, PodEntry>,
    nodes: BTreeMap<NodeName, Arc<Node>>,
    claims: BTreeMap<NodeClaimName, Arc<NodeClaim>>,
    pools: BTreeMap<NodePoolName, Arc<NodePool>>,
    classes: BTreeMap<String, Arc<Ec2NodeClass>>,
    overlays: BTreeMap<String, Arc<NodeOverlay>>,
    buffers: BTreeMap<ObjectKey, Arc<CapacityBuffer>>,
    pod_templates: BTreeMap<ObjectKey, Arc<NamedPodTemplate>>,
    namespaces: BTreeMap<String, Arc<Namespace>>,
    volume_claims: BTreeMap<ObjectKey, Arc<PersistentVolumeClaim>>,
    volumes: BTreeMap<String, Arc<PersistentVolume>>,
    storage_classes: BTreeMap<String, Arc<StorageClass>>,
    csi_nodes: BTreeMap<NodeName, Arc<CsiNode>>,
    attachments: BTreeMap<String, Arc<VolumeAttachment>>,
    budgets: BTreeMap<ObjectKey, Arc<PodDisruptionBudget>>,
    daemon_sets: BTreeMap<ObjectKey, Arc<DaemonSet>>,
    /// The youngest pod seen of each DaemonSet: when it was made, and what it requests.
    daemon_requests: BTreeMap<ObjectKey, (Option<Timestamp>, Resources)>,
    replica_sets: BTreeMap<ObjectKey, Arc<ReplicaSet>>,
    stateful_sets: BTreeMap<ObjectKey, Arc<StatefulSet>>,
    jobs: BTreeMap<ObjectKey, Arc<Job>>,
    shapes: ShapeTable,
    unschedulable: BTreeSet<ObjectKey>,
    pods_by_node: BTreeMap<NodeName, NodePods>,
    node_by_instance: BTreeMap<InstanceId, NodeName>,
    claim_by_instance: BTreeMap<InstanceId, NodeClaimName>,
    sync: SyncTable,
}

impl View {
    /// Takes in what a watch reported.
    pub fn apply(&mut self, event: ClusterEvent) {
        match event {
            ClusterEvent::Applied(object) => self.apply_object(object),
            ClusterEvent::Deleted(kind, key) => self.remove(kind, &key),
            ClusterEvent::Restarted(kind) => {
                let present = self.keys(kind);
                self.sync.restart(kind, present);
            }
            ClusterEvent::Synced(kind) => {
                for key in self.sync.finish(kind) {
                    self.remove(kind, &key);
                }
            }
            ClusterEvent::Stale(kind) => self.sync.mark_stale(kind),
        }
    }

    /// Whether every kind a decision reads was listed completely at least once.
    pub fn is_synced(&self) -> bool {
        self.sync.is_synced()
    }

    /// Whether the watch of a kind a decision reads is broken now.
    pub fn is_stale(&self) -> bool {
        self.sync.is_stale()
    }

    /// Kinds that keep [`View::is_synced`] false or [`View::is_stale`] true.
    pub fn kinds_behind(&self) -> Vec<Kind> {
        self.sync.behind()
    }

    /// Objects by kind.
    pub fn counts(&self) -> ViewCounts {
        ViewCounts {
            pods: self.pods.len(),
            shapes: self.shapes.len(),
            unschedulable_pods: self.unschedulable.len(),
            nodes: self.nodes.len(),
            claims: self.claims.len(),
            pools: self.pools.len(),
            classes: self.classes.len(),
        }
    }

    fn apply_object(&mut self, object: ClusterObject) {
        match object {
            ClusterObject::Pod(pod) => self.apply_pod(*pod),
            ClusterObject::Node(node) => self.apply_node(*node),
            ClusterObject::NodeClaim(claim) => self.apply_claim(*claim),
            ClusterObject::NodePool(pool) => {
                let key = cluster_key(pool.metadata.name.as_deref());
                self.sync.seen(Kind::NodePool, &key);
                self.pools.insert(NodePoolName::from(key.name), Arc::new(*pool));
            }
            ClusterObject::Ec2NodeClass(class) => {
                let key = cluster_key(class.metadata.name.as_deref());
                self.sync.seen(Kind::Ec2NodeClass, &key);
                self.classes.insert(key.name.into(), Arc::new(*class));
            }
            ClusterObject::NodeOverlay(overlay) => {
                let key = cluster_key(overlay.metadata.name.as_deref());
                self.sync.seen(Kind::NodeOverlay, &key);
                self.overlays.insert(key.name.into(), Arc::new(*overlay));
            }
            ClusterObject::CapacityBuffer(buffer) => {
                let key = ObjectKey::new(
                    buffer.metadata.namespace.clone().unwrap_or_default(),
                    buffer.metadata.name.clone().unwrap_or_default(),
                );
                self.sync.seen(Kind::CapacityBuffer, &key);
                self.buffers.insert(key, Arc::new(*buffer));
            }
            ClusterObject::Namespace(o) => {
                self.sync.seen(Kind::Namespace, &ObjectKey::from(&o.metadata));
                self.namespaces.insert(o.metadata.name.clone(), Arc::new(*o));
            }
            ClusterObject::CsiNode(o) => {
                self.sync.seen(Kind::CsiNode, &ObjectKey::from(&o.metadata));
                self.csi_nodes.insert(NodeName::from(o.metadata.name.as_str()), Arc::new(*o));
            }
            other => self.apply_workload_or_storage(other),
        }
    }

    fn apply_workload_or_storage(&mut self, object: ClusterObject) {
        macro_rules! keep {
            ($kind:ident, $map:ident, $object:ident) => {{
                let key = ObjectKey::from(&$object.metadata);
                self.sync.seen(Kind::$kind, &key);
                self.$map.insert(key, Arc::new(*$object));
            }};
        }
        match object {
            ClusterObject::PersistentVolumeClaim(o) => {
                keep!(PersistentVolumeClaim, volume_claims, o);
            }
            ClusterObject::PodDisruptionBudget(o) => keep!(PodDisruptionBudget, budgets, o),
            ClusterObject::DaemonSet(o) => keep!(DaemonSet, daemon_sets, o),
            ClusterObject::ReplicaSet(o) => keep!(ReplicaSet, replica_sets, o),
            ClusterObject::StatefulSet(o) => keep!(StatefulSet, stateful_sets, o),
            ClusterObject::Job(o) => keep!(Job, jobs, o),
            ClusterObject::PodTemplate(o) => keep!(PodTemplate, pod_templates, o),
            ClusterObject::PersistentVolume(o) => {
                self.sync.seen(Kind::PersistentVolume, &ObjectKey::from(&o.metadata));
                self.volumes.insert(o.metadata.name.clone(), Arc::new(*o));
            }
            ClusterObject::StorageClass(o) => {
                self.sync.seen(Kind::StorageClass, &ObjectKey::from(&o.metadata));
                self.storage_classes.insert(o.metadata.name.clone(), Arc::new(*o));
            }
            ClusterObject::VolumeAttachment(o) => {
                self.sync.seen(Kind::VolumeAttachment, &ObjectKey::from(&o.metadata));
                self.attachments.insert(o.metadata.name.clone(), Arc::new(*o));
            }
            // Handled by the caller.
            _ => {}
        }
    }

    fn apply_pod(&mut self, pod: Pod) {
        let key = ObjectKey::from(&pod.metadata);
        self.sync.seen(Kind::Pod, &key);
        self.forget_pod(&key);
        let shape = self.shapes.intern(PodShape::of(&pod));
        if pod.is_unschedulable() && !pod.is_terminating() && !pod.is_terminal() {
            self.unschedulable.insert(key.clone());
        }
        if let Some(daemon) = daemon_of(&pod) {
            self.see_daemon_pod(daemon, &pod);
        }
        let entry = PodEntry { pod: Arc::new(pod), shape };
        let node = &entry.pod.spec.node_name;
        if !node.is_empty()
            && let Some(content) = self.shapes.get(shape)
        {
            let node = NodeName::from(node.as_str());
            self.pods_by_node.entry(node).or_default().enter(key.clone(), &entry, content);
        }
        self.pods.insert(key, entry);
    }

    fn see_daemon_pod(&mut self, daemon: ObjectKey, pod: &Pod) {
        let made = pod.metadata.creation_timestamp;
        let (youngest, requests) = self.daemon_requests.entry(daemon).or_default();
        // Of those of one second the larger, whichever is told first.
        match made.cmp(youngest) {
            Ordering::Less => {}
            Ordering::Equal => *requests = requests.maximum(&pod.requests()),
            Ordering::Greater => (*youngest, *requests) = (made, pod.requests()),
        }
    }

    fn forget_pod(&mut self, key: &ObjectKey) {
        let Some(entry) = self.pods.remove(key) else { return };
        self.unschedulable.remove(key);
        let shape = self.shapes.get(entry.shape).cloned();
        self.shapes.release(entry.shape);
        let node = NodeName::from(entry.pod.spec.node_name.as_str());
        let Some((pods, shape)) = self.pods_by_node.get_mut(&node).zip(shape) else { return };
        pods.leave(key, &entry, &shape);
        if pods.all.is_empty() {
            self.pods_by_node.remove(&node);
        }
    }

    fn apply_node(&mut self, node: Node) {
        let key = ObjectKey::from(&node.metadata);
        self.sync.seen(Kind::Node, &key);
        self.forget_node(&key.name);
        let name = NodeName::from(key.name);
        if let Some(instance) = instance_of_provider_id(&node.spec.provider_id) {
            self.node_by_instance.insert(instance, name.clone());
        }
        self.nodes.insert(name, Arc::new(node));
    }

    fn forget_node(&mut self, name: &str) {
        let name = NodeName::from(name);
        let Some(node) = self.nodes.remove(&name) else { return };
        if let Some(instance) = instance_of_provider_id(&node.spec.provider_id)
            && self.node_by_instance.get(&instance) == Some(&name)
        {
            self.node_by_instance.remove(&instance);
        }
    }

    fn apply_claim(&mut self, claim: NodeClaim) {
        let key = cluster_key(claim.metadata.name.as_deref());
        self.sync.seen(Kind::NodeClaim, &key);
        self.forget_claim(&key.name);
        let name = NodeClaimName::from(key.name);
        if let Some(instance) = instance_of_provider_id(claim_provider_id(&claim)) {
            self.claim_by_instance.insert(instance, name.clone());
        }
        self.claims.insert(name, Arc::new(claim));
    }

    fn forget_claim(&mut self, name: &str) {
        let name = NodeClaimName::from(name);
        let Some(claim) = self.claims.remove(&name) else { return };
        if let Some(instance) = instance_of_provider_id(claim_provider_id(&claim))
            && self.claim_by_instance.get(&instance) == Some(&name)
        {
            self.claim_by_instance.remove(&instance);
        }
    }

    fn remove(&mut self, kind: Kind, key: &ObjectKey) {
        self.sync.seen(kind, key);
        match kind {
            Kind::Pod => self.forget_pod(key),
            Kind::Node => self.forget_node(&key.name),
            Kind::NodeClaim => self.forget_claim(&key.name),
            Kind::NodePool => drop(self.pools.remove(&NodePoolName::from(key.name.as_str()))),
            Kind::Ec2NodeClass => drop(self.classes.remove(key.name.as_str())),
            Kind::NodeOverlay => drop(self.overlays.remove(key.name.as_str())),
            Kind::CapacityBuffer => drop(self.buffers.remove(key)),
            Kind::PodTemplate => drop(self.pod_templates.remove(key)),
            Kind::Namespace => drop(self.namespaces.remove(key.name.as_str())),
            Kind::PersistentVolumeClaim => drop(self.volume_claims.remove(key)),
            Kind::PersistentVolume => drop(self.volumes.remove(key.name.as_str())),
            Kind::StorageClass => drop(self.storage_classes.remove(key.name.as_str())),
            Kind::CsiNode => drop(self.csi_nodes.remove(&NodeName::from(key.name.as_str()))),
            Kind::VolumeAttachment => drop(self.attachments.remove(key.name.as_str())),
            Kind::PodDisruptionBudget => drop(self.budgets.remove(key)),
            Kind::DaemonSet => {
                self.daemon_sets.remove(key);
                self.daemon_requests.remove(key);
            }
            Kind::ReplicaSet => drop(self.replica_sets.remove(key)),
            Kind::StatefulSet => drop(self.stateful_sets.remove(key)),
            Kind::Job => drop(self.jobs.remove(key)),
            Kind::Lease | Kind::Event => {}
        }
    }

    fn keys(&self, kind: Kind) -> BTreeSet<ObjectKey> {
        fn cluster<'n>(names: impl Iterator<Item = &'n str>) -> BTreeSet<ObjectKey> {
            names.map(ObjectKey::cluster).collect()
        }
        match kind {
            Kind::Pod => self.pods.keys().cloned().collect(),
            Kind::Node => cluster(self.nodes.keys().map(NodeName::as_str)),
            Kind::NodeClaim => cluster(self.claims.keys().map(NodeClaimName::as_str)),
            Kind::NodePool => cluster(self.pools.keys().map(NodePoolName::as_str)),
            Kind::Ec2NodeClass => cluster(self.classes.keys().map(String::as_str)),
            Kind::NodeOverlay => cluster(self.overlays.keys().map(String::as_str)),
            Kind::CapacityBuffer => self.buffers.keys().cloned().collect(),
            Kind::PodTemplate => self.pod_templates.keys().cloned().collect(),
            Kind::Namespace => cluster(self.namespaces.keys().map(String::as_str)),
            Kind::PersistentVolumeClaim => self.volume_claims.keys().cloned().collect(),
            Kind::PersistentVolume => cluster(self.volumes.keys().map(String::as_str)),
            Kind::StorageClass => cluster(self.storage_classes.keys().map(String::as_str)),
            Kind::CsiNode => cluster(self.csi_nodes.keys().map(NodeName::as_str)),
            Kind::VolumeAttachment => cluster(self.attachments.keys().map(String::as_str)),
            Kind::PodDisruptionBudget => self.budgets.keys().cloned().collect(),
            Kind::DaemonSet => self.daemon_sets.keys().cloned().collect(),
            Kind::ReplicaSet => self.replica_sets.keys().cloned().collect(),
            Kind::StatefulSet => self.stateful_sets.keys().cloned().collect(),
            Kind::Job => self.jobs.keys().cloned().collect(),
            Kind::Lease | Kind::Event => BTreeSet::new(),
        }
    }
}

fn claim_provider_id(claim: &NodeClaim) -> &str {
    claim.status.as_ref().and_then(|status| status.provider_id.as_deref()).unwrap_or_default()
}

/// The key of a custom resource's object, which is cluster-scoped.
fn cluster_key(name: Option<&str>) -> ObjectKey {
    ObjectKey::cluster(name.unwrap_or_default())
}
