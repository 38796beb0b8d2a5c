//! Why a NodePool can make no node, whoever asks for one.

use drover_common::instance_type::InstanceType;
use drover_common::requirement::Requirement;

use super::label::{DeterminedKeys, is_offer_key, offering_label, type_label};
use crate::planner::matching::{current_key, fulfils, requirement_text};

/// Names the first requirement of a pool that none of its class's types fulfils, if there is one.
pub(super) fn fruitless(
    class: &str,
    types: &[InstanceType],
    requirements: &[Requirement],
    determined: DeterminedKeys<'_>,
) -> String {
    if types.is_empty() {
        return format!("EC2NodeClass {class} has an image and a zone for no instance type");
    }
    let is_met = |requirement: &&Requirement| {
        let key = current_key(&requirement.key);
        !determined.contains(key)
            || types.iter().any(|kind| match is_offer_key(key) {
                true => kind.offerings.iter().any(|o| fulfils(requirement, offering_label(o, key))),
                false => fulfils(requirement, type_label(kind, key)),
            })
    };
    match requirements.iter().find(|requirement| !is_met(requirement)) {
        Some(alone) => format!(
            "no type that EC2NodeClass {class} has images and zones for fulfils the NodePool's \
             requirement {}",
            requirement_text(alone)
        ),
        None => "no instance type fulfils all of the NodePool's own requirements".to_owned(),
    }
}
