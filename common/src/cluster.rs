//! Slim cluster objects: the fields a decision reads, straight from the API's JSON.
//!
//! Watches deserialize into these, so that no full API object is ever kept. Unknown fields are
//! skipped; what Kubernetes defaults is defaulted.

pub mod node;
pub mod pod;
pub mod storage;
pub mod workload;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use smol_str::SmolStr;

use crate::call::Kind;
use crate::crd::{CapacityBuffer, Ec2NodeClass, NodeClaim, NodeOverlay, NodePool};

pub use node::*;
pub use pod::*;
pub use storage::*;
pub use workload::*;

use std::collections::BTreeMap;

use jiff::Timestamp;

/// The part of `ObjectMeta` that decisions read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// Name.
    pub name: String,
    /// Namespace; empty for cluster-scoped objects.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// UID.
    pub uid: String,
    /// Opaque version.
    pub resource_version: String,
    /// Counts spec changes.
    pub generation: i64,
    /// Creation.
    pub creation_timestamp: Option<Timestamp>,
    /// Set when deletion was asked for.
    pub deletion_timestamp: Option<Timestamp>,
    /// Grace of that deletion.
    pub deletion_grace_period_seconds: Option<i64>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Finalizers.
    pub finalizers: Vec<String>,
    /// Owners.
    pub owner_references: Vec<OwnerReference>,
}

impl Metadata {
    /// The owner that controls this object.
    pub fn controller(&self) -> Option<&OwnerReference> {
        self.owner_references.iter().find(|owner| owner.controller)
    }
}

/// An owner reference.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OwnerReference {
    /// `group/version`.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Whether it is the controller.
    pub controller: bool,
}

/// `namespace/name` as one ordered key; the namespace is empty for cluster-scoped objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectKey {
    /// Namespace.
    pub namespace: SmolStr,
    /// Name.
    pub name: SmolStr,
}

impl ObjectKey {
    /// The key of an object in a namespace.
    pub fn new(namespace: impl Into<SmolStr>, name: impl Into<SmolStr>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The key of a cluster-scoped object.
    pub fn cluster(name: impl Into<SmolStr>) -> Self {
        Self::new(SmolStr::default(), name)
    }
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() {
            formatter.write_str(&self.name)
        } else {
            write!(formatter, "{}/{}", self.namespace, self.name)
        }
    }
}

impl From<&Metadata> for ObjectKey {
    fn from(metadata: &Metadata) -> Self {
        Self::new(&metadata.namespace, &metadata.name)
    }
}

/// A change a watch reported.
#[derive(Clone, Debug)]
pub enum ClusterEvent {
    /// Added or changed.
    Applied(ClusterObject),
    /// Gone.
    Deleted(Kind, ObjectKey),
    /// A list starts over (first list, or after 410): what is not applied again before
    /// [`ClusterEvent::Synced`] is gone.
    Restarted(Kind),
    /// The list is complete; the view of this kind is true as of now.
    Synced(Kind),
    /// The watch of this kind is broken: the view of it may be stale until the next `Synced`.
    Stale(Kind),
}

/// A slim object of any watched kind.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "each variant is its kind")]
pub enum ClusterObject {
    Pod(Box<Pod>),
    Node(Box<Node>),
    Namespace(Box<Namespace>),
    PersistentVolumeClaim(Box<PersistentVolumeClaim>),
    PersistentVolume(Box<PersistentVolume>),
    DaemonSet(Box<DaemonSet>),
    ReplicaSet(Box<ReplicaSet>),
    StatefulSet(Box<StatefulSet>),
    Job(Box<Job>),
    PodDisruptionBudget(Box<PodDisruptionBudget>),
    StorageClass(Box<StorageClass>),
    CsiNode(Box<CsiNode>),
    VolumeAttachment(Box<VolumeAttachment>),
    NodePool(Box<NodePool>),
    NodeClaim(Box<NodeClaim>),
    Ec2NodeClass(Box<Ec2NodeClass>),
    NodeOverlay(Box<NodeOverlay>),
    CapacityBuffer(Box<CapacityBuffer>),
    PodTemplate(Box<NamedPodTemplate>),
}

/// Why an object could not be read; the rest of the watch goes on.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{kind:?} {key}: {reason}")]
pub struct UnreadableObject {
    /// Its kind.
    pub kind: Kind,
    /// Its key, as far as it could be read.
    pub key: ObjectKey,
    /// Field and reason, in serde's words.
    pub reason: String,
}

