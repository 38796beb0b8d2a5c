//! Objects of a dump, in any order.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::call::Kind;
use drover_common::cluster::{ClusterEvent, ClusterObject, Pod, PriorityClass};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer};

use super::OfflineCluster;
use super::catalogs::{InstanceTypes, catalogs};
use super::claims::{in_flight, leaving, pool_usage};
use super::deployments::{Deployment, Deployments};
use super::pods::{Priorities, settle};
use crate::expected::{expected_pods, read_buffer};
use crate::view::View;

/// Kinds that a dump is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DumpKind {
    /// One that leaders watch.
    Watched(Kind),
    /// `scheduling.k8s.io` PriorityClass.
    PriorityClass,
    /// Deployment: its ReplicaSets tell what it wants, if they are there.
    Deployment,
}

impl DumpKind {
    /// The kind by `apiVersion` and `kind`; `None` for one that says nothing to a plan. Versions of
    /// Kubernetes' own groups are not told apart, those of Karpenter's must be `v1`.
    pub fn of(api_version: &str, kind: &str) -> Option<Self> {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        match (group, kind) {
            ("scheduling.k8s.io", "PriorityClass") => return Some(Self::PriorityClass),
            ("apps", "Deployment") => return Some(Self::Deployment),
            _ => {}
        }
        Kind::ALL
            .into_iter()
            .filter(|known| !matches!(known, Kind::Lease | Kind::Event | Kind::VolumeAttachment))
            .find(|known| {
                let endpoint = known.endpoint();
                let versioned = endpoint.group.starts_with("karpenter.");
                endpoint.group == group
                    && endpoint.kind == kind
                    && (!versioned || endpoint.version == version)
            })
            .map(Self::Watched)
    }

    fn is_namespaced(self) -> bool {
        match self {
            Self::Watched(kind) => kind.endpoint().namespaced,
            Self::PriorityClass => false,
            Self::Deployment => true,
        }
    }
}

/// One object of a dump.
#[derive(Debug)]
#[allow(missing_docs, reason = "each variant is its kind")]
pub enum DumpObject {
    Watched(ClusterObject),
    PriorityClass(Box<PriorityClass>),
    Deployment(Box<Deployment>),
}

impl DumpObject {
    /// Reads an object of `kind` from any format. Objects of namespaces that name none are taken to
    /// be in `default`, as kubectl does.
    ///
    /// # Errors
    /// The format's own error, if the object does not have the kind's shape.
    pub fn read<'de, D: Deserializer<'de>>(kind: DumpKind, source: D) -> Result<Self, D::Error> {
        let mut object = match kind {
            DumpKind::Watched(watched) => Self::Watched(ClusterObject::read(watched, source)?),
            DumpKind::PriorityClass => {
                Self::PriorityClass(PriorityClass::deserialize(source).map(Box::new)?)
            }
            DumpKind::Deployment => {
                Self::Deployment(Deployment::deserialize(source).map(Box::new)?)
            }
        };
        object.slim(kind.is_namespaced());
        if object.name().is_empty() {
            return Err(serde::de::Error::custom("metadata.name is missing"));
        }
        Ok(object)
    }

    fn name(&self) -> &str {
        match self {
            Self::Watched(object) => object.name(),
            Self::PriorityClass(class) => &class.metadata.name,
            Self::Deployment(deployment) => &deployment.metadata.name,
        }
    }

    fn slim(&mut self, namespaced: bool) {
        let metadata = match self {
            Self::Watched(ClusterObject::CapacityBuffer(buffer)) => {
                buffer.metadata.namespace.get_or_insert_with(|| "default".to_owned());
                return;
            }
            Self::Watched(object) => object.metadata_mut(),
            Self::PriorityClass(class) => Some(&mut class.metadata),
            Self::Deployment(deployment) => Some(&mut deployment.metadata),
        };
        let Some(metadata) = metadata else { return };
        metadata.annotations.retain(|key, _value| !key.starts_with(TOOL_ANNOTATIONS));
        if namespaced && metadata.namespace.is_empty() {
            "default".clone_into(&mut metadata.namespace);
        }
    }
}

/// Annotations that tools leave on objects and no decision reads.
const TOOL_ANNOTATIONS: &str = "kubectl.kubernetes.io/";

/// When an object of Karpenter's or an autoscaler's kinds was made, and when its deletion began.
macro_rules! times_of {
    ($object:expr) => {{
        let metadata = &$object.metadata;
        let times = [&metadata.creation_timestamp, &metadata.deletion_timestamp];
        times.into_iter().flatten().map(|time| time.0)
    }};
}

