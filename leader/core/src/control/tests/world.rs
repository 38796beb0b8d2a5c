//! A small world to drive the brain in: objects with finalizers, one EC2 with client tokens,
//! kubelets that register when told, a scheduler that knows CPU and taints.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use drover_common::call::{
    Call, Kind, KubernetesCall, KubernetesFailure, KubernetesFailureKind, Outcome, Target,
};
use drover_common::cluster::{ClusterEvent, ClusterObject, ObjectKey};
use drover_common::ec2::{
    Ec2Answer, Ec2Call, Ec2Failure, Ec2FailureKind, FleetAnswer, FleetError, FleetRequest, Image,
    Instance, InstanceQuery, InstanceState, LaunchedInstance, Subnet,
};
use drover_common::id::{InstanceId, provider_id};
use drover_common::instance_type::InstanceTypeFacts;
use drover_common::labels;
use jiff::Timestamp;
use serde_json::{Value, json};

type Name = (Kind, String, String);

/// Everything outside the brain.
#[derive(Debug, Default)]
pub(super) struct World {
    objects: BTreeMap<Name, Value>,
    version: u64,
    pub(super) events: VecDeque<ClusterEvent>,
    pub(super) instances: BTreeMap<InstanceId, Instance>,
    fleets: BTreeMap<String, (FleetRequest, FleetAnswer)>,
    templates: BTreeSet<String>,
    /// Types EC2 has none of.
    pub(super) sold_out: BTreeSet<String>,
    /// Terminate calls, by instance.
    pub(super) terminated: Vec<InstanceId>,
    /// Nodes whose kubelet is up stay so until their instance ends.
    booted: BTreeSet<InstanceId>,
    pub(super) now: Timestamp,
    launched: usize,
    /// Whether startup taints are taken off.
    pub(super) warms_up: bool,
}

impl World {
    pub(super) fn new(now: Timestamp) -> Self {
        let mut world = Self { now, warms_up: true, ..Self::default() };
        world.put(Kind::Namespace, json!({"metadata": {"name": "kube-system"}}));
        world.put(Kind::Namespace, json!({"metadata": {"name": "default"}}));
        world.put(
            Kind::Ec2NodeClass,
            json!({
                "metadata": {"name": "default"},
                "spec": {
                    "amiFamily": "AL2023",
                    "amiSelectorTerms": [{"id": "ami-1"}],
                    "role": "nodes",
                    "subnetSelectorTerms": [{"tags": {"discovery": "yes"}}],
                    "securityGroupSelectorTerms": [{"tags": {"discovery": "yes"}}],
                },
            }),
        );
        world.put(Kind::NodePool, json!({
            "metadata": {"name": "general"},
            "spec": {
                "template": {
                    "metadata": {"labels": {"team": "web"}},
                    "spec": {
                        "requirements": [
                            {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["spot"]},
                        ],
                        "nodeClassRef": {
                            "group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default",
                        },
                        "startupTaints": [{"key": "example.com/warming", "effect": "NoSchedule"}],
                    },
                },
                "disruption": {"consolidateAfter": "30s", "budgets": [{"nodes": "100%"}]},
            },
        }));
        world
    }

