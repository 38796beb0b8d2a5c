//! What a NodeClaim that nobody planned may become: one that a user made.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use drover_common::crd::{NodeClaim, parse_resources};
use drover_common::ec2::ReservationTarget;
use drover_common::id::NodePoolName;
use drover_common::instance_type::{CapacityType, InstanceType, Offering};
use drover_common::labels;
use drover_common::requirement::{Operator, Requirement};
use drover_common::resources::Resources;
use jiff::Timestamp;
use smol_str::SmolStr;

use super::market::{
    DeterminedKeys, UNKNOWN_PRICE, is_exotic, is_offer_key, offering_label, single_values,
    type_label, unavailable_until,
};
use super::matching::{current_key, fulfils, requirement_text};
use super::reserved::on_demand_price;
use super::{Launch, LaunchOffering, MinValuesPolicy, PlannerSettings, UnavailableOffering};
use crate::nodeclass::NodeClassCatalog;

/// A type that the claim may become, with the ways to buy it.
struct Choice<'a> {
    kind: &'a InstanceType,
    offers: Vec<&'a Offering>,
}

impl Choice<'_> {
    fn cost(&self) -> u64 {
        self.offers.iter().map(|offer| cost(offer)).min().unwrap_or(UNKNOWN_PRICE)
    }

    /// What decides between equal costs: reserved nodes are free alike.
    fn worth(&self) -> u64 {
        let reserved = self.offers.iter().any(|offer| offer.reservation.is_some());
        if reserved { on_demand_price(self.kind) } else { 0 }
    }
}

fn cost(offer: &Offering) -> u64 {
    offer.price.unwrap_or(UNKNOWN_PRICE)
}

/// A launch of one node that fulfils the claim's spec, for no pod in particular and of no pool.
///
/// Types are kept as Karpenter keeps them: those with room for the requests; bare metal, GPUs and
/// accelerators only if nothing else is left; of the capacity types the first of reserved, spot and
/// on-demand that can be had; by price, up to the settings' number of types. Of capacity reservations
/// with room for it one is taken; `reserved` says how much of their room others are on their way to.
///
/// # Errors
/// Which field excludes every type.
pub fn launch_of_claim(
    claim: &NodeClaim,
    catalog: &NodeClassCatalog,
    unavailable: &BTreeMap<UnavailableOffering, Timestamp>,
    reserved: &BTreeMap<String, u32>,
    settings: &PlannerSettings,
) -> Result<Launch, String> {
    let requests = parse_resources(&claim.spec.resources.requests)
        .map_err(|error| format!("spec.resources.requests: {error}"))?;
    let mut requirements = claim.spec.requirements.clone();
    for requirement in &mut requirements {
        requirement.key = current_key(&requirement.key).to_owned();
    }
    let allowed = allowed_types(catalog, &requirements)?;
    let roomy: Vec<Choice<'_>> =
        allowed.into_iter().filter(|choice| requests.fits_in(&choice.kind.allocatable)).collect();
    if roomy.is_empty() {
        return Err(format!("spec.resources.requests: no allowed type has room for {requests}"));
    }
    let mut choices = available(roomy, unavailable, reserved);
    let flexible = requirements.iter().any(|requirement| requirement.min_values.is_some());
    if !flexible && choices.iter().any(|choice| !is_exotic(choice.kind)) {
        choices.retain(|choice| !is_exotic(choice.kind));
    }
    let capacity_type = choices
        .iter()
        .flat_map(|choice| &choice.offers)
        .map(|offer| offer.capacity_type)
        .min()
        .ok_or("EC2 lately had none of the allowed types")?;
    let mut choices = of_capacity_type(choices, capacity_type, flexible);
    choices.truncate(settings.max_instance_types);
    // What is reserved is there: it needs nothing to fall back on.
    if !keep_one_reservation(&mut choices) {
        check_min_values(&requirements, &choices, settings)?;
    }
    Ok(launch(claim, &requirements, requests, &choices, capacity_type))
}

