//! CapacityBuffers keep room free.

use drover_common::call::Kind;
use drover_common::ec2::Ec2Call;
use serde_json::{Value, json};

use super::rig::*;

fn template(rig: &mut Rig) {
    rig.world.put(
        Kind::PodTemplate,
        json!({
            "metadata": {"name": "chunk", "namespace": "default"},
            "template": {"spec": {"containers": [
                {"name": "main", "resources": {"requests": {"cpu": "800m", "memory": "64Mi"}}}]}},
        }),
    );
}

fn buffer(rig: &mut Rig, spec: Value) {
    rig.world.put(
        Kind::CapacityBuffer,
        json!({
            "apiVersion": "autoscaling.x-k8s.io/v1beta1", "kind": "CapacityBuffer",
            "metadata": {"name": "spare", "namespace": "default"}, "spec": spec,
        }),
    );
}

fn told(rig: &Rig) -> (Value, Vec<String>, Vec<String>) {
    let buffer = rig.world.list(Kind::CapacityBuffer)[0].clone();
    let all = buffer["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let reasons = all.iter().map(|c| c["message"].as_str().unwrap_or_default().to_owned());
    (buffer["status"]["replicas"].clone(), conditions(&buffer), reasons.collect())
}

#[test]
fn room_is_made_kept_and_made_anew_when_pods_take_it() {
    let mut rig = Rig::new();
    template(&mut rig);
    buffer(&mut rig, json!({"podTemplateRef": {"name": "chunk"}, "replicas": 2}));
    rig.run(10);
    assert_eq!(rig.world.running_instances().len(), 1, "one node has room for two");
    assert_eq!(told(&rig).0, 2);
    assert_eq!(told(&rig).1, ["Provisioning", "ReadyForProvisioning"]);
    rig.run(180);
    assert_eq!(rig.world.running_instances().len(), 1, "it is not empty");
    rig.world.add_pods("web", 1, 800);
    rig.run(2);
    assert_eq!(rig.world.running_pods(), 1, "there was room at once");
    rig.run(60);
    assert_eq!(rig.world.running_instances().len(), 2, "and it is there again");
    rig.world.remove_pods("web");
    let key = (Kind::CapacityBuffer, "default", "spare");
    rig.world.delete_object(key.0, key.1, key.2);
    rig.run(240);
    assert_eq!(rig.world.running_instances().len(), 0, "without the buffer they are empty");
    rig.check_settled();
}

#[test]
fn a_share_of_a_deployment_within_limits() {
    let mut rig = Rig::new();
    rig.world.put(
        Kind::ReplicaSet,
        json!({
            "metadata": {"name": "web-1", "namespace": "default", "ownerReferences": [
                {"kind": "Deployment", "name": "web", "uid": "d", "controller": true}]},
            "spec": {"replicas": 10, "template": {"spec": {"containers": [
                {"name": "main", "resources": {"requests": {"cpu": "800m"}}}]}}},
        }),
    );
    let web = json!({"apiGroup": "apps", "kind": "Deployment", "name": "web"});
    buffer(&mut rig, json!({"scalableRef": web, "percentage": 45, "limits": {"cpu": "2500m"}}));
    rig.run(10);
    assert_eq!(told(&rig).0, 3, "five are asked for, and the limit is three");
    assert_eq!(rig.world.running_instances().len(), 2);
}

#[test]
fn what_can_not_be_kept_free_is_told() {
    let mut rig = Rig::new();
    buffer(&mut rig, json!({"podTemplateRef": {"name": "chunk"}, "replicas": 2}));
    rig.run(5);
    let (replicas, holding, reasons) = told(&rig);
    assert_eq!((replicas, holding), (json!(0), Vec::new()));
    assert_eq!(reasons[1], "spec.podTemplateRef: PodTemplate chunk does not exist");
    template(&mut rig);
    rig.world
        .sold_out
        .extend(["m5.large", "m5a.large", "m6i.large", "m5.4xlarge"].map(str::to_owned));
    rig.run(40);
    let (replicas, holding, reasons) = told(&rig);
    assert_eq!((replicas, holding), (json!(2), vec!["ReadyForProvisioning".to_owned()]));
    assert!(reasons[0].contains("unavailable until"), "{reasons:?}");
    assert!(
        rig.world.list(Kind::Event).iter().all(|event| event["involvedObject"]["kind"] != "Pod")
    );
}

/// Room for two chunks on a node of a pool that lets an empty one go at once.
fn with_room_for_two() -> Rig {
    let mut rig = Rig::new();
    let disruption = json!({"spec": {"disruption": {"consolidateAfter": "0s"}}});
    rig.world.change(Kind::NodePool, "", "general", &disruption);
    template(&mut rig);
    buffer(&mut rig, json!({"podTemplateRef": {"name": "chunk"}, "replicas": 2}));
    rig
}

#[test]
fn a_node_that_was_bought_for_a_buffer_is_not_taken_as_empty() {
    let mut rig = with_room_for_two();
    rig.run(120);
    assert_eq!(rig.world.instances.len(), 1, "none was bought in its place");
    assert_eq!(rig.control.consolidation.counts().empty, 0);
    rig.check_settled();
}

#[test]
fn a_node_with_room_for_a_buffer_is_replaced_by_a_smaller_one_with_as_much() {
    let mut rig = Rig::new();
    rig.world.add_pods("big", 1, 3_000);
    rig.world.add_pods("web", 1, 800);
    rig.run(10);
    rig.world.remove_pods("big");
    template(&mut rig);
    buffer(&mut rig, json!({"podTemplateRef": {"name": "chunk"}, "replicas": 1}));
    rig.run(600);
    let kinds: Vec<&str> =
        rig.world.running_instances().iter().map(|one| one.instance_type.as_str()).collect();
    assert_eq!(kinds, ["m5.large"]);
    assert_eq!((rig.world.instances.len(), rig.world.running_pods()), (2, 1));
    assert_eq!(told(&rig).1, ["Provisioning", "ReadyForProvisioning"]);
    assert_eq!(rig.rejected, Vec::<String>::new());
    rig.check_settled();
}

#[test]
fn a_new_leader_waits_for_its_first_plan_with_what_is_to_go_as_empty() {
    let mut rig = with_room_for_two();
    rig.run(30);
    rig.world.add_pods("web", 1, 1_800);
    rig.run(60);
    assert_eq!(rig.world.running_instances().len(), 2);
    rig.world.remove_pods("web");
    for _ in 0..120 {
        if !rig.state.disruptions.is_empty() {
            break;
        }
        rig.run(1);
    }
    let given_up = |rig: &Rig| {
        rig.state.journal.decisions().filter(|one| one.verb == "cancel-disruption").count()
    };
    let before = given_up(&rig);
    rig.throttles = Some(|call| matches!(call, Ec2Call::DescribeInstanceTypes));
    rig.lead();
    rig.run(30);
    let open: Vec<bool> =
        rig.state.disruptions.values().map(|record| record.draining_since.is_none()).collect();
    assert_eq!(open, [true], "neither given up nor begun");
    rig.throttles = None;
    rig.run(60);
    assert_eq!((rig.world.instances.len(), rig.world.running_instances().len()), (2, 1));
    assert_eq!(given_up(&rig), before);
}

#[test]
fn a_new_leader_takes_no_node_as_empty_before_it_has_planned_for_buffers() {
    let mut rig = with_room_for_two();
    rig.run(60);
    // It reads the instances at once, and what planning needs to know a while later.
    rig.throttles = Some(|call| matches!(call, Ec2Call::DescribeInstanceTypes));
    rig.lead();
    rig.run(30);
    assert!(rig.control.consolidation.counts().empty == 0, "there was no plan");
    rig.throttles = None;
    rig.run(60);
    assert_eq!(rig.world.instances.len(), 1);
    // Without buffers there is nothing to wait for.
    rig.world.delete_object(Kind::CapacityBuffer, "default", "spare");
    rig.throttles = Some(|call| matches!(call, Ec2Call::DescribeInstanceTypes));
    rig.lead();
    rig.run(30);
    assert_eq!(rig.control.consolidation.counts().empty, 1);
}
