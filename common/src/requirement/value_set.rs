//! The values that one label may have, in a normal form.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Operator, Requirement};

/// The states that a label may be in: absent or not, and with which values. Either a finite set of
/// values, or all values save some, within inclusive integer bounds if there are any (only integers
/// lie within bounds).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ValueSet {
    /// Whether `values` are those left out instead of those let in.
    complement: bool,
    values: BTreeSet<String>,
    /// Smallest integer; only in a complement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at_least: Option<i64>,
    /// Largest integer; only in a complement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at_most: Option<i64>,
    may_be_absent: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    min_values: Option<u32>,
}

impl ValueSet {
    /// Nothing required: absent or any value.
    pub const fn anything() -> Self {
        Self {
            complement: true,
            values: BTreeSet::new(),
            at_least: None,
            at_most: None,
            may_be_absent: true,
            min_values: None,
        }
    }

    /// `Exists`: any value.
    pub fn present() -> Self {
        Self { may_be_absent: false, ..Self::anything() }
    }

    /// `DoesNotExist`.
    pub fn absent() -> Self {
        Self { complement: false, ..Self::anything() }
    }

    /// `In`: one of `values`.
    pub fn one_of<V: Into<String>>(values: impl IntoIterator<Item = V>) -> Self {
        let values = values.into_iter().map(Into::into).collect();
        Self { complement: false, values, may_be_absent: false, ..Self::anything() }
    }

    /// `NotIn`: absent or none of `values`.
    pub fn none_of<V: Into<String>>(values: impl IntoIterator<Item = V>) -> Self {
        Self { values: values.into_iter().map(Into::into).collect(), ..Self::anything() }
    }

    /// `Gte` and `Lte`: an integer within inclusive bounds. With neither bound nothing fits: that
    /// is what a comparison past the last 64-bit integer comes to.
    pub fn between(at_least: Option<i64>, at_most: Option<i64>) -> Self {
        if at_least.is_none() && at_most.is_none() {
            return Self::one_of::<String>([]);
        }
        Self { at_least, at_most, ..Self::present() }.normalised()
    }

    /// The same values, of which at least so many must stay possible.
    #[must_use]
    pub fn with_min_values(self, min_values: Option<u32>) -> Self {
        Self { min_values, ..self }
    }

    /// How many distinct values must stay possible, if that is asked for.
    pub fn min_values(&self) -> Option<u32> {
        self.min_values
    }

    /// Whether a node without the label is accepted.
    pub fn may_be_absent(&self) -> bool {
        self.may_be_absent
    }

    /// Whether a node whose label is `value` is accepted.
    pub fn contains(&self, value: &str) -> bool {
        self.values.contains(value) != self.complement && self.within_bounds(value)
    }

    /// Whether no node at all is accepted.
    pub fn is_empty(&self) -> bool {
        !self.complement && self.values.is_empty() && !self.may_be_absent
    }

    /// How many values are accepted; `None` if there is no end of them.
    pub fn len(&self) -> Option<usize> {
        (!self.complement).then_some(self.values.len())
    }

    /// The accepted values in order, if they are finite.
    pub fn values(&self) -> Option<impl Iterator<Item = &str>> {
        (!self.complement).then(|| self.values.iter().map(String::as_str))
    }

    /// The one accepted value, where there is exactly one and the label may not be absent.
    pub fn single(&self) -> Option<&str> {
        let mut values = self.values()?;
        let only = values.next()?;
        (values.next().is_none() && !self.may_be_absent).then_some(only)
    }

    /// Some accepted value: the first of a finite set, else one within the bounds.
    pub fn any_value(&self) -> Option<String> {
        if !self.complement {
            return self.values.first().cloned();
        }
        let start = self.at_least.or(self.at_most).unwrap_or(0);
        let step: i64 = if self.at_least.is_none() && self.at_most.is_some() { -1 } else { 1 };
        let tries = i64::try_from(self.values.len()).unwrap_or(i64::MAX);
        (0..=tries)
            .filter_map(|index| start.checked_add(index.checked_mul(step)?))
            .map(|candidate| candidate.to_string())
            .find(|candidate| self.contains(candidate))
    }

    /// The operator that describes it best.
    pub fn operator(&self) -> Operator {
        match (self.complement, self.values.is_empty()) {
            (true, _) if self.at_least.is_some() => Operator::Gte,
            (true, _) if self.at_most.is_some() => Operator::Lte,
            (true, true) => Operator::Exists,
            (true, false) => Operator::NotIn,
            (false, true) => Operator::DoesNotExist,
            (false, false) => Operator::In,
        }
    }

