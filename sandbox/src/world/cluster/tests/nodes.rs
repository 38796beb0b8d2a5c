use drover_common::call::{Call, Outcome};
use drover_common::ec2::{
    Ec2Answer, Ec2Call, FleetOverride, FleetRequest, LaunchTemplateRequest, MetadataOptions, Tags,
};
use drover_common::id::InstanceId;
use drover_common::instance_type::CapacityType;

use super::*;
use crate::world::cloud::SpotAction;
use crate::world::cluster::EndKind;
use crate::world::resource::{
    PERSISTENT_VOLUME_CLAIMS, REPLICA_SETS, STATEFUL_SETS, STORAGE_CLASSES, VOLUME_ATTACHMENTS,
};

const USER_DATA: &str = "apiVersion: node.eks.aws/v1alpha1
kind: NodeConfig
spec:
  kubelet:
    config:
      registerWithTaints:
      - {key: karpenter.sh/unregistered, effect: NoExecute}
    flags:
    - --node-labels=karpenter.sh/nodepool=default,karpenter.sh/capacity-type=spot
";

impl Town {
    fn ec2(&mut self, call: Ec2Call) -> Ec2Answer {
        match self.world.apply(&Call::Ec2(call), self.now) {
            Outcome::Ec2(Ok(answer)) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn launch(&mut self) -> InstanceId {
        self.launch_as(CapacityType::OnDemand)
    }

    /// Launches one m5.large through the calls that a driver makes.
    fn launch_as(&mut self, capacity_type: CapacityType) -> InstanceId {
        let path = "/aws/service/eks/optimized-ami/1.34/amazon-linux-2023/x86_64/standard/recommended/image_id";
        let Ec2Answer::Parameter(image) = self.ec2(Ec2Call::GetParameter(path.to_owned())) else {
            panic!()
        };
        self.ec2(Ec2Call::CreateLaunchTemplate(LaunchTemplateRequest {
            name: "template".to_owned(),
            image,
            security_groups: Vec::new(),
            instance_profile: None,
            user_data: USER_DATA.to_owned(),
            block_devices: Vec::new(),
            metadata_options: MetadataOptions {
                http_endpoint: "enabled".to_owned(),
                http_protocol_ipv6: "disabled".to_owned(),
                http_put_response_hop_limit: 1,
                http_tokens: "required".to_owned(),
            },
            detailed_monitoring: false,
            associate_public_ip: None,
            reservation: None,
            tags: Tags::new(),
        }));
        let Ec2Answer::Subnets(subnets) = self.ec2(Ec2Call::DescribeSubnets(Vec::new())) else {
            panic!()
        };
        let subnet = subnets.first().unwrap();
        let answer = self.ec2(Ec2Call::CreateFleet(FleetRequest {
            client_token: format!("token-{}", self.now),
            launch_template: "template".to_owned(),
            overrides: vec![FleetOverride {
                instance_type: "m5.large".to_owned(),
                subnet: subnet.id.clone(),
                zone: subnet.zone.clone(),
                image: None,
            }],
            capacity_type,
            capacity_block: false,
            prioritized: false,
            count: 1,
            tags: Tags::new(),
            context: None,
        }));
        let Ec2Answer::Fleet(fleet) = answer else { panic!() };
        fleet.instances.first().unwrap_or_else(|| panic!("{fleet:?}")).instance.clone()
    }

    fn only_node(&self) -> Arc<Value> {
        assert_eq!(self.world.store.count(&NODES), 1);
        self.world.store.iter(&NODES).next().unwrap().1.clone()
    }
}

fn taints(node: &Value) -> Vec<String> {
    object::list(node, "/spec/taints")
        .iter()
        .map(|taint| format!("{}:{}", object::text(taint, "/key"), object::text(taint, "/effect")))
        .collect()
}

#[test]
fn a_booted_instance_registers_a_node_with_what_its_user_data_says() {
    let mut town = Town::new();
    let instance = town.launch();
    town.pass(19.0);
    assert_eq!(town.world.store.count(&NODES), 0);
    town.pass(1.1);
    let node = town.only_node();
    let provider = object::text(&node, "/spec/providerID");
    assert!(provider.starts_with("aws:///us-east-1") && provider.ends_with(instance.as_str()));
    assert!(object::name(&node).ends_with(".ec2.internal"));
    let expected =
        ["karpenter.sh/unregistered:NoExecute", "node.kubernetes.io/not-ready:NoSchedule"];
    assert_eq!(taints(&node), expected);
    for (label, value) in [
        ("karpenter.sh/nodepool", "default"),
        ("node.kubernetes.io/instance-type", "m5.large"),
        ("kubernetes.io/arch", "amd64"),
    ] {
        assert_eq!(object::label(&node, label), Some(value));
    }
    assert_eq!(object::text(&node, "/status/allocatable/memory"), "6903Mi");
    assert_eq!(object::text(&node, "/status/capacity/pods"), "29");
    assert_eq!(object::condition(&node, "Ready"), "False");
    town.pass(1.1);
    let node = town.only_node();
    assert_eq!(object::condition(&node, "Ready"), "True");
    assert_eq!(taints(&node), ["karpenter.sh/unregistered:NoExecute"]);
}

#[test]
fn a_terminated_instance_takes_its_node_and_pods_with_it_but_finalizers_hold_the_node() {
    let mut town = Town::new();
    let instance = town.launch();
    town.pass(23.0);
    let name = object::name(&town.only_node()).to_owned();
    town.edit(&NODES, &name, |node| {
        node["spec"]["taints"] = json!([]);
        node["metadata"]["finalizers"] = json!(["karpenter.sh/termination"]);
    });
    town.create(&REPLICA_SETS, workload("web", 1, spec("1")));
    town.pass(3.0);
    assert_eq!(town.ready(), 1);
    town.ec2(Ec2Call::TerminateInstances(vec![instance]));
    town.pass(20.0);
    let node = town.only_node();
    assert!(object::is_deleting(&node));
    assert_eq!(object::condition(&node, "Ready"), "Unknown");
    assert!(taints(&node).contains(&"node.kubernetes.io/unreachable:NoExecute".to_owned()));
    assert_eq!(town.ready(), 0);
    town.edit(&NODES, &name, |node| node["metadata"]["finalizers"] = json!([]));
    town.pass(10.0);
    assert_eq!(town.world.store.count(&NODES), 0);
    let pods = town.pods();
    assert_eq!(pods.len(), 1);
    assert_eq!(object::text(&pods[0], "/spec/nodeName"), "");
}

#[test]
fn a_stopping_pod_takes_its_time_but_not_more_than_its_grace() {
    let mut town = Town::new();
    town.node("n1", "us-east-1a", "8");
    for (name, stop, grace) in [("quick", "1", 30), ("slow", "10", 30), ("stubborn", "60", 5)] {
        town.create(
            &PODS,
            json!({
                "metadata": {"name": name, "namespace": "default", "annotations": {"sandbox.drover.dev/stop-seconds": stop}},
                "spec": with(spec("1"), json!({"terminationGracePeriodSeconds": grace})),
            }),
        );
    }
    town.pass(3.0);
    for name in ["quick", "slow", "stubborn"] {
        town.delete(&PODS, "default", name, &DeleteOptions::default());
    }
    let there = |town: &Town| -> Vec<String> {
        town.pods().iter().map(|pod| object::name(pod).to_owned()).collect()
    };
    town.pass(2.0);
    assert_eq!(there(&town), ["slow", "stubborn"]);
    town.pass(4.0);
    assert_eq!(there(&town), ["slow"]);
    town.pass(6.0);
    assert!(there(&town).is_empty());
}

#[test]
fn a_kubelet_counts_a_shortened_grace_from_when_it_hears_of_it() {
    let mut town = Town::new();
    town.node("n1", "us-east-1a", "8");
    town.create(
        &PODS,
        json!({
            "metadata": {"name": "db", "namespace": "default", "annotations": {"sandbox.drover.dev/stop-seconds": "900"}},
            "spec": with(spec("1"), json!({"terminationGracePeriodSeconds": 300})),
        }),
    );
    town.pass(3.0);
    town.delete(&PODS, "default", "db", &DeleteOptions::default());
    town.pass(60.0);
    let shorter = DeleteOptions { grace_seconds: Some(100), ..DeleteOptions::default() };
    town.delete(&PODS, "default", "db", &shorter);
    town.pass(98.0);
    assert_eq!(town.pods().len(), 1, "its object shows an end 58 s ago");
    town.pass(4.0);
    assert!(town.pods().is_empty());
    let ends: Vec<_> = town.world.cluster.ends().map(|end| end.how).collect();
    assert_eq!(ends, [EndKind::Killed { grace: 100 }]);
}

#[test]
fn how_pods_ended_is_known_when_they_are_gone() {
    let mut town = Town::new();
    let instance = town.launch();
    town.pass(23.0);
    let node = object::name(&town.only_node()).to_owned();
    town.edit(&NODES, &node, |node| node["spec"]["taints"] = json!([]));
    for (name, stop) in [("quick", "1"), ("clipped", "10"), ("forced", "60"), ("lost", "60")] {
        let annotations = json!({"sandbox.drover.dev/stop-seconds": stop});
        town.create(
            &PODS,
            json!({
                "metadata": {"name": name, "namespace": "default", "annotations": annotations},
                "spec": with(spec("100m"), json!({"terminationGracePeriodSeconds": 30})),
            }),
        );
    }
    town.pass(3.0);
    for (name, grace_seconds) in [("quick", None), ("clipped", Some(5)), ("forced", Some(0))] {
        let options = DeleteOptions { grace_seconds, ..DeleteOptions::default() };
        town.delete(&PODS, "default", name, &options);
    }
    town.pass(7.0);
    town.ec2(Ec2Call::TerminateInstances(vec![instance]));
    town.pass(60.0);
    let ends: Vec<_> = town.world.cluster.ends().collect();
    let told: Vec<_> = ends.iter().map(|end| (end.pod.name.as_ref(), end.how)).collect();
    let wanted = [
        ("forced", EndKind::Forced),
        ("quick", EndKind::Stopped { grace: 30 }),
        ("clipped", EndKind::Killed { grace: 5 }),
        ("lost", EndKind::Lost),
    ];
    assert_eq!(told, wanted);
    let clipped: Vec<bool> = ends.iter().map(|end| end.is_clipped()).collect();
    assert_eq!(clipped, [false, false, true, false]);
    assert!(ends.iter().all(|end| end.node == node && end.own_grace == 30));
}

/// A pod of a StatefulSet with a volume runs on a machine, which is stopped; another machine is there.
fn with_a_stopped_machine() -> (Town, String) {
    let mut town = Town::new();
    let claim = json!({
        "metadata": {"name": "data", "namespace": "default"},
        "spec": {
            "storageClassName": "gp3", "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "5Gi"}},
        },
    });
    town.create(
        &STORAGE_CLASSES,
        json!({"metadata": {"name": "gp3"}, "provisioner": "ebs.csi.aws.com", "volumeBindingMode": "WaitForFirstConsumer"}),
    );
    town.create(&PERSISTENT_VOLUME_CLAIMS, claim);
    let instance = town.launch_as(CapacityType::Spot);
    town.pass(23.0);
    let node = object::name(&town.only_node()).to_owned();
    let zone = object::label(&town.only_node(), "topology.kubernetes.io/zone").unwrap().to_owned();
    town.edit(&NODES, &node, |node| node["spec"]["taints"] = json!([]));
    let volumes =
        json!({"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]});
    town.create(&STATEFUL_SETS, workload("db", 1, with(spec("1"), volumes)));
    town.pass(3.0);
    assert_eq!((town.node_of("db-0"), attached(&town)), (node.clone(), vec![node.clone()]));
    assert_eq!(town.ready(), 1);
    town.node("spare", &zone, "4");
    let lead = SignedDuration::from_secs(1);
    town.world.cloud.announce(&instance, SpotAction::Stop, town.now, lead).unwrap();
    town.pass(60.0);
    (town, node)
}

/// The nodes that volumes are attached to.
fn attached(town: &Town) -> Vec<String> {
    let attachments = town.world.store.iter(&VOLUME_ATTACHMENTS);
    attachments.map(|(_, one)| object::text(one, "/spec/nodeName").to_owned()).collect()
}

#[test]
fn a_silent_machine_keeps_its_pods_and_volumes_and_one_out_of_service_does_not() {
    let (mut town, node) = with_a_stopped_machine();
    town.pass(360.0);
    let pod = town.get(&PODS, "default", "db-0").unwrap();
    assert!(object::is_deleting(&pod), "by the taint of an unreachable node");
    assert_eq!((town.node_of("db-0"), attached(&town)), (node.clone(), vec![node.clone()]));
    town.edit(&NODES, &node, |node| {
        let taint = json!({
            "key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown",
            "effect": "NoExecute",
        });
        node["spec"]["taints"].as_array_mut().unwrap().push(taint);
    });
    town.pass(5.0);
    assert_eq!((town.node_of("db-0"), attached(&town)), ("spare".into(), vec!["spare".into()]));
    assert_eq!(town.ready(), 1);
}

#[test]
fn a_volume_comes_off_a_silent_machine_by_force_after_six_minutes() {
    let (mut town, node) = with_a_stopped_machine();
    let now = DeleteOptions { grace_seconds: Some(0), ..DeleteOptions::default() };
    town.delete(&PODS, "default", "db-0", &now);
    town.pass(300.0);
    assert_eq!((town.node_of("db-0"), attached(&town)), ("spare".into(), vec![node]));
    assert_eq!(town.ready(), 0, "it waits for its volume");
    town.pass(65.0);
    assert_eq!((attached(&town), town.ready()), (vec!["spare".into()], 1));
}

#[test]
fn no_execute_taints_evict_what_does_not_tolerate_them_or_no_longer() {
    let mut town = Town::new();
    town.node("n1", "us-east-1a", "8");
    let tolerating = |seconds: Value| {
        let toleration =
            json!([{"key": "off", "operator": "Exists", "tolerationSeconds": seconds}]);
        with(spec("1"), json!({"tolerations": toleration}))
    };
    town.pod("plain", spec("1"));
    town.pod("patient", tolerating(json!(10)));
    town.pod("faithful", tolerating(Value::Null));
    town.pass(2.0);
    town.edit(&NODES, "n1", |node| {
        node["spec"]["taints"] = json!([{"key": "off", "effect": "NoExecute"}]);
    });
    town.pass(3.0);
    assert_eq!(town.pods().len(), 2);
    town.pass(12.0);
    let left: Vec<_> = town.pods().iter().map(|pod| object::name(pod).to_owned()).collect();
    assert_eq!(left, ["faithful"]);
}

#[test]
fn a_world_repeats_itself() {
    let run = || {
        let mut town = Town::new();
        town.launch();
        town.create(&REPLICA_SETS, workload("web", 3, spec("100m")));
        town.pass(40.0);
        let pods: Vec<String> = town.pods().iter().map(|pod| pod.to_string()).collect();
        (town.world.store.revision(), pods)
    };
    assert_eq!(run(), run());
}

impl Town {
    /// One with a ready node of this instance, and that one's name.
    fn with_one(capacity_type: CapacityType) -> (Self, InstanceId, String) {
        let mut town = Self::new();
        let instance = town.launch_as(capacity_type);
        town.pass(23.0);
        let name = object::name(&town.only_node()).to_owned();
        town.edit(&NODES, &name, |node| node["spec"]["taints"] = json!([]));
        (town, instance, name)
    }

    fn stop(&mut self, instance: &InstanceId, seconds: f64) {
        let now = self.now;
        self.world.cloud.stop_instances(std::slice::from_ref(instance), now).unwrap();
        self.pass(seconds);
    }

    fn start(&mut self, instance: &InstanceId, seconds: f64) {
        let now = self.now;
        self.world.cloud.start_instances(std::slice::from_ref(instance), now).unwrap();
        self.pass(seconds);
    }
}

#[test]
fn a_hibernated_machine_goes_on_where_it_was() {
    let (mut town, instance, _) = Town::with_one(CapacityType::Spot);
    town.create(&REPLICA_SETS, workload("web", 1, spec("1")));
    town.pass(3.0);
    let boot = object::text(&town.only_node(), "/status/nodeInfo/bootID").to_owned();
    let now = town.now;
    let lead = SignedDuration::from_secs(5);
    town.world.cloud.announce(&instance, SpotAction::Hibernate, now, lead).unwrap();
    town.pass(90.0);
    assert_eq!(town.ready(), 0);
    let now = town.now;
    town.world.cloud.resume(&instance, now).unwrap();
    town.pass(40.0);
    assert_eq!(
        (object::text(&town.only_node(), "/status/nodeInfo/bootID"), town.ready()),
        (boot.as_str(), 1)
    );
    assert_eq!(object::list(&town.pods()[0], "/status/containerStatuses")[0]["restartCount"], 0);
}

#[test]
fn a_machine_that_is_started_again_takes_its_node_up_as_it_was_left() {
    let (mut town, instance, name) = Town::with_one(CapacityType::OnDemand);
    town.create(&REPLICA_SETS, workload("web", 1, spec("1")));
    town.pass(3.0);
    assert_eq!(town.ready(), 1);
    town.edit(&NODES, &name, |node| node["spec"]["unschedulable"] = json!(true));
    let boot = object::text(&town.only_node(), "/status/nodeInfo/bootID").to_owned();
    town.stop(&instance, 60.0);
    assert_eq!(object::condition(&town.only_node(), "Ready"), "Unknown");
    assert_eq!(town.ready(), 0);
    town.start(&instance, 15.0);
    assert_eq!(object::condition(&town.only_node(), "Ready"), "Unknown", "it boots");
    town.pass(10.0);
    let node = town.only_node();
    assert_eq!((object::name(&node), object::condition(&node, "Ready")), (name.as_str(), "True"));
    assert_eq!(node["spec"]["unschedulable"], true, "nobody took that back");
    assert_ne!(object::text(&node, "/status/nodeInfo/bootID"), boot);
    assert_eq!(town.ready(), 1, "what nobody deleted runs again");
    assert_eq!(object::list(&town.pods()[0], "/status/containerStatuses")[0]["restartCount"], 1);
}

#[test]
fn a_machine_that_was_stopped_before_it_joined_joins_when_it_is_started() {
    let mut town = Town::new();
    let instance = town.launch_as(CapacityType::OnDemand);
    town.pass(3.0);
    town.stop(&instance, 90.0);
    town.start(&instance, 40.0);
    assert_eq!(object::condition(&town.only_node(), "Ready"), "True");
}

#[test]
fn a_pod_that_had_finished_is_not_started_again_with_its_machine() {
    let (mut town, instance, _) = Town::with_one(CapacityType::OnDemand);
    let mut pod = json!({"metadata": {"name": "once", "namespace": "default",
        "annotations": {"sandbox.drover.dev/run-seconds": "4"}}, "spec": spec("100m")});
    pod["spec"]["restartPolicy"] = json!("Never");
    town.create(&PODS, pod);
    town.pass(20.0);
    assert_eq!(object::text(&town.pods()[0], "/status/phase"), "Succeeded");
    town.stop(&instance, 90.0);
    town.start(&instance, 40.0);
    let before = town.world.cluster.ends().count();
    town.delete(&PODS, "default", "once", &DeleteOptions::default());
    town.pass(40.0);
    assert_eq!((town.pods().len(), town.world.cluster.ends().count()), (0, before));
}
