//! NodeOverlay (`karpenter.sh/v1alpha1`): other prices and more resources for some instance types.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Condition, RawResources, schema};
use crate::requirement::Requirement;

/// Other prices and more resources for some instance types.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "karpenter.sh",
    version = "v1alpha1",
    kind = "NodeOverlay",
    plural = "nodeoverlays",
    category = "karpenter",
    shortname = "overlays",
    status = "NodeOverlayStatus",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Weight", type_ = "integer", json_path = ".spec.weight", priority = 1),
    derive = "PartialEq",
    doc = "Other prices and more resources for some instance types."
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[(
    "!has(self.price) || !has(self.priceAdjustment)",
    "price and priceAdjustment exclude each other",
)])))]
pub struct NodeOverlaySpec {
    /// Which types, zones and capacity types it is about, by the labels of their nodes.
    #[schemars(schema_with = "schema::overlay_requirements")]
    pub requirements: Vec<Requirement>,
    /// The price, dollars an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^\d+(\.\d+)?$"))]
    pub price: Option<String>,
    /// What is added to the price: dollars an hour or a percentage, with its sign.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(
        pattern = r"^(([+-]{1}(\d*\.?\d+))|(\+{1}\d*\.?\d+%)|(-\d{1,2}(\.\d+)?%)|(-100%))$"
    ))]
    pub price_adjustment: Option<String>,
    /// Resources that the nodes have besides those of their type.
    #[serde(default, skip_serializing_if = "RawResources::is_empty")]
    #[schemars(extend("x-kubernetes-validations" = schema::rules(&[(
        "self.all(x, !(x in ['cpu', 'memory', 'ephemeral-storage', 'pods']))",
        "only extended resources can be added",
    )])))]
    pub capacity: RawResources,
    /// Overlays of greater weight win; absent is 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10000))]
    pub weight: Option<i32>,
}

/// Whether an overlay is in force.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeOverlayStatus {
    /// Ready, ValidationSucceeded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// A change of a price.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PriceChange {
    /// This price, micro-dollars an hour.
    Fixed(u64),
    /// So many micro-dollars more, or less.
    Added(i64),
    /// So many millionths of the price more, or less.
    Scaled(i64),
}

impl PriceChange {
    /// The changed price; never below zero. A price that is not known stays so, unless it is fixed.
    pub fn apply(self, price: Option<u64>) -> Option<u64> {
        let moved = |price: u64, by: i64| price.saturating_add_signed(by);
        match self {
            PriceChange::Fixed(fixed) => Some(fixed),
            PriceChange::Added(amount) => price.map(|price| moved(price, amount)),
            PriceChange::Scaled(millionths) => price.map(|price| {
                let change = i128::from(price) * i128::from(millionths) / 1_000_000;
                moved(price, i64::try_from(change).unwrap_or(i64::MAX))
            }),
        }
    }
}

impl NodeOverlaySpec {
    /// What becomes of prices.
    ///
    /// # Errors
    /// Field and reason, where a text is no price, or both fields are set.
    pub fn price_change(&self) -> Result<Option<PriceChange>, String> {
        match (&self.price, &self.price_adjustment) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) => {
                Err("spec.price and spec.priceAdjustment exclude each other".to_owned())
            }
            (Some(text), None) => match millionths(text).and_then(|n| u64::try_from(n).ok()) {
                Some(micro) => Ok(Some(PriceChange::Fixed(micro))),
                None => Err(format!("spec.price: {text:?} is not a price")),
            },
            (None, Some(text)) => {
                let wrong = || format!("spec.priceAdjustment: {text:?} is no adjustment");
                if !text.starts_with(['+', '-']) {
                    return Err(wrong());
                }
                match text.strip_suffix('%') {
                    Some(percent) => match millionths(percent) {
                        Some(n) if n >= -100_000_000 => Ok(Some(PriceChange::Scaled(n / 100))),
                        _ => Err(wrong()),
                    },
                    None => millionths(text).map(|n| Some(PriceChange::Added(n))).ok_or_else(wrong),
                }
            }
        }
    }
}

/// A decimal number in millionths; further digits are cut off.
fn millionths(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let numeric = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !numeric(whole) || !numeric(fraction) {
        return None;
    }
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let fraction: String = fraction.chars().chain("000000".chars()).take(6).collect();
    let amount = whole.checked_mul(1_000_000)?.checked_add(fraction.parse().ok()?)?;
    Some(if negative { -amount } else { amount })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_set_moved_and_scaled() {
        let change = |price: Option<&str>, adjustment: Option<&str>| {
            let spec = NodeOverlaySpec {
                price: price.map(str::to_owned),
                price_adjustment: adjustment.map(str::to_owned),
                ..NodeOverlaySpec::default()
            };
            spec.price_change().map(|change| change.map(|change| change.apply(Some(200_000))))
        };
        for (price, adjustment, expected) in [
            (Some("0.05"), None, Some(50_000)),
            (Some("2"), None, Some(2_000_000)),
            (None, Some("+0.1"), Some(300_000)),
            (None, Some("-.05"), Some(150_000)),
            (None, Some("-9"), Some(0)),
            (None, Some("+50%"), Some(300_000)),
            (None, Some("-12.5%"), Some(175_000)),
            (None, Some("-100%"), Some(0)),
        ] {
            assert_eq!(change(price, adjustment), Ok(Some(expected)), "{price:?} {adjustment:?}");
        }
        assert_eq!(change(None, None), Ok(None));
        for (price, adjustment) in [
            (Some("cheap"), None),
            (Some("-1"), None),
            (None, Some("5")),
            (None, Some("-101%")),
            (None, Some("+1e3")),
            (Some("1"), Some("+1")),
        ] {
            assert!(change(price, adjustment).is_err(), "{price:?} {adjustment:?}");
        }
        assert_eq!(PriceChange::Fixed(7).apply(None), Some(7));
        assert_eq!(PriceChange::Added(7).apply(None), None);
    }
}
