//! Instance types by class, from a catalogue file or the built-in table.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::catalog::{Catalog, CatalogEntry, REFERENCE_REGION, reference};
use drover_common::crd::{Condition, ConditionStatus, Ec2NodeClass, Ec2NodeClassStatus};
use drover_common::instance_type::{CapacityType, InstanceType, NodeSettings};
use drover_common::requirement::Requirements;

use crate::nodeclass::catalog::{CatalogFlags, NodeClassCatalog, node_settings};
use crate::view::View;

/// Where instance types come from.
#[derive(Clone, Debug)]
pub enum InstanceTypes {
    /// The table that is part of the program.
    Table(Vec<CatalogEntry>),
    /// A catalogue file.
    File(Catalog),
}

impl InstanceTypes {
    /// The built-in table.
    pub fn built_in() -> Self {
        Self::Table(reference())
    }

    /// The types under the settings of a class.
    fn with_settings(&self, settings: &NodeSettings) -> Vec<InstanceType> {
        match self {
            Self::Table(entries) => entries
                .iter()
                .map(|entry| {
                    let offerings = entry.offerings.clone();
                    InstanceType::from_facts(&entry.facts, settings, REFERENCE_REGION, offerings)
                })
                .collect(),
            Self::File(catalog) => {
                catalog.instance_types.iter().map(|listed| listed.with_settings(settings)).collect()
            }
        }
    }

    pub(super) fn region(&self) -> &str {
        match self {
            Self::Table(_) => REFERENCE_REGION,
            Self::File(catalog) => &catalog.region,
        }
    }
}

/// Flags of a leader by which nodes differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeFlags {
    /// What a hypervisor keeps of its machine's memory, millionths. A catalogue file tells memory as it is.
    pub vm_memory_overhead_ppm: u32,
    /// Network interfaces that are not for pods.
    pub reserved_enis: u32,
    /// Whether capacity reservations that classes select are used.
    pub reserved_capacity: bool,
}

impl Default for NodeFlags {
    fn default() -> Self {
        let NodeSettings { vm_memory_overhead_ppm, reserved_enis, .. } = NodeSettings::default();
        Self { vm_memory_overhead_ppm, reserved_enis, reserved_capacity: true }
    }
}

/// The types of every class. Without any class every pool's is taken to match all of them.
pub(super) fn catalogs(
    view: &View,
    types: &InstanceTypes,
    flags: &NodeFlags,
    warnings: &mut Vec<String>,
) -> BTreeMap<String, NodeClassCatalog> {
    let NodeFlags { vm_memory_overhead_ppm, reserved_enis, .. } = *flags;
    let plain = NodeSettings { vm_memory_overhead_ppm, reserved_enis, ..NodeSettings::default() };
    if view.classes().is_empty() {
        let mut all = types.with_settings(&plain);
        forget_zero_prices(&mut all, warnings);
        leave_reserved_out(&mut all, flags, warnings);
        let catalog = NodeClassCatalog::new(all, false);
        let names = view.pools().values().map(|pool| &pool.spec.template.spec.node_class_ref.name);
        return names.map(|name| (name.clone(), catalog.clone())).collect();
    }
    let of_catalog =
        CatalogFlags { region: types.region().to_owned(), vm_memory_overhead_ppm, reserved_enis };
    let mut catalogs = BTreeMap::new();
    for (name, class) in view.classes().iter().filter(|(_, class)| is_usable(class)) {
        let mut own = types.with_settings(&node_settings(&class.spec, &of_catalog));
        if let Some(status) = &class.status {
            keep_what_status_allows(&mut own, status);
        }
        forget_zero_prices(&mut own, warnings);
        leave_reserved_out(&mut own, flags, warnings);
        if flags.reserved_capacity {
            warnings.extend(left_out(name, class));
        }
        let subnets = class.status.iter().flat_map(|status| &status.subnets);
        let ids = subnets.filter_map(|s| Some((s.zone.as_str(), s.zone_id.as_deref()?)));
        let catalog = NodeClassCatalog::new(own, false).with_zone_ids(&ids.collect());
        catalogs.insert(name.clone(), catalog);
    }
    warnings.sort();
    warnings.dedup();
    catalogs
}

/// A class that no controller has looked at yet is taken as it is.
fn is_usable(class: &Ec2NodeClass) -> bool {
    let conditions = class.status.as_ref().map_or(&[][..], |status| &status.conditions);
    let refused = Condition::find(conditions, "Ready")
        .is_some_and(|ready| ready.status == ConditionStatus::False);
    class.metadata.deletion_timestamp.is_none() && !refused
}

/// That reserved capacity is left out: a status names the reservations that EC2 told of, and not how much room they
/// have, which leaders ask EC2 for. A class that no controller has looked at may select some.
fn left_out(name: &str, class: &Ec2NodeClass) -> Option<String> {
    let selected = match &class.status {
        None => !class.spec.capacity_reservation_selector_terms.is_empty(),
        Some(status) => !status.capacity_reservations.is_empty(),
    };
    selected.then(|| {
        format!(
            "EC2NodeClass {name} selects capacity reservations, and does not tell what room they have: reserved \
             capacity is left out, which a leader would use first"
        )
    })
}

/// Offerings in zones of the class's subnets, types that one of its images is for; as far as its
/// status tells.
fn keep_what_status_allows(types: &mut Vec<InstanceType>, status: &Ec2NodeClassStatus) {
    let zones: BTreeSet<&str> = status.subnets.iter().map(|subnet| subnet.zone.as_str()).collect();
    let images: Vec<Requirements> = status
        .amis
        .iter()
        .filter_map(|image| Requirements::from_requirements(&image.requirements).ok())
        .collect();
    for kind in &mut *types {
        kind.offerings.retain(|offer| zones.is_empty() || zones.contains(offer.zone.as_str()));
    }
    types.retain(|kind| {
        !kind.offerings.is_empty()
            && (images.is_empty() || images.iter().any(|image| image.matches_labels(&kind.labels)))
    });
}

/// A catalogue says of reserved capacity neither whose it is nor how much there is: planned for, it would be endless.
fn leave_reserved_out(types: &mut [InstanceType], flags: &NodeFlags, warnings: &mut Vec<String>) {
    let mut reserved = 0_usize;
    for kind in types {
        let before = kind.offerings.len();
        kind.offerings.retain(|offering| offering.capacity_type != CapacityType::Reserved);
        reserved += before - kind.offerings.len();
    }
    if reserved > 0 && flags.reserved_capacity {
        warnings.push(format!(
            "{reserved} offerings of the catalogue are reserved capacity, and do not tell what room there is: they \
             are left out"
        ));
    }
}

/// Nothing but reserved capacity is free: a price of zero is one that is not known.
fn forget_zero_prices(types: &mut [InstanceType], warnings: &mut Vec<String>) {
    let mut unpriced = 0_usize;
    for offering in types.iter_mut().flat_map(|kind| &mut kind.offerings) {
        if offering.capacity_type == CapacityType::Reserved {
            continue;
        }
        offering.price = offering.price.filter(|price| *price > 0);
        unpriced += usize::from(offering.price.is_none());
    }
    if unpriced > 0 {
        warnings.push(format!(
            "{unpriced} offerings have no price or a price of zero: they are planned only where \
             nothing else will do, and cost nothing in the sums"
        ));
    }
}