    fn put(&mut self, kind: Kind, object: Value) {
        let text = |pointer: &str| {
            object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let name = (kind, text("/metadata/namespace"), text("/metadata/name"));
        self.create(&name, object).unwrap();
    }

    /// Pods of a ReplicaSet that ask for so much CPU, pending as the scheduler leaves them.
    pub(super) fn add_pods(&mut self, prefix: &str, count: usize, milli_cpu: u32) {
        for number in 0..count {
            self.add_pod(&format!("{prefix}-{number}"), milli_cpu);
        }
    }

    fn add_pod(&mut self, name: &str, milli_cpu: u32) {
        self.put(
            Kind::Pod,
            json!({
                "metadata": {
                    "name": name, "namespace": "default",
                    "ownerReferences": [{
                        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "rs",
                        "controller": true,
                    }],
                },
                "spec": {"containers": [{
                    "name": "main",
                    "resources": {"requests": {"cpu": format!("{milli_cpu}m"), "memory": "64Mi"}},
                }]},
                "status": {"phase": "Pending", "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"},
                ]},
            }),
        );
    }

    pub(super) fn remove_pods(&mut self, prefix: &str) {
        let names: Vec<Name> = self
            .objects
            .keys()
            .filter(|(kind, _, name)| *kind == Kind::Pod && name.starts_with(prefix))
            .cloned()
            .collect();
        for name in names {
            self.delete(&name);
        }
    }

    pub(super) fn list(&self, kind: Kind) -> Vec<&Value> {
        self.objects.iter().filter(|((k, ..), _)| *k == kind).map(|(_, object)| object).collect()
    }

    pub(super) fn running_instances(&self) -> Vec<&Instance> {
        self.instances.values().filter(|i| !i.state.is_gone()).collect()
    }

    /// Everything as a first list of watches would tell it.
    pub(super) fn list_events(&self) -> Vec<ClusterEvent> {
        let kinds = Kind::ALL.into_iter().filter(|k| !matches!(k, Kind::Lease | Kind::Event));
        let mut events = Vec::new();
        for kind in kinds {
            events.push(ClusterEvent::Restarted(kind));
            for object in self.list(kind) {
                events.push(ClusterEvent::Applied(
                    ClusterObject::from_json(kind, object.clone()).unwrap(),
                ));
            }
            events.push(ClusterEvent::Synced(kind));
        }
        events
    }

    fn stamp(&mut self, name: &Name, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        object["kind"] = json!(name.0.endpoint().kind);
        self.objects.insert(name.clone(), object.clone());
        if let Ok(slim) = ClusterObject::from_json(name.0, object.clone()) {
            self.events.push_back(ClusterEvent::Applied(slim));
        }
        object
    }

    fn create(&mut self, name: &Name, mut object: Value) -> Result<Value, KubernetesFailure> {
        if self.objects.contains_key(name) {
            return Err(failure(KubernetesFailureKind::AlreadyExists));
        }
        let metadata = &mut object["metadata"];
        metadata["uid"] = json!(format!("uid-{}", self.version));
        metadata["generation"] = json!(1);
        metadata["creationTimestamp"] = json!(whole_seconds(self.now));
        Ok(self.stamp(name, object))
    }

    fn patch(
        &mut self,
        name: &Name,
        status: bool,
        patch: &Value,
    ) -> Result<Value, KubernetesFailure> {
        let mut object =
            self.objects.get(name).cloned().ok_or(failure(KubernetesFailureKind::NotFound))?;
        for field in ["uid", "resourceVersion"] {
            if let Some(wanted) = patch["metadata"].get(field)
                && object["metadata"][field] != *wanted
            {
                return Err(failure(KubernetesFailureKind::Conflict));
            }
        }
        if status {
            merge(&mut object["status"], &patch["status"]);
        } else {
            let before = object["status"].take();
            merge(&mut object, patch);
            object["status"] = before;
        }
        if object["metadata"].get("deletionTimestamp").is_some() && finalizers(&object) == 0 {
            self.forget(name);
            return Ok(object);
        }
        Ok(self.stamp(name, object))
    }

    fn delete(&mut self, name: &Name) -> bool {
        let Some(mut object) = self.objects.get(name).cloned() else { return false };
        if finalizers(&object) == 0 {
            self.forget(name);
        } else if object["metadata"].get("deletionTimestamp").is_none() {
            object["metadata"]["deletionTimestamp"] = json!(whole_seconds(self.now));
            self.stamp(name, object);
        }
        true
    }

    /// A user's deletion.
    pub(super) fn delete_named(&mut self, kind: Kind, name: &str) -> bool {
        self.delete(&(kind, String::new(), name.to_owned()))
    }

    fn forget(&mut self, name: &Name) {
        self.objects.remove(name);
        let key = ObjectKey { namespace: name.1.clone(), name: name.2.clone() };
        self.events.push_back(ClusterEvent::Deleted(name.0, key));
    }

    /// Carries a call out.
    pub(super) fn execute(&mut self, call: &Call) -> Outcome {
        match call {
            Call::Kubernetes(call) => Outcome::Kubernetes(self.kubernetes(call)),
            Call::Ec2(call) => Outcome::Ec2(self.ec2(call)),
        }
    }

    fn kubernetes(&mut self, call: &KubernetesCall) -> Result<Value, KubernetesFailure> {
        let name = |target: &Target| {
            (target.kind, target.namespace.clone().unwrap_or_default(), target.name.clone())
        };
        match call {
            KubernetesCall::Get { target } => {
                let found = self.objects.get(&name(target)).cloned();
                found.ok_or(failure(KubernetesFailureKind::NotFound))
            }
            KubernetesCall::Create { target, object } => self.create(&name(target), object.clone()),
            KubernetesCall::MergePatch { target, status, patch } => {
                self.patch(&name(target), *status, patch)
            }
            KubernetesCall::Delete { target, uid, .. } => {
                self.remove(&name(target), uid.as_deref())
            }
            KubernetesCall::Evict { target, uid, .. } => self.remove(&name(target), Some(uid)),
        }
    }

    fn remove(&mut self, name: &Name, uid: Option<&str>) -> Result<Value, KubernetesFailure> {
        let object = self.objects.get(name).ok_or(failure(KubernetesFailureKind::NotFound))?;
        if uid.is_some_and(|uid| object["metadata"]["uid"] != uid) {
            return Err(failure(KubernetesFailureKind::Conflict));
        }
        let cpu = object["spec"]["containers"][0]["resources"]["requests"]["cpu"].clone();
        self.delete(name);
        if name.0 == Kind::Pod {
            let milli = cpu.as_str().and_then(|t| t.strip_suffix('m')?.parse().ok()).unwrap_or(0);
            self.add_pod(&format!("{}-again", name.2), milli);
        }
        Ok(Value::Null)
    }

    fn ec2(&mut self, call: &Ec2Call) -> Result<Ec2Answer, Ec2Failure> {
        Ok(match call {
            Ec2Call::CreateFleet(request) => Ec2Answer::Fleet(self.create_fleet(request)?),
            Ec2Call::DescribeInstances(query) => Ec2Answer::Instances(self.describe(query)),
            Ec2Call::TerminateInstances(ids) => {
                for id in ids {
                    self.terminated.push(id.clone());
                    self.end_instance(id);
                }
                Ec2Answer::Done
            }
            Ec2Call::CreateTags { instances, tags } => {
                for id in instances {
                    if let Some(instance) = self.instances.get_mut(id) {
                        instance.tags.extend(tags.clone());
                    }
                }
                Ec2Answer::Done
            }
            Ec2Call::CreateLaunchTemplate(template) => {
                self.templates.insert(template.name.clone());
                Ec2Answer::LaunchTemplate("lt-1".to_owned())
            }
            Ec2Call::GetOnDemandPrices => {
                return Err(Ec2Failure {
                    kind: Ec2FailureKind::Unsupported,
                    code: "UnknownOperation".to_owned(),
                    message: "no such call".to_owned(),
                });
            }
            other => describe_region(other),
        })
    }

    fn create_fleet(&mut self, request: &FleetRequest) -> Result<FleetAnswer, Ec2Failure> {
        let refuse = |kind, code: &str| {
            Err(Ec2Failure { kind, code: code.to_owned(), message: String::new() })
        };
        if let Some((before, answer)) = self.fleets.get(&request.client_token) {
            if before != request {
                return refuse(Ec2FailureKind::TokenMismatch, "IdempotentParameterMismatch");
            }
            return Ok(answer.clone());
        }
        if !self.templates.contains(&request.launch_template) {
            return refuse(Ec2FailureKind::NotFound, "InvalidLaunchTemplateName.NotFoundException");
        }
        let mut answer = FleetAnswer::default();
        let (sold_out, offered): (Vec<_>, Vec<_>) =
            request.overrides.iter().partition(|o| self.sold_out.contains(&o.instance_type));
        answer.errors = sold_out
            .iter()
            .map(|o| FleetError {
                code: "InsufficientInstanceCapacity".to_owned(),
                message: "none left".to_owned(),
                instance_type: Some(o.instance_type.clone()),
                zone: Some(o.zone.clone()),
            })
            .collect();
        for _ in 0..request.count {
            let Some(chosen) = offered.first() else { break };
            let id = InstanceId(format!("i-{:04}", self.launched));
            self.launched += 1;
            self.instances.insert(
                id.clone(),
                Instance {
                    instance: id.clone(),
                    instance_type: chosen.instance_type.clone(),
                    zone: chosen.zone.clone(),
                    state: InstanceState::Running,
                    capacity_type: request.capacity_type,
                    image: "ami-1".to_owned(),
                    subnet: chosen.subnet.clone(),
                    private_dns_name: format!("{id}.ec2.internal"),
                    launch_time: self.now,
                    tags: request.tags.clone(),
                },
            );
            answer.instances.push(LaunchedInstance {
                instance: id,
                instance_type: chosen.instance_type.clone(),
                zone: chosen.zone.clone(),
                subnet: chosen.subnet.clone(),
                capacity_type: request.capacity_type,
            });
        }
        self.fleets.insert(request.client_token.clone(), (request.clone(), answer.clone()));
        Ok(answer)
    }

    fn describe(&self, query: &InstanceQuery) -> Vec<Instance> {
        let matches = |instance: &Instance| {
            (query.instances.is_empty() || query.instances.contains(&instance.instance))
                && query.tags.iter().all(|(key, wanted)| {
                    instance.tags.get(key).is_some_and(|value| wanted == "*" || value == wanted)
                })
        };
        self.instances.values().filter(|instance| matches(instance)).cloned().collect()
    }

    /// EC2 ends an instance; its kubelet goes with it.
    pub(super) fn end_instance(&mut self, id: &InstanceId) {
        if let Some(instance) = self.instances.get_mut(id) {
            instance.state = match instance.state {
                InstanceState::ShuttingDown | InstanceState::Terminated => {
                    InstanceState::Terminated
                }
                _ => InstanceState::ShuttingDown,
            };
        }
    }

    /// Instances on their way out go; kubelets of all others register, ready and warmed up.
    pub(super) fn tick(&mut self, boots: bool) {
        let all: Vec<Instance> = self.instances.values().cloned().collect();
        for instance in all {
            match instance.state {
                InstanceState::ShuttingDown => self.end_instance(&instance.instance),
                InstanceState::Running
                    if boots && self.booted.insert(instance.instance.clone()) =>
                {
                    self.register_node(&instance);
                }
                InstanceState::Running if self.warms_up => self.warm_up(&instance),
                _ => {}
            }
        }
        self.schedule();
    }

    fn register_node(&mut self, instance: &Instance) {
        let resources = json!({"cpu": "1900m", "memory": "6Gi", "pods": "29"});
        self.put(
            Kind::Node,
            json!({
                "metadata": {
                    "name": instance.private_dns_name,
                    "labels": {
                        "kubernetes.io/hostname": instance.private_dns_name,
                        "kubernetes.io/arch": "amd64",
                        "kubernetes.io/os": "linux",
                        "node.kubernetes.io/instance-type": instance.instance_type,
                        "topology.kubernetes.io/zone": instance.zone,
                    },
                },
                "spec": {
                    "providerID": provider_id(&instance.zone, &instance.instance),
                    "taints": [{"key": labels::UNREGISTERED_TAINT, "effect": "NoExecute"}],
                },
                "status": {
                    "capacity": resources, "allocatable": resources,
                    "conditions": [{"type": "Ready", "status": "True"}],
                },
            }),
        );
    }

    /// The startup taint's owner removes it once the node is registered.
    fn warm_up(&mut self, instance: &Instance) {
        let name = (Kind::Node, String::new(), instance.private_dns_name.clone());
        let Some(node) = self.objects.get(&name) else { return };
        let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
        let left: Vec<&Value> =
            taints.iter().filter(|taint| taint["key"] != "example.com/warming").collect();
        if left.len() != taints.len() {
            let patch = json!({"spec": {"taints": left}});
            self.patch(&name, false, &patch).unwrap();
        }
    }

    fn schedule(&mut self) {
        let milli = |object: &Value, pointer: &str| -> i64 {
            object
                .pointer(pointer)
                .and_then(Value::as_str)
                .map_or(0, |t| t.trim_end_matches('m').parse().unwrap())
        };
        let request = "/spec/containers/0/resources/requests/cpu";
        let mut room: BTreeMap<String, i64> = BTreeMap::new();
        for node in self.list(Kind::Node) {
            let tainted = node["spec"]["taints"].as_array().is_some_and(|t| !t.is_empty());
            let cordoned = node["spec"]["unschedulable"] == true;
            if !tainted && !cordoned {
                let name = node["metadata"]["name"].as_str().unwrap().to_owned();
                room.insert(name, milli(node, "/status/allocatable/cpu"));
            }
        }
        let mut waiting = Vec::new();
        for ((kind, namespace, name), pod) in &self.objects {
            if *kind != Kind::Pod {
                continue;
            }
            match pod["spec"]["nodeName"].as_str() {
                Some(node) => {
                    if let Some(left) = room.get_mut(node) {
                        *left -= milli(pod, request);
                    }
                }
                None => {
                    waiting.push(((*kind, namespace.clone(), name.clone()), milli(pod, request)))
                }
            }
        }
        for (name, wanted) in waiting {
            let place = room.iter_mut().find(|(_, left)| **left >= wanted);
            if let Some((node, left)) = place {
                *left -= wanted;
                let mut pod = self.objects[&name].clone();
                pod["spec"]["nodeName"] = json!(node);
                pod["status"] = json!({
                    "phase": "Running",
                    "conditions": [
                        {"type": "PodScheduled", "status": "True"},
                        {"type": "Ready", "status": "True"},
                    ],
                });
                self.stamp(&name, pod);
            }
        }
    }

    /// Pods that run on a Node that exists.
    pub(super) fn running_pods(&self) -> usize {
        self.list(Kind::Pod)
            .iter()
            .filter(|pod| {
                pod["spec"]["nodeName"].as_str().is_some_and(|node| {
                    self.objects.contains_key(&(Kind::Node, String::new(), node.to_owned()))
                })
            })
            .count()
    }
}

