//! Any bytes get an answer or an error: nothing panics, no plan breaks a rule, no pod is lost.
//!
//! `PROPTEST_CASES=1000000 cargo test --release -p drover fuzz -- --nocapture` runs it for long and
//! prints how many inputs were tried and what the slowest took.

use std::io::Cursor;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use drover_common::catalog;
use drover_core::offline::{Answer, InstanceTypes, NodeFlags};
use drover_core::planner::{PlannerSettings, RepackSettings, check, plan};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::read::{Input, read_stream};

/// Objects with a bit of everything that a plan reads.
fn seeds() -> &'static [Value] {
    static SEEDS: OnceLock<Vec<Value>> = OnceLock::new();
    SEEDS.get_or_init(|| serde_saphyr::from_multiple(include_str!("fuzz_seeds.yaml")).unwrap())
}

fn catalogue() -> Value {
    let offering = |number: usize, price: f64| {
        let zone = ["us-east-1a", "us-east-1b", "us-east-1c"][number % 3];
        let (capacity_type, share) = if number < 3 { ("on-demand", 1.0) } else { ("spot", 0.3) };
        json!({"zone": zone, "capacityType": capacity_type, "price": price * share,
            "available": number != 4})
    };
    let kind = |name: &str, cpu: u32, gpus: u32, price: f64| {
        let offerings: Vec<Value> = (0..6).map(|number| offering(number, price)).collect();
        let family = name.split('.').next();
        let memory = format!("{}Gi", cpu * 4);
        json!({
            "name": name,
            "labels": {"kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux",
                "karpenter.k8s.aws/instance-cpu": cpu.to_string(),
                "karpenter.k8s.aws/instance-family": family},
            "capacity": {"cpu": cpu, "memory": memory, "pods": "58", "ephemeral-storage": "20Gi",
                "nvidia.com/gpu": gpus},
            "offerings": offerings,
        })
    };
    json!({"region": "us-east-1", "instanceTypes": [
        kind("m5.large", 2, 0, 0.096), kind("m5.4xlarge", 16, 0, 0.768),
        kind("c5.xlarge", 4, 0, 0.17), kind("g5.xlarge", 4, 1, 1.006)]})
}

/// Values that tend to be forgotten.
const ODD: [&str; 40] = [
    "null",
    "true",
    "0",
    "-1",
    "1e300",
    "9223372036854775807",
    "-9223372036854775808",
    "0.1",
    "\"\"",
    "\"0\"",
    "\"-1\"",
    "\"1e18\"",
    "\"9999999999999999999999\"",
    "\"1Ei\"",
    "\"-5Gi\"",
    "\"1.5n\"",
    "\"Exists\"",
    "\"DoesNotExist\"",
    "\"In\"",
    "\"NotIn\"",
    "\"Gt\"",
    "\"Lt\"",
    "\"Equal\"",
    "\"NoSchedule\"",
    "\"PreferNoSchedule\"",
    "\"DoNotSchedule\"",
    "\"ScheduleAnyway\"",
    "\"kubernetes.io/hostname\"",
    "\"topology.kubernetes.io/zone\"",
    "\"karpenter.sh/capacity-type\"",
    "\"karpenter.sh/nodepool\"",
    "\"web\"",
    "\"default\"",
    "\"n1\"",
    "\"2026-01-01T00:00:00Z\"",
    "\"Pod\"",
    "[]",
    "{}",
    "[{}]",
    "{\"a\": \"b\"}",
];

/// One change of a document: where, what, and with what.
type Change = (usize, u8, usize);

/// The number of values in a tree, itself included.
fn size(value: &Value) -> usize {
    1 + match value {
        Value::Array(elements) => elements.iter().map(size).sum(),
        Value::Object(fields) => fields.values().map(size).sum(),
        _ => 0,
    }
}

/// The value with this number, counted from the root on.
fn nth(value: &mut Value, mut number: usize) -> Option<&mut Value> {
    if number == 0 {
        return Some(value);
    }
    number -= 1;
    let children: Vec<&mut Value> = match value {
        Value::Array(elements) => elements.iter_mut().collect(),
        Value::Object(fields) => fields.values_mut().collect(),
        _ => return None,
    };
    for child in children {
        let within = size(child);
        if number < within {
            return nth(child, number);
        }
        number -= within;
    }
    None
}

fn change(root: &mut Value, (at, how, with): Change) {
    let count = size(root);
    let odd: Value = serde_json::from_str(ODD[with % ODD.len()]).unwrap();
    let other = nth(&mut root.clone(), with % count).cloned().unwrap_or(Value::Null);
    let Some(place) = nth(root, at % count) else { return };
    match (how % 6, place) {
        (0, Value::Object(fields)) if !fields.is_empty() => {
            let key = fields.keys().nth(with % fields.len()).cloned().unwrap();
            fields.remove(&key);
        }
        (1, Value::Array(elements)) if !elements.is_empty() => {
            elements.push(elements[with % elements.len()].clone());
        }
        (2, Value::Array(elements)) if !elements.is_empty() => {
            elements.remove(with % elements.len());
        }
        (3, place) if size(&other) < 200 => *place = other,
        (_, place) => *place = odd,
    }
}

