//! NodeOverlays as the check reads them.

use std::collections::BTreeMap;

use drover_common::crd::{NodeOverlay, parse_resources};
use drover_common::requirement::{Operator, Requirements};
use drover_common::resources::Resources;

use crate::planner::PlanInput;

/// Overlays in force for a node with these labels, the weightiest first.
fn in_force<'v>(input: &PlanInput<'v>, labels: &BTreeMap<String, String>) -> Vec<&'v NodeOverlay> {
    let mut found: Vec<(&String, &NodeOverlay)> = input
        .view
        .overlays()
        .iter()
        .map(|(name, overlay)| (name, overlay.as_ref()))
        .filter(|(_, overlay)| overlay.metadata.deletion_timestamp.is_none() && is_valid(overlay))
        .filter(|(_, overlay)| {
            Requirements::from_requirements(&overlay.spec.requirements)
                .is_ok_and(|requirements| requirements.matches_labels(labels))
        })
        .collect();
    found.sort_by_key(|(name, overlay)| (-overlay.spec.weight.unwrap_or(0), *name));
    found.into_iter().map(|(_, overlay)| overlay).collect()
}

/// Whether an overlay says nothing that is wrong. One that does has no effect at all. Source: Karpenter's
/// NodeOverlay validation.
fn is_valid(overlay: &NodeOverlay) -> bool {
    let spec = &overlay.spec;
    let plain = ["cpu", "memory", "pods", "ephemeral-storage"];
    spec.price_change().is_ok()
        && parse_resources(&spec.capacity).is_ok()
        && !plain.iter().any(|name| spec.capacity.contains_key(*name))
        && spec.requirements.iter().all(|requirement| {
            requirement.min_values.is_none()
                && (requirement.operator != Operator::In || !requirement.values.is_empty())
        })
}

/// Resources that overlays add.
pub(super) fn added(input: &PlanInput<'_>, labels: &BTreeMap<String, String>) -> Resources {
    let mut added = Resources::new();
    for overlay in in_force(input, labels) {
        let Ok(capacity) = parse_resources(&overlay.spec.capacity) else { continue };
        for (name, amount) in capacity.iter() {
            if !added.contains(name) {
                added.set(name.clone(), amount);
            }
        }
    }
    added
}

/// An offering's price under the overlays.
pub(super) fn price(
    input: &PlanInput<'_>,
    labels: &BTreeMap<String, String>,
    price: Option<u64>,
) -> Option<u64> {
    let overlays = in_force(input, labels);
    let mut changes =
        overlays.iter().filter_map(|overlay| overlay.spec.price_change().ok().flatten());
    changes.next().map_or(price, |change| change.apply(price))
}