    /// What both accept. The larger `minValues` is kept.
    #[must_use]
    pub fn intersect(&self, other: &ValueSet) -> ValueSet {
        let (complement, values) = match (self.complement, other.complement) {
            (true, true) => (true, self.values.union(&other.values).cloned().collect()),
            (false, _) => (false, self.filtered_by(other)),
            (true, false) => (false, other.filtered_by(self)),
        };
        let bounded = |bound: Option<i64>| bound.filter(|_| complement);
        Self {
            complement,
            values,
            at_least: bounded(self.at_least.max(other.at_least)),
            at_most: bounded(smaller(self.at_most, other.at_most)),
            may_be_absent: self.may_be_absent && other.may_be_absent,
            min_values: self.min_values.max(other.min_values),
        }
        .normalised()
    }

    /// Whether some node is accepted by both; cheaper than building the intersection.
    pub fn intersects(&self, other: &ValueSet) -> bool {
        if self.may_be_absent && other.may_be_absent {
            return true;
        }
        match (self.complement, other.complement) {
            (false, _) => self.values.iter().any(|value| other.contains(value)),
            (true, false) => other.values.iter().any(|value| self.contains(value)),
            (true, true) => {
                let least = self.at_least.max(other.at_least);
                let most = smaller(self.at_most, other.at_most);
                least.zip(most).is_none_or(|(least, most)| least <= most)
            }
        }
    }

    /// The requirements on `key` that say the same; none if anything goes.
    pub fn to_requirements(&self, key: &str) -> Vec<Requirement> {
        let mut parts: Vec<(Operator, Vec<String>)> = Vec::new();
        let values = || self.values.iter().cloned().collect::<Vec<_>>();
        if self.complement {
            parts.extend(self.at_least.map(|bound| (Operator::Gte, vec![bound.to_string()])));
            parts.extend(self.at_most.map(|bound| (Operator::Lte, vec![bound.to_string()])));
            if !self.values.is_empty() {
                parts.push((Operator::NotIn, values()));
            }
            let bounded = self.at_least.is_some() || self.at_most.is_some();
            if !self.may_be_absent && !bounded {
                parts.push((Operator::Exists, Vec::new()));
            }
        } else if self.values.is_empty() {
            parts.push((Operator::DoesNotExist, Vec::new()));
            if !self.may_be_absent {
                // Nothing can satisfy it; this pair says so in words that can be read back.
                parts.push((Operator::Exists, Vec::new()));
            }
        } else {
            parts.push((Operator::In, values()));
        }
        let requirement = |(index, (operator, values)): (usize, (Operator, Vec<String>))| {
            let min_values = self.min_values.filter(|_| index == 0);
            Requirement { key: key.to_owned(), operator, values, min_values }
        };
        parts.into_iter().enumerate().map(requirement).collect()
    }

    fn filtered_by(&self, other: &ValueSet) -> BTreeSet<String> {
        self.values.iter().filter(|value| other.contains(value)).cloned().collect()
    }

    fn within_bounds(&self, value: &str) -> bool {
        if self.at_least.is_none() && self.at_most.is_none() {
            return true;
        }
        value.parse::<i64>().is_ok_and(|number| {
            self.at_least.is_none_or(|bound| number >= bound)
                && self.at_most.is_none_or(|bound| number <= bound)
        })
    }

    /// Crossed bounds are the empty set; values outside the bounds need not be left out.
    fn normalised(mut self) -> Self {
        if self.at_least.zip(self.at_most).is_some_and(|(least, most)| least > most) {
            let may_be_absent = self.may_be_absent;
            return Self { may_be_absent, ..Self::one_of::<String>([]) }
                .with_min_values(self.min_values);
        }
        if self.at_least.is_some() || self.at_most.is_some() {
            let values = std::mem::take(&mut self.values);
            self.values = values.into_iter().filter(|value| self.within_bounds(value)).collect();
        }
        self
    }
}

/// The smaller bound; `None` is unbounded.
fn smaller(left: Option<i64>, right: Option<i64>) -> Option<i64> {
    match (left, right) {
        (Some(left), Some(right)) => Some(left.min(right)),
        (bound, None) | (None, bound) => bound,
    }
}