/// Types that fulfil the requirements, with the offers that do.
fn allowed_types<'a>(
    catalog: &'a NodeClassCatalog,
    requirements: &[Requirement],
) -> Result<Vec<Choice<'a>>, String> {
    let determined = DeterminedKeys::of(catalog);
    let mut left: Vec<Choice<'a>> = catalog
        .instance_types
        .iter()
        .map(|kind| Choice { kind, offers: kind.offerings.iter().collect() })
        .collect();
    // One after the other, so that the one that leaves nothing can be named.
    for requirement in requirements.iter().filter(|r| determined.contains(&r.key)) {
        if is_offer_key(&requirement.key) {
            for choice in &mut left {
                choice
                    .offers
                    .retain(|offer| fulfils(requirement, offering_label(offer, &requirement.key)));
            }
            left.retain(|choice| !choice.offers.is_empty());
        } else {
            left.retain(|choice| fulfils(requirement, type_label(choice.kind, &requirement.key)));
        }
        if left.is_empty() {
            let text = requirement_text(requirement);
            return Err(format!("spec.requirements: {text} leaves no type of the EC2NodeClass"));
        }
    }
    Ok(left)
}

fn available<'a>(
    choices: Vec<Choice<'a>>,
    unavailable: &BTreeMap<UnavailableOffering, Timestamp>,
    reserved: &BTreeMap<String, u32>,
) -> Vec<Choice<'a>> {
    let has_room = |offer: &Offering| {
        offer.reservation.as_ref().is_none_or(|reservation| {
            reservation.free > reserved.get(&reservation.id).copied().unwrap_or(0)
        })
    };
    choices
        .into_iter()
        .filter_map(|mut choice| {
            let name = &choice.kind.name;
            choice.offers.retain(|offer| {
                offer.available
                    && has_room(offer)
                    && unavailable_until(unavailable, name, offer).is_none()
            });
            (!choice.offers.is_empty()).then_some(choice)
        })
        .collect()
}

/// The offers of one capacity type, cheapest type first. Spot that is dearer than the cheapest node
/// on demand is no bargain and goes, unless many values are asked for.
fn of_capacity_type(
    choices: Vec<Choice<'_>>,
    capacity_type: CapacityType,
    flexible: bool,
) -> Vec<Choice<'_>> {
    let on_demand = choices
        .iter()
        .flat_map(|choice| &choice.offers)
        .filter(|offer| offer.capacity_type == CapacityType::OnDemand)
        .map(|offer| cost(offer))
        .min();
    let ceiling = on_demand.filter(|_| capacity_type == CapacityType::Spot && !flexible);
    let mut of_type: Vec<Choice<'_>> = choices
        .into_iter()
        .filter_map(|mut choice| {
            choice.offers.retain(|offer| offer.capacity_type == capacity_type);
            choice.offers.sort_by(|a, b| (cost(a), &a.zone).cmp(&(cost(b), &b.zone)));
            (!choice.offers.is_empty()).then_some(choice)
        })
        .collect();
    of_type.sort_by(|a, b| {
        (a.cost(), a.worth(), &a.kind.name).cmp(&(b.cost(), b.worth(), &b.kind.name))
    });
    let bargain = |choice: &Choice<'_>| ceiling.is_none_or(|most| choice.cost() <= most);
    if of_type.iter().any(bargain) {
        of_type.retain(bargain);
    }
    of_type
}

/// A launch is of one reservation. Returns whether this one is.
fn keep_one_reservation(choices: &mut Vec<Choice<'_>>) -> bool {
    let first = choices.first().and_then(|choice| choice.offers.first());
    let is_reserved = first.is_some_and(|offer| offer.reservation.is_some());
    if is_reserved {
        choices.truncate(1);
        choices.iter_mut().for_each(|choice| choice.offers.truncate(1));
    }
    is_reserved
}

