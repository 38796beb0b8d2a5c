//! Capacity reservations: made and cancelled by command, filled by launches.

use std::collections::BTreeMap;

use drover_common::ec2::{
    CapacityReservation, FleetOverride, FleetRequest, LaunchTemplateRequest, ReservationTerm,
    ReservationUse, Tags,
};
use drover_common::instance_type::{CapacityType, ReservationKind};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::Cloud;
use super::fleet::resource_id;
use super::instance::after;
use super::network::tags_match;

/// EC2 ends the instances of a capacity block so long before the block's end.
const BLOCK_ENDS_EARLY: SignedDuration = SignedDuration::from_mins(-30);
/// EC2's state reason of an instance whose capacity block ends.
const BLOCK_ENDED: &str = "Server.CapacityBlockExpired";
/// The account that owns what nobody else does.
const ACCOUNT: &str = "123456789012";

/// A capacity reservation as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReservationOrder {
    /// Its id; a new one if it is not given. One that exists is replaced, with its instances kept.
    #[serde(default)]
    pub id: Option<String>,
    /// Instance type.
    pub instance_type: String,
    /// Zone.
    pub zone: String,
    /// How many instances it is for.
    pub count: u32,
    /// `default` or `capacity-block`.
    #[serde(default, rename = "type")]
    pub kind: ReservationKind,
    /// Whether any instance that matches fills it, or only those that name it.
    #[serde(default = "targeted")]
    pub instance_match_criteria: String,
    /// Whether its owner may take instances back.
    #[serde(default)]
    pub interruptible: bool,
    /// When it ends.
    #[serde(default)]
    pub end_time: Option<Timestamp>,
    /// Account that owns it.
    #[serde(default = "account")]
    pub owner: String,
    /// Tags.
    #[serde(default)]
    pub tags: Tags,
}

fn targeted() -> String {
    "targeted".to_owned()
}

fn account() -> String {
    ACCOUNT.to_owned()
}

/// Reservations by id.
pub(super) type Reservations = BTreeMap<String, ReservationOrder>;

impl Cloud {
    /// Reserves capacity. Returns the reservation's id.
    pub fn reserve_capacity(&mut self, order: ReservationOrder) -> String {
        let id = order.id.clone().unwrap_or_else(|| resource_id(&mut self.random, "cr"));
        self.reservations.insert(id.clone(), order);
        id
    }

    /// Cancels a reservation; its instances run on as on-demand ones. False if there is none.
    pub fn cancel_reservation(&mut self, id: &str) -> bool {
        let known = self.reservations.remove(id).is_some();
        let held = |reservation: &Option<String>| reservation.as_deref() == Some(id);
        for instance in self.instances.values_mut().filter(|one| held(&one.reservation)) {
            instance.reservation = None;
        }
        known
    }

    /// Every reservation, as EC2 shows it.
    pub fn reservations(&self) -> impl Iterator<Item = CapacityReservation> {
        self.reservations.iter().map(|(id, order)| CapacityReservation {
            id: id.clone(),
            instance_type: order.instance_type.clone(),
            zone: order.zone.clone(),
            owner: order.owner.clone(),
            match_criteria: order.instance_match_criteria.clone(),
            kind: order.kind,
            interruptible: order.interruptible,
            ends_at: order.end_time,
            total: order.count,
            available: self.room_in(id),
        })
    }

    pub(super) fn matching_reservations(
        &self,
        terms: &[ReservationTerm],
    ) -> Vec<CapacityReservation> {
        let none = Tags::new();
        let holds = |shown: &CapacityReservation, term: &ReservationTerm| {
            let is = |wanted: &Option<String>, have: &str| {
                wanted.as_ref().is_none_or(|wanted| wanted == have)
            };
            is(&term.id, &shown.id)
                && is(&term.owner, &shown.owner)
                && is(&term.match_criteria, &shown.match_criteria)
                && tags_match(&term.tags, self.reservation_tags(&shown.id).unwrap_or(&none))
        };
        let any = |shown: &CapacityReservation| {
            terms.is_empty() || terms.iter().any(|term| holds(shown, term))
        };
        self.reservations().filter(any).collect()
    }

