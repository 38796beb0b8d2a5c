//! The metadata service as an agent meets it.

use axum::http::HeaderName;
use drover_common::ec2::{
    Ec2Answer, Ec2Call, FleetOverride, FleetRequest, LaunchTemplateRequest, MetadataOptions, Tags,
};
use drover_common::instance_type::CapacityType;
use jiff::SignedDuration;

use super::*;
use crate::world::WorldOptions;
use crate::world::cloud::{Cloud, MaintenanceCode, MaintenanceEvent, MaintenanceState};

fn start() -> Timestamp {
    "2026-11-05T10:00:00Z".parse().unwrap()
}

fn at(seconds: i64) -> Timestamp {
    start() + SignedDuration::from_secs(seconds)
}

/// A world with one spot instance whose user data is "hello".
fn world_with_instance() -> (World, InstanceId) {
    let mut world = World::new(WorldOptions::default(), start());
    let instance = launch(&mut world.cloud);
    (world, instance)
}

/// Launches a spot instance.
pub(in crate::faces) fn launch(cloud: &mut Cloud) -> InstanceId {
    let parameter = "/aws/service/bottlerocket/aws-k8s-1.34/x86_64/latest/image_id".to_owned();
    let Ok(Ec2Answer::Parameter(image)) = cloud.apply(&Ec2Call::GetParameter(parameter), start())
    else {
        panic!("no image");
    };
    let template = LaunchTemplateRequest {
        name: "lt-test".to_owned(),
        image,
        security_groups: Vec::new(),
        instance_profile: None,
        user_data: "hello".to_owned(),
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
    };
    cloud.apply(&Ec2Call::CreateLaunchTemplate(template), start()).unwrap();
    let Ok(Ec2Answer::Subnets(subnets)) =
        cloud.apply(&Ec2Call::DescribeSubnets(Vec::new()), start())
    else {
        panic!("no subnets");
    };
    let request = FleetRequest {
        client_token: "one".to_owned(),
        launch_template: "lt-test".to_owned(),
        overrides: vec![FleetOverride {
            instance_type: "m5.large".to_owned(),
            subnet: subnets[0].id.clone(),
            zone: subnets[0].zone.clone(),
            image: None,
        }],
        capacity_type: CapacityType::Spot,
        capacity_block: false,
        prioritized: false,
        count: 1,
        tags: Tags::from([("Name".to_owned(), "n".to_owned())]),
        context: None,
    };
    match cloud.apply(&Ec2Call::CreateFleet(request), start()) {
        Ok(Ec2Answer::Fleet(answer)) => answer.instances[0].instance.clone(),
        other => panic!("{other:?}"),
    }
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
        .collect()
}