fn describe_region(call: &Ec2Call) -> Ec2Answer {
    let kinds = ["m5.large", "m5a.large", "m6i.large"];
    match call {
        Ec2Call::DescribeInstanceTypes => {
            let facts = |name: &&str| InstanceTypeFacts {
                name: (*name).to_owned(),
                arch: "amd64".to_owned(),
                vcpus: 2,
                memory_mib: 8_192,
                network_interfaces: 3,
                ipv4_per_interface: 10,
                hypervisor: "nitro".to_owned(),
                spot: true,
                ..InstanceTypeFacts::default()
            };
            Ec2Answer::InstanceTypes(kinds.iter().map(facts).collect())
        }
        Ec2Call::DescribeInstanceTypeOfferings => Ec2Answer::Offerings(
            kinds.iter().map(|kind| ((*kind).to_owned(), "us-east-1a".to_owned())).collect(),
        ),
        Ec2Call::DescribeSpotPriceHistory => Ec2Answer::SpotPrices(
            kinds
                .iter()
                .zip([30_000, 40_000, 50_000])
                .map(|(kind, price)| ((*kind).to_owned(), "us-east-1a".to_owned(), price))
                .collect(),
        ),
        Ec2Call::DescribeAvailabilityZones => {
            Ec2Answer::Zones(vec![("us-east-1a".to_owned(), "use1-az1".to_owned())])
        }
        Ec2Call::DescribeSubnets(_) => Ec2Answer::Subnets(vec![Subnet {
            id: "subnet-1".to_owned(),
            zone: "us-east-1a".to_owned(),
            zone_id: "use1-az1".to_owned(),
            available_addresses: 200,
        }]),
        Ec2Call::DescribeSecurityGroups(_) => {
            Ec2Answer::SecurityGroups(vec![("sg-1".to_owned(), "nodes".to_owned())])
        }
        Ec2Call::DescribeImages(_) => Ec2Answer::Images(vec![Image {
            id: "ami-1".to_owned(),
            name: "image".to_owned(),
            architecture: "amd64".to_owned(),
            creation_date: Timestamp::UNIX_EPOCH,
            deprecated: false,
        }]),
        other => unreachable!("{other:?} is not expected here"),
    }
}

