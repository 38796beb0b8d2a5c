//! `--catalog FILE`: what the simulated cloud sells.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use drover_common::catalog::{self, CatalogEntry};
use drover_sandbox::world::cloud::CatalogType;

/// Reads a catalogue in the format of `drover simulate`. Offerings and prices are the file's; what
/// EC2 says of a type (interfaces, bandwidths, …) is not in that format and comes from the built-in
/// table, so that every type must be one of it.
///
/// # Errors
/// The file can't be read, or one of its types is wrong or not known: file, type and field.
pub(super) fn read(path: &Path, region: &str) -> anyhow::Result<Vec<CatalogType>> {
    let name = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
    let parsed = catalog::parse(&text).with_context(|| format!("{name}"))?;
    let mut known: BTreeMap<String, CatalogEntry> =
        catalog::reference().into_iter().map(|entry| (entry.facts.name.clone(), entry)).collect();
    parsed
        .instance_types
        .into_iter()
        .map(|wanted| {
            let entry = known.remove(&wanted.name).with_context(|| {
                format!(
                    "{name}: instance type {}: the built-in table does not know it",
                    wanted.name
                )
            })?;
            let entry = CatalogEntry { offerings: wanted.offerings, ..entry };
            Ok(CatalogType::of(entry, region))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offerings_are_the_files_and_unknown_types_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("catalog.json");
        let catalog = |name: &str| {
            format!(
                r#"{{"region": "us-east-1", "instanceTypes": [{{"name": "{name}", "labels": {{}},
                "capacity": {{"cpu": "2", "memory": "8Gi", "pods": "29"}}, "offerings": [
                {{"zone": "us-east-1a", "capacityType": "on-demand", "price": 0.5, "available": true}}]}}]}}"#
            )
        };
        std::fs::write(&file, catalog("m5.large")).unwrap();
        let types = read(&file, "us-east-1").unwrap();
        assert_eq!(types.len(), 1);
        assert_eq!(types[0].on_demand_price, Some(500_000));
        assert_eq!(types[0].zones.len(), 1);
        std::fs::write(&file, catalog("m99.large")).unwrap();
        let error = format!("{:#}", read(&file, "us-east-1").unwrap_err());
        assert!(error.contains("instance type m99.large"), "{error}");
    }
}
