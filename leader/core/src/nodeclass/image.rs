//! Images: which SSM parameters an alias stands for, and which nodes an image is for.

use std::collections::BTreeMap;

use drover_common::crd::AmiFamily;
use drover_common::ec2::Image;
use drover_common::labels;
use drover_common::requirement::{Operator, Requirement, Requirements};

const GPU_COUNT: &str = "karpenter.k8s.aws/instance-gpu-count";
const GPU_MANUFACTURER: &str = "karpenter.k8s.aws/instance-gpu-manufacturer";
const ACCELERATOR_COUNT: &str = "karpenter.k8s.aws/instance-accelerator-count";

/// An image and the instance types it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedImage {
    /// The image.
    pub image: Image,
    /// What the labels of a type must be.
    pub requirements: Vec<Requirement>,
}

impl ResolvedImage {
    /// Whether nodes of a type with these labels can run it.
    pub fn is_for(&self, type_labels: &BTreeMap<String, String>) -> bool {
        Requirements::from_requirements(&self.requirements)
            .is_ok_and(|requirements| requirements.matches_labels(type_labels))
    }
}

/// One SSM parameter that holds an image id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parameter {
    /// Its name.
    pub(super) name: String,
    /// Which types its image is for; the architecture is added when the image is known.
    pub(super) devices: Devices,
}

/// The devices an image has drivers for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Devices {
    /// None.
    Plain,
    /// NVIDIA GPUs.
    Nvidia,
    /// Neuron accelerators.
    Neuron,
    /// Whatever: nothing is known of the image.
    Any,
}

/// What an image of this architecture with drivers for these devices requires of a type.
pub(super) fn requirements(architecture: &str, devices: Devices) -> Vec<Requirement> {
    let values = |key: &str, operator, values: &[&str]| Requirement {
        key: key.to_owned(),
        operator,
        values: values.iter().map(|value| (*value).to_owned()).collect(),
        min_values: None,
    };
    let mut list = vec![values(labels::ARCH, Operator::In, &[architecture])];
    match devices {
        Devices::Plain => {
            list.push(values(GPU_COUNT, Operator::DoesNotExist, &[]));
            list.push(values(ACCELERATOR_COUNT, Operator::DoesNotExist, &[]));
        }
        Devices::Nvidia => list.push(values(GPU_MANUFACTURER, Operator::In, &["nvidia"])),
        Devices::Neuron => list.push(values(ACCELERATOR_COUNT, Operator::Exists, &[])),
        Devices::Any => {}
    }
    list
}

/// The parameters that AWS publishes for `family@version` at a Kubernetes version (`1.34`).
pub(super) fn alias_parameters(
    family: AmiFamily,
    version: &str,
    kubernetes: &str,
) -> Vec<Parameter> {
    let eks = format!("/aws/service/eks/optimized-ami/{kubernetes}");
    let latest = version == "latest";
    let parameter = |name: String, devices| Parameter { name, devices };
    match family {
        AmiFamily::Al2023 => [
            ("x86_64", "standard", Devices::Plain),
            ("arm64", "standard", Devices::Plain),
            ("x86_64", "nvidia", Devices::Nvidia),
            ("arm64", "nvidia", Devices::Nvidia),
            ("x86_64", "neuron", Devices::Neuron),
        ]
        .into_iter()
        .map(|(machine, variant, devices)| {
            let release = if latest {
                "recommended".to_owned()
            } else {
                format!("amazon-eks-node-al2023-{machine}-{variant}-{kubernetes}-{version}")
            };
            let folder = format!("{eks}/amazon-linux-2023/{machine}/{variant}");
            parameter(format!("{folder}/{release}/image_id"), devices)
        })
        .collect(),
        AmiFamily::Al2 => [
            ("amazon-linux-2", "node", Devices::Plain),
            ("amazon-linux-2-arm64", "arm64-node", Devices::Plain),
            ("amazon-linux-2-gpu", "gpu-node", Devices::Nvidia),
            ("amazon-linux-2-gpu", "gpu-node", Devices::Neuron),
        ]
        .into_iter()
        .map(|(folder, flavour, devices)| {
            let release = if latest {
                "recommended".to_owned()
            } else {
                format!("amazon-eks-{flavour}-{kubernetes}-{version}")
            };
            parameter(format!("{eks}/{folder}/{release}/image_id"), devices)
        })
        .collect(),
        AmiFamily::Bottlerocket => [
            ("", "x86_64", Devices::Plain),
            ("", "arm64", Devices::Plain),
            ("-nvidia", "x86_64", Devices::Nvidia),
            ("-nvidia", "arm64", Devices::Nvidia),
            ("", "x86_64", Devices::Neuron),
        ]
        .into_iter()
        .map(|(suffix, machine, devices)| {
            let release = version.strip_prefix('v').unwrap_or(version);
            let folder =
                format!("/aws/service/bottlerocket/aws-k8s-{kubernetes}{suffix}/{machine}");
            parameter(format!("{folder}/{release}/image_id"), devices)
        })
        .collect(),
        AmiFamily::Windows2019 | AmiFamily::Windows2022 | AmiFamily::Windows2025 => {
            let edition = family.lower_case().trim_start_matches("windows");
            let stem = format!("Windows_Server-{edition}-English-Core-EKS_Optimized-{kubernetes}");
            let name = format!("/aws/service/ami-windows-latest/{stem}/image_id");
            vec![parameter(name, Devices::Any)]
        }
        AmiFamily::Custom => Vec::new(),
    }
}

/// Newest first; deprecated images come after all others.
pub(super) fn sort(images: &mut [ResolvedImage]) {
    images.sort_by(|left, right| {
        let (left, right) = (&left.image, &right.image);
        left.deprecated
            .cmp(&right.deprecated)
            .then(right.creation_date.cmp(&left.creation_date))
            .then(left.name.cmp(&right.name))
            .then(left.id.cmp(&right.id))
    });
}
