//! A cluster for tests, from manifests, and plans as text.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::OnceLock;

use drover_common::call::Kind;
use drover_common::catalog::{REFERENCE_REGION, reference};
use drover_common::cluster::{ClusterEvent, ClusterObject, ObjectKey};
use drover_common::id::{NodeName, NodePoolName};
use drover_common::instance_type::{CapacityType, InstanceType, NodeSettings};
use drover_common::resources::Resources;
use serde_json::{Value, json};

use crate::nodeclass::catalog::NodeClassCatalog;
use crate::planner::{
    InFlightNode, PlacementTarget, Plan, PlanInput, PlannerSettings, UnavailableOffering, check,
    plan,
};
use crate::view::View;

/// Every type of the repository's catalogue.
pub(crate) fn all_types() -> &'static [InstanceType] {
    static TYPES: OnceLock<Vec<InstanceType>> = OnceLock::new();
    TYPES.get_or_init(|| {
        let settings = NodeSettings::default();
        reference()
            .into_iter()
            .map(|entry| {
                InstanceType::from_facts(&entry.facts, &settings, REFERENCE_REGION, entry.offerings)
            })
            .collect()
    })
}

pub(crate) struct World {
    pub view: View,
    pub catalogs: BTreeMap<String, NodeClassCatalog>,
    pub in_flight: Vec<InFlightNode>,
    pub leaving: BTreeSet<NodeName>,
    pub unavailable: BTreeSet<UnavailableOffering>,
    pub usage: BTreeMap<NodePoolName, Resources>,
    pub settings: PlannerSettings,
}

impl World {
    /// An empty cluster with the reference catalogue for the class `default`.
    pub(crate) fn new() -> Self {
        Self::with_types(all_types().to_vec())
    }

    pub(crate) fn with_types(instance_types: Vec<InstanceType>) -> Self {
        let catalog = NodeClassCatalog { instance_types, ..NodeClassCatalog::default() };
        Self {
            view: View::default(),
            catalogs: BTreeMap::from([("default".to_owned(), catalog)]),
            in_flight: Vec::new(),
            leaving: BTreeSet::new(),
            unavailable: BTreeSet::new(),
            usage: BTreeMap::new(),
            settings: PlannerSettings::default(),
        }
    }

    pub(crate) fn add(&mut self, kind: Kind, value: Value) {
        let object = ClusterObject::from_json(kind, value).unwrap();
        self.view.apply(ClusterEvent::Applied(object));
    }

