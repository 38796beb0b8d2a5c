//! What no schema and no CEL rule can say of a manifest, checked by the leader.

use std::collections::BTreeSet;
use std::fmt;

use jiff::Timestamp;

use super::{
    AmiFamily, Ec2NodeClass, KubeletConfiguration, NEVER, NodePool, RawQuantity, parse_duration,
};
use crate::labels;
use crate::requirement::{Operator, Requirement};
use crate::resources::Resources;
use crate::taint::Taint;

/// A field and what is wrong with it. Whoever reports it adds the object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FieldError {
    /// Path of the field, e.g. `spec.disruption.budgets[1].schedule`.
    pub field: String,
    /// What is wrong.
    pub reason: String,
}

impl FieldError {
    fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.field, self.reason)
    }
}

/// What is wrong with a NodePool; empty if nothing is. A pool with errors gets the condition
/// ValidationSucceeded False and launches nothing.
pub fn validate_node_pool(pool: &NodePool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let template = &pool.spec.template.spec;
    taints(&template.taints, &template.startup_taints, &mut errors);
    for key in pool.spec.template.metadata.labels.keys().filter(|key| labels::is_restricted(key)) {
        let field = format!("spec.template.metadata.labels[{key}]");
        errors.push(FieldError::new(field, format!("the label {key} is restricted")));
    }
    for (index, requirement) in template.requirements.iter().enumerate() {
        let field = format!("spec.template.spec.requirements[{index}]");
        let before = errors.len();
        pool_requirement(&field, requirement, &mut errors);
        if let (true, Err(error)) = (before == errors.len(), requirement.to_value_set()) {
            errors.push(FieldError::new(field, error.reason));
        }
    }
    nillable_duration("spec.template.spec.expireAfter", &template.expire_after, &mut errors);
    if let Some(grace) = &template.termination_grace_period {
        duration("spec.template.spec.terminationGracePeriod", grace, &mut errors);
    }
    let disruption = &pool.spec.disruption;
    nillable_duration(
        "spec.disruption.consolidateAfter",
        &disruption.consolidate_after,
        &mut errors,
    );
    for (index, budget) in disruption.budgets.iter().enumerate() {
        let checks =
            [budget.is_active(Timestamp::UNIX_EPOCH).map(drop), budget.allowed(1).map(drop)];
        for error in checks.into_iter().filter_map(Result::err) {
            let field = format!("spec.disruption.budgets[{index}].{}", error.field);
            errors.push(FieldError::new(field, error.reason));
        }
    }
    for (name, quantity) in &pool.spec.limits {
        amount(&format!("spec.limits[{name}]"), name, quantity, &mut errors);
    }
    errors
}

/// A key and effect is given once over both lists.
fn taints(taints: &[Taint], startup_taints: &[Taint], errors: &mut Vec<FieldError>) {
    let mut seen = BTreeSet::new();
    let lists = [("taints", taints), ("startupTaints", startup_taints)];
    for (list, taints) in lists {
        for (index, taint) in taints.iter().enumerate() {
            if !seen.insert((taint.key.as_str(), taint.effect)) {
                errors.push(FieldError::new(
                    format!("spec.template.spec.{list}[{index}]"),
                    format!("{}:{:?} is given more than once", taint.key, taint.effect),
                ));
            }
        }
    }
}

fn pool_requirement(field: &str, requirement: &Requirement, errors: &mut Vec<FieldError>) {
    if requirement.key == labels::NODEPOOL {
        errors.push(FieldError::new(format!("{field}.key"), "a pool can't require its own label"));
    } else if labels::is_restricted(&requirement.key) {
        let reason = format!("the label {} is restricted", requirement.key);
        errors.push(FieldError::new(format!("{field}.key"), reason));
    }
    let values = || format!("{field}.values");
    match requirement.operator {
        Operator::In if requirement.values.is_empty() => {
            errors.push(FieldError::new(values(), "In needs a value"));
        }
        Operator::Gt | Operator::Lt | Operator::Gte | Operator::Lte => {
            let number = match requirement.values.as_slice() {
                [value] => value.parse::<u64>().ok(),
                _ => None,
            };
            if number.is_none() {
                errors.push(FieldError::new(
                    values(),
                    format!("{:?} needs one integer that is not negative", requirement.operator),
                ));
            }
        }
        _ => {}
    }
    if let (Operator::In, Some(known)) = (requirement.operator, known_values(&requirement.key)) {
        let valid = requirement.values.iter().filter(|value| known.contains(&value.as_str()));
        let needed = requirement.min_values.unwrap_or(1).max(1);
        if u32::try_from(valid.count()).unwrap_or(u32::MAX) < needed {
            let known = known.join(", ");
            errors.push(FieldError::new(values(), format!("at least {needed} must be of {known}")));
        }
    }
}

