//! Nodes: machines that boot join, machines that go are noticed, conditions become taints.

use drover_common::cluster::ObjectKey;
use drover_common::ec2::InstanceState;
use drover_common::id::{InstanceId, instance_of_provider_id, provider_id};
use drover_common::instance_type::{InstanceType, NodeSettings};
use drover_common::labels;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::user_data::KubeletSettings;
use super::{Turn, after, boot_id};
use crate::world::cloud::SimulatedInstance;
use crate::world::object;
use crate::world::resource::{NODES, PODS};
use crate::world::store::{DeleteOptions, Part, WriteOptions};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// From registration to Ready.
const READY_AFTER: SignedDuration = SignedDuration::from_secs(1);
/// How long a kubelet may be silent: Kubernetes' node-monitor-grace-period.
const SILENT_FOR: SignedDuration = SignedDuration::from_secs(50);

/// How far a machine has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Machine {
    /// Its kubelet has registered its node and is not ready yet.
    Registered { node: String, at: Timestamp },
    /// Its node is ready.
    Ready { node: String },
    /// It is off, or on its way there, and may be started again.
    Off { node: String },
    /// It is gone, and everybody knows.
    Lost,
}

/// Lets machines that have booted join, and has those that went noticed.
pub(super) fn run_machines(turn: &mut Turn<'_>) {
    let instances: Vec<SimulatedInstance> = turn
        .cloud
        .instances()
        .filter(|instance| {
            let settled = match turn.machines.get(&instance.id) {
                Some(Machine::Lost) => true,
                Some(Machine::Ready { .. }) => instance.state == InstanceState::Running,
                _ => false,
            };
            !settled
        })
        .cloned()
        .collect();
    for instance in &instances {
        match instance.state {
            InstanceState::Running => run(turn, instance),
            InstanceState::Pending => {}
            _ => lose(turn, instance),
        }
    }
    if turn.machines.len() > turn.cloud.instances().count() {
        let cloud = &*turn.cloud;
        turn.machines.retain(|id, _| cloud.instance(id).is_some());
    }
}

fn node_key(name: &str) -> ObjectKey {
    ObjectKey::cluster(name)
}

fn run(turn: &mut Turn<'_>, instance: &SimulatedInstance) {
    match turn.machines.get(&instance.id).cloned() {
        None | Some(Machine::Off { .. }) => {
            let boot = turn.options.scaled(turn.options.boot_delay);
            let due = after(instance.launched, boot);
            let key = node_key(&instance.private_dns_name());
            if due > turn.now {
                turn.at(due, &NODES, &key);
                return;
            }
            if register(turn, instance, &key) {
                let machine = Machine::Registered { node: key.name.to_string(), at: turn.now };
                turn.machines.insert(instance.id.clone(), machine);
                turn.at(after(turn.now, turn.options.scaled(READY_AFTER)), &NODES, &key);
            }
        }
        Some(Machine::Registered { node, at }) => {
            if after(at, turn.options.scaled(READY_AFTER)) > turn.now {
                return;
            }
            let key = node_key(&node);
            let message = "kubelet is posting ready status";
            set_ready(turn, &key, "True", "KubeletReady", message);
            turn.machines.insert(instance.id.clone(), Machine::Ready { node });
        }
        Some(_) => {}
    }
}

/// Makes the Node of a machine that booted; of one that was off, and whose Node is still there, its kubelet says what is
/// new. Spec and labels of that stay, cordons too.
fn register(turn: &mut Turn<'_>, instance: &SimulatedInstance, key: &ObjectKey) -> bool {
    let known = turn.store.get(&NODES, key).filter(|node| belongs_to(node, &instance.id));
    if known.is_none() {
        let node = object_of(turn, instance);
        let created = turn.store.create(&NODES, node, &WriteOptions::default(), turn.now);
        // A node of that name may not have gone yet: the address was used before.
        return turn.written(created, &NODES, key).is_some();
    }
    let (now, info) = (turn.now, node_info(instance, os_of(turn, instance)));
    let goes_on = known.is_some_and(|node| {
        object::text(node, "/status/nodeInfo/bootID") == boot_id(&instance.id, instance.boots)
    });
    let written = turn.store.modify(&NODES, key, Part::Whole, now, |node| {
        object::set(object::entry(node, "status"), &["nodeInfo"], info);
        let message = "container runtime network not ready";
        object::set_condition(node, "Ready", "False", "KubeletNotReady", message, now);
    });
    let told = turn.written(written, &NODES, key).is_some();
    if told {
        super::kubelet::restart(turn, &key.name, goes_on);
    }
    told
}

