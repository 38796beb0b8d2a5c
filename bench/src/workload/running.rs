//! Clusters that run half empty: nodes were full once, then every deployment was scaled down by
//! another share.

use std::collections::BTreeMap;

use drover_common::cluster::{ClusterEvent, ClusterObject, PodSpec};
use drover_common::id::{NodeName, NodePoolName};
use drover_common::instance_type::{CapacityType, InstanceType};
use drover_common::labels;
use drover_common::resources::Resources;
use drover_core::planner::{ManagedNode, PoolNodes, RepackInput, RepackSettings};
use drover_core::view::View;
use fastrand::Rng;
use jiff::{SignedDuration, Timestamp};

use super::cluster::{self, PodPlan, add_pending, add_running};
use super::random::pick;
use super::realistic::{constraints, deployment_size};
use super::{Billing, Case, Mix, Workload};

const SEED: u64 = 13;
const DEPLOYMENTS: usize = 200;
/// Types of the nodes: up to the planner's usual limit on their size.
const TYPES: [&str; 6] =
    ["m5.2xlarge", "m5.4xlarge", "r5.4xlarge", "c5.4xlarge", "m6g.4xlarge", "m5.8xlarge"];
const ZONES: [&str; 3] = ["us-east-1a", "us-east-1b", "us-east-1c"];
/// Draws for a node before it counts as full.
const DRAWS: usize = 90;

/// A cluster that runs, ready to be repacked.
#[derive(Debug)]
pub struct Running {
    /// The cluster. The case's nodes and pods are those that run; none waits.
    pub workload: Workload,
    /// The nodes, all of which may be taken down.
    pub nodes: BTreeMap<NodeName, ManagedNode>,
    /// Settings of the repack: the defaults.
    pub settings: RepackSettings,
    pools: BTreeMap<NodePoolName, PoolNodes>,
    /// The same pods, waiting, in a cluster without nodes.
    anew: Workload,
}

/// A node while it is filled.
struct Host<'t> {
    name: String,
    zone: &'static str,
    capacity_type: CapacityType,
    instance_type: &'t InstanceType,
    price: u64,
}

/// A deployment.
struct App {
    name: String,
    size: Resources,
    spec: PodSpec,
    /// The share of it that is left, before it is known how much must be left of all.
    share: f64,
}

impl Running {
    /// Makes the cluster. Equal cases make equal clusters. Fewer pods run where nodes can't hold as
    /// many.
    pub fn new(case: Case) -> Self {
        let mut workload = Workload::empty(case);
        let mut anew = Workload::empty(case);
        let mut rng = Rng::with_seed(SEED);
        let apps = apps(&mut rng, case);
        let types = workload.types().to_vec();
        let hosts: Vec<Host<'_>> =
            (0..case.nodes).filter_map(|number| host(&mut rng, &types, case, number)).collect();
        let mut nodes = BTreeMap::new();
        let mut placed: Vec<(f64, usize, usize)> = Vec::new();
        for (number, host) in hosts.iter().enumerate() {
            add_node(&mut workload.view, host);
            nodes.insert(NodeName::from(host.name.as_str()), host.managed());
            for app in fill(&mut rng, host, &apps) {
                let share = apps.get(app).map_or(1.0, |app| app.share);
                placed.push((rng.f64() / share, number, app));
            }
        }
        placed.sort_by(|a, b| a.0.total_cmp(&b.0).then((a.1, a.2).cmp(&(b.1, b.2))));
        placed.truncate(case.pods);
        for (number, (_, host, app)) in placed.iter().enumerate() {
            let Some((host, app)) = hosts.get(*host).zip(apps.get(*app)) else { continue };
            let plan = app.pod(number);
            add_running(&mut workload.view, &plan, &app.name, &host.name);
            // Pods that run are as spread as they are, and need not be moved: the bound leaves that out.
            let mut plan = plan;
            plan.spec.topology_spread_constraints.clear();
            add_pending(&mut anew.view, &plan);
        }
        let initialized = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
        let count = PoolNodes { initialized, ..PoolNodes::default() };
        let pools = BTreeMap::from([(NodePoolName::from(cluster::POOL), count)]);
        Self { workload, nodes, settings: RepackSettings::default(), pools, anew }
    }

    /// What the repack is given.
    pub fn input(&self) -> RepackInput<'_> {
        RepackInput {
            plan: self.workload.input(),
            nodes: &self.nodes,
            pools: &self.pools,
            settings: &self.settings,
        }
    }

    /// Its pods, as if they waited for their first node: what they cost at least is the least that
    /// any cluster with them costs, because the nodes that run are of types that can be bought.
    pub fn anew(&self) -> &Workload {
        &self.anew
    }

    /// What the nodes cost, micro-dollars an hour.
    pub fn price(&self) -> u64 {
        self.nodes.values().map(|node| node.price_micro).sum()
    }
}

