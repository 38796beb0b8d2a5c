//! Capacity reservations: how many more nodes each has room for, and what is bought of them.
//!
//! A node in a reservation is of one reservation, which its launch names, so that what is planned can
//! be counted: against the room EC2 told of, less what is on its way. What a reserved node costs is
//! the same whether it is there or not; among reservations the price on demand decides.

use std::collections::BTreeMap;

use drover_common::instance_type::{CapacityType, InstanceType, Reservation};
use fixedbitset::FixedBitSet;

use super::PlanInput;
use super::board::Board;
use super::market::{Market, UNKNOWN_PRICE};
use super::pack::pack;
use super::split::Piece;

/// What an offer of reserved capacity is bought from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held<'a> {
    /// The reservation's number among [`Slots`].
    pub slot: usize,
    pub reservation: &'a Reservation,
    /// Price of the type on demand.
    pub worth: u64,
}

/// How many more nodes each reservation has room for.
#[derive(Clone, Debug, Default)]
pub(super) struct Slots<'a> {
    known: BTreeMap<&'a str, usize>,
    left: Vec<i64>,
}

impl<'a> Slots<'a> {
    /// The number of a reservation. Should classes tell different things of it, the least room counts.
    pub(super) fn enter(&mut self, input: &PlanInput<'_>, reservation: &'a Reservation) -> usize {
        let on_the_way = input.reserved.get(&reservation.id).copied().unwrap_or(0);
        let left = i64::from(reservation.free) - i64::from(on_the_way);
        let next = self.left.len();
        let slot = *self.known.entry(&reservation.id).or_insert(next);
        match self.left.get_mut(slot) {
            Some(known) => *known = left.min(*known),
            None => self.left.push(left),
        }
        slot
    }

    pub(super) fn left(&self, slot: usize) -> i64 {
        self.left.get(slot).copied().unwrap_or(0)
    }

    /// Takes room for so many nodes, or gives it back.
    pub(super) fn take(&mut self, slot: usize, nodes: i64) {
        if let Some(left) = self.left.get_mut(slot) {
            *left = left.saturating_sub(nodes);
        }
    }

    /// Whether any reservation has room.
    pub(super) fn any(&self) -> bool {
        self.left.iter().any(|left| *left > 0)
    }
}

/// What a type costs on demand, by which what is reserved is weighed.
pub(super) fn on_demand_price(instance_type: &InstanceType) -> u64 {
    let on_demand =
        instance_type.offerings.iter().filter(|o| o.capacity_type == CapacityType::OnDemand);
    on_demand.filter_map(|offering| offering.price).min().unwrap_or(UNKNOWN_PRICE)
}

impl Market<'_> {
    /// The reservation that an offer is of.
    pub(super) fn slot_of(&self, offer: usize) -> Option<usize> {
        self.offers.get(offer)?.reservation.map(|held| held.slot)
    }

    /// Whether one more node of an offer has room in its reservation; `held` is the offer that the
    /// node counts as already.
    pub(super) fn has_slot(&self, offer: usize, held: Option<usize>) -> bool {
        let Some(slot) = self.slot_of(offer) else { return true };
        held.and_then(|held| self.slot_of(held)) == Some(slot) || self.slots.left(slot) > 0
    }
}

impl Board<'_> {
    /// The first to buy of some offers, those of full reservations left out.
    pub(super) fn cheapest_free(&self, offers: &FixedBitSet) -> Option<usize> {
        let free = offers.ones().filter(|offer| self.market.has_slot(*offer, None));
        free.min_by_key(|offer| self.market.rank(*offer))
    }

    /// Whether limits and reservations allow a node of this offer, given what it counts as already.
    pub(super) fn can_have(&self, offer: usize, held: Option<usize>) -> bool {
        self.market.has_slot(offer, held) && self.within_limits(offer, held)
    }

    /// Plans nodes in reservations, as long as these have room.
    pub(super) fn buy_reserved(&mut self, tier: &[usize], pieces: &mut [Piece]) {
        while self.market.slots.any() {
            let candidates = self.reserved_candidates(tier, pieces);
            if candidates.is_empty() {
                return;
            }
            // What is packed knows no number of nodes: each turn fills up some reservation, or has
            // placed all that it could.
            let before = self.bins.len();
            let (items, allowances) = (self.items_of(pieces), self.allowances());
            let (packing, _) = pack(&items, &candidates, &allowances, self.settings.packing_passes);
            for packed in &packing.nodes {
                self.open_packed(pieces, &candidates, packed);
            }
            if self.bins.len() == before {
                return;
            }
        }
    }

    /// That the reservations of some offers are full, if they all are of one.
    pub(super) fn full_reservations(&self, offers: &FixedBitSet) -> Option<String> {
        let mut names: Vec<String> = Vec::new();
        for offer in offers.ones() {
            let held = self.market.offers.get(offer)?.reservation?;
            if self.market.slots.left(held.slot) > 0 {
                return None;
            }
            if !names.contains(&held.reservation.id) {
                names.push(held.reservation.id.clone());
            }
        }
        names.sort();
        let (what, verb) = match names.len() {
            0 => return None,
            1 => ("the capacity reservation", "has"),
            _ => ("the capacity reservations", "have"),
        };
        let names = super::reason::list(&names);
        Some(format!("{what} {names} that would hold it {verb} no room left"))
    }
}
