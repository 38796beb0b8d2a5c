//! Label selectors, node requirements and taints against plain label maps (Kubernetes' rules).

use std::collections::BTreeMap;

use drover_common::cluster::{LabelSelector, LabelSelectorRequirement};
use drover_common::requirement::{Operator, Requirement};
use drover_common::taint::{Taint, TaintEffect, Toleration};

/// What a label key is called today (Karpenter normalises the same ones).
pub(super) fn current_key(key: &str) -> &str {
    drover_common::labels::stable_name(key)
}

/// Whether a label value (`None`: absent) fulfils a requirement. Nothing fulfils a comparison with other than
/// one integer.
pub(super) fn fulfils(requirement: &Requirement, value: Option<&str>) -> bool {
    let listed = |value: &str| requirement.values.iter().any(|wanted| wanted == value);
    let number = |compare: fn(&i64, &i64) -> bool| {
        let bound = match requirement.values.as_slice() {
            [only] => only.parse::<i64>().ok(),
            _ => None,
        };
        let own = value.and_then(|text| text.parse::<i64>().ok());
        matches!((own, bound), (Some(own), Some(bound)) if compare(&own, &bound))
    };
    match requirement.operator {
        Operator::In => value.is_some_and(listed),
        Operator::NotIn => !value.is_some_and(listed),
        Operator::Exists => value.is_some(),
        Operator::DoesNotExist => value.is_none(),
        Operator::Gt => number(i64::gt),
        Operator::Lt => number(i64::lt),
        Operator::Gte => number(i64::ge),
        Operator::Lte => number(i64::le),
    }
}

/// Whether a taint keeps a pod with these tolerations away. `PreferNoSchedule` counts only where
/// `strict` is set.
pub(super) fn repels(taint: &Taint, tolerations: &[Toleration], strict: bool) -> bool {
    if taint.effect == TaintEffect::PreferNoSchedule && !strict {
        return false;
    }
    !tolerations.iter().any(|toleration| tolerates(toleration, taint))
}

/// The first taint that keeps a pod away.
pub(super) fn repelling<'t>(
    taints: &'t [Taint],
    tolerations: &[Toleration],
    strict: bool,
) -> Option<&'t Taint> {
    taints.iter().find(|taint| repels(taint, tolerations, strict))
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    if toleration.effect.is_some_and(|effect| effect != taint.effect) {
        return false;
    }
    let key = toleration.key.as_deref().unwrap_or_default();
    if !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or_default() {
        "Exists" => true,
        "" | "Equal" => {
            !key.is_empty() && toleration.value.as_deref().unwrap_or_default() == taint.value
        }
        _ => false,
    }
}

/// Whether a label selector selects a thing with these labels. A selector that is absent selects
/// nothing, an empty one everything.
pub(crate) fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    selector.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
        && selector.match_expressions.iter().all(|expression| expression_holds(expression, labels))
}

fn expression_holds(
    expression: &LabelSelectorRequirement,
    labels: &BTreeMap<String, String>,
) -> bool {
    let value = labels.get(&expression.key);
    let listed = value.is_some_and(|value| expression.values.contains(value));
    match expression.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        _ => false,
    }
}

/// A taint as kubectl prints it.
pub(super) fn taint_text(taint: &Taint) -> String {
    if taint.value.is_empty() {
        format!("{}:{:?}", taint.key, taint.effect)
    } else {
        format!("{}={}:{:?}", taint.key, taint.value, taint.effect)
    }
}

/// A requirement in words: `kubernetes.io/arch In [arm64]`.
pub(super) fn requirement_text(requirement: &Requirement) -> String {
    if requirement.values.is_empty() {
        format!("{} {:?}", requirement.key, requirement.operator)
    } else {
        format!(
            "{} {:?} [{}]",
            requirement.key,
            requirement.operator,
            requirement.values.join(", ")
        )
    }
}