impl ClusterObject {
    /// Reads an object of `kind` from the API's JSON. Lease and Event are never watched.
    ///
    /// # Errors
    /// The object's key, the field and the reason, if it does not have the kind's shape.
    pub fn from_json(kind: Kind, mut value: Value) -> Result<Self, UnreadableObject> {
        let text = |pointer: &str| {
            value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let key = ObjectKey::new(text("/metadata/namespace"), text("/metadata/name"));
        drop_nulls(&mut value);
        Self::read(kind, value).map_err(|error| UnreadableObject {
            kind,
            key,
            reason: error.to_string(),
        })
    }

    /// The metadata of an object of Kubernetes' own kinds; custom resources have the API's.
    pub fn metadata_mut(&mut self) -> Option<&mut Metadata> {
        Some(match self {
            Self::Pod(o) => &mut o.metadata,
            Self::Node(o) => &mut o.metadata,
            Self::Namespace(o) => &mut o.metadata,
            Self::PersistentVolumeClaim(o) => &mut o.metadata,
            Self::PersistentVolume(o) => &mut o.metadata,
            Self::DaemonSet(o) => &mut o.metadata,
            Self::ReplicaSet(o) => &mut o.metadata,
            Self::StatefulSet(o) => &mut o.metadata,
            Self::Job(o) => &mut o.metadata,
            Self::PodDisruptionBudget(o) => &mut o.metadata,
            Self::StorageClass(o) => &mut o.metadata,
            Self::CsiNode(o) => &mut o.metadata,
            Self::VolumeAttachment(o) => &mut o.metadata,
            Self::PodTemplate(o) => &mut o.metadata,
            Self::NodePool(_)
            | Self::NodeClaim(_)
            | Self::Ec2NodeClass(_)
            | Self::NodeOverlay(_)
            | Self::CapacityBuffer(_) => return None,
        })
    }

    /// The object's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Pod(o) => &o.metadata.name,
            Self::Node(o) => &o.metadata.name,
            Self::Namespace(o) => &o.metadata.name,
            Self::PersistentVolumeClaim(o) => &o.metadata.name,
            Self::PersistentVolume(o) => &o.metadata.name,
            Self::DaemonSet(o) => &o.metadata.name,
            Self::ReplicaSet(o) => &o.metadata.name,
            Self::StatefulSet(o) => &o.metadata.name,
            Self::Job(o) => &o.metadata.name,
            Self::PodDisruptionBudget(o) => &o.metadata.name,
            Self::StorageClass(o) => &o.metadata.name,
            Self::CsiNode(o) => &o.metadata.name,
            Self::VolumeAttachment(o) => &o.metadata.name,
            Self::NodePool(o) => o.metadata.name.as_deref().unwrap_or_default(),
            Self::NodeClaim(o) => o.metadata.name.as_deref().unwrap_or_default(),
            Self::Ec2NodeClass(o) => o.metadata.name.as_deref().unwrap_or_default(),
            Self::NodeOverlay(o) => o.metadata.name.as_deref().unwrap_or_default(),
            Self::CapacityBuffer(o) => o.metadata.name.as_deref().unwrap_or_default(),
            Self::PodTemplate(o) => &o.metadata.name,
        }
    }

    /// Reads an object of `kind` from any format. A `null` is an error where the field is not
    /// optional; [`drop_nulls`] removes them beforehand. Lease and Event are never watched.
    ///
    /// # Errors
    /// The format's own error, if the object does not have the kind's shape.
    pub fn read<'de, D: Deserializer<'de>>(kind: Kind, source: D) -> Result<Self, D::Error> {
        fn boxed<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
            source: D,
        ) -> Result<Box<T>, D::Error> {
            T::deserialize(source).map(Box::new)
        }
        match kind {
            Kind::Pod => boxed(source).map(Self::Pod),
            Kind::Node => boxed(source).map(Self::Node),
            Kind::Namespace => boxed(source).map(Self::Namespace),
            Kind::PersistentVolumeClaim => boxed(source).map(Self::PersistentVolumeClaim),
            Kind::PersistentVolume => boxed(source).map(Self::PersistentVolume),
            Kind::DaemonSet => boxed(source).map(Self::DaemonSet),
            Kind::ReplicaSet => boxed(source).map(Self::ReplicaSet),
            Kind::StatefulSet => boxed(source).map(Self::StatefulSet),
            Kind::Job => boxed(source).map(Self::Job),
            Kind::PodDisruptionBudget => boxed(source).map(Self::PodDisruptionBudget),
            Kind::StorageClass => boxed(source).map(Self::StorageClass),
            Kind::CsiNode => boxed(source).map(Self::CsiNode),
            Kind::VolumeAttachment => boxed(source).map(Self::VolumeAttachment),
            Kind::NodePool => boxed(source).map(Self::NodePool),
            Kind::NodeClaim => boxed(source).map(Self::NodeClaim),
            Kind::Ec2NodeClass => boxed(source).map(Self::Ec2NodeClass),
            Kind::NodeOverlay => boxed(source).map(Self::NodeOverlay),
            Kind::CapacityBuffer => boxed(source).map(Self::CapacityBuffer),
            Kind::PodTemplate => boxed(source).map(Self::PodTemplate),
            Kind::Lease | Kind::Event => Err(D::Error::custom("this kind is not watched")),
        }
    }
}

/// Removes fields that are `null`: the API server sends some (`creationTimestamp`, empty lists and
/// maps of Go), and they mean the same as absent ones.
pub fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_name, field| !field.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(elements) => elements.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}
