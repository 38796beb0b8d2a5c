//! Volumes, as far as they tie pods to places.

use serde::{Deserialize, Serialize};

use super::{Metadata, NodeSelector};

/// A PersistentVolumeClaim.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PersistentVolumeClaim {
    /// Metadata.
    pub metadata: Metadata,
    /// Spec.
    pub spec: ClaimSpec,
    /// Status.
    pub status: ClaimStatus,
}

/// A claim's spec.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimSpec {
    /// The bound volume; empty if unbound.
    pub volume_name: String,
    /// Its class.
    pub storage_class_name: Option<String>,
    /// `ReadWriteOnce`, `ReadWriteOncePod`, …
    pub access_modes: Vec<String>,
}

/// A claim's status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimStatus {
    /// `Pending`, `Bound`, `Lost`.
    pub phase: String,
}

/// A PersistentVolume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PersistentVolume {
    /// Metadata.
    pub metadata: Metadata,
    /// Spec.
    pub spec: VolumeSpec,
}

/// A volume's spec.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeSpec {
    /// Where it can be attached.
    pub node_affinity: Option<VolumeNodeAffinity>,
    /// CSI driver, if any.
    pub csi: Option<CsiSource>,
    /// An EBS volume of the in-tree plugin, which the CSI driver attaches.
    pub aws_elastic_block_store: Option<EbsSource>,
    /// A disk of one host.
    pub local: Option<PathSource>,
    /// A directory of one host.
    pub host_path: Option<PathSource>,
}

impl VolumeSpec {
    /// Whether it is a part of its host, and gone with it.
    pub fn is_of_host(&self) -> bool {
        self.local.is_some() || self.host_path.is_some()
    }
}

/// `spec.nodeAffinity` of a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeNodeAffinity {
    /// Alternatives.
    pub required: Option<NodeSelector>,
}

/// `spec.csi` of a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CsiSource {
    /// Driver name.
    pub driver: String,
}

/// `spec.awsElasticBlockStore` of a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EbsSource {
    /// The volume.
    #[serde(rename = "volumeID")]
    pub volume_id: String,
}

/// `spec.local` or `spec.hostPath` of a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PathSource {
    /// On the host.
    pub path: String,
}

/// A StorageClass.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StorageClass {
    /// Metadata.
    pub metadata: Metadata,
    /// Driver.
    pub provisioner: String,
    /// `Immediate` (default) or `WaitForFirstConsumer`.
    pub volume_binding_mode: Option<String>,
    /// Where volumes of it can be.
    pub allowed_topologies: Vec<TopologyTerm>,
}

/// One alternative of `allowedTopologies`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopologyTerm {
    /// All must hold.
    pub match_label_expressions: Vec<TopologyExpression>,
}

/// A label and its allowed values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopologyExpression {
    /// Key.
    pub key: String,
    /// Values.
    pub values: Vec<String>,
}

/// A CSINode: attach limits by driver.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CsiNode {
    /// Metadata; the name is the node's.
    pub metadata: Metadata,
    /// Spec.
    pub spec: CsiNodeSpec,
}

/// A CSINode's spec.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CsiNodeSpec {
    /// Drivers.
    pub drivers: Vec<CsiNodeDriver>,
}

/// A driver on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CsiNodeDriver {
    /// Driver name.
    pub name: String,
    /// Its limits.
    pub allocatable: Option<CsiAllocatable>,
}

/// `allocatable` of a driver.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CsiAllocatable {
    /// Most volumes attached.
    pub count: Option<i32>,
}

/// A VolumeAttachment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeAttachment {
    /// Metadata.
    pub metadata: Metadata,
    /// Spec.
    pub spec: AttachmentSpec,
}

/// An attachment's spec.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AttachmentSpec {
    /// Node.
    pub node_name: String,
    /// Driver.
    pub attacher: String,
    /// What is attached.
    pub source: AttachmentSource,
}

/// An attachment's source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AttachmentSource {
    /// Volume.
    pub persistent_volume_name: Option<String>,
}
