//! The labels that every node of an instance type bears.

use std::collections::BTreeMap;

use super::{InstanceTypeFacts, NodeSettings};
use crate::labels;

/// Every label save zone, capacity type and host name.
pub(super) fn labels(
    facts: &InstanceTypeFacts,
    settings: &NodeSettings,
    region: &str,
) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut put = |key: &str, value: &str| {
        all.insert(key.to_owned(), value.to_owned());
    };
    put(labels::INSTANCE_TYPE, &facts.name);
    put(labels::ARCH, &facts.arch);
    put(labels::OS, if settings.is_windows() { "windows" } else { "linux" });
    put(labels::REGION, region);
    if let Some(build) = windows_build(&settings.ami_family) {
        put(labels::WINDOWS_BUILD, build);
    }
    let mut put_aws = |name: &str, value: &str| {
        if !value.is_empty() {
            all.insert(format!("{}{name}", labels::AWS_PREFIX), value.to_owned());
        }
    };
    let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
    let (family, size) = facts.name.split_once('.').unwrap_or((&facts.name, ""));
    let (category, generation) = category_and_generation(family);
    put_aws("instance-category", category);
    put_aws("instance-generation", generation);
    put_aws("instance-family", family);
    put_aws("instance-size", size);
    put_aws("instance-capability-flex", truth(family.ends_with("-flex")));
    put_aws("instance-cpu", &facts.vcpus.to_string());
    put_aws("instance-cpu-manufacturer", &facts.cpu_manufacturer);
    put_aws("instance-cpu-sustained-clock-speed-mhz", &number(facts.clock_mhz.map(u64::from)));
    put_aws("instance-memory", &facts.memory_mib.to_string());
    put_aws("instance-ebs-bandwidth", &number(facts.ebs_mbps.map(u64::from)));
    put_aws("instance-network-bandwidth", &number(facts.network_mbps.map(u64::from)));
    put_aws("instance-local-nvme", &number(facts.nvme_gb));
    put_aws("instance-hypervisor", &facts.hypervisor);
    put_aws("instance-encryption-in-transit-supported", truth(facts.encryption_in_transit));
    put_aws("nitro-sandbox", truth(facts.nitro_enclaves));
    put_aws("instance-tenancy", "default");
    if let Some(gpu) = &facts.gpu {
        put_aws("instance-gpu-name", &gpu.name);
        put_aws("instance-gpu-manufacturer", &gpu.manufacturer);
        put_aws("instance-gpu-count", &gpu.count.to_string());
        put_aws("instance-gpu-memory", &gpu.memory_mib.to_string());
    }
    if let Some(accelerator) = &facts.accelerator {
        put_aws("instance-accelerator-name", &accelerator.name);
        put_aws("instance-accelerator-manufacturer", &accelerator.manufacturer);
        put_aws("instance-accelerator-count", &accelerator.count.to_string());
    }
    all
}

fn truth(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

/// `m5ad` is category `m`, generation `5`; `u-6tb1` is `u`, `1`.
fn category_and_generation(family: &str) -> (&str, &str) {
    let is_digit = |character: char| character.is_ascii_digit();
    let letters = family.find(|character: char| !character.is_ascii_lowercase());
    let (category, rest) = family.split_at(letters.unwrap_or(family.len()));
    // The memory size of high-memory families comes before the generation.
    let rest = match rest.strip_prefix('-').and_then(|rest| rest.split_once("tb")) {
        Some((size, after)) if size.chars().all(is_digit) => after,
        _ => rest,
    };
    let end = rest.find(|character: char| !is_digit(character)).unwrap_or(rest.len());
    (category, rest.get(..end).unwrap_or_default())
}

fn windows_build(ami_family: &str) -> Option<&'static str> {
    match ami_family {
        "windows2019" => Some("10.0.17763"),
        "windows2022" => Some("10.0.20348"),
        "windows2025" => Some("10.0.26100"),
        _ => None,
    }
}
