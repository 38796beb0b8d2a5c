//! A node goes into a capacity reservation, the next is bought.

use serde_json::{Value, json};

use crate::stage::{CAPACITY_TYPE, Stage, initialized};

const RESERVATION_ID: &str = "karpenter.k8s.aws/capacity-reservation-id";

/// Values of a label, sorted; empty where it is missing.
fn labels(objects: &[Value], key: &str) -> Vec<String> {
    let value =
        |object: &Value| object["metadata"]["labels"][key].as_str().unwrap_or("").to_owned();
    let mut values: Vec<String> = objects.iter().map(value).collect();
    values.sort();
    values
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_goes_into_the_reservation_and_the_next_is_bought() {
    let stage = Stage::set(&[]).await;
    let order = json!({"instance_type": "m5.xlarge", "zone": "us-east-1b", "count": 1,
        "tags": {"team": "a"}});
    let id = stage.command("/reservations", order).await["id"].as_str().unwrap().to_owned();
    let other = json!({"instance_type": "m5.xlarge", "zone": "us-east-1c", "count": 9,
        "tags": {"team": "b"}});
    stage.command("/reservations", other).await;
    stage.apply(&["reserved", "on-demand"], 2).await;
    let nodes = stage.until("/api/v1/nodes", |nodes| initialized(nodes) == 2).await;
    assert_eq!(labels(&nodes, CAPACITY_TYPE), ["on-demand", "reserved"]);
    assert_eq!(labels(&nodes, RESERVATION_ID), [String::new(), id.clone()]);
    let claims = stage.list("/apis/karpenter.sh/v1/nodeclaims").await;
    assert_eq!(labels(&claims, CAPACITY_TYPE), ["on-demand", "reserved"]);
    assert_eq!(labels(&claims, RESERVATION_ID), [String::new(), id.clone()]);
    let interruptible = "karpenter.k8s.aws/capacity-reservation-interruptible";
    assert_eq!(labels(&nodes, interruptible), ["", "false"]);

    let class = stage.list("/apis/karpenter.k8s.aws/v1/ec2nodeclasses").await.remove(0);
    let shown = class["status"]["capacityReservations"].as_array().unwrap();
    assert_eq!(shown.len(), 1, "those of other tags are not the class's: {shown:?}");
    let wanted = json!({
        "id": id, "availabilityZone": "us-east-1b", "instanceType": "m5.xlarge",
        "ownerID": "123456789012", "instanceMatchCriteria": "targeted",
        "reservationType": "default", "interruptible": false, "state": "active",
    });
    assert_eq!(shown[0], wanted);
    let conditions = class["status"]["conditions"].as_array().unwrap();
    let ready = conditions.iter().find(|one| one["type"] == "CapacityReservationsReady").unwrap();
    assert_eq!(ready["status"], "True");

    stage.sandbox.world().with(|world, _| {
        let held: Vec<Option<String>> =
            world.cloud.instances().map(|instance| instance.reservation.clone()).collect();
        assert_eq!(held.iter().flatten().collect::<Vec<_>>(), [&id]);
        assert_eq!(held.len(), 2, "nothing was launched in vain");
    });
    stage.stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_gate_closed_reservations_are_passed_over() {
    let stage = Stage::set(&["--feature-gates=ReservedCapacity=false"]).await;
    let order = json!({"instance_type": "m5.xlarge", "zone": "us-east-1b", "count": 1,
        "tags": {"team": "a"}});
    stage.command("/reservations", order).await;
    stage.apply(&["reserved", "on-demand"], 1).await;
    let nodes = stage.until("/api/v1/nodes", |nodes| initialized(nodes) == 1).await;
    assert_eq!(labels(&nodes, CAPACITY_TYPE), ["on-demand"]);
    stage.stop.cancel();
}
