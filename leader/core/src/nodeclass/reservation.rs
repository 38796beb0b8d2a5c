//! Capacity reservations of a class: what is asked for, what is told of them, and what can be bought.

use drover_common::crd::{CapacityReservationStatus, Ec2NodeClassSpec, InstanceMatchCriteria};
use drover_common::ec2::{CapacityReservation, ReservationTerm};
use drover_common::instance_type::{CapacityType, Offering, Reservation, ReservationKind};
use jiff::{SignedDuration, Timestamp};

/// What is reserved is paid for already: it is ranked as if it cost this part of the price on demand
/// (Karpenter's figure).
const SHARE_OF_ON_DEMAND: u64 = 10_000_000;
/// A capacity block so short before its end takes no more nodes. (EC2 begins to end its instances half
/// an hour before; Karpenter leaves them ten minutes earlier.)
const BLOCK_EXPIRES_BEFORE: SignedDuration = SignedDuration::from_mins(40);

/// A reservation that a class selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedReservation {
    /// What EC2 tells of it.
    pub told: CapacityReservation,
    /// Whether it is about to end, and takes no more nodes.
    pub expiring: bool,
}

/// The terms of a class as EC2 is asked.
pub(super) fn reservation_terms(spec: &Ec2NodeClassSpec) -> Vec<ReservationTerm> {
    let terms = spec.capacity_reservation_selector_terms.iter();
    terms
        .map(|term| ReservationTerm {
            id: term.id.clone(),
            owner: term.owner_id.clone(),
            match_criteria: term.instance_match_criteria.map(|criteria| match criteria {
                InstanceMatchCriteria::Open => "open".to_owned(),
                InstanceMatchCriteria::Targeted => "targeted".to_owned(),
            }),
            tags: term.tags.clone(),
        })
        .collect()
}

/// Reservations by id, those that are over left out.
pub(super) fn resolved(told: &[CapacityReservation], now: Timestamp) -> Vec<ResolvedReservation> {
    let ends_within = |one: &CapacityReservation, time: SignedDuration| {
        one.ends_at.is_some_and(|end| end.duration_since(now) <= time)
    };
    let mut resolved: Vec<ResolvedReservation> = told
        .iter()
        .filter(|one| !ends_within(one, SignedDuration::ZERO))
        .map(|one| ResolvedReservation {
            expiring: one.kind == ReservationKind::CapacityBlock
                && ends_within(one, BLOCK_EXPIRES_BEFORE),
            told: one.clone(),
        })
        .collect();
    resolved.sort_by(|left, right| left.told.id.cmp(&right.told.id));
    resolved
}

/// A reservation as a class's status shows it.
pub(super) fn status_of(resolved: &ResolvedReservation) -> CapacityReservationStatus {
    let told = &resolved.told;
    CapacityReservationStatus {
        id: told.id.clone(),
        availability_zone: told.zone.clone(),
        instance_type: told.instance_type.clone(),
        owner_id: told.owner.clone(),
        instance_match_criteria: told.match_criteria.clone(),
        reservation_type: told.kind.as_str().to_owned(),
        interruptible: Some(told.interruptible),
        state: if resolved.expiring { "expiring" } else { "active" }.to_owned(),
        end_time: told.ends_at,
    }
}

/// The reservations of a type, as ways to buy it. Below a micro-dollar nothing can be told apart, so
/// all but the dearest types cost one; the planner ranks them by their price on demand.
pub(super) fn reserved_offerings<'r>(
    reservations: &'r [ResolvedReservation],
    instance_type: &'r str,
    on_demand: Option<u64>,
) -> impl Iterator<Item = Offering> + 'r {
    let price = (on_demand.unwrap_or(0) / SHARE_OF_ON_DEMAND).max(1);
    let own = reservations.iter().filter(move |one| one.told.instance_type == instance_type);
    own.map(move |one| Offering {
        zone: one.told.zone.clone(),
        zone_id: None,
        capacity_type: CapacityType::Reserved,
        price: Some(price),
        available: !one.expiring,
        reservation: Some(Reservation {
            id: one.told.id.clone(),
            kind: one.told.kind,
            interruptible: one.told.interruptible,
            free: one.told.available,
        }),
    })
}
