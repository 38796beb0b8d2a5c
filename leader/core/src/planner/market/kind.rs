//! Instance types under a template: which of their offerings a pool may buy, and what nodes of them hold.

use std::collections::BTreeMap;
use std::ops::Range;

use drover_common::instance_type::{InstanceType, Offering};
use drover_common::requirement::Requirement;
use drover_common::resources::{ResourceName, Resources};
use drover_common::taint::Taint;

use super::label::{DeterminedKeys, is_offer_key, offering_label, type_label};
use super::left::unavailable_until;
use super::{Market, NodeKind, Offer, is_exotic};
use crate::planner::PlanInput;
use crate::planner::attach::AttachLimits;
use crate::planner::daemon::{Daemon, Load, TypeLoad};
use crate::planner::dimension::Dimensions;
use crate::planner::matching::{current_key, fulfils};
use crate::planner::reserved::{Held, on_demand_price};

/// Offerings of a type, with their prices, whose nodes are alike: overlays add the same to them, and daemons take the
/// same of them.
type Alike<'a> = (Resources, Load, Vec<(&'a Offering, Option<u64>)>);

impl<'a> Market<'a> {
    #[allow(clippy::too_many_arguments, reason = "one step of a pipeline, called once")]
    pub(super) fn add_kind(
        &mut self,
        input: &PlanInput<'a>,
        dimensions: &Dimensions,
        daemons: &[Daemon],
        limits: &AttachLimits,
        instance_type: &'a InstanceType,
        requirements: &[Requirement],
        determined: DeterminedKeys<'_>,
        taints: &[Taint],
    ) {
        let template = self.templates.len().saturating_sub(1);
        let by_type = |requirement: &&Requirement| {
            let key = current_key(&requirement.key);
            determined.contains(key) && !is_offer_key(key)
        };
        let allowed = requirements
            .iter()
            .filter(by_type)
            .all(|r| fulfils(r, type_label(instance_type, current_key(&r.key))));
        if !allowed {
            return;
        }
        let offer_allowed = |offering: &Offering| {
            requirements.iter().all(|r| {
                let key = current_key(&r.key);
                !is_offer_key(key) || fulfils(r, offering_label(offering, key))
            })
        };
        let fixed = self.templates.get(template).map(|template| template.labels.clone());
        let loads = TypeLoad::new(daemons, instance_type, fixed.as_ref(), taints, dimensions);
        // In the order of the type's offerings.
        let mut kinds: Vec<Alike<'a>> = Vec::new();
        for offering in instance_type.offerings.iter().filter(|offering| offer_allowed(offering)) {
            let (price, added) = self.overlaid(fixed.as_ref(), instance_type, offering);
            let load = loads.of(offering);
            match kinds.iter_mut().find(|(known, taken, _)| *known == added && *taken == load) {
                Some((.., alike)) => alike.push((offering, price)),
                None => kinds.push((added, load, vec![(offering, price)])),
            }
        }
        if kinds.is_empty() {
            return;
        }
        let start = self.offers.len();
        let of_type = start..start + kinds.iter().map(|(.., alike)| alike.len()).sum::<usize>();
        for (added, load, alike) in kinds {
            let first = self.offers.len();
            for (offering, price) in alike {
                self.add_offer(input, instance_type, offering, price);
            }
            let offers = (first..self.offers.len(), of_type.clone());
            let kind = node_kind(template, offers, instance_type, added, dimensions, limits, load);
            self.kinds.push(kind);
        }
    }

    /// The price of an offering, and what its nodes have besides the resources of their type, as overlays say.
    fn overlaid(
        &mut self,
        fixed: Option<&BTreeMap<String, String>>,
        instance_type: &InstanceType,
        offering: &Offering,
    ) -> (Option<u64>, Resources) {
        if self.overlays.is_empty() {
            return (offering.price, Resources::new());
        }
        let label = |key: &str| {
            if is_offer_key(key) {
                return offering_label(offering, key);
            }
            let own = fixed.and_then(|labels| labels.get(key)).map(String::as_str);
            own.or(type_label(instance_type, key))
        };
        (self.overlays.price(&label, offering.price), self.overlays.capacity(&label))
    }

    /// Adds an offer of the kind that is added next.
    fn add_offer(
        &mut self,
        input: &PlanInput<'a>,
        instance_type: &'a InstanceType,
        offering: &'a Offering,
        price: Option<u64>,
    ) {
        let until = unavailable_until(input.unavailable, &instance_type.name, offering);
        let reservation = offering.reservation.as_ref().map(|reservation| Held {
            slot: self.slots.enter(input, reservation),
            reservation,
            worth: on_demand_price(instance_type),
        });
        let full = reservation.is_some_and(|held| self.slots.left(held.slot) <= 0);
        self.offers.push(Offer {
            kind: self.kinds.len(),
            zone: &offering.zone,
            zone_id: offering.zone_id.as_deref(),
            capacity_type: offering.capacity_type,
            price,
            available: offering.available && until.is_none() && !full,
            until,
            reservation,
        });
    }
}

/// Of offers, and of all of the same type.
fn node_kind<'a>(
    template: usize,
    (offers, of_type): (Range<usize>, Range<usize>),
    instance_type: &'a InstanceType,
    added: Resources,
    dimensions: &Dimensions,
    limits: &AttachLimits,
    load: Load,
) -> NodeKind<'a> {
    let (daemons, daemon_ports) = load;
    let with_added = |own: &Resources| {
        let mut all = own.clone();
        all.add(&added);
        dimensions.dense(&all)
    };
    let mut room = with_added(&instance_type.allocatable);
    limits.set_type_room(Some(&instance_type.name), dimensions, &mut room);
    for (room, taken) in room.iter_mut().zip(&daemons) {
        *room = room.saturating_sub(*taken);
    }
    NodeKind {
        template,
        offers,
        of_type,
        instance_type,
        added: added.clone(),
        vcpus: u32::try_from(instance_type.capacity.get(&ResourceName::Cpu) / 1000).unwrap_or(0),
        room,
        capacity: with_added(&instance_type.capacity),
        daemons,
        daemon_ports,
        exotic: is_exotic(instance_type),
    }
}
