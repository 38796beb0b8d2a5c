//! Capacity reservations: how they are selected, what EC2 tells of them, how launches name them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Tags;
use crate::instance_type::ReservationKind;

/// Which capacity reservations to describe; within a term all hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ReservationTerm {
    /// Reservation id.
    pub id: Option<String>,
    /// Account that owns it.
    pub owner: Option<String>,
    /// `open` or `targeted`.
    pub match_criteria: Option<String>,
    /// Tags; `*` for any value.
    pub tags: Tags,
}

/// A capacity reservation in state `active`, as `DescribeCapacityReservations` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapacityReservation {
    /// Its id.
    pub id: String,
    /// The instance type that it is for.
    pub instance_type: String,
    /// Its zone.
    pub zone: String,
    /// Account that owns it.
    pub owner: String,
    /// `open` or `targeted`.
    pub match_criteria: String,
    /// An on-demand reservation or a capacity block.
    pub kind: ReservationKind,
    /// Whether its owner may take its instances back.
    pub interruptible: bool,
    /// When it ends, if that is known.
    pub ends_at: Option<Timestamp>,
    /// Instances that it is for.
    pub total: u32,
    /// Instances that it still has room for.
    pub available: u32,
}

/// The reservation that a launch is to use, and no other capacity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReservationTarget {
    /// Its id.
    pub id: String,
    /// An on-demand reservation or a capacity block.
    pub kind: ReservationKind,
}

/// What instances of a launch template have to do with capacity reservations. A template that says
/// nothing lets EC2 put them into any open reservation that they match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReservationUse {
    /// They use none, not even an open one.
    Never,
    /// They use this one or are not launched.
    Only(ReservationTarget),
}