fn failure(kind: KubernetesFailureKind) -> KubernetesFailure {
    KubernetesFailure { kind, message: String::new(), retry_after_seconds: None }
}

/// Kubernetes' times have no fractions.
fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap()
}

fn finalizers(object: &Value) -> usize {
    object["metadata"]["finalizers"].as_array().map_or(0, Vec::len)
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in fields {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key.as_str()], value);
        }
    }
}

impl World {
    /// Binds a pod past all taints, as a scheduler does that has not seen them yet.
    pub(super) fn bind(&mut self, pod: &str, node: &str) {
        let name = (Kind::Pod, "default".to_owned(), pod.to_owned());
        let mut object = self.objects[&name].clone();
        object["spec"]["nodeName"] = json!(node);
        object["status"] = json!({"phase": "Running"});
        self.stamp(&name, object);
    }

    /// Makes the n-th Node Ready or not.
    pub(super) fn set_ready(&mut self, position: usize, ready: bool) {
        let nodes: Vec<Name> =
            self.objects.keys().filter(|(kind, ..)| *kind == Kind::Node).cloned().collect();
        let mut node = self.objects[&nodes[position]].clone();
        let status = if ready { "True" } else { "False" };
        node["status"]["conditions"] = json!([{"type": "Ready", "status": status}]);
        self.stamp(&nodes[position], node);
    }

    /// A NodeClaim without a pool.
    pub(super) fn add_claim_by_hand(&mut self, name: &str) {
        self.put(
            Kind::NodeClaim,
            json!({
                "metadata": {"name": name},
                "spec": {"requirements": [], "nodeClassRef": {
                    "group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default",
                }},
            }),
        );
    }

    /// Another tool takes the lease.
    pub(super) fn seize_lease(&mut self, holder: &str) {
        let name = (Kind::Lease, "kube-system".to_owned(), "karpenter-leader-election".to_owned());
        let mut lease = self.objects[&name].clone();
        lease["spec"]["holderIdentity"] = json!(holder);
        lease["spec"]["renewTime"] = json!(self.now);
        self.stamp(&name, lease);
    }
}
