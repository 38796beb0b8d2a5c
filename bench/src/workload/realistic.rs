//! Deployments such as clusters have: a few large ones and many small, of every size.

use std::collections::BTreeMap;

use drover_common::cluster::{
    LabelSelector, PodAffinity, PodAffinityTerm, PodSpec, TopologySpreadConstraint,
};
use drover_common::labels;
use drover_common::resources::Resources;
use drover_core::view::View;
use fastrand::Rng;

use super::cluster::{PodPlan, add_pending, requests};
use super::random::{log_uniform, pick, rounded, zipf};
use super::{Billing, Case, Mix};

const SEED: u64 = 7;
const DEPLOYMENTS: usize = 200;
/// Sizes of the generic mix: those of Karpenter's benchmark.
const CORES: [i64; 5] = [100, 250, 500, 1000, 1500];
const MEBIBYTES: [i64; 6] = [100, 256, 512, 1024, 2048, 4096];

/// Adds the pods that wait.
pub(super) fn add_pods(view: &mut View, case: Case) {
    let mut rng = Rng::with_seed(SEED);
    if case.mix == Mix::Generic {
        let sizes = CORES.iter().flat_map(|cpu| MEBIBYTES.iter().map(move |mib| (*cpu, *mib)));
        let sizes: Vec<(i64, i64)> = sizes.collect();
        for number in 0..case.pods {
            let size = number % sizes.len();
            let (cpu, mib) = sizes.get(size).copied().unwrap_or_default();
            let name = format!("app{size:03}");
            add_replica(view, &name, number, requests(cpu, mib, 0), PodSpec::default());
        }
        return;
    }
    let replicas = zipf(&mut rng, case.pods, DEPLOYMENTS);
    for (number, replicas) in replicas.into_iter().enumerate() {
        let name = format!("app{number:03}");
        let size = deployment_size(&mut rng, case.mix == Mix::Gpu && number % 25 == 12);
        // Drawn in every mix, so that all have the same sizes.
        let spec = constraints(&mut rng, &name, case.billing);
        let spec = if case.mix == Mix::Constrained { spec } else { PodSpec::default() };
        for replica in 0..replicas {
            add_replica(view, &name, replica, size.clone(), spec.clone());
        }
    }
}

/// 50m to 8 cores, 1 to 8 GiB a core between 128 MiB and 32 GiB.
pub(super) fn deployment_size(rng: &mut Rng, gpu: bool) -> Resources {
    let cpu = log_uniform(rng, 50.0, 8000.0);
    let mib = (cpu / 1000.0 * log_uniform(rng, 1024.0, 8192.0)).clamp(128.0, 32_768.0);
    requests(rounded(cpu, 10), rounded(mib, 16), i64::from(gpu))
}

/// A quarter on demand only, 8 % in one zone, 30 % spread over zones, 15 % one a host.
pub(super) fn constraints(rng: &mut Rng, app: &str, billing: Billing) -> PodSpec {
    let mut spec = PodSpec::default();
    let labels = BTreeMap::from([("app".to_owned(), app.to_owned())]);
    let selector = LabelSelector { match_labels: labels, ..LabelSelector::default() };
    let (on_demand, zoned, spread, alone) = (rng.f64(), rng.f64(), rng.f64(), rng.f64());
    let zone = pick(rng, &["us-east-1a", "us-east-1b", "us-east-1c"]);
    if on_demand < 0.25 && billing == Billing::Spot {
        let value = "on-demand".to_owned();
        spec.node_selector.insert(labels::CAPACITY_TYPE.to_owned(), value);
    }
    if zoned < 0.08 {
        spec.node_selector.insert(labels::ZONE.to_owned(), zone.to_owned());
    } else if spread < 0.30 {
        spec.topology_spread_constraints.push(TopologySpreadConstraint {
            max_skew: 1,
            topology_key: labels::ZONE.to_owned(),
            when_unsatisfiable: "DoNotSchedule".to_owned(),
            label_selector: Some(selector.clone()),
            ..TopologySpreadConstraint::default()
        });
    }
    if alone < 0.15 {
        let term = PodAffinityTerm {
            label_selector: Some(selector),
            topology_key: labels::HOSTNAME.to_owned(),
            ..PodAffinityTerm::default()
        };
        spec.affinity.pod_anti_affinity =
            Some(PodAffinity { required: vec![term], ..PodAffinity::default() });
    }
    spec
}

fn add_replica(view: &mut View, app: &str, replica: usize, requests: Resources, spec: PodSpec) {
    let labels = BTreeMap::from([("app".to_owned(), app.to_owned())]);
    add_pending(view, &PodPlan { name: format!("{app}-{replica:05}"), labels, requests, spec });
}
