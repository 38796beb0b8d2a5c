//! Pod shapes: everything about a pod that scheduling can depend on, interned, so that ten
//! thousand equal pods are one shape and a count.

use std::collections::BTreeMap;
use std::sync::Arc;

use drover_common::cluster::{Affinity, Container, Pod, PodSpec, TopologySpreadConstraint};
use drover_common::resources::Resources;
use drover_common::taint::Toleration;

/// A shape's number in the view that gave it out. Numbers are reused; their order means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShapeId(u32);

/// A port of the node that a pod takes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// Address; empty for any.
    pub address: String,
    /// Protocol.
    pub protocol: String,
    /// Port.
    pub port: i32,
}

impl HostPort {
    /// Whether both can't be on one node. An unspecified address is every address.
    pub fn conflicts(&self, other: &HostPort) -> bool {
        let any = |address: &str| matches!(address, "" | "0.0.0.0" | "::");
        self.port == other.port
            && self.protocol == other.protocol
            && (any(&self.address) || any(&other.address) || self.address == other.address)
    }
}

/// A volume that can tie a pod to places.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ShapeVolume {
    /// A claim by name.
    Claim(String),
    /// A generic ephemeral volume: the claim is `<pod>-<volume>`.
    Ephemeral {
        /// The volume's name.
        volume: String,
        /// The storage class its claim will ask for.
        class: Option<String>,
    },
}

/// What scheduling can depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodShape {
    /// Requests, with `pods: 1`.
    pub requests: Resources,
    /// Namespace.
    pub namespace: String,
    /// Labels: other pods' selectors read them.
    pub labels: BTreeMap<String, String>,
    /// Node labels required.
    pub node_selector: BTreeMap<String, String>,
    /// Affinities.
    pub affinity: Affinity,
    /// Tolerations.
    pub tolerations: Vec<Toleration>,
    /// Spread.
    pub spread: Vec<TopologySpreadConstraint>,
    /// Ports taken on the node.
    pub ports: Vec<HostPort>,
    /// Volumes.
    pub volumes: Vec<ShapeVolume>,
    /// Priority.
    pub priority: i32,
    /// Whether it asks for devices by ResourceClaims.
    pub claims_devices: bool,
}

impl PodShape {
    /// Whether it takes more of a node than its requests: host ports, volumes.
    pub fn is_special(&self) -> bool {
        !self.ports.is_empty() || !self.volumes.is_empty()
    }

    /// The shape of a pod.
    pub fn of(pod: &Pod) -> Self {
        Self {
            requests: pod
                .requests()
                .iter()
                .filter(|(_, amount)| *amount > 0)
                .map(|(name, amount)| (name.clone(), amount))
                .collect(),
            namespace: pod.metadata.namespace.clone(),
            labels: pod.metadata.labels.clone(),
            node_selector: pod.spec.node_selector.clone(),
            affinity: pod.spec.affinity.clone(),
            tolerations: pod.spec.tolerations.clone(),
            spread: pod.spec.topology_spread_constraints.clone(),
            ports: host_ports(&pod.spec),
            volumes: volumes(&pod.spec),
            priority: pod.spec.priority.unwrap_or(0),
            claims_devices: !pod.spec.resource_claims.is_empty(),
        }
    }

    /// The shape of a DaemonSet's pods.
    pub fn of_template(namespace: &str, labels: &BTreeMap<String, String>, spec: &PodSpec) -> Self {
        let mut pod = Pod { spec: spec.clone(), ..Pod::default() };
        namespace.clone_into(&mut pod.metadata.namespace);
        pod.metadata.labels.clone_from(labels);
        Self::of(&pod)
    }
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let mut ports: Vec<HostPort> = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().filter(|c| is_sidecar(c)))
        .flat_map(|container| &container.ports)
        .map(|port| HostPort {
            address: port.host_ip.clone(),
            protocol: if port.protocol.is_empty() { "TCP".into() } else { port.protocol.clone() },
            port: port.on_host(spec.host_network),
        })
        .filter(|port| port.port != 0)
        .collect();
    ports.sort();
    ports.dedup();
    ports
}

fn volumes(spec: &PodSpec) -> Vec<ShapeVolume> {
    let mut volumes: Vec<ShapeVolume> = Vec::new();
    for volume in &spec.volumes {
        if let Some(claim) = &volume.persistent_volume_claim {
            volumes.push(ShapeVolume::Claim(claim.claim_name.clone()));
        } else if let Some(template) = &volume.ephemeral {
            let class = template
                .pointer("/volumeClaimTemplate/spec/storageClassName")
                .and_then(|class| class.as_str())
                .map(str::to_owned);
            volumes.push(ShapeVolume::Ephemeral { volume: volume.name.clone(), class });
        }
    }
    volumes.sort();
    volumes
}

fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

#[derive(Clone, Debug, Default)]
struct Slot {
    shape: Option<Arc<PodShape>>,
    users: u32,
}

/// Shapes in use, by number and by content.
#[derive(Clone, Debug, Default)]
pub(crate) struct ShapeTable {
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_shape: BTreeMap<Arc<PodShape>, ShapeId>,
}

impl ShapeTable {
    /// The number of a shape, taken once more.
    pub(crate) fn intern(&mut self, shape: PodShape) -> ShapeId {
        if let Some(id) = self.by_shape.get(&shape).copied() {
            if let Some(slot) = self.slots.get_mut(id.0 as usize) {
                slot.users += 1;
            }
            return id;
        }
        let shape = Arc::new(shape);
        let slot = Slot { shape: Some(Arc::clone(&shape)), users: 1 };
        let id = match self.free.pop() {
            Some(number) => {
                if let Some(place) = self.slots.get_mut(number as usize) {
                    *place = slot;
                }
                ShapeId(number)
            }
            None => {
                self.slots.push(slot);
                ShapeId(u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX))
            }
        };
        self.by_shape.insert(shape, id);
        id
    }

    /// Gives a number back; the last user frees it.
    pub(crate) fn release(&mut self, id: ShapeId) {
        let Some(slot) = self.slots.get_mut(id.0 as usize) else { return };
        slot.users = slot.users.saturating_sub(1);
        if slot.users == 0
            && let Some(shape) = slot.shape.take()
        {
            self.by_shape.remove(&shape);
            self.free.push(id.0);
        }
    }

    pub(crate) fn get(&self, id: ShapeId) -> Option<&Arc<PodShape>> {
        self.slots.get(id.0 as usize)?.shape.as_ref()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ShapeId, &Arc<PodShape>)> {
        let slots = (0..).map(ShapeId).zip(&self.slots);
        slots.filter_map(|(id, slot)| Some((id, slot.shape.as_ref()?)))
    }

    pub(crate) fn len(&self) -> usize {
        self.by_shape.len()
    }
}
