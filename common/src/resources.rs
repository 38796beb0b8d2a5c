//! Resource amounts as exact integers, and Kubernetes quantities.

mod quantity;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub use quantity::{Quantity, parse_quantity};

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
pub struct Resources(
    /// In order of names, each once. There are few, and a cluster has very many of them: this is
    /// smaller than a tree, and faster.
    Vec<(ResourceName, i64)>,
);

/// Why a text is not a Kubernetes quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{text:?} is not a quantity: {reason}")]
pub struct QuantityError {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Resources {
    /// No amounts.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Reads quantities by name, as manifests write them.
    ///
    /// # Errors
    /// The first text that is not a quantity.
    pub fn from_quantities<'a>(
        quantities: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, QuantityError> {
        quantities
            .into_iter()
            .map(|(name, text)| {
                let name = ResourceName::from(name);
                let amount = amount_of(&name, parse_quantity(text)?);
                Ok((name, amount))
            })
            .collect()
    }

    /// The amount of `name`; zero if absent.
    pub fn get(&self, name: &ResourceName) -> i64 {
        self.place(name).ok().and_then(|place| self.0.get(place)).map_or(0, |(_, amount)| *amount)
    }

    /// Whether `name` is there at all: a limit of zero is not the same as no limit.
    pub fn contains(&self, name: &ResourceName) -> bool {
        self.place(name).is_ok()
    }

    /// Sets the amount of `name`. A zero stays as an entry.
    pub fn set(&mut self, name: ResourceName, amount: i64) {
        self.change(&name, |own| *own = amount);
    }

    /// Removes `name`.
    pub fn remove(&mut self, name: &ResourceName) {
        self.0.retain(|(own, _)| own != name);
    }

    /// Where `name` is, or where it would be.
    fn place(&self, name: &ResourceName) -> Result<usize, usize> {
        self.0.binary_search_by(|(own, _)| own.cmp(name))
    }

    /// Changes the amount of `name`, which is zero where it is absent.
    fn change(&mut self, name: &ResourceName, change: impl FnOnce(&mut i64)) {
        let place = self.place(name).unwrap_or_else(|place| {
            self.0.insert(place, (name.clone(), 0));
            place
        });
        if let Some((_, amount)) = self.0.get_mut(place) {
            change(amount);
        }
    }

    /// Every entry, in order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&ResourceName, i64)> {
        self.0.iter().map(|(name, amount)| (name, *amount))
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds every amount of `other`; saturates.
    pub fn add(&mut self, other: &Resources) {
        for (name, amount) in other.iter() {
            self.change(name, |own| *own = own.saturating_add(amount));
        }
    }

    /// Subtracts every amount of `other`; saturates, and goes below zero where `other` has more,
    /// so that adding it back restores what was there.
    pub fn subtract(&mut self, other: &Resources) {
        for (name, amount) in other.iter() {
            self.change(name, |own| *own = own.saturating_sub(amount));
        }
    }

    /// Whether every amount above zero is there in `available`.
    pub fn fits_in(&self, available: &Resources) -> bool {
        self.iter().all(|(name, amount)| amount <= 0 || amount <= available.get(name))
    }

    /// The larger amount of each name. (`max` is that of the type's order.)
    #[must_use]
    pub fn maximum(&self, other: &Resources) -> Resources {
        let mut largest = self.clone();
        for (name, amount) in other.iter() {
            let absent = !largest.contains(name);
            largest.change(name, |own| *own = if absent { amount } else { amount.max(*own) });
        }
        largest
    }

    /// Cuts every amount to that of `other`, where an absent name is zero.
    pub fn keep_least(&mut self, other: &Resources) {
        for (name, own) in &mut self.0 {
            *own = (*own).min(other.get(name));
        }
    }
}

impl FromIterator<(ResourceName, i64)> for Resources {
    fn from_iter<I: IntoIterator<Item = (ResourceName, i64)>>(amounts: I) -> Self {
        let mut resources = Self::new();
        for (name, amount) in amounts {
            resources.set(name, amount);
        }
        resources
    }
}

/// A quantity in the unit that `name` is counted in.
fn amount_of(name: &ResourceName, quantity: Quantity) -> i64 {
    match name {
        ResourceName::Cpu => quantity.thousandths(),
        _ => quantity.units(),
    }
}

/// An amount as Kubernetes prints it: `1500m`, `2`, `7577Mi`, `20Gi`, `110`.
pub fn format_amount(name: &ResourceName, amount: i64) -> String {
    match name {
        ResourceName::Cpu if amount % 1000 == 0 => (amount / 1000).to_string(),
        ResourceName::Cpu => format!("{amount}m"),
        ResourceName::Memory | ResourceName::EphemeralStorage => format_bytes(amount),
        ResourceName::Other(other) if other.starts_with("hugepages-") => format_bytes(amount),
        _ => amount.to_string(),
    }
}

/// Bytes in the largest binary unit that divides them.
fn format_bytes(bytes: i64) -> String {
    const UNITS: [&str; 5] = ["", "Ki", "Mi", "Gi", "Ti"];
    let mut amount = bytes;
    let mut unit = "";
    for larger in UNITS.iter().skip(1) {
        if amount == 0 || amount % 1024 != 0 {
            break;
        }
        amount /= 1024;
        unit = larger;
    }
    format!("{amount}{unit}")
}

impl fmt::Display for Resources {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, amount)) in self.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(formatter, "{separator}{name}: {}", format_amount(name, amount))?;
        }
        Ok(())
    }
}

impl Serialize for Resources {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(
            self.iter().map(|(name, amount)| (name.as_str(), format_amount(name, amount))),
        )
    }
}

impl<'de> Deserialize<'de> for Resources {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ResourcesVisitor)
    }
}

/// Reads a map whose values are quantities, as text or as plain numbers.
struct ResourcesVisitor;

impl<'de> de::Visitor<'de> for ResourcesVisitor {
    type Value = Resources;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a map of Kubernetes quantities")
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Resources, A::Error> {
        let mut resources = Resources::new();
        while let Some((name, QuantityText(text))) = map.next_entry::<String, QuantityText>()? {
            let quantity = parse_quantity(&text)
                .map_err(|error| de::Error::custom(format_args!("{name}: {error}")))?;
            let name = ResourceName::from(name.as_str());
            let amount = amount_of(&name, quantity);
            resources.set(name, amount);
        }
        Ok(resources)
    }
}

/// The text of a quantity that may be written as a number.
struct QuantityText(String);

impl<'de> Deserialize<'de> for QuantityText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Text(String),
            Integer(i64),
            Float(f64),
        }
        let text = match Written::deserialize(deserializer)
            .map_err(|_error| de::Error::custom("a quantity is a text or a number"))?
        {
            Written::Text(text) => text,
            Written::Integer(number) => number.to_string(),
            Written::Float(number) => number.to_string(),
        };
        Ok(Self(text))
    }
}
