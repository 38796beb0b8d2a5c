//! A cluster for tests, from manifests, and plans as text.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::OnceLock;

use drover_common::call::Kind;
use drover_common::catalog::{REFERENCE_REGION, reference};
use drover_common::cluster::{ClusterEvent, ClusterObject, ObjectKey};
use drover_common::id::{NodeName, NodePoolName};
use drover_common::instance_type::{
    CapacityType, InstanceType, NodeSettings, Offering, Reservation, ReservationKind,
};
use drover_common::resources::Resources;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::nodeclass::catalog::NodeClassCatalog;
use crate::planner::{
    InFlightNode, Launch, Placement, PlacementTarget, Plan, PlanInput, PlannerSettings,
    UnavailableOffering, VirtualPods, check, draft,
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
    pub seats: Vec<Placement>,
    pub leaving: BTreeSet<NodeName>,
    pub unavailable: BTreeMap<UnavailableOffering, Timestamp>,
    pub virtual_pods: Vec<VirtualPods>,
    /// Nodes on their way into reservations.
    pub reserved: BTreeMap<String, u32>,
    pub usage: BTreeMap<NodePoolName, Resources>,
    pub settings: PlannerSettings,
    pub now: Timestamp,
    /// What was put in, as people read it.
    pub told: Vec<String>,
}

impl World {
    /// An empty cluster with the reference catalogue for the class `default`.
    pub(crate) fn new() -> Self {
        Self::with_types(all_types().to_vec())
    }

    pub(crate) fn with_types(instance_types: Vec<InstanceType>) -> Self {
        let catalog = NodeClassCatalog::new(instance_types, false);
        Self {
            view: View::default(),
            catalogs: BTreeMap::from([("default".to_owned(), catalog)]),
            in_flight: Vec::new(),
            seats: Vec::new(),
            leaving: BTreeSet::new(),
            unavailable: BTreeMap::new(),
            virtual_pods: Vec::new(),
            reserved: BTreeMap::new(),
            usage: BTreeMap::new(),
            settings: PlannerSettings::default(),
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            told: Vec::new(),
        }
    }

    /// A cluster with a few families, for scenarios that are read.
    pub(crate) fn small() -> Self {
        let families = ["c5", "m5", "r5", "m6g", "g5"];
        let of = |t: &&InstanceType| {
            families.contains(&t.name.split('.').next().unwrap_or_default())
                && !t.name.contains("metal")
        };
        Self::with_types(all_types().iter().filter(of).cloned().collect())
    }

    pub(crate) fn tell(&mut self, line: String) {
        self.told.push(line);
    }

