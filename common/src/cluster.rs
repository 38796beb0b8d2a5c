//! Slim cluster objects: the fields a decision reads, straight from the API's JSON.
//!
//! Watches deserialize into these, so that no full API object is ever kept. Unknown fields are
//! skipped; what Kubernetes defaults is defaulted.

pub mod node;
pub mod pod;
pub mod storage;
pub mod workload;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::call::Kind;
use crate::crd::{Ec2NodeClass, NodeClaim, NodePool};

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
    pub namespace: String,
    /// Name.
    pub name: String,
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
        Self { namespace: metadata.namespace.clone(), name: metadata.name.clone() }
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
    PodDisruptionBudget(Box<PodDisruptionBudget>),
    StorageClass(Box<StorageClass>),
    CsiNode(Box<CsiNode>),
    VolumeAttachment(Box<VolumeAttachment>),
    NodePool(Box<NodePool>),
    NodeClaim(Box<NodeClaim>),
    Ec2NodeClass(Box<Ec2NodeClass>),
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
    pub fn from_json(kind: Kind, value: Value) -> Result<Self, UnreadableObject> {
        fn read<T: serde::de::DeserializeOwned>(
            mut value: Value,
        ) -> Result<Box<T>, serde_json::Error> {
            drop_nulls(&mut value);
            serde_json::from_value(value).map(Box::new)
        }
        let text = |pointer: &str| {
            value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let key =
            ObjectKey { namespace: text("/metadata/namespace"), name: text("/metadata/name") };
        let object = match kind {
            Kind::Pod => read(value).map(Self::Pod),
            Kind::Node => read(value).map(Self::Node),
            Kind::Namespace => read(value).map(Self::Namespace),
            Kind::PersistentVolumeClaim => read(value).map(Self::PersistentVolumeClaim),
            Kind::PersistentVolume => read(value).map(Self::PersistentVolume),
            Kind::DaemonSet => read(value).map(Self::DaemonSet),
            Kind::ReplicaSet => read(value).map(Self::ReplicaSet),
            Kind::StatefulSet => read(value).map(Self::StatefulSet),
            Kind::PodDisruptionBudget => read(value).map(Self::PodDisruptionBudget),
            Kind::StorageClass => read(value).map(Self::StorageClass),
            Kind::CsiNode => read(value).map(Self::CsiNode),
            Kind::VolumeAttachment => read(value).map(Self::VolumeAttachment),
            Kind::NodePool => read(value).map(Self::NodePool),
            Kind::NodeClaim => read(value).map(Self::NodeClaim),
            Kind::Ec2NodeClass => read(value).map(Self::Ec2NodeClass),
            Kind::Lease | Kind::Event => {
                return Err(UnreadableObject {
                    kind,
                    key,
                    reason: "this kind is not watched".to_owned(),
                });
            }
        };
        object.map_err(|error| UnreadableObject { kind, key, reason: error.to_string() })
    }
}

/// Removes fields that are `null`: the API server sends some (`creationTimestamp`, empty lists and
/// maps of Go), and they mean the same as absent ones.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_name, field| !field.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(elements) => elements.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}