/// A machine that stopped falls silent; one that is terminated loses its Node.
fn lose(turn: &mut Turn<'_>, instance: &SimulatedInstance) {
    let terminated = instance.state == InstanceState::Terminated;
    let node = match turn.machines.get(&instance.id) {
        Some(
            Machine::Registered { node, .. } | Machine::Ready { node } | Machine::Off { node },
        ) => node.clone(),
        _ if terminated => {
            turn.machines.insert(instance.id.clone(), Machine::Lost);
            return;
        }
        // It may be started again, and join then.
        _ => return,
    };
    super::kubelet::lose(turn, &node);
    turn.machines.insert(instance.id.clone(), Machine::Off { node: node.clone() });
    let key = node_key(&node);
    let own = turn.store.get(&NODES, &key).filter(|node| belongs_to(node, &instance.id)).cloned();
    let Some(own) = own else {
        if terminated {
            turn.machines.insert(instance.id.clone(), Machine::Lost);
        }
        return;
    };
    let due = after(instance.since, turn.options.scaled(SILENT_FOR));
    if (terminated || due <= turn.now) && object::condition(&own, "Ready") != "Unknown" {
        let message = "Kubelet stopped posting node status.";
        set_ready(turn, &key, "Unknown", "NodeStatusUnknown", message);
        mark_pods_unready(turn, &node);
    }
    if terminated {
        // What the cloud's node lifecycle controller does; finalizers are honoured.
        if !object::is_deleting(&own) {
            let deleted = turn.store.delete(&NODES, &key, &DeleteOptions::default(), turn.now);
            turn.written(deleted, &NODES, &key);
        }
        turn.machines.insert(instance.id.clone(), Machine::Lost);
    } else if due > turn.now {
        turn.at(due, &NODES, &key);
    }
}

fn belongs_to(node: &Value, instance: &InstanceId) -> bool {
    instance_of_provider_id(object::text(node, "/spec/providerID")).as_ref() == Some(instance)
}

fn set_ready(turn: &mut Turn<'_>, key: &ObjectKey, status: &str, reason: &str, message: &str) {
    if turn.store.get(&NODES, key).is_none() {
        return;
    }
    let now = turn.now;
    let written = turn.store.modify(&NODES, key, Part::Whole, now, |node| {
        object::set_condition(node, "Ready", status, reason, message, now);
    });
    turn.written(written, &NODES, key);
}

fn mark_pods_unready(turn: &mut Turn<'_>, node: &str) {
    let keys: Vec<_> = turn.index.on_node.get(node).into_iter().flatten().cloned().collect();
    for key in keys {
        let ready = turn.index.pods.get(&key).is_some_and(|entry| entry.pod.is_ready());
        if !ready {
            continue;
        }
        let now = turn.now;
        let written = turn.store.modify(&PODS, &key, Part::Whole, now, |pod| {
            object::set_condition(pod, "Ready", "False", "NodeNotReady", "", now);
        });
        turn.written(written, &PODS, &key);
    }
}

/// The Node object that a machine's kubelet registers.
fn object_of(turn: &Turn<'_>, instance: &SimulatedInstance) -> Value {
    let settings = KubeletSettings::read(&instance.user_data);
    let name = instance.private_dns_name();
    let region = instance.zone.trim_end_matches(|letter: char| letter.is_ascii_lowercase());
    let os = os_of(turn, instance);
    let mut own_labels: Map<String, Value> =
        settings.labels.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect();
    for (key, value) in [
        (labels::ARCH, instance.architecture.as_str()),
        ("beta.kubernetes.io/arch", instance.architecture.as_str()),
        (labels::OS, os),
        ("beta.kubernetes.io/os", os),
        (labels::HOSTNAME, name.as_str()),
        (labels::INSTANCE_TYPE, instance.instance_type.as_str()),
        ("beta.kubernetes.io/instance-type", instance.instance_type.as_str()),
        (labels::ZONE, instance.zone.as_str()),
        (labels::REGION, region),
        (labels::ZONE_ID, instance.zone_id.as_str()),
    ] {
        own_labels.insert(key.to_owned(), value.into());
    }
    let not_ready = json!({"key": NOT_READY, "effect": "NoSchedule"});
    let taints: Vec<Value> = settings
        .taints
        .iter()
        .filter_map(|taint| serde_json::to_value(taint).ok())
        .chain([not_ready])
        .collect();
    let (capacity, allocatable) = resources(turn, instance, settings.max_pods);
    let mut node = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": own_labels},
        "spec": {"providerID": provider_id(&instance.zone, &instance.id), "taints": taints},
        "status": {
            "capacity": capacity,
            "allocatable": allocatable,
            "addresses": [
                {"type": "InternalIP", "address": instance.private_address.to_string()},
                {"type": "InternalDNS", "address": name},
                {"type": "Hostname", "address": name},
            ],
            "nodeInfo": node_info(instance, os),
        },
    });
    for (kind, reason) in [
        ("MemoryPressure", "KubeletHasSufficientMemory"),
        ("DiskPressure", "KubeletHasNoDiskPressure"),
        ("PIDPressure", "KubeletHasSufficientPID"),
    ] {
        object::set_condition(&mut node, kind, "False", reason, "", turn.now);
    }
    let message = "container runtime network not ready";
    object::set_condition(&mut node, "Ready", "False", "KubeletNotReady", message, turn.now);
    node
}

