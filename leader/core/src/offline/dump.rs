//! Objects of a dump, in any order.

use std::collections::BTreeMap;

use drover_common::call::Kind;
use drover_common::cluster::{ClusterEvent, ClusterObject, Pod, PriorityClass};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer};

use super::OfflineCluster;
use super::catalogs::{InstanceTypes, NodeFlags, catalogs};
use super::claims::{in_flight, leaving, pool_usage};
use super::deployments::{Deployment, Deployments};
use super::pods::{Priorities, settle};
use super::surroundings::{name_namespaces, other_region};
use super::times::{Newest, Noting};
use crate::expected::{expected_pods, read_buffer};
use crate::staying::staying_pods;
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
pub struct DumpObject {
    told: Told,
    /// The newest time that it tells.
    newest: Option<Timestamp>,
}

#[derive(Debug)]
enum Told {
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
        let newest = Newest::default();
        let source = Noting::object(source, &newest);
        let mut told = match kind {
            DumpKind::Watched(watched) => Told::Watched(ClusterObject::read(watched, source)?),
            DumpKind::PriorityClass => {
                Told::PriorityClass(PriorityClass::deserialize(source).map(Box::new)?)
            }
            DumpKind::Deployment => {
                Told::Deployment(Deployment::deserialize(source).map(Box::new)?)
            }
        };
        told.slim(kind.is_namespaced());
        if told.name().is_empty() {
            return Err(serde::de::Error::custom("metadata.name is missing"));
        }
        Ok(Self { told, newest: newest.get() })
    }
}

impl Told {
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
        self.newest = self.newest.max(object.newest);
        match object.told {
            Told::Watched(object) => self.add_watched(object),
            Told::PriorityClass(class) => self.priorities.add(&class),
            Told::Deployment(deployment) => self.deployments.add(*deployment),
        }
    }

    fn add_watched(&mut self, mut object: ClusterObject) {
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

    /// The cluster they make. `now` is by default the newest time that any of them tells.
    pub fn into_cluster(
        self,
        types: &InstanceTypes,
        flags: &NodeFlags,
        now: Option<Timestamp>,
    ) -> OfflineCluster {
        let Self { mut view, pods, priorities, deployments, newest } = self;
        let mut warnings = Vec::new();
        deployments.stand_in(&mut view);
        let set_aside = settle(&mut view, pods, &priorities, &mut warnings);
        name_namespaces(&mut view, &mut warnings);
        warnings.extend(other_region(&view, types.region()));
        let catalogs = catalogs(&view, types, flags, &mut warnings);
        let leaving = leaving(&view);
        let in_flight = in_flight(&view, &catalogs, &leaving, &mut warnings);
        let pool_usage = pool_usage(&view, &catalogs);
        let now = now.or(newest).unwrap_or(Timestamp::UNIX_EPOCH);
        let buffers = view.buffers().iter();
        warnings.extend(buffers.filter_map(|(key, buffer)| {
            let (_, reason) = read_buffer(&view, key, buffer).err()?;
            Some(format!("CapacityBuffer {key} keeps no room free: {reason}"))
        }));
        OfflineCluster {
            expected: expected_pods(&view, now),
            staying: staying_pods(&view, &leaving, now),
            view,
            catalogs,
            in_flight,
            leaving,
            pool_usage,
            set_aside,
            static_launches: BTreeMap::new(),
            static_excess: BTreeMap::new(),
            warnings,
            now,
            unavailable: BTreeMap::new(),
            reserved: BTreeMap::new(),
        }
    }
}
