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
    matches!(key, labels::ZONE | labels::CAPACITY_TYPE) || labels::RESERVATION_LABELS.contains(&key)
}

/// The value of such a key under an offering.
pub(in crate::planner) fn offering_label<'o>(offering: &'o Offering, key: &str) -> Option<&'o str> {
    match key {
        labels::ZONE => Some(&offering.zone),
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

/// Keys that type or offering decide; any other is the pool's to choose.
pub(in crate::planner) fn determined_keys(catalog: &NodeClassCatalog) -> BTreeSet<&str> {
    let mut keys: BTreeSet<&str> = catalog.label_keys().iter().map(String::as_str).collect();
    keys.extend([
        labels::ZONE,
        labels::CAPACITY_TYPE,
        labels::INSTANCE_TYPE,
        labels::ARCH,
        labels::OS,
        labels::HOSTNAME,
    ]);
    keys.extend(labels::RESERVATION_LABELS);
    keys
}
