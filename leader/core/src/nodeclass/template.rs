//! The launch template of a node.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use drover_common::crd::{AmiFamily, BlockDeviceMapping, Ec2NodeClass};
use drover_common::ec2::{
    BlockDevice, LaunchTemplateRequest, MetadataOptions, ReservationUse, Tags,
};
use drover_common::labels;
use drover_common::taint::{Taint, TaintEffect};
use sha2::{Digest, Sha256};

use super::catalog::size_gib;
use super::resolve::ResolvedClass;
use super::user_data::{UserDataError, user_data};

/// Karpenter's prefix of launch templates' names.
pub const TEMPLATE_PREFIX: &str = "karpenter.k8s.aws/";
/// Bytes of the content's hash that go into a template's name.
const NAME_BYTES: usize = 12;

/// What a node must know of its cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterSettings {
    /// The cluster's name.
    pub name: String,
    /// The API server's URL.
    pub endpoint: String,
    /// The API server's CA bundle, PEM in base64; empty if the image knows it.
    pub ca_bundle: String,
    /// Kubernetes version of the images, `major.minor`.
    pub kubernetes_version: String,
    /// The services' address range, where it is known; nodeadm derives the DNS address from it.
    pub service_cidr: Option<String>,
}

/// What a node registers with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeRegistration {
    /// Labels that the kubelet may set itself; others are synced by the leader.
    pub labels: BTreeMap<String, String>,
    /// Taints and startup taints. The unregistered taint is added.
    pub taints: Vec<Taint>,
}

impl NodeRegistration {
    /// The taints, the unregistered one among them: pods that tolerate everything but that one must
    /// not start before labels and taints are synced.
    pub(super) fn all_taints(&self) -> Vec<Taint> {
        let unregistered = Taint {
            key: labels::UNREGISTERED_TAINT.to_owned(),
            value: String::new(),
            effect: TaintEffect::NoExecute,
        };
        let mut taints = self.taints.clone();
        if !taints.contains(&unregistered) {
            taints.push(unregistered);
        }
        taints
    }

    /// Labels that kubelets may set on their own Node: NodeRestriction refuses `kubernetes.io` and
    /// `k8s.io` ones save those it lists, and a kubelet does not start with a label it may not set.
    pub(super) fn kubelet_labels(&self) -> BTreeMap<&str, &str> {
        self.labels
            .iter()
            .filter(|(key, _)| kubelet_may_set(key))
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect()
    }
}