fn check_min_values(
    requirements: &[Requirement],
    choices: &[Choice<'_>],
    settings: &PlannerSettings,
) -> Result<(), String> {
    if settings.min_values_policy == MinValuesPolicy::BestEffort {
        return Ok(());
    }
    for requirement in requirements {
        let Some(least) = requirement.min_values else { continue };
        let values: BTreeSet<&str> =
            choices.iter().flat_map(|choice| values_of(choice, &requirement.key)).collect();
        if values.len() < least as usize {
            return Err(format!(
                "spec.requirements: minValues of {} is {least}, and only {} can be had",
                requirement.key,
                values.len()
            ));
        }
    }
    Ok(())
}

fn values_of<'c>(choice: &'c Choice<'_>, key: &str) -> Vec<&'c str> {
    if is_offer_key(key) {
        return choice.offers.iter().filter_map(|offer| offering_label(offer, key)).collect();
    }
    type_label(choice.kind, key).into_iter().collect()
}

fn launch(
    claim: &NodeClaim,
    requirements: &[Requirement],
    requests: Resources,
    choices: &[Choice<'_>],
    capacity_type: CapacityType,
) -> Launch {
    let mut offerings: Vec<LaunchOffering> = choices
        .iter()
        .flat_map(|choice| {
            choice.offers.iter().map(|offer| LaunchOffering {
                instance_type: SmolStr::new(&choice.kind.name),
                zone: SmolStr::new(&offer.zone),
                price_micro: offer.price,
            })
        })
        .collect();
    // Unknown prices are dearer than any.
    offerings.sort_by_key(|offer| {
        (Reverse(offer.price_micro.is_some()), offer.price_micro, offer.instance_type.clone())
    });
    let zones: BTreeSet<&str> = offerings.iter().map(|offer| offer.zone.as_str()).collect();
    let mut known = common_labels(choices);
    known.extend(claim.metadata.labels.clone().unwrap_or_default());
    known.extend(single_values(requirements));
    known.insert(labels::CAPACITY_TYPE.to_owned(), capacity_type.as_str().to_owned());
    let first = choices.first().and_then(|choice| choice.offers.first());
    let reservation = first.and_then(|offer| offer.reservation.as_ref());
    for key in labels::RESERVATION_LABELS {
        let value = reservation.and(first).and_then(|offer| offering_label(offer, key));
        known.extend(value.map(|value| (key.to_owned(), value.to_owned())));
    }
    if let (1, Some(zone)) = (zones.len(), zones.first()) {
        known.insert(labels::ZONE.to_owned(), (*zone).to_owned());
    }
    Launch {
        nodepool: NodePoolName::default(),
        nodeclass: claim.spec.node_class_ref.name.clone(),
        capacity_type,
        reservation: reservation.map(|reservation| ReservationTarget {
            id: reservation.id.clone(),
            kind: reservation.kind,
        }),
        zones: zones.iter().map(|zone| (*zone).to_owned()).collect(),
        requirements: planned_requirements(requirements, &offerings),
        requests,
        labels: known,
        taints: claim.spec.taints.clone(),
        startup_taints: claim.spec.startup_taints.clone(),
        min_values_relaxed: false,
        pods: Vec::new(),
        hourly_price_micro: offerings.first().and_then(|offer| offer.price_micro).unwrap_or(0),
        allocatable: least_allocatable(choices),
        offerings,
    }
}

/// The claim's own requirements, with types and zones narrowed to what may come of it.
fn planned_requirements(
    requirements: &[Requirement],
    offerings: &[LaunchOffering],
) -> Vec<Requirement> {
    let decided = [labels::INSTANCE_TYPE, labels::ZONE, labels::CAPACITY_TYPE];
    let one_of = |key: &str, values: BTreeSet<&str>| Requirement {
        key: key.to_owned(),
        operator: Operator::In,
        values: values.into_iter().map(str::to_owned).collect(),
        min_values: None,
    };
    let types = offerings.iter().map(|offer| offer.instance_type.as_str()).collect();
    let zones = offerings.iter().map(|offer| offer.zone.as_str()).collect();
    let own = requirements.iter().filter(|r| !decided.contains(&r.key.as_str())).cloned();
    own.chain([one_of(labels::INSTANCE_TYPE, types), one_of(labels::ZONE, zones)]).collect()
}

/// Labels that all of the types have alike.
fn common_labels(choices: &[Choice<'_>]) -> BTreeMap<String, String> {
    let mut kinds = choices.iter().map(|choice| choice.kind);
    let Some(first) = kinds.next() else { return BTreeMap::new() };
    let mut common = first.labels.clone();
    common.insert(labels::INSTANCE_TYPE.to_owned(), first.name.clone());
    for kind in kinds {
        common.retain(|key, value| type_label(kind, key) == Some(value.as_str()));
    }
    common
}

fn least_allocatable(choices: &[Choice<'_>]) -> Resources {
    let mut kinds = choices.iter().map(|choice| &choice.kind.allocatable);
    let Some(first) = kinds.next() else { return Resources::default() };
    kinds.fold(first.clone(), |least, other| {
        least.iter().map(|(name, own)| (name.clone(), own.min(other.get(name)))).collect()
    })
}
