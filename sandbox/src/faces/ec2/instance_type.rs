//! `DescribeInstanceTypes`.

use drover_common::ec2::{Ec2Answer, Ec2Call, Ec2Failure};
use drover_common::instance_type::InstanceTypeFacts;
use jiff::Timestamp;

use super::page::page;
use super::parameters::{Parameters, unknown_filter};
use super::xml::Xml;
use crate::world::cloud::{Cloud, refuse};

pub(super) fn describe(
    cloud: &mut Cloud,
    parameters: &Parameters,
    now: Timestamp,
) -> Result<Xml, Ec2Failure> {
    let Ec2Answer::InstanceTypes(mut types) = cloud.apply(&Ec2Call::DescribeInstanceTypes, now)?
    else {
        return Ok(Xml::default());
    };
    let named = parameters.texts("InstanceType");
    if let Some(missing) = named.iter().find(|name| !types.iter().any(|one| one.name == **name)) {
        let message = format!("The following supplied instance types do not exist: [{missing}]");
        return Err(refuse("InvalidInstanceType", message));
    }
    if !named.is_empty() {
        types.retain(|one| named.contains(&one.name));
    }
    for (name, values) in parameters.filters() {
        let among = |have: &str| values.iter().any(|value| value == have);
        match name.as_str() {
            "instance-type" => types.retain(|one| among(&one.name)),
            "supported-virtualization-type" => types.retain(|_| among("hvm")),
            "processor-info.supported-architecture" => {
                types.retain(|one| among(architecture(one)));
            }
            other => return Err(unknown_filter(other)),
        }
    }
    let page = page(types, parameters, 100)?;
    Ok(Xml::of(|xml| {
        xml.list("instanceTypeSet", page.items, |xml, one| encode(xml, &one));
        xml.optional("nextToken", page.next);
    }))
}

fn architecture(facts: &InstanceTypeFacts) -> &'static str {
    if facts.arch == "arm64" { "arm64" } else { "x86_64" }
}

fn encode(xml: &mut Xml, facts: &InstanceTypeFacts) {
    xml.text("instanceType", &facts.name);
    xml.text("currentGeneration", true);
    let classes: &[&str] = if facts.spot { &["on-demand", "spot"] } else { &["on-demand"] };
    xml.texts("supportedUsageClasses", classes);
    xml.texts("supportedVirtualizationTypes", ["hvm"]);
    xml.text("bareMetal", facts.bare_metal);
    if !facts.hypervisor.is_empty() {
        xml.text("hypervisor", &facts.hypervisor);
    }
    xml.wrap("processorInfo", |xml| {
        xml.texts("supportedArchitectures", [architecture(facts)]);
        xml.optional("sustainedClockSpeedInGhz", facts.clock_mhz.map(thousandth));
        xml.text("manufacturer", manufacturer(&facts.cpu_manufacturer));
    });
    xml.wrap("vCpuInfo", |xml| xml.text("defaultVCpus", facts.vcpus));
    xml.wrap("memoryInfo", |xml| xml.text("sizeInMiB", facts.memory_mib));
    xml.text("instanceStorageSupported", facts.nvme_gb.is_some());
    if let Some(nvme) = facts.nvme_gb {
        xml.wrap("instanceStorageInfo", |xml| {
            xml.text("totalSizeInGB", nvme);
            xml.text("nvmeSupport", "required");
        });
    }
    if let Some(mbps) = facts.ebs_mbps {
        xml.wrap("ebsInfo", |xml| {
            xml.text("ebsOptimizedSupport", "default");
            xml.wrap("ebsOptimizedInfo", |xml| xml.text("baselineBandwidthInMbps", mbps));
        });
    }
    encode_network(xml, facts);
    encode_accelerators(xml, facts);
    let enclaves = if facts.nitro_enclaves { "supported" } else { "unsupported" };
    xml.text("nitroEnclavesSupport", enclaves);
}

fn encode_network(xml: &mut Xml, facts: &InstanceTypeFacts) {
    xml.wrap("networkInfo", |xml| {
        xml.text("maximumNetworkInterfaces", facts.network_interfaces);
        xml.text("maximumNetworkCards", 1);
        xml.text("defaultNetworkCardIndex", 0);
        xml.list("networkCards", [()], |xml, ()| {
            xml.text("networkCardIndex", 0);
            xml.text("maximumNetworkInterfaces", facts.network_interfaces);
            xml.optional("baselineBandwidthInGbps", facts.network_mbps.map(thousandth));
        });
        xml.text("ipv4AddressesPerInterface", facts.ipv4_per_interface);
        xml.text("encryptionInTransitSupported", facts.encryption_in_transit);
        xml.text("efaSupported", facts.efa_interfaces > 0);
        if facts.efa_interfaces > 0 {
            xml.wrap("efaInfo", |xml| xml.text("maximumEfaInterfaces", facts.efa_interfaces));
        }
    });
}

fn encode_accelerators(xml: &mut Xml, facts: &InstanceTypeFacts) {
    if let Some(gpu) = &facts.gpu {
        xml.wrap("gpuInfo", |xml| {
            xml.list("gpus", [gpu], |xml, gpu| {
                xml.text("name", gpu.name.to_uppercase());
                xml.text("manufacturer", manufacturer(&gpu.manufacturer));
                xml.text("count", gpu.count);
                xml.wrap("memoryInfo", |xml| xml.text("sizeInMiB", gpu.memory_mib));
            });
        });
    }
    let Some(accelerator) = &facts.accelerator else { return };
    let name = capitalized(&accelerator.name);
    if accelerator.cores > 0 {
        let devices = accelerator.count.max(1);
        xml.wrap("neuronInfo", |xml| {
            xml.list("neuronDevices", [()], |xml, ()| {
                xml.text("count", accelerator.count);
                xml.text("name", &name);
                xml.wrap("coreInfo", |xml| xml.text("count", accelerator.cores / devices));
            });
        });
    } else {
        xml.wrap("inferenceAcceleratorInfo", |xml| {
            xml.list("accelerators", [()], |xml, ()| {
                xml.text("count", accelerator.count);
                xml.text("name", &name);
                xml.text("manufacturer", manufacturer(&accelerator.manufacturer));
            });
        });
    }
}

/// Makers as EC2 spells them.
fn manufacturer(word: &str) -> String {
    match word {
        "aws" | "amd" | "nvidia" => word.to_uppercase(),
        other => capitalized(other),
    }
}

fn capitalized(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// MHz in GHz, Mbps in Gbps.
fn thousandth(value: u32) -> String {
    format!("{}.{:03}", value / 1000, value % 1000)
}
