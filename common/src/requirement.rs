//! The requirement algebra: sets of label values by operator, and their intersections.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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
