//! Labels that types and offerings decide.

use std::collections::BTreeSet;

use drover_common::instance_type::{InstanceType, Offering, Reservation};
use drover_common::labels;

use crate::nodeclass::NodeClassCatalog;

/// The value of a label that follows from the type.
pub(in crate::planner) fn type_label<'t>(
    instance_type: &'t InstanceType,
    key: &str,
) -> Option<&'t str> {
    if key == labels::INSTANCE_TYPE {
        return Some(&instance_type.name);
    }
    instance_type.labels.get(key).map(String::as_str)
}

/// Keys whose value follows from the offering, not from the type.
pub(in crate::planner) fn is_offer_key(key: &str) -> bool {
    matches!(key, labels::ZONE | labels::ZONE_ID | labels::CAPACITY_TYPE)
        || labels::RESERVATION_LABELS.contains(&key)
}

/// The value of such a key under an offering.
pub(in crate::planner) fn offering_label<'o>(offering: &'o Offering, key: &str) -> Option<&'o str> {
    match key {
        labels::ZONE => Some(&offering.zone),
        labels::ZONE_ID => offering.zone_id.as_deref(),
        labels::CAPACITY_TYPE => Some(offering.capacity_type.as_str()),
        _ => reservation_label(offering.reservation.as_ref(), key),
    }
}

pub(super) fn reservation_label<'o>(
    reservation: Option<&'o Reservation>,
    key: &str,
) -> Option<&'o str> {
    let reservation = reservation?;
    match key {
        labels::RESERVATION_ID => Some(&reservation.id),
        labels::RESERVATION_TYPE => Some(reservation.kind.as_str()),
        labels::RESERVATION_INTERRUPTIBLE if reservation.interruptible => Some("true"),
        labels::RESERVATION_INTERRUPTIBLE => Some("false"),
        _ => None,
    }
}

/// Keys that type or offering decide; any other is the pool's to choose. Well-known ones are decided though no type
/// of the catalogue bears them: there are no such nodes then.
#[derive(Clone, Copy, Debug)]
pub(in crate::planner) struct DeterminedKeys<'c>(&'c BTreeSet<String>);

impl<'c> DeterminedKeys<'c> {
    pub(in crate::planner) fn of(catalog: &'c NodeClassCatalog) -> Self {
        Self(catalog.label_keys())
    }

    pub(in crate::planner) fn contains(self, key: &str) -> bool {
        let by_pool = matches!(key, labels::NODEPOOL | labels::NODECLASS);
        !by_pool && (key == labels::HOSTNAME || labels::is_well_known(key) || self.0.contains(key))
    }
}
