//! A running cluster to repack, and repacks as text.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use drover_common::call::Kind;
use drover_common::id::{NodeName, NodePoolName};
use drover_common::instance_type::CapacityType;
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::super::world::{World, all_types, merge};
use crate::planner::{
    ManagedNode, MoveTarget, PoolNodes, RepackInput, RepackPlan, RepackSettings, check,
    remove_empty, repack,
};

pub(super) struct Cluster {
    pub world: World,
    pub nodes: BTreeMap<NodeName, ManagedNode>,
    pub pools: BTreeMap<NodePoolName, PoolNodes>,
    pub settings: RepackSettings,
}

impl Cluster {
    /// A pool of every type whose spec has `extra` merged in, and a disruption budget of 100 %
    /// where it names none.
    pub(super) fn new(extra: Value) -> Self {
        let on_demand = json!([{"key": "karpenter.sh/capacity-type", "operator": "In",
            "values": ["on-demand"]}]);
        Self::with_requirements(on_demand, extra)
    }

    pub(super) fn with_requirements(requirements: Value, extra: Value) -> Self {
        let mut world = World::new();
        let mut spec = json!({"disruption": {
            "consolidateAfter": "0s", "budgets": [{"nodes": "100%"}]}});
        merge(&mut spec, extra);
        world.pool("default", requirements, spec);
        Self::of(world)
    }

    pub(super) fn of(world: World) -> Self {
        Self {
            world,
            nodes: BTreeMap::new(),
            pools: BTreeMap::new(),
            settings: RepackSettings::default(),
        }
    }

    /// A ready node of an hour's age.
    pub(super) fn node(
        &mut self,
        name: &str,
        instance_type: &str,
        zone: &str,
        capacity_type: CapacityType,
    ) {
        self.world.node(name, instance_type, zone);
        let node = self.world.view.nodes()[&NodeName::from(name)].clone();
        let mut value = serde_json::to_value(node.as_ref()).unwrap();
        value["metadata"]["labels"]["karpenter.sh/capacity-type"] = json!(capacity_type.as_str());
        self.world.add(Kind::Node, value);
        let managed = ManagedNode {
            nodepool: "default".into(),
            capacity_type,
            price_micro: self.price_now(instance_type, zone, capacity_type),
            initialized_at: Some(self.world.input().now - SignedDuration::from_hours(1)),
            quiet: true,
            held: None,
        };
        self.nodes.insert(name.into(), managed);
        self.pools.entry("default".into()).or_default().initialized += 1;
    }

    pub(super) fn price_now(
        &self,
        instance_type: &str,
        zone: &str,
        capacity_type: CapacityType,
    ) -> u64 {
        let found = all_types().iter().find(|t| t.name == instance_type).unwrap();
        let mut offerings = found.offerings.iter();
        let offered = offerings.find(|o| o.zone == zone && o.capacity_type == capacity_type);
        offered.unwrap().price.unwrap()
    }

    /// Takes a type off the market.
    pub(super) fn forget_type(&mut self, name: &str) {
        let catalog = self.world.catalogs.get_mut("default").unwrap();
        catalog.instance_types.retain(|kind| kind.name != name);
    }

    pub(super) fn managed(&mut self, name: &str) -> &mut ManagedNode {
        self.nodes.get_mut(&NodeName::from(name)).unwrap()
    }

    pub(super) fn running(
        &mut self,
        name: &str,
        app: &str,
        node: &str,
        requests: Value,
        extra: Value,
    ) {
        self.world.running_like(name, app, node, requests, extra);
    }

    pub(super) fn annotate_node(&mut self, name: &str, key: &str, text: &str) {
        let node = self.world.view.nodes()[&NodeName::from(name)].clone();
        let mut value = serde_json::to_value(node.as_ref()).unwrap();
        value["metadata"]["annotations"][key] = json!(text);
        self.world.add(Kind::Node, value);
    }

    pub(super) fn cordon(&mut self, name: &str) {
        let node = self.world.view.nodes()[&NodeName::from(name)].clone();
        let mut value = serde_json::to_value(node.as_ref()).unwrap();
        value["spec"]["unschedulable"] = json!(true);
        self.world.add(Kind::Node, value);
    }

    pub(super) fn pod_budget(&mut self, name: &str, app: &str, allowed: i32) {
        self.world.add(
            Kind::PodDisruptionBudget,
            json!({
                "metadata": {"name": name, "namespace": "default"},
                "spec": {"selector": {"matchLabels": {"app": app}}},
                "status": {"disruptionsAllowed": allowed},
            }),
        );
    }

    pub(super) fn input(&self) -> RepackInput<'_> {
        RepackInput {
            plan: self.world.input(),
            nodes: &self.nodes,
            pools: &self.pools,
            settings: &self.settings,
        }
    }

    /// Repacks, twice with the same result, and checks it.
    pub(super) fn repack(&self) -> RepackPlan {
        let input = self.input();
        let plan = repack(&input);
        assert_eq!(plan.report.problems, Vec::<String>::new());
        let violations = check::check_repack(&input, &plan);
        assert!(violations.is_empty(), "{violations:#?}\n{}", render(&plan));
        assert_eq!(plan, repack(&input), "repacking is deterministic");
        let empty = remove_empty(&input);
        let violations = check::check_repack(&input, &empty);
        assert!(violations.is_empty(), "{violations:#?}\n{}", render(&empty));
        let told = plan.left.iter().map(|left| &left.node);
        let gone = plan.batches.iter().flat_map(|batch| &batch.nodes);
        let moved = plan.batches.iter().flat_map(|batch| &batch.moves);
        let kept = moved.filter_map(|one| match &one.to {
            MoveTarget::Node(node) => Some(node),
            MoveTarget::Replacement(_) => None,
        });
        let all: std::collections::BTreeSet<&NodeName> = told.chain(gone).chain(kept).collect();
        for node in self.nodes.keys() {
            assert!(all.contains(node), "{node} stays without a reason");
        }
        plan
    }

    pub(super) fn text(&self) -> String {
        render(&self.repack())
    }
}

/// A repack as people read it.
fn render(plan: &RepackPlan) -> String {
    let mut text = String::new();
    let dollars = |micro: i64| format!("${:.4}/h", micro as f64 / 1e6);
    for batch in &plan.batches {
        let names: Vec<&str> = batch.nodes.iter().map(NodeName::as_str).collect();
        writeln!(
            text,
            "wave {}: {:?} {} saves {} of {}",
            batch.wave,
            batch.reason,
            names.join(" "),
            dollars(batch.saving_micro),
            dollars(batch.price_micro as i64),
        )
        .unwrap();
        for (number, launch) in batch.replacements.iter().enumerate() {
            let types: std::collections::BTreeSet<&str> =
                launch.offerings.iter().map(|o| o.instance_type.as_str()).collect();
            writeln!(
                text,
                "  replacement {number}: {} {} in {}, {} types at {} or more",
                launch.offerings[0].instance_type,
                launch.capacity_type,
                launch.zones.join(" "),
                types.len(),
                dollars(launch.hourly_price_micro as i64),
            )
            .unwrap();
        }
        for one in &batch.moves {
            let to = match &one.to {
                MoveTarget::Node(node) => node.to_string(),
                MoveTarget::Replacement(number) => format!("replacement {number}"),
            };
            writeln!(text, "  {} from {} to {to}", one.pod.name, one.from).unwrap();
        }
    }
    for left in &plan.left {
        writeln!(text, "{} stays: {}", left.node, left.reason).unwrap();
    }
    text
}