/// The operating system of an instance's image.
fn os_of(turn: &Turn<'_>, instance: &SimulatedInstance) -> &'static str {
    match turn.cloud.image_details(&instance.image) {
        Some((_, _, true)) => "windows",
        _ => "linux",
    }
}

/// What the kubelet says of the machine itself.
fn node_info(instance: &SimulatedInstance, os: &str) -> Value {
    json!({
        "architecture": instance.architecture,
        "operatingSystem": os,
        "osImage": "Drover Sandbox",
        "kernelVersion": "6.12.0",
        "kubeletVersion": "v1.34.0-sandbox",
        "kubeProxyVersion": "",
        "containerRuntimeVersion": "sandbox://1",
        "machineID": instance.id.as_str(),
        "systemUUID": instance.id.as_str(),
        "bootID": boot_id(&instance.id, instance.boots),
    })
}

fn resources(
    turn: &Turn<'_>,
    instance: &SimulatedInstance,
    max_pods: Option<u32>,
) -> (Value, Value) {
    let Some(facts) = turn.cloud.facts(&instance.instance_type) else {
        return (json!({}), json!({}));
    };
    // Reservations are AL2023's, or those of a Windows Server.
    let family = if os_of(turn, instance) == "windows" { "windows2022" } else { "al2023" };
    let settings =
        NodeSettings { max_pods, ami_family: family.to_owned(), ..NodeSettings::default() };
    let made = InstanceType::from_facts(facts, &settings, "", Vec::new());
    let value = |resources| serde_json::to_value(resources).unwrap_or_default();
    (value(made.capacity), value(made.allocatable))
}

/// Turns cordon and readiness into taints, as the control plane does.
pub(super) fn sync(turn: &mut Turn<'_>, key: &ObjectKey) {
    let Some(node) = turn.store.get(&NODES, key).cloned() else { return };
    let ready = object::condition(&node, "Ready");
    let wanted = [
        (UNSCHEDULABLE, "NoSchedule", object::flag(&node, "/spec/unschedulable")),
        (NOT_READY, "NoSchedule", ready == "False"),
        (NOT_READY, "NoExecute", ready == "False" && has_been_ready(turn, &key.name)),
        (UNREACHABLE, "NoSchedule", ready == "Unknown"),
        (UNREACHABLE, "NoExecute", ready == "Unknown"),
    ];
    let before = object::list(&node, "/spec/taints");
    let mut taints = before.to_vec();
    for (taint, effect, there) in wanted {
        let is = |own: &Value| {
            object::text(own, "/key") == taint && object::text(own, "/effect") == effect
        };
        if !there {
            taints.retain(|own| !is(own));
        } else if !taints.iter().any(is) {
            let since = object::seconds(turn.now);
            taints.push(json!({"key": taint, "effect": effect, "timeAdded": since}));
        }
    }
    if taints.as_slice() == before {
        return;
    }
    let written = turn.store.modify(&NODES, key, Part::Whole, turn.now, |node| {
        if taints.is_empty() {
            object::remove(node, &["spec", "taints"]);
        } else {
            object::set(node, &["spec", "taints"], taints);
        }
    });
    turn.written(written, &NODES, key);
}

/// A node that has not been ready yet is no reason to evict what came with it.
fn has_been_ready(turn: &Turn<'_>, name: &str) -> bool {
    let starting =
        |machine: &Machine| matches!(machine, Machine::Registered { node, .. } if node == name);
    !turn.machines.values().any(starting)
}