fn documents(kinds: &[(usize, usize)], changes: &[Change]) -> Value {
    let seeds = seeds();
    let mut objects = Vec::new();
    for (number, (kind, copies)) in kinds.iter().enumerate() {
        for copy in 0..*copies {
            let mut object = seeds[kind % seeds.len()].clone();
            if object["kind"] == "Pod" {
                object["metadata"]["name"] = json!(format!("p{number}-{copy}"));
            }
            objects.push(object);
        }
    }
    let mut root = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    changes.iter().for_each(|at| change(&mut root, *at));
    root
}

static TRIED: AtomicU64 = AtomicU64::new(0);
static PLANNED: AtomicU64 = AtomicU64::new(0);
static SLOWEST: AtomicU64 = AtomicU64::new(0);

/// The whole road from bytes to an answer.
fn try_input(text: &[u8], types: &InstanceTypes) -> Result<(), TestCaseError> {
    let started = Instant::now();
    let mut input = Input::default();
    let mut errors = Vec::new();
    read_stream(&mut Cursor::new(text), "f", &mut input, &mut errors).unwrap();
    if errors.is_empty() {
        let settings = PlannerSettings::default();
        let mut cluster = input.dump.into_cluster(types, &NodeFlags::default(), None);
        cluster.keep_static_pools(&settings);
        let pods = cluster.view.pods().values().map(|entry| &entry.pod);
        let waiting =
            pods.filter(|pod| pod.spec.node_name.is_empty() && !pod.is_terminal()).count();
        let asked = cluster.plan_input(&settings);
        let plan = plan(&asked);
        let violations = check::check(&asked, &plan);
        prop_assert!(violations.is_empty(), "{violations:#?}");
        let repack = cluster.repack(&settings, &RepackSettings::default(), &plan);
        let problems = &repack.report.problems;
        prop_assert!(problems.is_empty(), "{problems:#?}");
        let answer = Answer::of(&cluster, &plan, Some(&repack), 0.0);
        prop_assert!(answer.summary.pods >= waiting, "{} of {waiting}", answer.summary.pods);
        let placed = answer.placements.iter().map(|placement| placement.pods.len());
        let launched = answer.launches.iter().map(|launch| launch.pods.len());
        let left = answer.unschedulable.len();
        prop_assert_eq!(placed.chain(launched).sum::<usize>() + left, answer.summary.pods);
        prop_assert!(answer.unschedulable.iter().all(|left| !left.reasons.is_empty()));
        serde_json::to_string(&answer).unwrap();
        PLANNED.fetch_add(1, Ordering::Relaxed);
    } else {
        prop_assert!(errors.iter().all(|error| !error.reason.is_empty()));
    }
    let took = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    SLOWEST.fetch_max(took, Ordering::Relaxed);
    let tried = TRIED.fetch_add(1, Ordering::Relaxed) + 1;
    if tried.is_multiple_of(10_000) {
        println!(
            "{tried} inputs, {} of them planned, the slowest in {:.3} s",
            PLANNED.load(Ordering::Relaxed),
            SLOWEST.load(Ordering::Relaxed) as f64 / 1e6
        );
    }
    Ok(())
}

fn types_of(changes: &[Change]) -> InstanceTypes {
    let mut written = catalogue();
    changes.iter().for_each(|at| change(&mut written, *at));
    let parsed = catalog::parse(&written.to_string());
    let unchanged = || catalog::parse(&catalogue().to_string()).unwrap();
    InstanceTypes::File(parsed.unwrap_or_else(|_refused| unchanged()))
}

fn changes(most: usize) -> impl Strategy<Value = Vec<Change>> {
    prop::collection::vec((0_usize..5000, any::<u8>(), 0_usize..5000), 0..most)
}

fn kinds() -> impl Strategy<Value = Vec<(usize, usize)>> {
    prop::collection::vec((0_usize..64, 1_usize..6), 1..14)
}

proptest! {
    #[test]
    fn fuzz_json_trees(kinds in kinds(), odd in changes(12), types in changes(4)) {
        let root = documents(&kinds, &odd);
        try_input(root.to_string().as_bytes(), &types_of(&types))?;
    }

    #[test]
    fn fuzz_yaml_trees(kinds in kinds(), odd in changes(12)) {
        let root = documents(&kinds, &odd);
        let text = serde_saphyr::to_string(&root).unwrap();
        try_input(text.as_bytes(), &types_of(&[]))?;
    }

    #[test]
    fn fuzz_bytes(
        kinds in prop::collection::vec((0_usize..64, 1_usize..2), 1..4),
        yaml in any::<bool>(),
        cuts in prop::collection::vec((0_usize..20_000, any::<u8>(), 0_usize..40), 1..6),
    ) {
        let root = documents(&kinds, &[]);
        let text = if yaml { serde_saphyr::to_string(&root).unwrap() } else { root.to_string() };
        let mut bytes = text.into_bytes();
        for (at, byte, length) in cuts {
            let at = at % (bytes.len() + 1);
            let end = (at + length).min(bytes.len());
            match byte % 3 {
                0 => drop(bytes.drain(at..end)),
                1 => bytes.insert(at, byte),
                _ => {
                    let copy = bytes[at..end].to_vec();
                    bytes.splice(at..at, copy);
                }
            }
        }
        try_input(&bytes, &types_of(&[]))?;
    }
}
