//! NodeOverlays: other prices of offerings, and more resources of types, pool by pool.
//!
//! For each attribute the overlay of the greatest weight counts. Where two of equal weight say
//! something of the same attribute of the same offering, the first by name counts and the other is
//! told to be in conflict.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use drover_common::crd::{NodeOverlay, PriceChange, parse_resources};
use drover_common::requirement::{Operator, Requirement};
use drover_common::resources::{ResourceName, Resources};

use super::matching::fulfils;
use super::rules::normalized;
use crate::view::View;

/// Resources that no overlay may add.
const NOT_EXTENDED: [&str; 4] = ["cpu", "memory", "ephemeral-storage", "pods"];

/// An overlay that can be read.
#[derive(Clone, Debug)]
struct Overlay {
    name: String,
    weight: i32,
    requirements: Vec<Requirement>,
    price: Option<PriceChange>,
    capacity: Resources,
}

/// The overlays of a cluster, in the order in which they count.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overlays {
    list: Vec<Overlay>,
    /// Overlays that can't be read: name, field and reason.
    pub(super) refused: BTreeMap<String, String>,
    /// Overlays that another of equal weight contradicts, and that one.
    pub(super) conflicts: BTreeMap<String, String>,
}

fn read(name: &str, object: &NodeOverlay) -> Result<Overlay, String> {
    let spec = &object.spec;
    for (index, requirement) in spec.requirements.iter().enumerate() {
        let field = format!("spec.requirements[{index}]");
        if let Err(error) = requirement.to_value_set() {
            return Err(format!("{field}: {error}"));
        }
        if requirement.operator == Operator::In && requirement.values.is_empty() {
            return Err(format!("{field}.values: In needs a value"));
        }
        if requirement.min_values.is_some() {
            return Err(format!("{field}.minValues: an overlay has none"));
        }
    }
    let capacity =
        parse_resources(&spec.capacity).map_err(|error| format!("spec.capacity: {error}"))?;
    if let Some(name) = NOT_EXTENDED.iter().find(|name| spec.capacity.contains_key(**name)) {
        return Err(format!("spec.capacity[{name}]: only extended resources can be added"));
    }
    Ok(Overlay {
        name: name.to_owned(),
        weight: spec.weight.unwrap_or(0),
        requirements: normalized(&spec.requirements),
        price: spec.price_change()?,
        capacity,
    })
}

impl Overlays {
    pub(crate) fn of(view: &View) -> Self {
        let mut overlays = Self::default();
        for (name, object) in view.overlays() {
            if object.metadata.deletion_timestamp.is_some() {
                continue;
            }
            match read(name, object) {
                Ok(overlay) => overlays.list.push(overlay),
                Err(reason) => drop(overlays.refused.insert(name.clone(), reason)),
            }
        }
        overlays.list.sort_by_key(|overlay| (Reverse(overlay.weight), overlay.name.clone()));
        overlays
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The price of an offering whose node will have these labels.
    pub(super) fn price<'l>(
        &mut self,
        label: &dyn Fn(&str) -> Option<&'l str>,
        price: Option<u64>,
    ) -> Option<u64> {
        let mut chosen: Option<&Overlay> = None;
        for overlay in self.list.iter().filter(|overlay| overlay.price.is_some()) {
            if chosen.is_some_and(|chosen| chosen.weight > overlay.weight) {
                break;
            }
            if !overlay.holds(label) {
                continue;
            }
            match chosen {
                None => chosen = Some(overlay),
                Some(first) => {
                    self.conflicts
                        .entry(overlay.name.clone())
                        .or_insert_with(|| first.name.clone());
                }
            }
        }
        match chosen.and_then(|overlay| overlay.price) {
            Some(change) => change.apply(price),
            None => price,
        }
    }

    /// What a node with these labels has besides the resources of its type.
    pub(crate) fn capacity<'l>(&mut self, label: &dyn Fn(&str) -> Option<&'l str>) -> Resources {
        let mut added = Resources::new();
        let mut by: BTreeMap<ResourceName, (i32, String)> = BTreeMap::new();
        for overlay in self.list.iter().filter(|overlay| !overlay.capacity.is_empty()) {
            if !overlay.holds(label) {
                continue;
            }
            for (name, amount) in overlay.capacity.iter() {
                match by.get(name) {
                    None => {
                        added.set(name.clone(), amount);
                        by.insert(name.clone(), (overlay.weight, overlay.name.clone()));
                    }
                    Some((weight, first)) if *weight == overlay.weight => {
                        self.conflicts.entry(overlay.name.clone()).or_insert_with(|| first.clone());
                    }
                    Some(_) => {}
                }
            }
        }
        added
    }
}

impl Overlay {
    fn holds<'l>(&self, label: &dyn Fn(&str) -> Option<&'l str>) -> bool {
        self.requirements.iter().all(|requirement| fulfils(requirement, label(&requirement.key)))
    }
}
