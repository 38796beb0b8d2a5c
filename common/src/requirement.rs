//! The requirement algebra: sets of label values by operator, and their intersections.

#[cfg(test)]
mod tests;
mod value_set;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::labels;

pub use value_set::ValueSet;

/// Kubernetes' node selector operators, and Karpenter's `Gte` and `Lte`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Operator {
    /// The value is one of the list.
    In,
    /// The value is none of the list, or the label is absent.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
    /// The value is an integer greater than the given one.
    Gt,
    /// The value is an integer less than the given one.
    Lt,
    /// The value is an integer not less than the given one.
    Gte,
    /// The value is an integer not greater than the given one.
    Lte,
}

/// One requirement as manifests write it (NodePool, NodeClaim, node affinity).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Requirement {
    /// Label key.
    pub key: String,
    /// Operator.
    pub operator: Operator,
    /// Values; what is allowed depends on the operator.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
    /// At least this many distinct values must stay possible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_values: Option<u32>,
}

/// A conjunction of requirements, one normalised [`ValueSet`] a key.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Requirements(BTreeMap<String, ValueSet>);

/// Why a requirement cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("requirement on {key:?}: {reason}")]
pub struct RequirementError {
    /// The requirement's key.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for Operator {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Operator::In => "In",
            Operator::NotIn => "NotIn",
            Operator::Exists => "Exists",
            Operator::DoesNotExist => "DoesNotExist",
            Operator::Gt => "Gt",
            Operator::Lt => "Lt",
            Operator::Gte => "Gte",
            Operator::Lte => "Lte",
        })
    }
}

impl Requirement {
    /// A requirement without `minValues`.
    pub fn new<V: Into<String>>(
        key: impl Into<String>,
        operator: Operator,
        values: impl IntoIterator<Item = V>,
    ) -> Self {
        let values = values.into_iter().map(Into::into).collect();
        Self { key: key.into(), operator, values, min_values: None }
    }

    /// The set of values it allows.
    ///
    /// # Errors
    /// The key and the rule it breaks: `In` needs values, comparisons exactly one integer, `minValues` is
    /// 1 to 50 and not more than the values of an `In`. (`NotIn` without values rules nothing out, as NodePools
    /// may have it.)
    pub fn to_value_set(&self) -> Result<ValueSet, RequirementError> {
        let error = |reason: String| RequirementError { key: self.key.clone(), reason };
        if self.key.is_empty() || self.key.len() > LONGEST_KEY {
            return Err(error(format!("a key has 1 to {LONGEST_KEY} characters")));
        }
        if let Some(value) = self.values.iter().find(|value| value.len() > LONGEST_VALUE) {
            return Err(error(format!(
                "value {value:?} is longer than {LONGEST_VALUE} characters"
            )));
        }
        self.check_min_values().map_err(error)?;
        let set = match self.operator {
            Operator::In if self.values.is_empty() => {
                return Err(error("In needs at least one value".to_owned()));
            }
            Operator::In => ValueSet::one_of(self.values.iter().cloned()),
            Operator::NotIn => ValueSet::none_of(self.values.iter().cloned()),
            Operator::Exists => ValueSet::present(),
            Operator::DoesNotExist => ValueSet::absent(),
            Operator::Gt => match self.bound().map_err(error)?.checked_add(1) {
                Some(least) => ValueSet::between(Some(least), None),
                None => ValueSet::one_of::<String>([]),
            },
            Operator::Lt => match self.bound().map_err(error)?.checked_sub(1) {
                Some(most) => ValueSet::between(None, Some(most)),
                None => ValueSet::one_of::<String>([]),
            },
            Operator::Gte => ValueSet::between(Some(self.bound().map_err(error)?), None),
            Operator::Lte => ValueSet::between(None, Some(self.bound().map_err(error)?)),
        };
        Ok(set.with_min_values(self.min_values))
    }

    fn check_min_values(&self) -> Result<(), String> {
        let Some(least) = self.min_values else { return Ok(()) };
        if !(1..=50).contains(&least) {
            return Err(format!("minValues is {least}, it must be 1 to 50"));
        }
        if self.operator == Operator::In && self.values.len() < usize::try_from(least).unwrap_or(0)
        {
            return Err(format!(
                "minValues is {least}, but there are {} values",
                self.values.len()
            ));
        }
        Ok(())
    }

