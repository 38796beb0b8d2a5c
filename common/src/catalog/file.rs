//! The catalogue file of `drover simulate`.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use crate::instance_type::{CapacityType, InstanceType, NodeSettings, Offering};
use crate::labels;
use crate::resources::{ResourceName, Resources};

/// A catalogue file's content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    /// The region; empty if the file does not say.
    pub region: String,
    /// Its types, in the file's order.
    pub instance_types: Vec<ListedType>,
}

/// An instance type as a catalogue file lists it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListedType {
    /// Name.
    pub name: String,
    /// Every label a node of it bears, save zone, capacity type and hostname.
    pub labels: BTreeMap<String, String>,
    /// `status.capacity` of such a node.
    pub capacity: Resources,
    /// `status.allocatable` of such a node, if the file says.
    pub allocatable: Option<Resources>,
    /// Ways to buy it.
    pub offerings: Vec<Offering>,
}

impl ListedType {
    /// The type under the kubelet settings of a node class. What the file says stays, except that
    /// `maxPods` and `podsPerCore` bound its pods; an allocatable that it does not say is computed
    /// as for a real node.
    pub fn with_settings(&self, settings: &NodeSettings) -> InstanceType {
        let cores = self.capacity.get(&ResourceName::Cpu).max(0) / 1000;
        let interface_pods = self.capacity.get(&ResourceName::Pods);
        let pods = settings.bounded_pods(interface_pods, cores);
        let mut capacity = self.capacity.clone();
        capacity.set(ResourceName::Pods, pods);
        let allocatable = match &self.allocatable {
            Some(stated) => {
                let mut stated = stated.clone();
                if pods != interface_pods {
                    stated.set(ResourceName::Pods, pods);
                }
                stated
            }
            None => {
                let vcpus = u32::try_from(cores).unwrap_or(u32::MAX);
                settings.allocatable(&capacity, vcpus, interface_pods)
            }
        };
        InstanceType {
            name: self.name.clone(),
            labels: self.labels.clone(),
            capacity,
            allocatable,
            offerings: self.offerings.clone(),
        }
    }
}

