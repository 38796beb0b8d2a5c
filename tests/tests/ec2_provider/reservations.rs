//! Capacity reservations through the SDK: read by every kind of term, and launched into.

use drover_common::ec2::{
    CapacityReservation, Ec2Answer, Ec2Call, Instance, InstanceQuery, ReservationTarget,
    ReservationTerm, ReservationUse, Tags,
};
use drover_common::id::InstanceId;
use drover_common::instance_type::{CapacityType, ReservationKind};
use drover_ec2::Ec2;

use super::contract::{Imitation, fleet_request, image, launch_template};
use super::{fleet, reqwest_client, sandbox};

/// Reserves by the admin endpoint; returns the reservation's id.
async fn reserve(admin: &str, order: &str) -> String {
    let request = reqwest_client().post(format!("{admin}/reservations"));
    let request = request.header("content-type", "application/json").body(order.to_owned());
    let sent = request.send().await.unwrap();
    assert_eq!(sent.status(), 200);
    let answer: serde_json::Value = serde_json::from_slice(&sent.bytes().await.unwrap()).unwrap();
    answer["id"].as_str().unwrap().to_owned()
}

async fn described(ec2: &Ec2, terms: Vec<ReservationTerm>) -> Vec<CapacityReservation> {
    match ec2.execute(&Ec2Call::DescribeCapacityReservations(terms)).await {
        Ok(Ec2Answer::CapacityReservations(found)) => found,
        other => panic!("{other:?}"),
    }
}

fn by(id: &str) -> ReservationTerm {
    ReservationTerm { id: Some(id.to_owned()), ..ReservationTerm::default() }
}

