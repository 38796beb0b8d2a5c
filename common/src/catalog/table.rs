//! The committed table: one line a type, facts and prices.

use crate::instance_type::{AcceleratorFacts, CapacityType, GpuFacts, InstanceTypeFacts, Offering};

/// The region whose types [`reference()`] lists.
pub const REFERENCE_REGION: &str = "us-east-1";

const TABLE: &str = include_str!("../../data/ec2-us-east-1.csv");

/// One type of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct CatalogEntry {
    /// What `DescribeInstanceTypes` tells.
    pub facts: InstanceTypeFacts,
    /// Every way to buy it, all available: by zone, spot first.
    pub offerings: Vec<Offering>,
}

/// Every EC2 instance type offered in [`REFERENCE_REGION`], in order of names, with the zones and
/// prices it was offered at when the table was made.
pub fn reference() -> Vec<CatalogEntry> {
    // That no line is skipped is a test: the table is part of this crate.
    TABLE.lines().filter(|line| !line.starts_with('#')).filter_map(entry).collect()
}

fn entry(line: &str) -> Option<CatalogEntry> {
    let columns: Vec<&str> = line.split(',').collect();
    let [
        name,
        arch,
        vcpus,
        memory,
        interfaces,
        addresses,
        hypervisor,
        maker,
        clock,
        ebs,
        network,
        nvme,
        flags,
        gpu,
        accelerator,
        efa,
        price,
        zones,
    ] = columns.as_slice()
    else {
        return None;
    };
    let on_demand: u64 = price.parse().ok()?;
    let offerings: Vec<Offering> = zones
        .split(' ')
        .map(|zone| zone_offerings(zone, on_demand))
        .collect::<Option<Vec<_>>>()?
        .concat();
    let facts = InstanceTypeFacts {
        name: (*name).to_owned(),
        arch: (*arch).to_owned(),
        vcpus: vcpus.parse().ok()?,
        memory_mib: memory.parse().ok()?,
        network_interfaces: interfaces.parse().ok()?,
        ipv4_per_interface: addresses.parse().ok()?,
        hypervisor: (*hypervisor).to_owned(),
        cpu_manufacturer: (*maker).to_owned(),
        clock_mhz: clock.parse().ok(),
        ebs_mbps: ebs.parse().ok(),
        network_mbps: network.parse().ok(),
        nvme_gb: nvme.parse().ok(),
        encryption_in_transit: flags.contains('e'),
        nitro_enclaves: flags.contains('n'),
        bare_metal: flags.contains('m'),
        spot: offerings.iter().any(|offering| offering.capacity_type == CapacityType::Spot),
        gpu: gpu_facts(gpu),
        accelerator: accelerator_facts(accelerator),
        efa_interfaces: efa.parse().unwrap_or(0),
    };
    Some(CatalogEntry { facts, offerings })
}

/// `a100368`: zone letter and spot price; without a price there is no spot.
fn zone_offerings(text: &str, on_demand: u64) -> Option<Vec<Offering>> {
    let letter = text.get(..1)?;
    let zone = format!("{REFERENCE_REGION}{letter}");
    let offering = |capacity_type, price| Offering {
        zone: zone.clone(),
        zone_id: None,
        capacity_type,
        price: Some(price),
        available: true,
        reservation: None,
    };
    let spot = text.get(1..).filter(|price| !price.is_empty());
    let mut offerings = Vec::with_capacity(2);
    if let Some(price) = spot {
        offerings.push(offering(CapacityType::Spot, price.parse().ok()?));
    }
    offerings.push(offering(CapacityType::OnDemand, on_demand));
    Some(offerings)
}

fn gpu_facts(text: &str) -> Option<GpuFacts> {
    let mut parts = text.split(':');
    Some(GpuFacts {
        name: parts.next().filter(|name| !name.is_empty())?.to_owned(),
        manufacturer: parts.next()?.to_owned(),
        count: parts.next()?.parse().ok()?,
        memory_mib: parts.next()?.parse().ok()?,
    })
}

fn accelerator_facts(text: &str) -> Option<AcceleratorFacts> {
    let mut parts = text.split(':');
    Some(AcceleratorFacts {
        name: parts.next().filter(|name| !name.is_empty())?.to_owned(),
        manufacturer: parts.next()?.to_owned(),
        count: parts.next()?.parse().ok()?,
        cores: parts.next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_read() {
        let lines = TABLE.lines().filter(|line| !line.starts_with('#')).count();
        let entries = reference();
        assert_eq!(entries.len(), lines);
        assert_eq!(lines, 1340);
        let gpus = entries.iter().filter(|entry| entry.facts.gpu.is_some()).count();
        let accelerators = entries.iter().filter(|entry| entry.facts.accelerator.is_some()).count();
        assert_eq!((gpus, accelerators), (64, 11));
        assert!(entries.is_sorted_by(|left, right| left.facts.name < right.facts.name));
    }

    #[test]
    fn prices_are_micro_dollars_by_zone() {
        let entries = reference();
        let a1 = entries.iter().find(|entry| entry.facts.name == "a1.2xlarge").unwrap();
        let prices: Vec<_> = a1
            .offerings
            .iter()
            .map(|offering| {
                (offering.zone.as_str(), offering.capacity_type.as_str(), offering.price)
            })
            .take(3)
            .collect();
        assert_eq!(
            prices,
            [
                ("us-east-1a", "spot", Some(100_368)),
                ("us-east-1a", "on-demand", Some(204_000)),
                ("us-east-1b", "spot", Some(98_449)),
            ]
        );
        let without_spot = entries.iter().find(|entry| !entry.facts.spot).unwrap();
        assert!(!without_spot.offerings.is_empty());
    }
}