/// Status and body.
fn ask(
    world: &World,
    instance: &InstanceId,
    method: Method,
    path: &str,
    pairs: &[(&'static str, &str)],
    now: Timestamp,
) -> (u16, String) {
    match answer(world, instance, &method, path, &headers(pairs), now) {
        Ok(response) => {
            let status = response.status().as_u16();
            let body = axum::body::to_bytes(response.into_body(), 1 << 20);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let body = runtime.block_on(body).unwrap();
            (status, String::from_utf8(body.to_vec()).unwrap())
        }
        Err((status, reason)) => (status.as_u16(), reason.to_owned()),
    }
}

fn session(world: &World, instance: &InstanceId) -> String {
    let pairs = [(TTL_HEADER, "21600")];
    ask(world, instance, Method::PUT, "latest/api/token", &pairs, start()).1
}

fn get(world: &World, instance: &InstanceId, path: &str, now: Timestamp) -> (u16, String) {
    let token = session(world, instance);
    let path = format!("latest/meta-data/{path}");
    ask(world, instance, Method::GET, &path, &[(TOKEN_HEADER, &token)], now)
}

#[test]
fn sessions_begin_with_a_put_and_end() {
    let (world, instance) = world_with_instance();
    let put = |pairs: &[(&'static str, &str)]| {
        ask(&world, &instance, Method::PUT, "latest/api/token", pairs, start()).0
    };
    assert_eq!(put(&[]), 400);
    assert_eq!(put(&[(TTL_HEADER, "0")]), 400);
    assert_eq!(put(&[(TTL_HEADER, "21601")]), 400);
    assert_eq!(put(&[(TTL_HEADER, "60"), ("x-forwarded-for", "10.0.0.1")]), 403);
    let path = "latest/meta-data/instance-id";
    let read =
        |pairs: &[(&'static str, &str)], now| ask(&world, &instance, Method::GET, path, pairs, now);
    assert_eq!(read(&[], start()).0, 401);
    assert_eq!(read(&[(TOKEN_HEADER, "wrong")], start()).0, 401);
    let token = session(&world, &instance);
    assert_eq!(read(&[(TOKEN_HEADER, &token)], at(1)), (200, instance.to_string()));
    assert_eq!(read(&[(TOKEN_HEADER, &token)], at(21_600)).0, 401);
    let other = InstanceId::from("i-0none");
    let unknown = ask(&world, &other, Method::GET, path, &[(TOKEN_HEADER, &token)], start());
    assert_eq!(unknown.0, 404);
}

#[test]
fn identity_is_told_and_directories_are_listed() {
    let (world, instance) = world_with_instance();
    let read = |path: &str| get(&world, &instance, path, start());
    assert_eq!(read("instance-type").1, "m5.large");
    assert_eq!(read("instance-life-cycle/").1, "spot");
    assert_eq!(read("placement/region").1, "us-east-1");
    assert_eq!(read("placement/availability-zone-id").1, "use1-az4");
    assert_eq!(read("tags/instance/Name").1, "n");
    assert_eq!(read("placement").1, "availability-zone\navailability-zone-id\nregion");
    assert!(read("").1.lines().any(|line| line == "placement/"));
    assert_eq!(read("no/such/thing").0, 404);
    assert_eq!(read("autoscaling/target-lifecycle-state").0, 404);
    assert_eq!(read("iam/security-credentials/").0, 404, "it has no instance profile");
    let token = session(&world, &instance);
    let token = [(TOKEN_HEADER, token.as_str())];
    let document = "latest/dynamic/instance-identity/document";
    let document = ask(&world, &instance, Method::GET, document, &token, start()).1;
    let document: serde_json::Value = serde_json::from_str(&document).unwrap();
    assert_eq!(document["instanceId"], instance.as_str());
    assert_eq!(document["availabilityZone"], "us-east-1a");
    let user_data = ask(&world, &instance, Method::GET, "latest/user-data", &token, start());
    assert_eq!(user_data, (200, "hello".to_owned()));
}

#[test]
fn notices_are_absent_until_they_are_given_and_then_stay_fixed() {
    let (mut world, instance) = world_with_instance();
    assert_eq!(get(&world, &instance, "spot/instance-action", start()).0, 404);
    assert_eq!(get(&world, &instance, "events/recommendations/rebalance", start()).0, 404);
    assert_eq!(
        get(&world, &instance, "events/maintenance/scheduled", start()),
        (200, "[]".to_owned())
    );
    world.cloud.interrupt(&instance, at(10), SignedDuration::from_secs(120)).unwrap();
    world.cloud.recommend_rebalance(&instance, at(10)).unwrap();
    let event = MaintenanceEvent {
        event_id: "instance-event-1".to_owned(),
        code: MaintenanceCode::SystemReboot,
        state: MaintenanceState::Active,
        description: "scheduled reboot".to_owned(),
        not_before: at(3600),
        not_after: Some(at(7200)),
    };
    world.cloud.schedule_maintenance(&instance, event).unwrap();
    for now in [at(10), at(60)] {
        let notice = get(&world, &instance, "spot/instance-action", now).1;
        assert_eq!(notice, r#"{"action":"terminate","time":"2026-11-05T10:02:10Z"}"#);
    }
    let time = get(&world, &instance, "spot/termination-time", at(11)).1;
    assert_eq!(time, "2026-11-05T10:02:10Z");
    let rebalance = get(&world, &instance, "events/recommendations/rebalance", at(11)).1;
    assert_eq!(rebalance, r#"{"noticeTime":"2026-11-05T10:00:10Z"}"#);
    let scheduled = get(&world, &instance, "events/maintenance/scheduled", at(11)).1;
    assert!(scheduled.contains(r#""NotBefore":"5 Nov 2026 11:00:00 GMT""#), "{scheduled}");
    world.tick(at(131));
    world.tick(at(200));
    assert_eq!(get(&world, &instance, "instance-id", at(200)).0, 404, "it is off");
}
