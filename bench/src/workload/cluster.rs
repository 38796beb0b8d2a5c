//! Objects of a made-up cluster.

use std::collections::BTreeMap;

use drover_common::cluster::{
    ClusterEvent, ClusterObject, Container, DaemonSet, Metadata, Node, NodeCondition,
    OwnerReference, Pod, PodCondition, PodSpec,
};
use drover_common::crd::NodePool;
use drover_common::instance_type::{CapacityType, InstanceType};
use drover_common::labels;
use drover_common::requirement::{Operator, Requirement};
use drover_common::resources::{ResourceName, Resources};
use drover_core::view::View;
use fastrand::Rng;

use super::random::pick;
use super::realistic::deployment_size;
use super::{Billing, Case, Mix};

/// The one node class.
pub(super) const CLASS: &str = "default";
pub(super) const POOL: &str = "default";
const MIB: i64 = 1 << 20;

/// Amounts of one pod: thousandths of a core, MiB, GPUs.
pub(super) fn requests(cpu: i64, mib: i64, gpus: i64) -> Resources {
    let mut amounts: Resources =
        [(ResourceName::Cpu, cpu), (ResourceName::Memory, mib * MIB)].into_iter().collect();
    if gpus > 0 {
        amounts.set(ResourceName::from("nvidia.com/gpu"), gpus);
    }
    amounts
}

/// A pod to be made.
pub(super) struct PodPlan {
    pub(super) name: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) requests: Resources,
    pub(super) spec: PodSpec,
}

fn pod(plan: &PodPlan, owner: (&str, &str)) -> Pod {
    let mut pod = Pod { spec: plan.spec.clone(), ..Pod::default() };
    pod.metadata = metadata("default", &plan.name, plan.labels.clone());
    let (kind, name) = owner;
    pod.metadata.owner_references.push(OwnerReference {
        kind: kind.to_owned(),
        name: name.to_owned(),
        controller: true,
        ..OwnerReference::default()
    });
    let mut container = Container { name: "main".to_owned(), ..Container::default() };
    container.resources.requests = plan.requests.clone();
    pod.spec.containers.push(container);
    pod
}

fn metadata(namespace: &str, name: &str, labels: BTreeMap<String, String>) -> Metadata {
    Metadata {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: name.to_owned(),
        labels,
        ..Metadata::default()
    }
}

/// Adds a pod that the scheduler found no place for.
pub(super) fn add_pending(view: &mut View, plan: &PodPlan) {
    let mut pod = pod(plan, ("ReplicaSet", "owner"));
    pod.status.phase = "Pending".to_owned();
    pod.status.conditions.push(PodCondition {
        kind: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: "Unschedulable".to_owned(),
        last_transition_time: None,
    });
    apply(view, ClusterObject::Pod(Box::new(pod)));
}

/// Adds a pod of a ReplicaSet that runs on a node.
pub(super) fn add_running(view: &mut View, plan: &PodPlan, owner: &str, node: &str) {
    let mut pod = pod(plan, ("ReplicaSet", owner));
    node.clone_into(&mut pod.spec.node_name);
    pod.status.phase = "Running".to_owned();
    apply(view, ClusterObject::Pod(Box::new(pod)));
}

fn apply(view: &mut View, object: ClusterObject) {
    view.apply(ClusterEvent::Applied(object));
}

/// Adds the NodePool, and two DaemonSets to the mixes that are like real clusters.
pub(super) fn add_pool(view: &mut View, case: Case) {
    let mut pool = NodePool::new(POOL, drover_common::crd::NodePoolSpec::default());
    let spec = &mut pool.spec.template.spec;
    spec.node_class_ref.name = CLASS.to_owned();
    spec.node_class_ref.group = "karpenter.k8s.aws".to_owned();
    spec.node_class_ref.kind = "EC2NodeClass".to_owned();
    spec.expire_after = "720h".to_owned();
    if case.mix != Mix::Karpenter {
        let values = match case.billing {
            Billing::OnDemand => vec!["on-demand".to_owned()],
            Billing::Spot => vec!["on-demand".to_owned(), "spot".to_owned()],
        };
        // The types of Karpenter's getting-started NodePool, and GPUs where pods ask for them.
        let mut categories = vec!["c", "m", "r"];
        if case.mix == Mix::Gpu {
            categories.push("g");
        }
        let generation = "karpenter.k8s.aws/instance-generation";
        spec.requirements = vec![
            Requirement::new(labels::CAPACITY_TYPE, Operator::In, values),
            Requirement::new("karpenter.k8s.aws/instance-category", Operator::In, categories),
            Requirement::new(generation, Operator::Gt, ["2"]),
        ];
    }
    apply(view, ClusterObject::NodePool(Box::new(pool)));
    if matches!(case.mix, Mix::Karpenter | Mix::Generic) {
        return;
    }
    for (name, cpu, mib) in [("log", 100, 200), ("net", 150, 200)] {
        let metadata = metadata("kube-system", name, BTreeMap::new());
        let mut set = DaemonSet { metadata, ..DaemonSet::default() };
        let mut container = Container { name: "main".to_owned(), ..Container::default() };
        container.resources.requests = requests(cpu, mib, 0);
        set.spec.template.spec.containers.push(container);
        apply(view, ClusterObject::DaemonSet(Box::new(set)));
    }
}