    /// The tags of a reservation.
    pub(crate) fn reservation_tags(&self, id: &str) -> Option<&Tags> {
        self.reservations.get(id).map(|order| &order.tags)
    }

    /// How many more instances a reservation has room for.
    pub(super) fn room_in(&self, id: &str) -> u32 {
        let held = self.instances.values().filter(|instance| {
            instance.reservation.as_deref() == Some(id) && !instance.state.is_gone()
        });
        let held = u32::try_from(held.count()).unwrap_or(u32::MAX);
        self.reservations.get(id).map_or(0, |order| order.count.saturating_sub(held))
    }

    /// The reservation that an instance would go into: the one its template names, or an open one.
    pub(super) fn reservation_for(
        &self,
        template: &LaunchTemplateRequest,
        wanted: &FleetOverride,
        capacity_type: CapacityType,
    ) -> Option<String> {
        match &template.reservation {
            Some(ReservationUse::Only(target)) => Some(target.id.clone()),
            None if capacity_type != CapacityType::Spot => {
                let open = self.reservations.iter().find(|(id, order)| {
                    order.instance_match_criteria == "open"
                        && order.kind == ReservationKind::Default
                        && order.instance_type == wanted.instance_type
                        && order.zone == wanted.zone
                        && self.room_in(id) > 0
                });
                open.map(|(id, _)| id.clone())
            }
            None | Some(ReservationUse::Never) => None,
        }
    }

    /// What makes EC2 refuse to launch into the reservation that a template names.
    pub(super) fn check_reservation(
        &self,
        request: &FleetRequest,
        template: &LaunchTemplateRequest,
        wanted: &FleetOverride,
    ) -> Result<(), (&'static str, String)> {
        let Some(ReservationUse::Only(target)) = &template.reservation else { return Ok(()) };
        let Some(order) = self.reservations.get(&target.id) else {
            let message = format!("The capacity reservation '{}' does not exist", target.id);
            return Err(("InvalidCapacityReservationId.NotFound", message));
        };
        if order.instance_type != wanted.instance_type || order.zone != wanted.zone {
            let message = format!(
                "The capacity reservation '{}' is for {} in {}",
                target.id, order.instance_type, order.zone
            );
            return Err(("InvalidParameterCombination", message));
        }
        let is_block = order.kind == ReservationKind::CapacityBlock;
        if order.kind != target.kind || request.capacity_block != is_block {
            let message = format!("The capacity reservation '{}' is no such market", target.id);
            return Err(("InvalidParameterCombination", message));
        }
        if self.room_in(&target.id) == 0 {
            let message = "Your request exceeds the capacity that is left in the reservation.";
            return Err(("ReservationCapacityExceeded", message.to_owned()));
        }
        Ok(())
    }

    /// Ends the reservations whose time is over, and before that the instances of capacity blocks.
    pub(super) fn end_reservations(&mut self, now: Timestamp) {
        let ending = |order: &ReservationOrder, early: SignedDuration| {
            order.end_time.is_some_and(|end| after(end, early) <= now)
        };
        let blocks: Vec<String> = self
            .reservations
            .iter()
            .filter(|(_, order)| {
                order.kind == ReservationKind::CapacityBlock && ending(order, BLOCK_ENDS_EARLY)
            })
            .map(|(id, _)| id.clone())
            .collect();
        for instance in self.instances.values_mut() {
            if instance.reservation.as_ref().is_some_and(|id| blocks.contains(id)) {
                instance.shut_down(BLOCK_ENDED, now);
            }
        }
        let over =
            self.reservations.iter().filter(|(_, order)| ending(order, SignedDuration::ZERO));
        let over: Vec<String> = over.map(|(id, _)| id.clone()).collect();
        for id in over {
            self.cancel_reservation(&id);
        }
    }

    /// When a reservation ends, or the instances of one are ended.
    pub(super) fn reservations_due(&self) -> impl Iterator<Item = Timestamp> {
        self.reservations.iter().filter_map(|(id, order)| {
            let end = order.end_time?;
            let early = after(end, BLOCK_ENDS_EARLY);
            let held =
                order.kind == ReservationKind::CapacityBlock && self.room_in(id) < order.count;
            Some(if held { early } else { end })
        })
    }
}
