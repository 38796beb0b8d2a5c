//! What can be bought.

use std::collections::BTreeMap;

use drover_common::catalog::{REFERENCE_REGION, reference};
use drover_common::instance_type::{CapacityType, InstanceType, NodeSettings, Offering};
use drover_common::labels;
use drover_common::resources::{ResourceName, Resources};

const GIB: i64 = 1 << 30;
const MIB: i64 = 1 << 20;

/// The repository's own catalogue.
pub(super) fn reference_types() -> Vec<InstanceType> {
    let settings = NodeSettings::default();
    let of = |entry: drover_common::catalog::CatalogEntry| {
        InstanceType::from_facts(&entry.facts, &settings, REFERENCE_REGION, entry.offerings)
    };
    reference().into_iter().map(of).collect()
}

/// The 400 types of Karpenter's benchmark: `i` cores, `2i` GiB, `10i` pods, $0.1 a core and $0.1 a
/// GB, spot in two zones and on demand in three, all at one price.
pub(super) fn made_up_types() -> Vec<InstanceType> {
    (1..=400).map(made_up_type).collect()
}

fn made_up_type(number: i64) -> InstanceType {
    let amounts = |cpu: i64, memory: i64, pods: i64| {
        let amounts =
            [(ResourceName::Cpu, cpu), (ResourceName::Memory, memory), (ResourceName::Pods, pods)];
        amounts.into_iter().collect::<Resources>()
    };
    let name = format!("fake-it-{number:03}");
    let price = u64::try_from(number).unwrap_or(0) * 100_000 * 3;
    let offering = |zone: &str, capacity_type| Offering {
        zone: format!("test-zone-{zone}"),
        zone_id: None,
        capacity_type,
        price: Some(price),
        available: true,
        reservation: None,
    };
    InstanceType {
        labels: BTreeMap::from([
            (labels::INSTANCE_TYPE.to_owned(), name.clone()),
            (labels::ARCH.to_owned(), "amd64".to_owned()),
            (labels::OS.to_owned(), "linux".to_owned()),
        ]),
        name,
        capacity: amounts(number * 1000, number * 2 * GIB, number * 10),
        allocatable: amounts(number * 1000 - 100, number * 2 * GIB - 10 * MIB, number * 10),
        offerings: vec![
            offering("1", CapacityType::Spot),
            offering("1", CapacityType::OnDemand),
            offering("2", CapacityType::Spot),
            offering("2", CapacityType::OnDemand),
            offering("3", CapacityType::OnDemand),
        ],
    }
}
