//! Clusters to plan for, made from a case and a fixed seed.

mod catalog;
mod cluster;
mod hostile;
mod karpenter;
mod random;
mod realistic;
mod running;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use drover_common::id::NodePoolName;
use drover_common::instance_type::InstanceType;
use drover_common::resources::Resources;
use drover_core::nodeclass::catalog::NodeClassCatalog;
use drover_core::planner::{PlanInput, PlannerSettings};
use drover_core::view::View;
pub use hostile::Hostile;
use jiff::Timestamp;
pub use running::Running;

/// What the pods are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mix {
    /// Karpenter's own benchmark: fifths of plain pods, zone spread, host spread, affinity to a zone
    /// and anti-affinity between hosts, over 400 made-up types.
    Karpenter,
    /// The sizes of that benchmark without its constraints.
    Generic,
    /// 200 deployments with replicas by Zipf's law, 50m to 8 cores, 1 to 8 GiB a core.
    Realistic,
    /// The same, with a GPU in every 25th deployment.
    Gpu,
    /// Realistic, with on-demand only, zones, zone spread and anti-affinity among the deployments.
    Constrained,
}

/// How nodes may be bought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Billing {
    /// On demand only.
    OnDemand,
    /// Spot or on demand.
    Spot,
}

/// One row of a benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Case {
    /// What the pods are like.
    pub mix: Mix,
    /// How many wait.
    pub pods: usize,
    /// Nodes that are there already, with about 12 pods each.
    pub nodes: usize,
    /// How nodes may be bought.
    pub billing: Billing,
}

impl Case {
    /// Whether another case is the same work: made-up types cost the same however they are bought.
    pub fn is_same_work(&self, other: &Case) -> bool {
        let billing = if other.mix == Mix::Karpenter { self.billing } else { other.billing };
        *self == Case { billing, ..*other }
    }
}

/// A name that stands for nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is none of {known}")]
pub struct UnknownName {
    /// The name.
    pub name: String,
    /// What is known.
    pub known: String,
}

impl Mix {
    /// All of them.
    pub const ALL: [Mix; 5] =
        [Mix::Karpenter, Mix::Generic, Mix::Realistic, Mix::Gpu, Mix::Constrained];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Mix::Karpenter => "karpenter",
            Mix::Generic => "generic",
            Mix::Realistic => "realistic",
            Mix::Gpu => "gpu",
            Mix::Constrained => "constrained",
        }
    }
}

impl Billing {
    /// Both.
    pub const ALL: [Billing; 2] = [Billing::OnDemand, Billing::Spot];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Billing::OnDemand => "on-demand",
            Billing::Spot => "spot",
        }
    }
}

fn named<T: Copy>(all: &[T], name: &str, of: impl Fn(T) -> &'static str) -> Result<T, UnknownName> {
    all.iter().copied().find(|entry| of(*entry) == name).ok_or_else(|| UnknownName {
        name: name.to_owned(),
        known: all.iter().map(|entry| of(*entry)).collect::<Vec<_>>().join(", "),
    })
}

impl FromStr for Mix {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        named(&Self::ALL, name, Mix::name)
    }
}

impl FromStr for Billing {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        named(&Self::ALL, name, Billing::name)
    }
}

impl fmt::Display for Case {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mix, billing) = (self.mix.name(), self.billing.name());
        write!(formatter, "{mix} {billing}, {} pods, {} nodes", self.pods, self.nodes)
    }
}

/// A cluster with pods that wait, and what can be bought for them.
#[derive(Debug)]
pub struct Workload {
    /// The case it was made from.
    pub case: Case,
    /// The cluster.
    pub view: View,
    /// What can be bought.
    pub catalogs: BTreeMap<String, NodeClassCatalog>,
    /// Settings of the planner: its defaults, unless changed.
    pub settings: PlannerSettings,
    usage: BTreeMap<NodePoolName, Resources>,
}

impl Workload {
    /// Makes the cluster. Equal cases make equal clusters.
    pub fn new(case: Case) -> Self {
        let mut workload = Self::empty(case);
        let types = workload.types().to_vec();
        let view = &mut workload.view;
        match case.mix {
            Mix::Karpenter => karpenter::add_pods(view, case.pods),
            _ => realistic::add_pods(view, case),
        }
        cluster::add_nodes(view, case, &types);
        workload
    }

    /// The pool, its DaemonSets and what can be bought, without a pod or a node.
    fn empty(case: Case) -> Self {
        let mut view = View::default();
        let types = match case.mix {
            Mix::Karpenter => catalog::made_up_types(),
            _ => catalog::reference_types(),
        };
        cluster::add_pool(&mut view, case);
        let catalog = NodeClassCatalog::new(types, false);
        Self {
            case,
            view,
            catalogs: BTreeMap::from([(cluster::CLASS.to_owned(), catalog)]),
            settings: PlannerSettings::default(),
            usage: BTreeMap::new(),
        }
    }

    /// What can be bought.
    pub fn types(&self) -> &[InstanceType] {
        self.catalogs.get(cluster::CLASS).map_or(&[], |catalog| &catalog.instance_types)
    }

    /// What the planner is given.
    pub fn input(&self) -> PlanInput<'_> {
        PlanInput {
            view: &self.view,
            catalogs: &self.catalogs,
            virtual_pods: &[],
            in_flight: &[],
            seats: &[],
            leaving: const { &BTreeSet::new() },
            staying: const { &BTreeSet::new() },
            unavailable: const { &BTreeMap::new() },
            reserved: const { &BTreeMap::new() },
            pool_usage: &self.usage,
            settings: &self.settings,
            now: Timestamp::UNIX_EPOCH,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for mix in Mix::ALL {
            assert_eq!(mix.name().parse(), Ok(mix));
        }
        for billing in Billing::ALL {
            assert_eq!(billing.name().parse(), Ok(billing));
        }
        let error = "spots".parse::<Billing>().unwrap_err();
        assert_eq!(error.to_string(), "\"spots\" is none of on-demand, spot");
    }

    #[test]
    fn a_case_has_the_pods_and_nodes_it_says() {
        for mix in Mix::ALL {
            let case = Case { mix, pods: 1000, nodes: 20, billing: Billing::OnDemand };
            let counts = Workload::new(case).view.counts();
            assert_eq!(counts.unschedulable_pods, 1000, "{case}");
            assert_eq!(counts.nodes, 20, "{case}");
            assert!(counts.pods > 1000 + 20 * 5, "{case}: {}", counts.pods);
        }
    }
}
