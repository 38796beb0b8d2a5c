//! Spot launches list enough types: EC2 takes back all nodes of one type and zone at once.
//!
//! As with sizes, only where no further rule may have kept a type away.

use drover_common::cluster::Pod;
use drover_common::instance_type::{CapacityType, InstanceType, Offering};

use super::listing::{catalog_of, is_exotic, is_small, takes, types_of};
use super::{Violation, pod_of, violation, volume};
use crate::planner::{Launch, PlanInput};

/// Finds a type that a plain launch with too few of them should list.
pub(super) fn check(
    input: &PlanInput<'_>,
    number: usize,
    launch: &Launch,
    violations: &mut Vec<Violation>,
) {
    let wanted = input.settings.min_spot_types.min(input.settings.max_instance_types);
    let listed = types_of(launch);
    let overlays = !input.view.overlays().is_empty();
    if launch.capacity_type != CapacityType::Spot || overlays || listed.len() >= wanted {
        return;
    }
    let catalog = catalog_of(input, launch);
    let is_listed = |kind: &&InstanceType| listed.iter().any(|(name, _)| *name == kind.name);
    let listed_kinds: Vec<&InstanceType> = catalog.iter().filter(is_listed).collect();
    // A type of a sort that is not listed is not missed: it may be left for pods that need it.
    let like_a_listed_one = |kind: &InstanceType| {
        listed_kinds.iter().any(|other| {
            is_exotic(other) == is_exotic(kind)
                && (is_small(input, kind) || !is_small(input, other))
        })
    };
    let pods: Vec<&Pod> = launch.pods.iter().filter_map(|key| pod_of(input, key)).collect();
    let fits = |kind: &InstanceType| {
        takes(input, number, launch, kind, &launch.pods)
            && !volume::may_be_too_many(input, &kind.name, &pods)
    };
    let mut missing: Vec<(u64, &InstanceType)> = catalog
        .iter()
        .filter(|kind| !is_listed(kind) && like_a_listed_one(kind))
        .filter_map(|kind| Some((spot_price(launch, kind)?, kind)))
        .collect();
    missing.sort_unstable_by_key(|(price, _)| *price);
    let Some((price, kind)) = missing.into_iter().find(|(_, kind)| fits(kind)) else { return };
    // Spot that costs more than a node on demand would is not wanted, wherever there may be one.
    let no_bargain = |kind: &InstanceType| {
        let mut cheaper = prices(kind, CapacityType::OnDemand).filter(|(_, own)| *own < price);
        cheaper.any(|(offering, _)| {
            let zones = vec![offering.zone.clone()];
            let capacity_type = CapacityType::OnDemand;
            let launch = Launch { capacity_type, zones, ..launch.clone() };
            takes(input, number, &launch, kind, &launch.pods)
        })
    };
    if !catalog.iter().any(no_bargain) {
        let rule =
            format!("lists {} spot types and not {}, which would do, too", listed.len(), kind.name);
        violations.push(violation(format!("launch {number}"), rule));
    }
}

/// The lowest price of a type in the launch's zones, if it is sold in each of them.
fn spot_price(launch: &Launch, kind: &InstanceType) -> Option<u64> {
    let in_zone = |zone: &String| {
        let sold = prices(kind, CapacityType::Spot).filter(|(offering, _)| offering.zone == *zone);
        sold.map(|(_, price)| price).min()
    };
    let prices: Option<Vec<u64>> = launch.zones.iter().map(in_zone).collect();
    prices?.into_iter().min()
}

fn prices(
    kind: &InstanceType,
    capacity_type: CapacityType,
) -> impl Iterator<Item = (&Offering, u64)> {
    let sold =
        move |offering: &&Offering| offering.available && offering.capacity_type == capacity_type;
    kind.offerings.iter().filter(sold).filter_map(|offering| Some((offering, offering.price?)))
}