/// Labels of Kubernetes' own domains that a kubelet may set.
const KUBELET_LABELS: [&str; 10] = [
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

fn kubelet_may_set(key: &str) -> bool {
    let Some((domain, _)) = key.split_once('/') else { return true };
    let within = |parent: &str| {
        domain.strip_suffix(parent).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    if !within("kubernetes.io") && !within("k8s.io") {
        return true;
    }
    within("kubelet.kubernetes.io") || within("node.kubernetes.io") || KUBELET_LABELS.contains(&key)
}

/// Tags of everything made for a class: the user's, and those by which it is found again.
pub fn resource_tags(
    class: &Ec2NodeClass,
    cluster: &ClusterSettings,
    nodepool: Option<&str>,
) -> Tags {
    let mut tags = class.spec.tags.clone();
    tags.insert(format!("kubernetes.io/cluster/{}", cluster.name), "owned".to_owned());
    tags.insert(labels::CLUSTER_NAME_TAG.to_owned(), cluster.name.clone());
    if let Some(name) = &class.metadata.name {
        tags.insert(labels::NODECLASS.to_owned(), name.clone());
    }
    if let Some(nodepool) = nodepool {
        tags.insert(labels::NODEPOOL.to_owned(), nodepool.to_owned());
    }
    tags
}

/// The launch template for nodes of a class that run `image` and register so. Equal contents have
/// equal names, so that one template serves all launches that need it.
///
/// # Errors
/// The class's user data can't be merged with what its image family needs.
pub fn launch_template(
    class: &Ec2NodeClass,
    resolved: &ResolvedClass,
    image: &str,
    node: &NodeRegistration,
    cluster: &ClusterSettings,
    tags: &Tags,
    reservation: Option<ReservationUse>,
) -> Result<LaunchTemplateRequest, UserDataError> {
    let spec = &class.spec;
    let family = spec.family().unwrap_or(AmiFamily::Custom);
    let options = &spec.metadata_options;
    let mut request = LaunchTemplateRequest {
        name: String::new(),
        image: image.to_owned(),
        security_groups: resolved.security_groups.iter().map(|(id, _)| id.clone()).collect(),
        instance_profile: resolved.instance_profile.clone(),
        user_data: user_data(spec, family, node, cluster)?,
        block_devices: block_devices(&spec.block_device_mappings, family),
        metadata_options: MetadataOptions {
            http_endpoint: options.http_endpoint.as_str().to_owned(),
            http_protocol_ipv6: options.http_protocol_ipv6.as_str().to_owned(),
            http_put_response_hop_limit: u32::try_from(options.http_put_response_hop_limit)
                .unwrap_or(1),
            http_tokens: options.http_tokens.as_str().to_owned(),
        },
        detailed_monitoring: spec.detailed_monitoring.unwrap_or(false),
        associate_public_ip: spec.associate_public_ip_address,
        reservation,
        tags: tags.clone(),
    };
    request.name = name(&request);
    Ok(request)
}

/// A name from the content: the first bytes of its SHA-256.
fn name(request: &LaunchTemplateRequest) -> String {
    let content = serde_json::to_vec(request).expect("a request has text keys alone");
    let hash = Sha256::digest(&content);
    let mut name = TEMPLATE_PREFIX.to_owned();
    for byte in hash.iter().take(NAME_BYTES) {
        // Writing to a String can't fail.
        let _ = write!(name, "{byte:02x}");
    }
    name
}

/// The class's disks, or those its image family has by default.
fn block_devices(mappings: &[BlockDeviceMapping], family: AmiFamily) -> Vec<BlockDevice> {
    if !mappings.is_empty() {
        return mappings.iter().map(block_device).collect();
    }
    let default = |device: &str, size| BlockDevice {
        device_name: device.to_owned(),
        size_gib: Some(size),
        volume_type: Some("gp3".to_owned()),
        encrypted: Some(true),
        delete_on_termination: Some(true),
        ..BlockDevice::default()
    };
    match family {
        AmiFamily::Al2 | AmiFamily::Al2023 => vec![default("/dev/xvda", 20)],
        AmiFamily::Bottlerocket => vec![default("/dev/xvda", 4), default("/dev/xvdb", 20)],
        AmiFamily::Windows2019 | AmiFamily::Windows2022 | AmiFamily::Windows2025 => {
            vec![default("/dev/sda1", 50)]
        }
        // The image's own disks.
        AmiFamily::Custom => Vec::new(),
    }
}

fn block_device(mapping: &BlockDeviceMapping) -> BlockDevice {
    let ebs = mapping.ebs.clone().unwrap_or_default();
    let number = |value: Option<i64>| value.and_then(|value| u32::try_from(value).ok());
    BlockDevice {
        device_name: mapping.device_name.clone().unwrap_or_default(),
        size_gib: ebs.volume_size.as_ref().and_then(size_gib),
        volume_type: ebs.volume_type.map(|kind| kind.as_str().to_owned()),
        iops: number(ebs.iops),
        throughput: number(ebs.throughput),
        encrypted: ebs.encrypted,
        kms_key_id: ebs.kms_key_id,
        snapshot_id: ebs.snapshot_id,
        delete_on_termination: ebs.delete_on_termination,
        volume_initialization_rate: number(ebs.volume_initialization_rate.map(i64::from)),
    }
}
