//! Resource amounts as exact integers, and Kubernetes quantities.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The name of a resource. The four that every node has are interned as variants.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceName {
    /// `cpu`, counted in thousandths.
    Cpu,
    /// `memory`, bytes.
    Memory,
    /// `ephemeral-storage`, bytes.
    EphemeralStorage,
    /// `pods`.
    Pods,
    /// Any other: `nvidia.com/gpu`, `hugepages-2Mi` (bytes), …
    Other(Arc<str>),
}

impl ResourceName {
    /// The name as Kubernetes writes it.
    pub fn as_str(&self) -> &str {
        match self {
            ResourceName::Cpu => "cpu",
            ResourceName::Memory => "memory",
            ResourceName::EphemeralStorage => "ephemeral-storage",
            ResourceName::Pods => "pods",
            ResourceName::Other(name) => name,
        }
    }
}

impl From<&str> for ResourceName {
    fn from(name: &str) -> Self {
        match name {
            "cpu" => ResourceName::Cpu,
            "memory" => ResourceName::Memory,
            "ephemeral-storage" => ResourceName::EphemeralStorage,
            "pods" => ResourceName::Pods,
            other => ResourceName::Other(Arc::from(other)),
        }
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Amounts by resource: cpu in thousandths of a core, everything else in its base unit (bytes,
/// pieces). An absent name is zero. Serialized as a map of Kubernetes quantities.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resources(BTreeMap<ResourceName, i64>);

/// Why a text is not a Kubernetes quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{text:?} is not a quantity: {reason}")]
pub struct QuantityError {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}