    /// A NodePool with these requirements; `extra` is merged into the spec.
    pub(crate) fn pool(&mut self, name: &str, requirements: Value, extra: Value) -> &mut Self {
        let mut spec = json!({"template": {"spec": {
            "requirements": requirements,
            "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default"},
        }}});
        merge(&mut spec, extra);
        self.add(
            Kind::NodePool,
            json!({
                "apiVersion": "karpenter.sh/v1", "kind": "NodePool",
                "metadata": {"name": name}, "spec": spec,
            }),
        );
        self
    }

    /// Pending pods of one deployment.
    pub(crate) fn pods(
        &mut self,
        name: &str,
        count: usize,
        requests: Value,
        extra: Value,
    ) -> &mut Self {
        for number in 0..count {
            let mut pod = pod(&format!("{name}-{number}"), name, &requests);
            merge(&mut pod, extra.clone());
            self.add(Kind::Pod, pod);
        }
        self
    }

    /// A ready node of a type of the catalogue.
    pub(crate) fn node(&mut self, name: &str, instance_type: &str, zone: &str) -> &mut Self {
        let found = all_types().iter().find(|t| t.name == instance_type).unwrap();
        let mut labels = found.labels.clone();
        labels.insert("topology.kubernetes.io/zone".to_owned(), zone.to_owned());
        labels.insert("kubernetes.io/hostname".to_owned(), name.to_owned());
        labels.insert("karpenter.sh/nodepool".to_owned(), "default".to_owned());
        labels.insert("karpenter.sh/capacity-type".to_owned(), "on-demand".to_owned());
        self.add(
            Kind::Node,
            json!({
                "metadata": {"name": name, "labels": labels},
                "status": {
                    "allocatable": found.allocatable,
                    "capacity": found.capacity,
                    "conditions": [{"type": "Ready", "status": "True"}],
                },
            }),
        );
        self
    }

    /// A running pod.
    pub(crate) fn running(
        &mut self,
        name: &str,
        app: &str,
        node: &str,
        requests: Value,
    ) -> &mut Self {
        let mut pod = pod(name, app, &requests);
        merge(
            &mut pod,
            json!({"spec": {"nodeName": node}, "status": {"phase": "Running", "conditions": []}}),
        );
        self.add(Kind::Pod, pod);
        self
    }

    /// A running pod with `extra` merged in.
    pub(crate) fn running_like(
        &mut self,
        name: &str,
        app: &str,
        node: &str,
        requests: Value,
        extra: Value,
    ) -> &mut Self {
        let mut pod = pod(name, app, &requests);
        merge(
            &mut pod,
            json!({"spec": {"nodeName": node}, "status": {"phase": "Running", "conditions": []}}),
        );
        merge(&mut pod, extra);
        self.add(Kind::Pod, pod);
        self
    }

    pub(crate) fn take_offer(&mut self, capacity_type: CapacityType, zone: Option<&str>) {
        self.unavailable.insert(UnavailableOffering {
            capacity_type,
            instance_type: None,
            zone: zone.map(str::to_owned),
        });
    }

    pub(crate) fn input(&self) -> PlanInput<'_> {
        PlanInput {
            view: &self.view,
            catalogs: &self.catalogs,
            in_flight: &self.in_flight,
            leaving: &self.leaving,
            unavailable: &self.unavailable,
            pool_usage: &self.usage,
            settings: &self.settings,
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
        }
    }

    /// Plans, and checks the plan.
    pub(crate) fn plan(&self) -> Plan {
        let input = self.input();
        let plan = plan(&input);
        let violations = check::check(&input, &plan);
        assert!(violations.is_empty(), "{violations:#?}");
        plan
    }

    /// The plan as text.
    pub(crate) fn text(&self) -> String {
        render(&self.plan())
    }
}

fn pod(name: &str, app: &str, requests: &Value) -> Value {
    json!({
        "metadata": {
            "name": name, "namespace": "default", "uid": name, "labels": {"app": app},
            "ownerReferences": [{"kind": "ReplicaSet", "name": app, "controller": true}],
        },
        "spec": {"containers": [{"name": "main", "resources": {"requests": requests}}]},
        "status": {
            "phase": "Pending",
            "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}],
        },
    })
}

pub(crate) fn merge(base: &mut Value, extra: Value) {
    match (base, extra) {
        (Value::Object(base), Value::Object(extra)) => {
            for (key, value) in extra {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (_, Value::Null) => {}
        (base, extra) => *base = extra,
    }
}

/// A plan as people read it.
pub(crate) fn render(plan: &Plan) -> String {
    let mut text = String::new();
    for launch in &plan.launches {
        let types: Vec<&str> = unique(launch.offerings.iter().map(|o| o.instance_type.as_str()));
        let shown = types.iter().take(4).copied().collect::<Vec<_>>().join(" ");
        writeln!(
            text,
            "launch {} {} ${:.4}/h in {}: {} types: {shown} …\n  requests {}\n  pods {}",
            launch.nodepool,
            launch.capacity_type,
            launch.hourly_price_micro as f64 / 1e6,
            launch.zones.join(" "),
            types.len(),
            launch.requests,
            names(&launch.pods),
        )
        .unwrap();
    }
    for placement in &plan.placements {
        let target = match &placement.node_or_claim {
            PlacementTarget::Node(name) => format!("node {name}"),
            PlacementTarget::Claim(name) => format!("claim {name}"),
        };
        writeln!(text, "{target} takes {}", names(&placement.pods)).unwrap();
    }
    for left in &plan.unschedulable {
        for (pool, reason) in &left.reasons {
            writeln!(text, "left {} [{pool}]: {reason}", left.pod.name).unwrap();
        }
    }
    writeln!(text, "total ${:.4}/h", plan.report.hourly_price_micro as f64 / 1e6).unwrap();
    text
}

fn unique<'t>(names: impl Iterator<Item = &'t str>) -> Vec<&'t str> {
    let mut seen = BTreeSet::new();
    names.filter(|name| seen.insert(*name)).collect()
}

fn names(pods: &[ObjectKey]) -> String {
    pods.iter().map(|pod| pod.name.as_str()).collect::<Vec<_>>().join(" ")
}
