//! What NodePools and shortages leave: requirements, limits, offerings that are left alone.

use std::collections::BTreeMap;

use drover_common::crd::NodePool;
use drover_common::id::NodePoolName;
use drover_common::labels;
use drover_common::requirement::{Operator, Requirement};
use drover_common::resources::{ResourceName, Resources};
use jiff::Timestamp;

use super::label::DeterminedKeys;
use crate::planner::dimension::Dimensions;
use crate::planner::matching::current_key;
use crate::planner::{PlanInput, UnavailableOffering};

/// Until when an offering is left alone, if it is.
pub(in crate::planner) fn unavailable_until(
    unavailable: &BTreeMap<UnavailableOffering, Timestamp>,
    instance_type: &str,
    offering: &drover_common::instance_type::Offering,
) -> Option<Timestamp> {
    if unavailable.is_empty() {
        return None;
    }
    let names = [None, Some(instance_type.to_owned())];
    let zones = [None, Some(offering.zone.clone())];
    let own = offering.reservation.as_ref().map(|reservation| reservation.id.clone());
    let keys = names.iter().flat_map(|name| zones.iter().map(move |zone| (name, zone)));
    keys.flat_map(|(name, zone)| {
        let key = |reservation| UnavailableOffering {
            capacity_type: offering.capacity_type,
            instance_type: name.clone(),
            zone: zone.clone(),
            reservation,
        };
        let own = own.clone().and_then(|own| unavailable.get(&key(Some(own))));
        unavailable.get(&key(None)).into_iter().chain(own)
    })
    .max()
    .copied()
}

/// What the pool's limits leave, and how many nodes.
pub(super) fn limits_left(
    input: &PlanInput<'_>,
    dimensions: &Dimensions,
    name: &NodePoolName,
    pool: &NodePool,
    problems: &mut Vec<String>,
) -> (Vec<Option<i64>>, Option<i64>) {
    let none = Resources::default();
    let usage = input.pool_usage.get(name).unwrap_or(&none);
    let mut left = vec![None; dimensions.len()];
    let mut nodes_left = None;
    for (key, quantity) in &pool.spec.limits {
        let text = quantity.to_string();
        let parsed = Resources::from_quantities([(key.as_str(), text.as_str())]);
        let resource = ResourceName::from(key.as_str());
        // A limit that can't be read must not read as "unlimited".
        let limit = match parsed {
            Ok(parsed) => parsed.get(&resource),
            Err(error) => {
                problems.push(format!("NodePool {name} spec.limits.{key}: {error}"));
                0
            }
        };
        let remaining = limit.saturating_sub(usage.get(&resource));
        if key == "nodes" {
            nodes_left = Some(remaining);
        } else if let Some(slot) = dimensions
            .names()
            .iter()
            .position(|known| *known == resource)
            .and_then(|index| left.get_mut(index))
        {
            *slot = Some(remaining);
        }
    }
    (left, nodes_left)
}

/// A pool's requirements under today's label keys. Labels of its template that type or offering decide are some, too,
/// as they are to Karpenter: whatever else was bought would not have them.
pub(super) fn pool_requirements(
    pool: &NodePool,
    determined: DeterminedKeys<'_>,
) -> Vec<Requirement> {
    let mut requirements = pool.spec.template.spec.requirements.clone();
    for requirement in &mut requirements {
        requirement.key = current_key(&requirement.key).to_owned();
    }
    for (key, value) in &pool.spec.template.metadata.labels {
        let key = current_key(key);
        if key != labels::HOSTNAME && determined.contains(key) {
            requirements.push(Requirement {
                key: key.to_owned(),
                operator: Operator::In,
                values: vec![value.clone()],
                min_values: None,
            });
        }
    }
    requirements
}

/// Requirements with one possible value, as labels.
pub(in crate::planner) fn single_values(requirements: &[Requirement]) -> BTreeMap<String, String> {
    requirements
        .iter()
        .filter(|r| r.operator == Operator::In && r.values.len() == 1)
        .filter_map(|r| Some((r.key.clone(), r.values.first()?.clone())))
        .collect()
}