/// Why a catalogue file cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    /// It is not JSON, or not of the right shape at the top.
    #[error("the catalogue cannot be read: {0}")]
    Shape(String),
    /// One type is wrong.
    #[error("instance type {instance_type}: field {field}: {reason}")]
    Type {
        /// Its name, or `#3` for the third if it has none.
        instance_type: String,
        /// The field.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    #[serde(default)]
    region: String,
    instance_types: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenOffering {
    zone: String,
    capacity_type: CapacityType,
    #[serde(default)]
    price: Option<f64>,
    #[serde(default = "yes")]
    available: bool,
}

fn yes() -> bool {
    true
}

/// Reads a catalogue: `{"region", "instanceTypes": [{"name", "labels", "capacity", "allocatable",
/// "offerings"}]}`, prices in dollars an hour.
///
/// # Errors
/// The first type and field that is wrong.
pub fn parse(json: &str) -> Result<Catalog, CatalogError> {
    let written: Written =
        serde_json::from_str(json).map_err(|error| CatalogError::Shape(error.to_string()))?;
    let region = written.region;
    let instance_types: Vec<ListedType> = written
        .instance_types
        .into_iter()
        .enumerate()
        .map(|(index, value)| instance_type(index, value, &region))
        .collect::<Result<_, _>>()?;
    let mut names = BTreeSet::new();
    for listed in &instance_types {
        if !names.insert(&listed.name) {
            let (instance_type, field) = (listed.name.clone(), "name".to_owned());
            let reason = "another type has it, too".to_owned();
            return Err(CatalogError::Type { instance_type, field, reason });
        }
    }
    Ok(Catalog { region, instance_types })
}

fn instance_type(index: usize, mut value: Value, region: &str) -> Result<ListedType, CatalogError> {
    let name = value.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let shown = if name.is_empty() { format!("#{}", index + 1) } else { name.clone() };
    let error = |field: &str, reason: String| CatalogError::Type {
        instance_type: shown.clone(),
        field: field.to_owned(),
        reason,
    };
    let mut take = |field: &str| value.get_mut(field).map(Value::take).filter(|v| !v.is_null());
    if name.is_empty() {
        return Err(error("name", "it is missing or not a text".to_owned()));
    }
    let mut labels: BTreeMap<String, String> =
        read(take("labels")).map_err(|reason| error("labels", reason))?.unwrap_or_default();
    labels.insert(labels::INSTANCE_TYPE.to_owned(), name.clone());
    if !region.is_empty() {
        labels.entry(labels::REGION.to_owned()).or_insert_with(|| region.to_owned());
    }
    let capacity: Resources = read(take("capacity"))
        .map_err(|reason| error("capacity", reason))?
        .ok_or_else(|| error("capacity", "it is missing".to_owned()))?;
    let allocatable = read(take("allocatable")).map_err(|reason| error("allocatable", reason))?;
    let offerings: Vec<Offering> = match take("offerings") {
        None => Vec::new(),
        Some(Value::Array(list)) => list
            .into_iter()
            .enumerate()
            .map(|(index, value)| {
                offering(value).map_err(|reason| error(&format!("offerings[{index}]"), reason))
            })
            .collect::<Result<_, _>>()?,
        Some(_) => return Err(error("offerings", "it is not a list".to_owned())),
    };
    // Which price would be the one?
    let mut sold = BTreeSet::new();
    for (index, one) in offerings.iter().enumerate() {
        if !sold.insert((&one.zone, one.capacity_type)) {
            let reason = format!("{} in {} is there twice", one.capacity_type, one.zone);
            return Err(error(&format!("offerings[{index}]"), reason));
        }
    }
    Ok(ListedType { name, labels, capacity, allocatable, offerings })
}

fn read<T: serde::de::DeserializeOwned>(value: Option<Value>) -> Result<Option<T>, String> {
    value.map(serde_json::from_value).transpose().map_err(|error| error.to_string())
}

fn offering(value: Value) -> Result<Offering, String> {
    let written: WrittenOffering =
        serde_json::from_value(value).map_err(|error| error.to_string())?;
    let price = written.price.map(micro_dollars).transpose()?;
    Ok(Offering {
        zone: written.zone,
        zone_id: None,
        capacity_type: written.capacity_type,
        price,
        available: written.available,
        reservation: None,
    })
}

/// Dollars to micro-dollars, to the nearest.
fn micro_dollars(dollars: f64) -> Result<u64, String> {
    if !(0.0..=1e9).contains(&dollars) {
        return Err(format!("price {dollars} is not between 0 and a billion dollars"));
    }
    // In range, so the cast is exact after rounding.
    Ok((dollars * 1e6).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(json: &str) -> String {
        parse(json).unwrap_err().to_string()
    }

    #[test]
    fn a_file_is_read_and_allocatable_filled_in() {
        let catalog = parse(
            r#"{"region": "us-east-1", "instanceTypes": [{"name": "m5.large",
                "labels": {"kubernetes.io/arch": "amd64"},
                "capacity": {"cpu": "2", "memory": "7577Mi", "pods": "29", "ephemeral-storage": "20Gi"},
                "offerings": [{"zone": "us-east-1a", "capacityType": "spot", "price": 0.0351},
                              {"zone": "us-east-1a", "capacityType": "on-demand", "available": false}]}]}"#,
        )
        .unwrap();
        let m5 = catalog.instance_types.first().unwrap().with_settings(&NodeSettings::default());
        assert_eq!(m5.labels.get(labels::INSTANCE_TYPE).map(String::as_str), Some("m5.large"));
        let expected =
            [("cpu", "1930m"), ("memory", "6903Mi"), ("pods", "29"), ("ephemeral-storage", "17Gi")];
        assert_eq!(m5.allocatable, Resources::from_quantities(expected).unwrap());
        let prices: Vec<_> = m5.offerings.iter().map(|o| (o.price, o.available)).collect();
        assert_eq!(prices, [(Some(35_100), true), (None, false)]);
    }

    #[test]
    fn what_the_file_says_stays_but_for_the_bound_on_pods() {
        let catalog = parse(
            r#"{"instanceTypes": [{"name": "x.y", "capacity": {"cpu": "4", "pods": "58"},
                "allocatable": {"cpu": "3", "pods": "58"}}]}"#,
        )
        .unwrap();
        let listed = catalog.instance_types.first().unwrap();
        let settings = NodeSettings { pods_per_core: Some(5), ..NodeSettings::default() };
        let built = listed.with_settings(&settings);
        assert_eq!(built.capacity.to_string(), "cpu: 4, pods: 20");
        assert_eq!(built.allocatable.to_string(), "cpu: 3, pods: 20");
        let plain = listed.with_settings(&NodeSettings::default());
        assert_eq!(Some(plain.allocatable), listed.allocatable);
    }

    #[test]
    fn errors_name_type_and_field() {
        assert!(error("[]").starts_with("the catalogue cannot be read"));
        let of = |fields: &str| error(&format!(r#"{{"instanceTypes": [{{{fields}}}]}}"#));
        assert_eq!(of(""), "instance type #1: field name: it is missing or not a text");
        assert_eq!(of(r#""name": "x.y""#), "instance type x.y: field capacity: it is missing");
        let cpu = of(r#""name": "x.y", "capacity": {"cpu": "two"}"#);
        assert!(cpu.starts_with("instance type x.y: field capacity: cpu: "), "{cpu}");
        let price = of(
            r#""name": "x.y", "capacity": {}, "offerings": [{"zone": "a", "capacityType": "spot", "price": -1}]"#,
        );
        assert_eq!(
            price,
            "instance type x.y: field offerings[0]: price -1 is not between 0 and a billion dollars"
        );
        let kind = of(
            r#""name": "x.y", "capacity": {}, "offerings": [{"zone": "a", "capacityType": "free"}]"#,
        );
        assert!(kind.contains("offerings[0]"), "{kind}");
        let one = r#"{"zone": "a", "capacityType": "spot"}"#;
        let twice = of(&format!(r#""name": "x.y", "capacity": {{}}, "offerings": [{one}, {one}]"#));
        assert_eq!(twice, "instance type x.y: field offerings[1]: spot in a is there twice");
        let x = r#""name": "x.y", "capacity": {}"#;
        let named = of(&format!("{x}}}, {{{x}"));
        assert_eq!(named, "instance type x.y: field name: another type has it, too");
    }
}