    /// The one integer of a comparison.
    fn bound(&self) -> Result<i64, String> {
        match self.values.as_slice() {
            [value] => value
                .parse()
                .map_err(|_error| format!("{} needs an integer, {value:?} is none", self.operator)),
            values => {
                Err(format!("{} needs exactly one value, not {}", self.operator, values.len()))
            }
        }
    }
}

/// The longest key: a 253-character prefix, a slash and a 63-character name, less one.
const LONGEST_KEY: usize = 316;
/// The longest label value.
const LONGEST_VALUE: usize = 63;

impl Requirements {
    /// No requirement: everything matches.
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// The conjunction of `requirements`; beta label keys become their stable names.
    ///
    /// # Errors
    /// The first requirement that breaks a rule of its operator.
    pub fn from_requirements(requirements: &[Requirement]) -> Result<Self, RequirementError> {
        let mut all = Self::new();
        for requirement in requirements {
            all.insert(&requirement.key, requirement.to_value_set()?);
        }
        Ok(all)
    }

    /// One `In` requirement a label.
    pub fn from_labels(labels: &BTreeMap<String, String>) -> Self {
        let mut all = Self::new();
        for (key, value) in labels {
            all.insert(key, ValueSet::one_of([value.clone()]));
        }
        all
    }

    /// Narrows `key` to `values`, too.
    pub fn insert(&mut self, key: &str, values: ValueSet) {
        let key = labels::stable_name(key);
        match self.0.get_mut(key) {
            Some(own) => *own = own.intersect(&values),
            None => {
                self.0.insert(key.to_owned(), values);
            }
        }
    }

    /// Narrows by every requirement of `other`.
    pub fn add(&mut self, other: &Requirements) {
        for (key, values) in &other.0 {
            self.insert(key, values.clone());
        }
    }

    /// What `key` is narrowed to, if at all.
    pub fn get(&self, key: &str) -> Option<&ValueSet> {
        self.0.get(labels::stable_name(key))
    }

    /// Every narrowed key, in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Every narrowed key with its values, in order of keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &ValueSet)> {
        self.0.iter().map(|(key, values)| (key.as_str(), values))
    }

    /// Whether nothing is narrowed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether some label values satisfy both, looking at keys that both narrow.
    pub fn intersects(&self, other: &Requirements) -> bool {
        self.conflict(other).is_none()
    }

    /// The first key that both narrow and no value of which satisfies both.
    fn conflict<'a>(&self, other: &'a Requirements) -> Option<&'a str> {
        other
            .iter()
            .find(|(key, values)| self.0.get(*key).is_some_and(|own| !own.intersects(values)))
            .map(|(key, _values)| key)
    }

    /// Whether nodes with these requirements can satisfy a pod's. A label that the pod asks for
    /// must be defined here; with `allow_undefined_well_known` those that instance types and
    /// offerings bring along need not be.
    pub fn compatible(&self, pod: &Requirements, allow_undefined_well_known: bool) -> bool {
        self.incompatible_key(pod, allow_undefined_well_known).is_none()
    }

    /// The first key that makes [`Requirements::compatible`] false.
    pub fn incompatible_key<'a>(
        &self,
        pod: &'a Requirements,
        allow_undefined_well_known: bool,
    ) -> Option<&'a str> {
        let undefined = pod.iter().find(|(key, values)| {
            let may_be_undefined = values.may_be_absent()
                || (allow_undefined_well_known && labels::is_well_known(key));
            !may_be_undefined && !self.0.contains_key(*key)
        });
        undefined.map(|(key, _values)| key).or_else(|| self.conflict(pod))
    }

    /// Whether a node with exactly these labels satisfies every requirement.
    pub fn matches_labels(&self, node_labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|(key, values)| match node_labels.get(key) {
            Some(value) => values.contains(value),
            None => values.may_be_absent(),
        })
    }

    /// The same as manifests write it; a key can need several.
    pub fn to_requirements(&self) -> Vec<Requirement> {
        self.iter().flat_map(|(key, values)| values.to_requirements(key)).collect()
    }
}