/// Types of the nodes that are there.
const THERE: [&str; 5] = ["m5.xlarge", "m5.2xlarge", "r5.2xlarge", "c5.4xlarge", "m6g.4xlarge"];
const THERE_MADE_UP: [&str; 3] = ["fake-it-004", "fake-it-008", "fake-it-016"];

/// Adds nodes that are there, each filled with about a dozen pods of 200 deployments to about 90 %.
pub(super) fn add_nodes(view: &mut View, case: Case, types: &[InstanceType]) {
    let mut rng = Rng::with_seed(11);
    let names: &[&str] = if case.mix == Mix::Karpenter { &THERE_MADE_UP } else { &THERE };
    let zones: Vec<&str> = if case.mix == Mix::Karpenter {
        vec!["test-zone-1", "test-zone-2", "test-zone-3"]
    } else {
        vec!["us-east-1a", "us-east-1b", "us-east-1c"]
    };
    let sizes: Vec<Resources> = (0..200).map(|_| deployment_size(&mut rng, false)).collect();
    for number in 0..case.nodes {
        let wanted = pick(&mut rng, names);
        let Some(instance_type) = types.iter().find(|known| known.name == wanted) else { continue };
        let name = format!("node-{number:05}");
        let zone = pick(&mut rng, &zones);
        let node = node(&name, instance_type, zone, CapacityType::OnDemand);
        apply(view, ClusterObject::Node(Box::new(node)));
        fill_node(view, &mut rng, &name, instance_type, &sizes);
    }
}

/// A node that is ready.
pub(super) fn node(
    name: &str,
    instance_type: &InstanceType,
    zone: &str,
    capacity_type: CapacityType,
) -> Node {
    let mut node = Node::default();
    let mut node_labels = instance_type.labels.clone();
    node_labels.insert(labels::INSTANCE_TYPE.to_owned(), instance_type.name.clone());
    node_labels.insert(labels::ZONE.to_owned(), zone.to_owned());
    node_labels.insert(labels::HOSTNAME.to_owned(), name.to_owned());
    node_labels.insert(labels::NODEPOOL.to_owned(), POOL.to_owned());
    node_labels.insert(labels::CAPACITY_TYPE.to_owned(), capacity_type.to_string());
    node.metadata = metadata("", name, node_labels);
    node.status.capacity = instance_type.capacity.clone();
    node.status.allocatable = instance_type.allocatable.clone();
    node.status.conditions.push(NodeCondition {
        kind: "Ready".to_owned(),
        status: "True".to_owned(),
        last_transition_time: None,
    });
    node
}

/// Puts running pods on a node: a dozen, smaller ones where a large one does not fit, up to about
/// nine tenths.
fn fill_node(
    view: &mut View,
    rng: &mut Rng,
    node: &str,
    instance_type: &InstanceType,
    sizes: &[Resources],
) {
    let part = |amount: i64| amount / 20 * 17;
    let mut free: Resources =
        instance_type.allocatable.iter().map(|(name, n)| (name.clone(), part(n))).collect();
    let mut placed = 0;
    for _ in 0..60 {
        let app = rng.usize(0..sizes.len().max(1));
        let Some(size) = sizes.get(app).filter(|size| size.fits_in(&free)) else { continue };
        free.subtract(size);
        let name = format!("run-{node}-{placed}");
        let app = format!("run{app:03}");
        let labels = BTreeMap::from([("app".to_owned(), app.clone())]);
        let plan = PodPlan { name, labels, requests: size.clone(), spec: PodSpec::default() };
        add_running(view, &plan, &app, node);
        placed += 1;
        if placed == 12 {
            break;
        }
    }
}
