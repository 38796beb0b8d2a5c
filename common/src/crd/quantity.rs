//! Quantities in the user's own spelling.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::resources::{QuantityError, Resources};

/// A Kubernetes quantity as it was written: a number or a text such as `1500m` or `2Gi`. It is
/// written back exactly so.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RawQuantity {
    /// A bare integer.
    Integer(i64),
    /// Anything else.
    Text(String),
}

/// Quantities by resource name, as written.
pub type RawResources = BTreeMap<String, RawQuantity>;

impl fmt::Display for RawQuantity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RawQuantity::Integer(number) => write!(formatter, "{number}"),
            RawQuantity::Text(text) => formatter.write_str(text),
        }
    }
}

impl From<&str> for RawQuantity {
    fn from(text: &str) -> Self {
        RawQuantity::Text(text.to_owned())
    }
}

impl From<String> for RawQuantity {
    fn from(text: String) -> Self {
        RawQuantity::Text(text)
    }
}

/// The pattern that API servers put on quantities of custom resources.
pub(super) const QUANTITY_PATTERN: &str = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$";

impl JsonSchema for RawQuantity {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": QUANTITY_PATTERN,
            "x-kubernetes-int-or-string": true,
        })
    }
}

/// The amounts that quantities stand for.
///
/// # Errors
/// The first text that is not a quantity.
pub fn parse_resources(raw: &RawResources) -> Result<Resources, QuantityError> {
    let texts: Vec<(&str, String)> =
        raw.iter().map(|(name, quantity)| (name.as_str(), quantity.to_string())).collect();
    Resources::from_quantities(texts.iter().map(|(name, text)| (*name, text.as_str())))
}
