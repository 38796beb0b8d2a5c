//! Clusters that are hard on a planner: more shapes, types, selectors and priorities than anybody has,
//! and amounts and prices that nobody means.

use std::collections::BTreeMap;

use drover_common::cluster::{
    ClusterEvent, ClusterObject, LabelSelector, LabelSelectorRequirement, PodAffinity,
    PodAffinityTerm, PodSpec, TopologySpreadConstraint, WeightedPodAffinityTerm,
};
use drover_common::crd::RawQuantity;
use drover_common::instance_type::InstanceType;
use drover_common::labels;
use drover_common::resources::{ResourceName, Resources};
use drover_core::nodeclass::catalog::NodeClassCatalog;
use drover_core::view::View;
use fastrand::Rng;

use super::catalog::reference_types;
use super::cluster::{self, PodPlan, add_pending, requests};
use super::random::{log_uniform, rounded};
use super::{Billing, Case, Mix, UnknownName, Workload, named};

/// What is hard about a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hostile {
    /// No pod has the shape of another.
    Shapes,
    /// The same, with spot.
    SpotShapes,
    /// The same beside 5,000 nodes that run.
    ShapesAndNodes,
    /// No pod has the shape of another, and each spreads over zones with all others.
    SpreadOfAll,
    /// The same over hosts.
    HostSpreadOfAll,
    /// No pod may share its host with any other, and no pod has the shape of another.
    ApartFromAll,
    /// No pod has the shape of another; half are apart from each other, half choose among families, with spot.
    ApartAndChoosy,
    /// Every pod wants a zone with any other in it, and no pod has the shape of another.
    CloseToAll,
    /// The same, each with a selector of its own that matches nearly all.
    Selectors,
    /// A hundred preferences that can't all be met on every pod, of which no two have one shape.
    Preferences,
    /// Every pod has a priority of its own, and the pool's limit stops half of them.
    Priorities,
    /// No pod fits, each for its own amounts.
    Impossible,
    /// Realistic pods, every second of which asks for all that a number can say.
    Enormous,
    /// Realistic pods with constraints, a catalogue of ten types.
    FewTypes,
    /// Realistic pods with constraints, a catalogue of 5,000 types.
    ManyTypes,
    /// No pod has the shape of another, and there are 5,000 types.
    ManyTypesAndShapes,
    /// Realistic pods with constraints, each third price zero and each third missing.
    OddPrices,
}

impl Hostile {
    /// All of them.
    pub const ALL: [Hostile; 17] = [
        Hostile::Shapes,
        Hostile::SpotShapes,
        Hostile::ShapesAndNodes,
        Hostile::SpreadOfAll,
        Hostile::HostSpreadOfAll,
        Hostile::ApartFromAll,
        Hostile::ApartAndChoosy,
        Hostile::CloseToAll,
        Hostile::Selectors,
        Hostile::Preferences,
        Hostile::Priorities,
        Hostile::Impossible,
        Hostile::Enormous,
        Hostile::FewTypes,
        Hostile::ManyTypes,
        Hostile::ManyTypesAndShapes,
        Hostile::OddPrices,
    ];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Hostile::Shapes => "shapes",
            Hostile::SpotShapes => "spot-shapes",
            Hostile::ShapesAndNodes => "shapes-and-nodes",
            Hostile::SpreadOfAll => "spread-of-all",
            Hostile::HostSpreadOfAll => "host-spread-of-all",
            Hostile::ApartFromAll => "apart-from-all",
            Hostile::ApartAndChoosy => "apart-and-choosy",
            Hostile::CloseToAll => "close-to-all",
            Hostile::Selectors => "selectors",
            Hostile::Preferences => "preferences",
            Hostile::Priorities => "priorities",
            Hostile::Impossible => "impossible",
            Hostile::Enormous => "enormous",
            Hostile::FewTypes => "few-types",
            Hostile::ManyTypes => "many-types",
            Hostile::ManyTypesAndShapes => "many-types-and-shapes",
            Hostile::OddPrices => "odd-prices",
        }
    }
}

impl std::str::FromStr for Hostile {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        named(&Self::ALL, name, Hostile::name)
    }
}

