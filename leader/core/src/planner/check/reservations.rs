//! Capacity reservations: a launch names the one that it uses, and no more nodes use one than it has
//! room for.

use std::collections::BTreeMap;

use drover_common::instance_type::{CapacityType, Offering};
use drover_common::labels;

use super::{Violation, violation};
use crate::planner::{Launch, Plan, PlanInput};

pub(super) fn check(input: &PlanInput<'_>, plan: &Plan, violations: &mut Vec<Violation>) {
    let mut wanted: BTreeMap<&str, u32> = BTreeMap::new();
    for (number, launch) in plan.launches.iter().enumerate() {
        let subject = format!("launch {number}");
        let counted = launch.offerings.iter().any(|offering| {
            let sold = sold(input, launch, &offering.instance_type, &offering.zone);
            sold.is_some_and(|sold| sold.reservation.is_some())
        });
        let Some(target) = &launch.reservation else {
            if counted {
                violations.push(violation(subject, "names no capacity reservation"));
            }
            continue;
        };
        if launch.capacity_type != CapacityType::Reserved || launch.offerings.len() != 1 {
            violations.push(violation(&subject, "is not of one capacity reservation"));
        }
        let pinned = launch.requirements.iter().any(|requirement| {
            requirement.key == labels::RESERVATION_ID && requirement.values == [target.id.clone()]
        });
        if launch.labels.get(labels::RESERVATION_ID) != Some(&target.id) || !pinned {
            violations.push(violation(subject, "does not say its capacity reservation"));
        }
        *wanted.entry(&target.id).or_default() += 1;
    }
    for (id, nodes) in wanted {
        let room = room(input, id);
        if nodes > room {
            let rule = format!("is to hold {nodes} more nodes and has room for {room}");
            violations.push(violation(format!("capacity reservation {id}"), rule));
        }
    }
}

fn sold<'a>(
    input: &PlanInput<'a>,
    launch: &Launch,
    instance_type: &str,
    zone: &str,
) -> Option<&'a Offering> {
    let catalog = input.catalogs.get(&launch.nodeclass)?;
    let kind = catalog.instance_types.iter().find(|kind| kind.name == instance_type)?;
    let mut offerings = kind.offerings.iter();
    offerings.find(|o| o.zone == zone && o.capacity_type == launch.capacity_type)
}

/// What every class that knows the reservation says is left, less what is on its way.
fn room(input: &PlanInput<'_>, id: &str) -> u32 {
    let kinds = input.catalogs.values().flat_map(|catalog| &catalog.instance_types);
    let reservations =
        kinds.flat_map(|kind| &kind.offerings).filter_map(|o| o.reservation.as_ref());
    let free = reservations.filter(|one| one.id == id).map(|one| one.free).min().unwrap_or(0);
    free.saturating_sub(input.reserved.get(id).copied().unwrap_or(0))
}