/// The only values some keys can have. Others in a list are ignored while enough remain.
fn known_values(key: &str) -> Option<&'static [&'static str]> {
    match key {
        labels::CAPACITY_TYPE => Some(&["on-demand", "spot", "reserved"]),
        "karpenter.k8s.aws/instance-tenancy" => Some(&["default", "dedicated"]),
        _ => None,
    }
}

fn duration(field: &str, text: &str, errors: &mut Vec<FieldError>) {
    if parse_duration(text).is_none() {
        errors.push(FieldError::new(
            field,
            format!("{text:?} is not a duration of hours, minutes and seconds"),
        ));
    }
}

fn nillable_duration(field: &str, text: &str, errors: &mut Vec<FieldError>) {
    if text != NEVER && parse_duration(text).is_none() {
        errors.push(FieldError::new(
            field,
            format!("{text:?} is neither a duration of hours, minutes and seconds nor {NEVER}"),
        ));
    }
}

fn amount(field: &str, name: &str, quantity: &RawQuantity, errors: &mut Vec<FieldError>) {
    let text = quantity.to_string();
    if let Err(error) = Resources::from_quantities([(name, text.as_str())]) {
        errors.push(FieldError::new(field, error.to_string()));
    }
}

/// What is wrong with an EC2NodeClass; empty if nothing is. A class with errors gets the condition
/// ValidationSucceeded False and launches nothing.
pub fn validate_node_class(class: &Ec2NodeClass) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let family = class.spec.family();
    if family.is_none() {
        errors.push(FieldError::new("spec.amiFamily", "needed where no alias gives it"));
    }
    if class.spec.role.is_some() == class.spec.instance_profile.is_some() {
        errors.push(FieldError::new("spec.role", "exactly one of role and instanceProfile"));
    }
    if let Some(kubelet) = &class.spec.kubelet {
        kubelet_settings(kubelet, family, &mut errors);
    }
    for (index, mapping) in class.spec.block_device_mappings.iter().enumerate() {
        let Some(size) = mapping.ebs.as_ref().and_then(|ebs| ebs.volume_size.as_ref()) else {
            continue;
        };
        let field = format!("spec.blockDeviceMappings[{index}].ebs.volumeSize");
        amount(&field, "ephemeral-storage", size, &mut errors);
    }
    if class.spec.user_data.as_ref().is_some_and(|text| text.len() > USER_DATA_LIMIT) {
        errors.push(FieldError::new(
            "spec.userData",
            format!("longer than EC2's limit of {USER_DATA_LIMIT} bytes"),
        ));
    }
    errors
}

/// EC2's limit on user data before base64, bytes.
pub const USER_DATA_LIMIT: usize = 16_384;

fn kubelet_settings(
    kubelet: &KubeletConfiguration,
    family: Option<AmiFamily>,
    errors: &mut Vec<FieldError>,
) {
    for (map, reserved) in
        [("kubeReserved", &kubelet.kube_reserved), ("systemReserved", &kubelet.system_reserved)]
    {
        for (name, text) in reserved {
            let field = format!("spec.kubelet.{map}[{name}]");
            amount(&field, name, &RawQuantity::from(text.as_str()), errors);
        }
    }
    for (map, thresholds) in
        [("evictionHard", &kubelet.eviction_hard), ("evictionSoft", &kubelet.eviction_soft)]
    {
        for (signal, text) in thresholds {
            threshold(&format!("spec.kubelet.{map}[{signal}]"), text, errors);
        }
    }
    for (signal, text) in &kubelet.eviction_soft_grace_period {
        duration(&format!("spec.kubelet.evictionSoftGracePeriod[{signal}]"), text, errors);
    }
    for key in kubelet.other.keys() {
        let field = format!("spec.kubelet.{key}");
        if key == "registerWithTaints" {
            errors.push(FieldError::new(field, "taints belong into the NodePool"));
        } else if !matches!(family, Some(AmiFamily::Al2023 | AmiFamily::Custom)) {
            errors.push(FieldError::new(field, "only AL2023 and Custom take this key"));
        }
    }
}

/// A quantity, or a percentage up to 100.
fn threshold(field: &str, text: &str, errors: &mut Vec<FieldError>) {
    match text.strip_suffix('%') {
        Some(percent) => {
            let valid =
                percent.parse::<f64>().is_ok_and(|percent| (0.0..=100.0).contains(&percent));
            if !valid {
                errors.push(FieldError::new(
                    field,
                    format!("{text:?} is not a percentage from 0% to 100%"),
                ));
            }
        }
        None => amount(field, "memory", &RawQuantity::from(text), errors),
    }
}