/// Objects of a dump, in the order they are read. Of two of one kind and name the last counts.
#[derive(Debug, Default)]
pub struct Dump {
    view: View,
    pods: Vec<Pod>,
    priorities: Priorities,
    deployments: Deployments,
    newest: Option<Timestamp>,
}

impl Dump {
    /// Takes one object in.
    pub fn add(&mut self, object: DumpObject) {
        match object {
            DumpObject::Watched(object) => self.add_watched(object),
            DumpObject::PriorityClass(class) => self.priorities.add(&class),
            DumpObject::Deployment(deployment) => self.deployments.add(*deployment),
        }
    }

    fn add_watched(&mut self, mut object: ClusterObject) {
        self.see(&mut object);
        match &mut object {
            // Their priorities may be told later in the dump.
            ClusterObject::Pod(pod) => return self.pods.push(std::mem::take(pod)),
            // A node written by hand says nothing of its health.
            ClusterObject::Node(node) if node.status.conditions.is_empty() => {
                node.status.conditions.push(super::pods::ready_condition());
            }
            _ => {}
        }
        self.view.apply(ClusterEvent::Applied(object));
    }

    /// Remembers the newest time an object tells.
    fn see(&mut self, object: &mut ClusterObject) {
        let mut times: BTreeSet<Timestamp> = BTreeSet::new();
        if let Some(metadata) = object.metadata_mut() {
            times.extend(metadata.creation_timestamp);
            times.extend(metadata.deletion_timestamp);
        }
        match object {
            ClusterObject::Pod(pod) => {
                times.extend(pod.status.start_time);
                times.extend(pod.status.conditions.iter().filter_map(|c| c.last_transition_time));
            }
            ClusterObject::Node(node) => {
                times.extend(node.status.conditions.iter().filter_map(|c| c.last_transition_time));
            }
            ClusterObject::NodeClaim(claim) => {
                let status = claim.status.iter();
                times.extend(status.clone().filter_map(|status| status.last_pod_event_time));
                let conditions = status.flat_map(|status| &status.conditions);
                times.extend(conditions.filter_map(|c| c.last_transition_time));
                times.extend(times_of!(claim));
            }
            ClusterObject::NodePool(pool) => {
                times.extend(times_of!(pool));
                let conditions = pool.status.iter().flat_map(|status| &status.conditions);
                times.extend(conditions.filter_map(|c| c.last_transition_time));
            }
            ClusterObject::Ec2NodeClass(class) => {
                times.extend(times_of!(class));
                let conditions = class.status.iter().flat_map(|status| &status.conditions);
                times.extend(conditions.filter_map(|c| c.last_transition_time));
            }
            ClusterObject::NodeOverlay(overlay) => times.extend(times_of!(overlay)),
            ClusterObject::CapacityBuffer(buffer) => times.extend(times_of!(buffer)),
            _ => {}
        }
        self.newest = self.newest.max(times.last().copied());
    }

    /// The cluster they make. `now` is by default the newest time that any of them tells.
    pub fn into_cluster(self, types: &InstanceTypes, now: Option<Timestamp>) -> OfflineCluster {
        let Self { mut view, pods, priorities, deployments, newest } = self;
        let mut warnings = Vec::new();
        deployments.stand_in(&mut view);
        let set_aside = settle(&mut view, pods, &priorities, &mut warnings);
        let catalogs = catalogs(&view, types, &mut warnings);
        let in_flight = in_flight(&view, &catalogs, &mut warnings);
        let leaving = leaving(&view);
        let pool_usage = pool_usage(&view, &catalogs);
        let now = now.or(newest).unwrap_or(Timestamp::UNIX_EPOCH);
        let buffers = view.buffers().iter();
        warnings.extend(buffers.filter_map(|(key, buffer)| {
            let (_, reason) = read_buffer(&view, key, buffer).err()?;
            Some(format!("CapacityBuffer {key} keeps no room free: {reason}"))
        }));
        OfflineCluster {
            expected: expected_pods(&view, now),
            view,
            catalogs,
            in_flight,
            leaving,
            pool_usage,
            set_aside,
            static_launches: BTreeMap::new(),
            warnings,
            now,
            unavailable: BTreeMap::new(),
            reserved: BTreeMap::new(),
        }
    }
}