impl Workload {
    /// Makes a cluster with so many pods that wait.
    pub fn hostile(of: Hostile, pods: usize) -> Self {
        let constrained = matches!(
            of,
            Hostile::Enormous | Hostile::FewTypes | Hostile::ManyTypes | Hostile::OddPrices
        );
        let mix = if constrained { Mix::Constrained } else { Mix::Realistic };
        let spot = matches!(
            of,
            Hostile::SpotShapes | Hostile::ApartAndChoosy | Hostile::ManyTypes | Hostile::OddPrices
        );
        let billing = if spot { Billing::Spot } else { Billing::OnDemand };
        let nodes = if of == Hostile::ShapesAndNodes { 5_000 } else { 0 };
        let own = if constrained { pods } else { 0 };
        let mut workload = Self::new(Case { mix, pods: own, nodes, billing });
        workload.case.pods = pods;
        workload.set_types(types_of(of));
        if of == Hostile::Priorities {
            workload.limit_cpu(pods);
        }
        if of == Hostile::Enormous {
            workload.add_enormous(pods / 2);
        }
        if !constrained {
            add_shapes(&mut workload.view, of, pods);
        }
        workload
    }

    fn set_types(&mut self, types: Vec<InstanceType>) {
        let catalog = NodeClassCatalog::new(types, false);
        self.catalogs.insert(cluster::CLASS.to_owned(), catalog);
    }

    /// About half of what pods of distinct shapes ask for.
    fn limit_cpu(&mut self, pods: usize) {
        let Some(pool) = self.view.pools().values().next() else { return };
        let mut pool = pool.as_ref().clone();
        let most = RawQuantity::Text((pods / 2).to_string());
        pool.spec.limits.insert("cpu".to_owned(), most);
        self.view.apply(ClusterEvent::Applied(ClusterObject::NodePool(Box::new(pool))));
    }

    fn add_enormous(&mut self, pods: usize) {
        for number in 0..pods {
            let all = [ResourceName::Cpu, ResourceName::Memory, ResourceName::Pods];
            let all = all.into_iter().map(|name| (name, i64::MAX));
            let plan = PodPlan {
                name: format!("enormous-{number:06}"),
                labels: BTreeMap::from([("app".to_owned(), "enormous".to_owned())]),
                requests: all.collect::<Resources>(),
                spec: PodSpec::default(),
            };
            add_pending(&mut self.view, &plan);
        }
    }
}

fn types_of(of: Hostile) -> Vec<InstanceType> {
    let mut types = reference_types();
    match of {
        Hostile::FewTypes => {
            types.retain(|kind| kind.name.starts_with("m5.") || kind.name.starts_with("c5.4"));
            types.truncate(10);
        }
        Hostile::ManyTypes | Hostile::ManyTypesAndShapes => types = many(&types),
        Hostile::OddPrices => {
            let offerings = types.iter_mut().flat_map(|kind| &mut kind.offerings);
            for (number, offering) in offerings.enumerate() {
                match number % 3 {
                    0 => offering.price = Some(0),
                    1 => offering.price = None,
                    _ => {}
                }
            }
        }
        _ => {}
    }
    types
}

/// 5,000 types, none of which another replaces: copies of what there is, each a little larger and dearer.
fn many(types: &[InstanceType]) -> Vec<InstanceType> {
    let mut made = Vec::new();
    for number in 0..5_000_usize {
        let Some(kind) = types.get(number % types.len().max(1)) else { break };
        let copy = number / types.len().max(1);
        let mut kind = kind.clone();
        let step = i64::try_from(copy).unwrap_or(0);
        if copy > 0 {
            kind.name = format!("{}-{copy}", kind.name);
            kind.labels.insert(labels::INSTANCE_TYPE.to_owned(), kind.name.clone());
        }
        for amounts in [&mut kind.capacity, &mut kind.allocatable] {
            let memory = amounts.get(&ResourceName::Memory);
            amounts.set(ResourceName::Memory, memory.saturating_add(step << 24));
        }
        for offering in &mut kind.offerings {
            offering.price = offering.price.map(|price| price.saturating_add(copy as u64 * 100));
        }
        made.push(kind);
    }
    made
}

