//! `DescribeInstanceTypes` as facts.

use aws_sdk_ec2::types::{
    ArchitectureType, EphemeralNvmeSupport, GpuInfo, InstanceTypeInfo, NetworkInfo,
    NitroEnclavesSupport, UsageClassType,
};
use drover_common::ec2::Ec2Failure;
use drover_common::instance_type::{AcceleratorFacts, GpuFacts, InstanceTypeFacts};

use crate::Ec2;
use crate::failure::failure;

impl Ec2 {
    pub(crate) async fn describe_instance_types(
        &self,
    ) -> Result<Vec<InstanceTypeFacts>, Ec2Failure> {
        let call = self.reads.describe_instance_types().max_results(100);
        let mut pages = call.into_paginator().items().send();
        let mut found = Vec::new();
        while let Some(info) = pages.next().await {
            found.extend(facts(&info.map_err(failure)?));
        }
        found.sort_unstable_by(|left: &InstanceTypeFacts, right| left.name.cmp(&right.name));
        Ok(found)
    }
}

/// What EC2 says of one type; `None` for types that no Kubernetes node can be (32 bit, macOS).
fn facts(info: &InstanceTypeInfo) -> Option<InstanceTypeFacts> {
    let name = info.instance_type()?.as_str().to_owned();
    let processor = info.processor_info()?;
    let arch = processor.supported_architectures().iter().find_map(|arch| match arch {
        ArchitectureType::X8664 => Some("amd64"),
        ArchitectureType::Arm64 => Some("arm64"),
        _ => None,
    })?;
    let network = info.network_info();
    let ebs = info.ebs_info().and_then(|ebs| ebs.ebs_optimized_info());
    let clock = processor.sustained_clock_speed_in_ghz();
    Some(InstanceTypeFacts {
        arch: arch.to_owned(),
        vcpus: number(info.v_cpu_info()?.default_v_cpus()),
        memory_mib: u64::try_from(info.memory_info()?.size_in_mib()?).ok()?,
        network_interfaces: network.map(default_card_interfaces).unwrap_or_default(),
        ipv4_per_interface: number(network.and_then(|one| one.ipv4_addresses_per_interface())),
        hypervisor: info.hypervisor().map(|one| one.as_str().to_owned()).unwrap_or_default(),
        cpu_manufacturer: processor.manufacturer().map(dashed).unwrap_or_default(),
        clock_mhz: clock.and_then(thousandfold),
        ebs_mbps: ebs
            .and_then(|ebs| ebs.baseline_bandwidth_in_mbps())
            .and_then(|mbps| u32::try_from(mbps).ok()),
        network_mbps: network.and_then(baseline_mbps),
        nvme_gb: nvme(info),
        encryption_in_transit: network
            .and_then(|one| one.encryption_in_transit_supported())
            .unwrap_or_default(),
        nitro_enclaves: info.nitro_enclaves_support() == Some(&NitroEnclavesSupport::Supported),
        bare_metal: info.bare_metal().unwrap_or_default(),
        spot: info.supported_usage_classes().contains(&UsageClassType::Spot),
        gpu: info.gpu_info().and_then(gpu),
        accelerator: accelerator(info),
        efa_interfaces: number(
            network.and_then(|one| one.efa_info()).and_then(|efa| efa.maximum_efa_interfaces()),
        ),
        name,
    })
}

/// Interfaces of the default network card, which is the one that pods' addresses hang on.
fn default_card_interfaces(network: &NetworkInfo) -> u32 {
    let default = network.default_network_card_index().unwrap_or_default();
    let card = network
        .network_cards()
        .iter()
        .find(|card| card.network_card_index() == Some(default))
        .and_then(|card| card.maximum_network_interfaces());
    number(card.or(network.maximum_network_interfaces()))
}

/// Baseline bandwidth of all cards.
fn baseline_mbps(network: &NetworkInfo) -> Option<u32> {
    let cards = network.network_cards().iter();
    let gbps: f64 = cards.filter_map(|card| card.baseline_bandwidth_in_gbps()).sum();
    thousandfold(gbps).filter(|mbps| *mbps > 0)
}

fn nvme(info: &InstanceTypeInfo) -> Option<u64> {
    let storage = info.instance_storage_info()?;
    match storage.nvme_support() {
        Some(EphemeralNvmeSupport::Required | EphemeralNvmeSupport::Supported) => {
            u64::try_from(storage.total_size_in_gb()?).ok()
        }
        _ => None,
    }
}

fn gpu(info: &GpuInfo) -> Option<GpuFacts> {
    let first = info.gpus().first()?;
    let memory = first.memory_info().and_then(|memory| memory.size_in_mib());
    Some(GpuFacts {
        name: dashed(first.name()?),
        manufacturer: first.manufacturer().map(dashed).unwrap_or_default(),
        count: info.gpus().iter().map(|gpu| number(gpu.count())).sum(),
        memory_mib: u64::from(number(memory)),
    })
}

/// Neuron devices, or what older types list as inference accelerators.
fn accelerator(info: &InstanceTypeInfo) -> Option<AcceleratorFacts> {
    let neuron = info.neuron_info().and_then(|neuron| {
        let first = neuron.neuron_devices().first()?;
        Some(AcceleratorFacts {
            name: dashed(first.name()?),
            manufacturer: "aws".to_owned(),
            count: neuron.neuron_devices().iter().map(|device| number(device.count())).sum(),
            cores: neuron
                .neuron_devices()
                .iter()
                .map(|device| {
                    let cores = device.core_info().and_then(|cores| cores.count());
                    number(device.count()).saturating_mul(number(cores))
                })
                .sum(),
        })
    });
    neuron.or_else(|| {
        let devices = info.inference_accelerator_info()?.accelerators();
        let first = devices.first()?;
        Some(AcceleratorFacts {
            name: dashed(first.name()?),
            manufacturer: first.manufacturer().map(dashed).unwrap_or_default(),
            count: devices.iter().map(|device| number(device.count())).sum(),
            cores: 0,
        })
    })
}

fn number(value: Option<i32>) -> u32 {
    value.and_then(|value| u32::try_from(value).ok()).unwrap_or_default()
}

/// GHz in MHz, Gbps in Mbps.
fn thousandfold(value: f64) -> Option<u32> {
    let scaled = (value * 1000.0).round();
    // A float cast saturates, and the range has been looked at.
    (scaled.is_finite() && (0.0..=4e9).contains(&scaled)).then_some(scaled as u32)
}

/// Lower case with dashes, as Karpenter's labels spell EC2's names.
fn dashed(text: &str) -> String {
    text.to_lowercase().replace(' ', "-")
}