fn apps(rng: &mut Rng, case: Case) -> Vec<App> {
    (0..DEPLOYMENTS)
        .map(|number| {
            let name = format!("run{number:03}");
            let size = deployment_size(rng, false);
            let spec = constraints(rng, &name, case.billing);
            let spec = if case.mix == Mix::Constrained { spec } else { PodSpec::default() };
            App { name, size, spec, share: 0.2 + 0.6 * rng.f64() }
        })
        .collect()
}

fn host<'t>(
    rng: &mut Rng,
    types: &'t [InstanceType],
    case: Case,
    number: usize,
) -> Option<Host<'t>> {
    let wanted = pick(rng, &TYPES);
    let zone = pick(rng, &ZONES);
    let spot = case.billing == Billing::Spot && rng.f64() < 0.7;
    let capacity_type = if spot { CapacityType::Spot } else { CapacityType::OnDemand };
    let instance_type = types.iter().find(|known| known.name == wanted)?;
    let sold = |kind: CapacityType| {
        let mut offerings = instance_type.offerings.iter();
        offerings.find(|o| o.zone == zone && o.capacity_type == kind)?.price
    };
    let name = format!("node-{number:05}");
    Some(Host { name, zone, capacity_type, instance_type, price: sold(capacity_type)? })
}

impl Host<'_> {
    fn managed(&self) -> ManagedNode {
        ManagedNode {
            nodepool: NodePoolName::from(cluster::POOL),
            capacity_type: self.capacity_type,
            price_micro: self.price,
            initialized_at: Some(Timestamp::UNIX_EPOCH - SignedDuration::from_hours(24)),
            quiet: true,
            held: None,
        }
    }

    fn admits(&self, app: &App, own: &[usize], number: usize) -> bool {
        let alone = app.spec.affinity.pod_anti_affinity.is_some() && own.contains(&number);
        let selected = app.spec.node_selector.iter().all(|(key, value)| match key.as_str() {
            labels::ZONE => value == self.zone,
            labels::CAPACITY_TYPE => value == self.capacity_type.as_str(),
            _ => false,
        });
        !alone && selected
    }
}

impl App {
    fn pod(&self, number: usize) -> PodPlan {
        PodPlan {
            name: format!("{}-{number:06}", self.name),
            labels: BTreeMap::from([("app".to_owned(), self.name.clone())]),
            requests: self.size.clone(),
            spec: self.spec.clone(),
        }
    }
}

/// The deployments of the pods that once filled a node to about nine tenths.
fn fill(rng: &mut Rng, host: &Host<'_>, apps: &[App]) -> Vec<usize> {
    let part = |amount: i64| amount / 10 * 9;
    let all = host.instance_type.allocatable.iter();
    let mut free: Resources = all.map(|(name, n)| (name.clone(), part(n))).collect();
    let mut own = Vec::new();
    for _ in 0..DRAWS {
        let number = rng.usize(0..apps.len().max(1));
        let Some(app) = apps.get(number).filter(|app| app.size.fits_in(&free)) else { continue };
        if host.admits(app, &own, number) {
            free.subtract(&app.size);
            own.push(number);
        }
    }
    own
}

fn add_node(view: &mut View, host: &Host<'_>) {
    let node = cluster::node(&host.name, host.instance_type, host.zone, host.capacity_type);
    view.apply(ClusterEvent::Applied(ClusterObject::Node(Box::new(node))));
}

#[cfg(test)]
mod tests {
    use drover_core::planner::{check, repack};

    use super::*;
    use crate::bound::lower_bound;

    #[test]
    fn no_repack_saves_more_than_is_possible_or_breaks_a_rule() {
        for mix in [Mix::Realistic, Mix::Constrained] {
            for billing in Billing::ALL {
                let case = Case { mix, pods: 480, nodes: 40, billing };
                let running = Running::new(case);
                let made = repack(&running.input());
                assert_eq!(check::check_repack(&running.input(), &made), [], "{case}");
                let least = lower_bound(running.anew()).unwrap();
                let after = running.price() as i64 - made.report.saving_micro;
                assert!(after >= least as i64, "{case}: {after} left, at least {least}");
                let possible = running.price() as i64 - least as i64;
                assert!(made.report.saving_micro * 4 > possible * 3, "{case}");
                // Where pods are spread and kept apart, what one batch does decides where others' go.
                let follows = made.batches.iter().any(|batch| batch.follows);
                assert_eq!(follows, mix == Mix::Constrained, "{case}");
            }
        }
    }
}