fn add_shapes(view: &mut View, of: Hostile, pods: usize) {
    let mut rng = Rng::with_seed(17);
    for number in 0..pods {
        let cpu = rounded(log_uniform(&mut rng, 50.0, 4000.0), 10);
        let mib = rounded(log_uniform(&mut rng, 128.0, 16_384.0), 16);
        let more = i64::try_from(number).unwrap_or(0);
        let mut amounts = match of {
            // More than anything offers.
            Hostile::Impossible => requests(1_000_000 + more, mib, 0),
            _ => requests(cpu, mib, 0),
        };
        // A byte is enough for a shape of one's own.
        let memory = amounts.get(&ResourceName::Memory);
        amounts.set(ResourceName::Memory, memory.saturating_add(more));
        let plan = PodPlan {
            name: format!("pod-{number:06}"),
            labels: BTreeMap::from([("app".to_owned(), app(of, number))]),
            requests: amounts,
            spec: spec(of, number),
        };
        add_pending(view, &plan);
    }
}

/// What choosy pods choose among.
const FAMILIES: [&str; 6] = ["m5", "m6g", "c5", "c6g", "r5", "r6g"];

fn spec(of: Hostile, number: usize) -> PodSpec {
    let mut spec = PodSpec::default();
    let all = LabelSelector::default;
    let only = |key: &str, selector: LabelSelector| {
        let required = vec![term(key, selector)];
        Some(PodAffinity { required, ..PodAffinity::default() })
    };
    match of {
        Hostile::SpreadOfAll => spec.topology_spread_constraints.push(spread(labels::ZONE)),
        Hostile::HostSpreadOfAll => spec.topology_spread_constraints.push(spread(labels::HOSTNAME)),
        Hostile::ApartFromAll => spec.affinity.pod_anti_affinity = only(labels::HOSTNAME, all()),
        Hostile::ApartAndChoosy if number.is_multiple_of(2) => {
            spec.affinity.pod_anti_affinity = only(labels::HOSTNAME, one(&app(of, number)));
        }
        Hostile::ApartAndChoosy => {
            let family = FAMILIES.get(number / 2 % FAMILIES.len()).copied().unwrap_or_default();
            spec.node_selector
                .insert("karpenter.k8s.aws/instance-family".to_owned(), family.to_owned());
        }
        Hostile::CloseToAll => spec.affinity.pod_affinity = only(labels::ZONE, all()),
        Hostile::Selectors => {
            spec.affinity.pod_affinity = only(labels::ZONE, all_but(number.wrapping_add(1)));
        }
        Hostile::Preferences => {
            let preferred = (0..100).map(|preference| WeightedPodAffinityTerm {
                weight: preference,
                pod_affinity_term: term(
                    labels::ZONE,
                    one(&format!("app{}", number + preference as usize + 1)),
                ),
            });
            let away = PodAffinity { preferred: preferred.collect(), ..PodAffinity::default() };
            spec.affinity.pod_anti_affinity = Some(away);
        }
        Hostile::Priorities => spec.priority = i32::try_from(number).ok(),
        _ => {}
    }
    spec
}

fn term(key: &str, selector: LabelSelector) -> PodAffinityTerm {
    PodAffinityTerm {
        label_selector: Some(selector),
        topology_key: key.to_owned(),
        ..PodAffinityTerm::default()
    }
}

fn app(of: Hostile, number: usize) -> String {
    match of {
        Hostile::ApartAndChoosy if number.is_multiple_of(2) => "apart".to_owned(),
        _ => format!("app{number}"),
    }
}

fn one(app: &str) -> LabelSelector {
    let app = BTreeMap::from([("app".to_owned(), app.to_owned())]);
    LabelSelector { match_labels: app, ..LabelSelector::default() }
}

fn all_but(number: usize) -> LabelSelector {
    let not = LabelSelectorRequirement {
        key: "app".to_owned(),
        operator: "NotIn".to_owned(),
        values: vec![format!("app{number}")],
    };
    LabelSelector { match_expressions: vec![not], ..LabelSelector::default() }
}

fn spread(key: &str) -> TopologySpreadConstraint {
    TopologySpreadConstraint {
        max_skew: 1,
        topology_key: key.to_owned(),
        when_unsatisfiable: "DoNotSchedule".to_owned(),
        label_selector: Some(LabelSelector::default()),
        ..TopologySpreadConstraint::default()
    }
}
