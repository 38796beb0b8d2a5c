//! The pods of Karpenter's own benchmark: five equal parts, labels of seven values, sizes at random.
//! A spread pod counts the pods of one random label value, whatever its own is.

use std::collections::BTreeMap;

use drover_common::cluster::{
    LabelSelector, PodAffinity, PodAffinityTerm, PodSpec, TopologySpreadConstraint,
};
use drover_common::labels;
use drover_core::view::View;
use fastrand::Rng;

use super::cluster::{PodPlan, add_pending, requests};
use super::random::pick;

const SEED: u64 = 42;
const VALUES: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];
const CORES: [i64; 5] = [100, 250, 500, 1000, 1500];
const MEBIBYTES: [i64; 6] = [100, 256, 512, 1024, 2048, 4096];

/// Adds the pods that wait.
pub(super) fn add_pods(view: &mut View, pods: usize) {
    let mut rng = Rng::with_seed(SEED);
    for number in 0..pods {
        let part = number * 5 / pods.max(1);
        let mut labels = BTreeMap::from([("my-label".to_owned(), value(&mut rng))]);
        let mut spec = PodSpec::default();
        match part {
            1 => spec.topology_spread_constraints.push(spread(&mut rng, labels::ZONE)),
            2 => spec.topology_spread_constraints.push(spread(&mut rng, labels::HOSTNAME)),
            3 => {
                labels = BTreeMap::from([("my-affinity".to_owned(), value(&mut rng))]);
                spec.affinity.pod_affinity = Some(only(&labels, labels::ZONE));
            }
            4 => {
                labels = BTreeMap::from([("app".to_owned(), "nginx".to_owned())]);
                spec.affinity.pod_anti_affinity = Some(only(&labels, labels::HOSTNAME));
            }
            _ => {}
        }
        let requests = requests(pick(&mut rng, &CORES), pick(&mut rng, &MEBIBYTES), 0);
        add_pending(view, &PodPlan { name: format!("pod-{number:06}"), labels, requests, spec });
    }
}

fn value(rng: &mut Rng) -> String {
    pick(rng, &VALUES).to_owned()
}

fn spread(rng: &mut Rng, key: &str) -> TopologySpreadConstraint {
    let labels = BTreeMap::from([("my-label".to_owned(), value(rng))]);
    TopologySpreadConstraint {
        max_skew: 1,
        topology_key: key.to_owned(),
        when_unsatisfiable: "DoNotSchedule".to_owned(),
        label_selector: Some(selector(&labels)),
        ..TopologySpreadConstraint::default()
    }
}

fn selector(labels: &BTreeMap<String, String>) -> LabelSelector {
    LabelSelector { match_labels: labels.clone(), ..LabelSelector::default() }
}

fn only(labels: &BTreeMap<String, String>, key: &str) -> PodAffinity {
    let term = PodAffinityTerm {
        label_selector: Some(selector(labels)),
        topology_key: key.to_owned(),
        ..PodAffinityTerm::default()
    };
    PodAffinity { required: vec![term], ..PodAffinity::default() }
}