/// An instance as soon as EC2 shows it.
async fn shown(ec2: &Ec2, instance: &InstanceId) -> Instance {
    let query = InstanceQuery { instances: vec![instance.clone()], tags: Tags::new() };
    for _ in 0..50 {
        let read = ec2.execute(&Ec2Call::DescribeInstances(query.clone())).await.unwrap();
        let Ec2Answer::Instances(mut read) = read else { panic!("{read:?}") };
        if let Some(instance) = read.pop() {
            return instance;
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    panic!("{instance} is not shown");
}

#[tokio::test(flavor = "multi_thread")]
async fn reservations_are_found_by_id_tag_owner_and_criteria() {
    let (sandbox, ec2) = sandbox().await;
    let admin = &sandbox.endpoints().admin;
    let one = reserve(
        admin,
        r#"{"instance_type": "m5.large", "zone": "us-east-1a", "count": 2,
            "tags": {"team": "a"}, "instance_match_criteria": "open"}"#,
    )
    .await;
    let block = reserve(
        admin,
        r#"{"id": "cr-0block", "instance_type": "p5.48xlarge", "zone": "us-east-1b", "count": 1,
            "type": "capacity-block", "owner": "210987654321", "interruptible": true,
            "end_time": "2099-01-01T00:00:00Z"}"#,
    )
    .await;
    assert_eq!(block, "cr-0block");
    let ids = |found: Vec<CapacityReservation>| -> Vec<String> {
        found.into_iter().map(|one| one.id).collect()
    };
    let tagged = |value: &str| ReservationTerm {
        tags: Tags::from([("team".to_owned(), value.to_owned())]),
        ..ReservationTerm::default()
    };
    let owner = ReservationTerm { owner: Some("210987654321".to_owned()), ..tagged("x") };
    assert_eq!(ids(described(&ec2, vec![tagged("*")]).await), std::slice::from_ref(&one));
    assert!(described(&ec2, vec![tagged("b"), owner]).await.is_empty(), "all of a term hold");
    let open = ReservationTerm { match_criteria: Some("open".to_owned()), ..by(&one) };
    assert_eq!(ids(described(&ec2, vec![open]).await), std::slice::from_ref(&one));
    let owned = ReservationTerm {
        owner: Some("210987654321".to_owned()),
        match_criteria: Some("targeted".to_owned()),
        ..ReservationTerm::default()
    };
    let found = described(&ec2, vec![owned, by("cr-0missing")]).await;
    let wanted = CapacityReservation {
        id: block,
        instance_type: "p5.48xlarge".to_owned(),
        zone: "us-east-1b".to_owned(),
        owner: "210987654321".to_owned(),
        match_criteria: "targeted".to_owned(),
        kind: ReservationKind::CapacityBlock,
        interruptible: true,
        ends_at: Some("2099-01-01T00:00:00Z".parse().unwrap()),
        total: 1,
        available: 1,
    };
    assert_eq!(found, [wanted], "an id that EC2 does not know hides no others");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_goes_into_the_reservation_it_names_and_no_further() {
    let (sandbox, ec2) = sandbox().await;
    let admin = &sandbox.endpoints().admin;
    let order = r#"{"instance_type": "m5.large", "zone": "us-east-1a", "count": 1}"#;
    let id = reserve(admin, order).await;
    let imitation = Imitation::sandbox();
    let mut template = launch_template("drover-reserved", &image(&ec2, &imitation).await);
    let target = ReservationTarget { id: id.clone(), kind: ReservationKind::Default };
    template.reservation = Some(ReservationUse::Only(target));
    ec2.execute(&Ec2Call::CreateLaunchTemplate(template)).await.unwrap();
    let mut request = fleet_request(&ec2, "drover-reserved", "token-1").await;
    request.overrides.retain(|one| one.instance_type == "m5.large" && one.zone == "us-east-1a");
    request.capacity_type = CapacityType::Reserved;
    let answer = fleet(ec2.execute(&Ec2Call::CreateFleet(request.clone())).await.unwrap());
    assert_eq!(answer.instances.len(), 1);
    assert_eq!(answer.instances[0].capacity_type, CapacityType::Reserved);
    assert_eq!(answer.errors[0].code, "ReservationCapacityExceeded");
    assert!(answer.errors[0].is_unfulfillable());
    assert_eq!(described(&ec2, vec![by(&id)]).await[0].available, 0);
    let launched = answer.instances[0].instance.clone();
    let instance = shown(&ec2, &launched).await;
    assert_eq!(instance.reservation, Some(id.clone()));
    assert_eq!(instance.capacity_type, CapacityType::Reserved);
    ec2.execute(&Ec2Call::TerminateInstances(vec![launched])).await.unwrap();
    assert_eq!(described(&ec2, vec![by(&id)]).await[0].available, 1, "it is given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_landed_in_an_open_reservation_is_on_demand() {
    let (sandbox, ec2) = sandbox().await;
    let order = r#"{"instance_type": "m5.large", "zone": "us-east-1a", "count": 1,
        "instance_match_criteria": "open"}"#;
    let id = reserve(&sandbox.endpoints().admin, order).await;
    let imitation = Imitation::sandbox();
    let template = launch_template("drover-plain", &image(&ec2, &imitation).await);
    ec2.execute(&Ec2Call::CreateLaunchTemplate(template)).await.unwrap();
    let mut request = fleet_request(&ec2, "drover-plain", "token-1").await;
    request.overrides.retain(|one| one.instance_type == "m5.large" && one.zone == "us-east-1a");
    request.capacity_type = CapacityType::OnDemand;
    request.count = 1;
    let answer = fleet(ec2.execute(&Ec2Call::CreateFleet(request)).await.unwrap());
    let instance = shown(&ec2, &answer.instances[0].instance).await;
    assert_eq!(instance.reservation, Some(id));
    assert_eq!(instance.capacity_type, CapacityType::OnDemand);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capacity_block_is_launched_into_as_a_market_of_its_own() {
    let (sandbox, ec2) = sandbox().await;
    let order = r#"{"instance_type": "m5.large", "zone": "us-east-1a", "count": 1,
        "type": "capacity-block", "end_time": "2099-01-01T00:00:00Z"}"#;
    let id = reserve(&sandbox.endpoints().admin, order).await;
    let imitation = Imitation::sandbox();
    let mut template = launch_template("drover-block", &image(&ec2, &imitation).await);
    let target = ReservationTarget { id: id.clone(), kind: ReservationKind::CapacityBlock };
    template.reservation = Some(ReservationUse::Only(target));
    ec2.execute(&Ec2Call::CreateLaunchTemplate(template)).await.unwrap();
    let mut request = fleet_request(&ec2, "drover-block", "token-1").await;
    request.overrides.retain(|one| one.instance_type == "m5.large" && one.zone == "us-east-1a");
    request.capacity_type = CapacityType::Reserved;
    request.count = 1;
    let unasked = fleet(ec2.execute(&Ec2Call::CreateFleet(request.clone())).await.unwrap());
    assert_eq!((unasked.instances.len(), unasked.errors.len()), (0, 1));
    request.client_token = "token-2".to_owned();
    request.capacity_block = true;
    let answer = fleet(ec2.execute(&Ec2Call::CreateFleet(request)).await.unwrap());
    assert_eq!(answer.instances.len(), 1, "{:?}", answer.errors);
    assert_eq!(answer.instances[0].capacity_type, CapacityType::Reserved);
    assert_eq!(shown(&ec2, &answer.instances[0].instance).await.reservation, Some(id));
}