    /// An object other than those below, told by its kind and name.
    pub(crate) fn object(&mut self, kind: Kind, value: Value) -> &mut Self {
        let mut shown = value.clone();
        let name = shown["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        shown.as_object_mut().unwrap().remove("metadata");
        self.tell(format!("{} {name} {shown}", kind.endpoint().kind));
        self.add(kind, value);
        self
    }

    pub(crate) fn add(&mut self, kind: Kind, value: Value) {
        let object = ClusterObject::from_json(kind, value).unwrap();
        self.view.apply(ClusterEvent::Applied(object));
    }

    /// A NodePool with these requirements; `extra` is merged into the spec.
    pub(crate) fn pool(&mut self, name: &str, requirements: Value, extra: Value) -> &mut Self {
        let mut wants = requirements.to_string();
        if extra != json!({}) {
            write!(wants, " {extra}").unwrap();
        }
        self.tell(format!("NodePool {name} {wants}"));
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
        let rules = if extra == json!({}) { String::new() } else { format!(" {extra}") };
        self.tell(format!("{count} pods {name} {requests}{rules}"));
        for number in 0..count {
            let mut pod = pod(&format!("{name}-{number}"), name, &requests);
            merge(&mut pod, extra.clone());
            self.add(Kind::Pod, pod);
        }
        self
    }

    /// A ready node of a type of the catalogue.
    pub(crate) fn node(&mut self, name: &str, instance_type: &str, zone: &str) -> &mut Self {
        self.tell(format!("Node {name}: {instance_type} in {zone}"));
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
        self.tell(format!("pod {name} of {app} runs on {node} {requests}"));
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

    /// Moves a running pod to another namespace.
    pub(crate) fn move_pod(&mut self, name: &str, namespace: &str) {
        let key = ObjectKey::new("default", name);
        let mut pod = self.view.pod(&key).unwrap().as_ref().clone();
        self.view.apply(ClusterEvent::Deleted(Kind::Pod, key));
        self.tell(format!("pod {name} is in namespace {namespace}"));
        namespace.clone_into(&mut pod.metadata.namespace);
        self.view.apply(ClusterEvent::Applied(ClusterObject::Pod(Box::new(pod))));
    }

    /// A capacity reservation of the class `default`, with room for so many more nodes.
    pub(crate) fn reservation(
        &mut self,
        id: &str,
        instance_type: &str,
        zone: &str,
        free: u32,
    ) -> &mut Self {
        self.reserve(id, instance_type, zone, free, ReservationKind::Default)
    }

    pub(crate) fn reserve(
        &mut self,
        id: &str,
        instance_type: &str,
        zone: &str,
        free: u32,
        kind: ReservationKind,
    ) -> &mut Self {
        self.tell(format!("{} reservation {id}: {free} {instance_type} in {zone}", kind.as_str()));
        let catalog = self.catalogs.get_mut("default").unwrap();
        let found = catalog.instance_types.iter_mut().find(|t| t.name == instance_type).unwrap();
        found.offerings.push(Offering {
            zone: zone.to_owned(),
            zone_id: None,
            capacity_type: CapacityType::Reserved,
            price: Some(1),
            available: true,
            reservation: Some(Reservation { id: id.to_owned(), kind, interruptible: false, free }),
        });
        self
    }

    pub(crate) fn take_offer(&mut self, capacity_type: CapacityType, zone: Option<&str>) {
        let offering = UnavailableOffering {
            capacity_type,
            instance_type: None,
            zone: zone.map(str::to_owned),
            reservation: None,
        };
        self.unavailable.insert(offering, "2026-01-01T14:03:00Z".parse().unwrap());
    }

    pub(crate) fn input(&self) -> PlanInput<'_> {
        PlanInput {
            view: &self.view,
            catalogs: &self.catalogs,
            in_flight: &self.in_flight,
            seats: &self.seats,
            leaving: &self.leaving,
            staying: const { &BTreeSet::new() },
            unavailable: &self.unavailable,
            virtual_pods: &self.virtual_pods,
            reserved: &self.reserved,
            pool_usage: &self.usage,
            settings: &self.settings,
            now: self.now,
        }
    }

    /// Plans, and checks the plan.
    pub(crate) fn plan(&self) -> Plan {
        let input = self.input();
        let plan = draft(&input);
        let violations = check::check(&input, &plan);
        assert!(violations.is_empty(), "{violations:#?}");
        plan
    }

    /// The plan as text.
    pub(crate) fn text(&self) -> String {
        render(&self.plan())
    }

    /// The cluster and the plan as text.
    pub(crate) fn story(&self) -> String {
        let mut told = self.told.clone();
        for (offering, until) in &self.unavailable {
            told.push(format!(
                "unavailable until {until}: {} {} in {}",
                offering.capacity_type,
                offering.instance_type.as_deref().unwrap_or("anything"),
                offering.zone.as_deref().unwrap_or("every zone"),
            ));
        }
        format!("{}\n---\n{}", told.join("\n"), self.text())
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
            billing(launch),
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
    for problem in &plan.report.problems {
        writeln!(text, "problem: {problem}").unwrap();
    }
    writeln!(text, "total ${:.4}/h", plan.report.hourly_price_micro as f64 / 1e6).unwrap();
    text
}

/// How a launch is billed, with its reservation.
fn billing(launch: &Launch) -> String {
    match &launch.reservation {
        Some(target) => format!("{} ({})", launch.capacity_type, target.id),
        None => launch.capacity_type.to_string(),
    }
}

fn unique<'t>(names: impl Iterator<Item = &'t str>) -> Vec<&'t str> {
    let mut seen = BTreeSet::new();
    names.filter(|name| seen.insert(*name)).collect()
}

fn names(pods: &[ObjectKey]) -> String {
    pods.iter().map(|pod| pod.name.as_str()).collect::<Vec<_>>().join(" ")
}
