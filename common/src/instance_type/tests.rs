use super::*;
use crate::catalog;
use crate::labels;
use crate::resources::ResourceName;

/// What a node of each type of the reference table must have, computed independently.
const EXPECTED: &str = include_str!("../../data/ec2-us-east-1-expected.csv");

/// FNV-1a of the sorted `label=value` lines, the form of the expectations.
fn fingerprint(labels: &BTreeMap<String, String>) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for (key, value) in labels {
        for byte in format!("{key}={value}\n").bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    format!("{hash:016x}")
}

fn facts(name: &str) -> InstanceTypeFacts {
    catalog::reference().into_iter().find(|entry| entry.facts.name == name).unwrap().facts
}

#[test]
fn every_type_of_the_reference_table_has_the_expected_labels_capacity_and_allocatable() {
    let catalog = catalog::reference();
    let expected: Vec<&str> = EXPECTED.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(catalog.len(), expected.len());
    let settings = NodeSettings::default();
    for (entry, line) in catalog.into_iter().zip(expected) {
        let mut made =
            InstanceType::from_facts(&entry.facts, &settings, "us-east-1", entry.offerings);
        assert_eq!(made.labels.remove(labels::INSTANCE_TYPE).as_ref(), Some(&made.name));
        // The expectations were sorted by the whole label, as a BTreeMap is.
        let text = |resources: &Resources, name| {
            crate::resources::format_amount(&name, resources.get(&name))
        };
        let extended: Vec<String> = made
            .capacity
            .iter()
            .filter(|(name, _amount)| matches!(name, ResourceName::Other(_)))
            .map(|(name, amount)| format!("{name}={amount}"))
            .collect();
        let actual = [
            made.name.clone(),
            mebibytes(&made.capacity),
            text(&made.capacity, ResourceName::Pods),
            text(&made.allocatable, ResourceName::Cpu),
            mebibytes(&made.allocatable),
            extended.join(" "),
            fingerprint(&made.labels),
        ]
        .join(",");
        assert_eq!(actual, line, "{:?}", made.labels);
        assert_eq!(text(&made.capacity, ResourceName::EphemeralStorage), "20Gi");
        assert_eq!(text(&made.allocatable, ResourceName::EphemeralStorage), "17Gi");
        for (name, amount) in made.capacity.iter() {
            if matches!(name, ResourceName::Other(_)) {
                assert_eq!(made.allocatable.get(name), amount);
            }
        }
    }
}

fn mebibytes(resources: &Resources) -> String {
    let bytes = resources.get(&ResourceName::Memory);
    assert_eq!(bytes % (1 << 20), 0);
    format!("{}Mi", bytes >> 20)
}

#[test]
fn settings_change_pods_reservations_and_thresholds() {
    let large = facts("m5.large");
    let made =
        |settings: NodeSettings| InstanceType::from_facts(&large, &settings, "r", Vec::new());
    let pods = |settings| made(settings).capacity.get(&ResourceName::Pods);
    let memory = |settings| made(settings).allocatable.get(&ResourceName::Memory) >> 20;
    let default = NodeSettings::default;
    assert_eq!(pods(default()), 29);
    assert_eq!(pods(NodeSettings { max_pods: Some(110), ..default() }), 110);
    assert_eq!(pods(NodeSettings { pods_per_core: Some(8), ..default() }), 16);
    assert_eq!(pods(NodeSettings { reserved_enis: 1, ..default() }), 20);
    assert_eq!(pods(NodeSettings { reserved_enis: 9, ..default() }), 0);
    let bottlerocket = || NodeSettings { ami_family: "bottlerocket".to_owned(), ..default() };
    assert_eq!(pods(NodeSettings { pods_per_core: Some(8), ..bottlerocket() }), 29);
    // 7577 - (11 * 29 + 255) - 100: al2023 reserves by interfaces, bottlerocket by maxPods.
    assert_eq!(memory(NodeSettings { max_pods: Some(110), ..default() }), 6903);
    assert_eq!(memory(NodeSettings { max_pods: Some(110), ..bottlerocket() }), 6012);
    let reserved = Resources::from_quantities([("memory", "1Gi")]).unwrap();
    assert_eq!(memory(NodeSettings { kube_reserved: reserved.clone(), ..default() }), 6453);
    assert_eq!(memory(NodeSettings { system_reserved: reserved, ..default() }), 5879);
    let threshold = |text: &str| NodeSettings {
        eviction_hard: [("memory.available".to_owned(), text.to_owned())].into(),
        ..default()
    };
    assert_eq!(memory(threshold("500Mi")), 6503);
    assert_eq!(memory(threshold("100%")), 7003);
    assert_eq!(memory(threshold("10%")), 6245);
}

#[test]
fn memory_is_reserved_for_all_interfaces_even_if_some_are_not_used_for_pods() {
    let settings = NodeSettings { reserved_enis: 1, ..NodeSettings::default() };
    let made = InstanceType::from_facts(&facts("m5.large"), &settings, "r", Vec::new());
    assert_eq!(made.allocatable.get(&ResourceName::Memory) >> 20, 6903);
}

#[test]
fn instance_store_becomes_ephemeral_storage_with_raid0() {
    let settings = NodeSettings { instance_store_raid0: true, ..NodeSettings::default() };
    let made = |name: &str| InstanceType::from_facts(&facts(name), &settings, "r", Vec::new());
    assert_eq!(made("m5d.large").capacity.get(&ResourceName::EphemeralStorage), 75_000_000_000);
    assert_eq!(made("m5.large").capacity.get(&ResourceName::EphemeralStorage), 20 << 30);
}

#[test]
fn windows_nodes_say_so() {
    let settings = NodeSettings { ami_family: "windows2022".to_owned(), ..NodeSettings::default() };
    let made = InstanceType::from_facts(&facts("m5.large"), &settings, "r", Vec::new());
    assert_eq!(made.labels.get(labels::OS).map(String::as_str), Some("windows"));
    assert_eq!(made.labels.get(labels::WINDOWS_BUILD).map(String::as_str), Some("10.0.20348"));
    assert_eq!(made.capacity.get(&ResourceName::Pods), 110);
}
