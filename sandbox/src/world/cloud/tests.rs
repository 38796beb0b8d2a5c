//! The cloud's behaviours, as a driver meets them.

use drover_common::ec2::{
    FleetOverride, InstanceQuery, LaunchTemplateRequest, MetadataOptions, SelectorTerm,
};
use drover_common::instance_type::InstanceTypeFacts;
use drover_common::labels;

use super::*;

mod queue;
mod reservations;

fn options() -> CloudOptions {
    let mut options = CloudOptions::of(&WorldOptions::default());
    options.throttle = false;
    options
}

fn kind(name: &str, arch: &str, price: u64) -> CatalogType {
    let facts = InstanceTypeFacts {
        name: name.to_owned(),
        arch: arch.to_owned(),
        vcpus: 2,
        memory_mib: 8192,
        spot: true,
        ..InstanceTypeFacts::default()
    };
    let zones = "abcdef".chars().map(|zone| (format!("us-east-1{zone}"), Some(price / 3)));
    CatalogType { facts, on_demand_price: Some(price), zones: zones.collect() }
}

fn start() -> Timestamp {
    "2026-11-20T10:00:00Z".parse().unwrap()
}

fn at(seconds: i64) -> Timestamp {
    after(start(), SignedDuration::from_secs(seconds))
}

fn cloud() -> Cloud {
    let types = [
        kind("m5.large", "amd64", 96_000),
        kind("t3.large", "amd64", 83_200),
        kind("m5.metal", "amd64", 4_608_000),
    ];
    let mut cloud = Cloud::selling(options(), types, Random::new(1));
    let image =
        parameter(&mut cloud, "1.34/amazon-linux-2023/x86_64/standard/recommended/image_id");
    cloud.apply(&Ec2Call::CreateLaunchTemplate(template("lt-one", &image)), start()).unwrap();
    cloud
}

fn parameter(cloud: &mut Cloud, path: &str) -> String {
    let name = format!("/aws/service/eks/optimized-ami/{path}");
    match cloud.apply(&Ec2Call::GetParameter(name), start()) {
        Ok(Ec2Answer::Parameter(value)) => value,
        other => panic!("{other:?}"),
    }
}

fn template(name: &str, image: &str) -> LaunchTemplateRequest {
    LaunchTemplateRequest {
        name: name.to_owned(),
        image: image.to_owned(),
        security_groups: Vec::new(),
        instance_profile: None,
        user_data: "#!/bin/bash\n".to_owned(),
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
    }
}

fn request(cloud: &mut Cloud, token: &str, types: &[&str], count: u32) -> FleetRequest {
    let Ok(Ec2Answer::Subnets(subnets)) =
        cloud.apply(&Ec2Call::DescribeSubnets(Vec::new()), start())
    else {
        panic!("no subnets");
    };
    let overrides = types
        .iter()
        .flat_map(|name| {
            subnets.iter().take(2).map(|subnet| FleetOverride {
                instance_type: (*name).to_owned(),
                subnet: subnet.id.clone(),
                zone: subnet.zone.clone(),
                image: None,
            })
        })
        .collect();
    FleetRequest {
        client_token: token.to_owned(),
        launch_template: "lt-one".to_owned(),
        overrides,
        capacity_type: CapacityType::Spot,
        capacity_block: false,
        prioritized: false,
        count,
        tags: Tags::from([
            (labels::INTENT_TAG.to_owned(), token.to_owned()),
            (labels::NODEPOOL.to_owned(), "default".to_owned()),
        ]),
        context: None,
    }
}

fn create(cloud: &mut Cloud, request: &FleetRequest, now: Timestamp) -> FleetAnswer {
    match cloud.apply(&Ec2Call::CreateFleet(request.clone()), now) {
        Ok(Ec2Answer::Fleet(answer)) => answer,
        other => panic!("{other:?}"),
    }
}

fn describe(cloud: &mut Cloud, now: Timestamp) -> Vec<drover_common::ec2::Instance> {
    let query = InstanceQuery {
        tags: Tags::from([(labels::NODEPOOL.to_owned(), "*".to_owned())]),
        ..InstanceQuery::default()
    };
    match cloud.apply(&Ec2Call::DescribeInstances(query), now) {
        Ok(Ec2Answer::Instances(instances)) => instances,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_instance_is_pending_then_running_then_shutting_down_then_gone() {
    let mut cloud = cloud();
    let request = request(&mut cloud, "one", &["m5.large"], 1);
    let launched = create(&mut cloud, &request, start()).instances;
    assert_eq!(launched.len(), 1);
    assert!(describe(&mut cloud, at(0)).is_empty(), "describe lags behind");
    let shown = describe(&mut cloud, at(3));
    assert_eq!(shown[0].state, InstanceState::Pending);
    assert!(
        shown[0].private_dns_name.starts_with("ip-10-0-")
            && shown[0].private_dns_name.ends_with(".ec2.internal")
    );
    cloud.tick(at(7));
    assert_eq!(describe(&mut cloud, at(7))[0].state, InstanceState::Running);
    let gone = vec![launched[0].instance.clone(), InstanceId::from("i-0missing")];
    cloud.apply(&Ec2Call::TerminateInstances(gone), at(10)).unwrap();
    assert_eq!(describe(&mut cloud, at(10))[0].state, InstanceState::ShuttingDown);
    assert_eq!(cloud.next_due(), Some(at(16)));
    cloud.tick(at(16));
    assert_eq!(describe(&mut cloud, at(16))[0].state, InstanceState::Terminated);
    let cost = cloud.total_cost(at(16));
    cloud.tick(at(16 + 3600));
    assert!(describe(&mut cloud, at(16 + 3600)).is_empty());
    assert_eq!(cloud.total_cost(at(90_000)), cost, "billing stops, and is not forgotten");
    assert_eq!(cloud.next_due(), None);
}

#[test]
fn the_same_token_launches_once_and_another_request_under_it_is_refused() {
    let mut cloud = cloud();
    let mut request = request(&mut cloud, "one", &["m5.large", "t3.large"], 2);
    let first = create(&mut cloud, &request, start());
    assert_eq!(create(&mut cloud, &request, at(30)), first);
    request.count = 3;
    let refused = cloud.apply(&Ec2Call::CreateFleet(request), at(31)).unwrap_err();
    assert_eq!(refused.kind, Ec2FailureKind::TokenMismatch);
    let audit = cloud.audit();
    assert_eq!((audit.launches, audit.token_mismatches), (2, 1));
    assert_eq!(audit.tokens["one"].requests, 3);
    assert!(audit.launched_twice.is_empty());
}

#[test]
fn the_audit_sees_an_intent_that_was_launched_under_two_tokens() {
    let mut cloud = cloud();
    let one = request(&mut cloud, "one", &["m5.large"], 1);
    let mut two = one.clone();
    two.client_token = "two".to_owned();
    create(&mut cloud, &one, start());
    create(&mut cloud, &two, start());
    assert_eq!(cloud.audit().launched_twice, ["one"]);
    assert_eq!(cloud.audit().repeated_launches, 1);
    let claim = Tags::from([(labels::NODECLAIM_TAG.to_owned(), "default-1".to_owned())]);
    let instances: Vec<InstanceId> = cloud.instances().map(|one| one.id.clone()).collect();
    assert_eq!(cloud.audit().without_claim, instances);
    cloud.apply(&Ec2Call::CreateTags { instances, tags: claim }, at(5)).unwrap();
    assert_eq!(cloud.audit().claims_with_two_instances, ["default-1"]);
    assert!(!describe(&mut cloud, at(6))[0].tags.contains_key(labels::NODECLAIM_TAG));
    assert!(describe(&mut cloud, at(8))[0].tags.contains_key(labels::NODECLAIM_TAG));
}

#[test]
fn a_pool_that_runs_dry_gives_part_of_the_fleet_and_says_so() {
    let mut cloud = cloud();
    let rule = |zone: &str, available| CapacityRule {
        instance_type: "*".to_owned(),
        zone: zone.to_owned(),
        capacity_type: "spot".to_owned(),
        available,
    };
    cloud.limit_capacity(rule("*", Some(0)));
    cloud.limit_capacity(rule("us-east-1a", Some(2)));
    let request = request(&mut cloud, "one", &["m5.large"], 3);
    let answer = create(&mut cloud, &request, start());
    assert_eq!(answer.instances.len(), 2);
    assert!(answer.instances.iter().all(|launched| launched.zone == "us-east-1a"));
    assert_eq!(answer.errors.len(), 2);
    assert!(answer.errors.iter().all(FleetErrorExt::dry));
    cloud.limit_capacity(rule("*", None));
    cloud.limit_capacity(rule("us-east-1a", None));
    let mut again = request;
    again.client_token = "two".to_owned();
    assert!(create(&mut cloud, &again, at(1)).errors.is_empty());
}

trait FleetErrorExt {
    fn dry(&self) -> bool;
}

impl FleetErrorExt for drover_common::ec2::FleetError {
    fn dry(&self) -> bool {
        self.code == "InsufficientInstanceCapacity" && self.is_unfulfillable()
    }
}

#[test]
fn requests_that_cannot_work_are_refused_with_a_reason() {
    let mut cloud = cloud();
    let good = request(&mut cloud, "one", &["m5.large"], 1);
    let refused = |cloud: &mut Cloud, request: FleetRequest| {
        cloud.apply(&Ec2Call::CreateFleet(request), start()).unwrap_err()
    };
    let template = FleetRequest { launch_template: "lt-none".to_owned(), ..good.clone() };
    assert_eq!(refused(&mut cloud, template).kind, Ec2FailureKind::NotFound);
    let none = FleetRequest { count: 0, ..good.clone() };
    assert_eq!(refused(&mut cloud, none).kind, Ec2FailureKind::Invalid);
    let arm = parameter(&mut cloud, "1.34/amazon-linux-2023/arm64/standard/recommended/image_id");
    let mut wrong = FleetRequest { client_token: "two".to_owned(), ..good };
    wrong.overrides[0].image = Some(arm);
    wrong.overrides[1].subnet = "subnet-none".to_owned();
    let answer = create(&mut cloud, &wrong, start());
    assert!(answer.instances.is_empty());
    let mut codes: Vec<&str> = answer.errors.iter().map(|error| error.code.as_str()).collect();
    codes.sort_unstable();
    assert_eq!(codes, ["InvalidParameterValue", "InvalidSubnetID.NotFound"]);
}

#[test]
fn an_interrupted_spot_instance_terminates_at_its_fixed_deadline() {
    let mut cloud = cloud();
    let request = request(&mut cloud, "one", &["m5.large"], 1);
    let id = create(&mut cloud, &request, start()).instances[0].instance.clone();
    let lead = SignedDuration::from_secs(120);
    assert_eq!(cloud.interrupt(&id, at(60), lead), Ok(at(180)));
    assert_eq!(cloud.interrupt(&id, at(90), lead), Ok(at(180)), "the time is fixed");
    cloud.tick(at(179));
    assert!(!cloud.instance(&id).unwrap().state.is_gone());
    cloud.tick(at(180));
    let instance = cloud.instance(&id).unwrap();
    assert_eq!(instance.state, InstanceState::ShuttingDown);
    assert_eq!(instance.reason, Some("Server.SpotInstanceTermination"));
    assert_eq!(cloud.audit().interrupted, 1);
    assert!(cloud.interrupt(&id, at(181), lead).is_err(), "it is gone");
}

#[test]
fn a_spot_instance_is_stopped_or_hibernated_where_its_notice_says_so() {
    for action in [SpotAction::Stop, SpotAction::Hibernate] {
        let mut cloud = cloud();
        let request = request(&mut cloud, "one", &["m5.large"], 1);
        let id = create(&mut cloud, &request, start()).instances[0].instance.clone();
        let notice = cloud.announce(&id, action, at(60), SignedDuration::from_secs(10));
        assert_eq!(notice, Ok(SpotNotice { action, time: at(70) }));
        assert_eq!(cloud.next_due(), Some(at(6)), "it is still pending");
        cloud.tick(at(60));
        assert_eq!(cloud.next_due(), Some(at(70)));
        cloud.tick(at(70));
        assert_eq!(cloud.instance(&id).unwrap().state, InstanceState::Stopping);
        assert_eq!((cloud.hourly_cost(), cloud.audit().interrupted), (0, 1));
        let cost = cloud.total_cost(at(70));
        cloud.tick(at(80));
        let instance = cloud.instance(&id).unwrap();
        assert_eq!(instance.state, InstanceState::Stopped);
        assert_eq!(instance.reason, Some("Server.SpotInstanceShutdown"));
        cloud.apply(&Ec2Call::TerminateInstances(vec![id.clone()]), at(90)).unwrap();
        assert_eq!(cloud.instance(&id).unwrap().state, InstanceState::ShuttingDown);
        assert_eq!(cloud.total_cost(at(3600)), cost, "nobody pays for a stopped instance");
    }
}

#[test]
fn a_stopped_instance_starts_again_as_itself() {
    for (action, boots) in [(SpotAction::Stop, 2), (SpotAction::Hibernate, 1)] {
        let mut cloud = cloud();
        let request = request(&mut cloud, "one", &["m5.large"], 1);
        let id = create(&mut cloud, &request, start()).instances[0].instance.clone();
        let address = cloud.instance(&id).unwrap().private_address;
        cloud.tick(at(10));
        let up = cloud.resume(&id, at(10)).unwrap_err();
        assert!(up.to_string().ends_with("it is not stopped"), "{up}");
        cloud.announce(&id, action, at(60), SignedDuration::from_secs(10)).unwrap();
        cloud.tick(at(70));
        assert!(cloud.resume(&id, at(71)).is_err(), "it is stopping yet");
        cloud.tick(at(80));
        let cost = cloud.total_cost(at(80));
        cloud.resume(&id, at(100)).unwrap();
        let instance = cloud.instance(&id).unwrap();
        assert_eq!((instance.state, instance.boots), (InstanceState::Pending, boots));
        assert_eq!((instance.private_address, instance.launched), (address, at(100)));
        assert_eq!((instance.reason, &instance.notices.spot), (None, &None));
        cloud.tick(at(110));
        assert_eq!(cloud.instance(&id).unwrap().state, InstanceState::Running);
        assert_eq!(cloud.total_cost(at(170)), 2 * cost, "70 s each");
        assert!(cloud.hourly_cost() > 0);
    }
}

#[test]
fn on_demand_instances_are_stopped_and_started_by_calls_and_spot_instances_are_not() {
    let mut cloud = cloud();
    let mut request = request(&mut cloud, "one", &["m5.large"], 1);
    let spot = create(&mut cloud, &request, start()).instances[0].instance.clone();
    request.client_token = "two".to_owned();
    request.capacity_type = CapacityType::OnDemand;
    let own = create(&mut cloud, &request, start()).instances[0].instance.clone();
    cloud.tick(at(10));
    let both = [own.clone(), spot];
    let code = |done: Result<(), Ec2Failure>| done.unwrap_err().code;
    assert_eq!(code(cloud.stop_instances(&both, at(10))), "UnsupportedOperation");
    let state = |cloud: &Cloud| cloud.instance(&own).unwrap().state;
    assert_eq!(state(&cloud), InstanceState::Running, "all or none");
    let own = [own.clone()];
    cloud.stop_instances(&own, at(11)).unwrap();
    assert_eq!(state(&cloud), InstanceState::Stopping);
    assert_eq!(code(cloud.start_instances(&own, at(11))), "IncorrectInstanceState");
    cloud.tick(at(60));
    cloud.stop_instances(&own, at(60)).unwrap();
    assert_eq!(state(&cloud), InstanceState::Stopped);
    cloud.start_instances(&own, at(60)).unwrap();
    cloud.start_instances(&own, at(61)).unwrap();
    let instance = cloud.instance(&own[0]).unwrap();
    assert_eq!((instance.state, instance.boots), (InstanceState::Pending, 2));
    cloud.apply(&Ec2Call::TerminateInstances(own.to_vec()), at(62)).unwrap();
    assert_eq!(code(cloud.start_instances(&own, at(63))), "IncorrectInstanceState");
    let unknown = [InstanceId::from("i-0missing")];
    assert_eq!(code(cloud.start_instances(&unknown, at(63))), "InvalidInstanceID.NotFound");
}

#[test]
fn an_instance_outlives_a_notice_that_is_taken_back() {
    let mut cloud = cloud();
    let request = request(&mut cloud, "one", &["m5.large"], 1);
    let id = create(&mut cloud, &request, start()).instances[0].instance.clone();
    cloud.interrupt(&id, at(60), SignedDuration::from_secs(10)).unwrap();
    cloud.withdraw_interruption(&id).unwrap();
    cloud.tick(at(1000));
    assert_eq!(cloud.instance(&id).unwrap().state, InstanceState::Running);
    assert!(matches!(cloud.withdraw_interruption(&id), Err(NoticeError::NoSuchNotice { .. })));
}

#[test]
fn on_demand_is_never_interrupted_and_takes_the_lowest_price() {
    let mut cloud = cloud();
    let mut request = request(&mut cloud, "one", &["m5.large", "t3.large"], 1);
    request.capacity_type = CapacityType::OnDemand;
    let launched = create(&mut cloud, &request, start()).instances.remove(0);
    assert_eq!(launched.instance_type, "t3.large");
    assert_eq!(cloud.hourly_cost(), 83_200);
    let lead = SignedDuration::from_secs(120);
    let refused = cloud.interrupt(&launched.instance, at(60), lead);
    assert!(matches!(refused, Err(NoticeError::NotSpot(_))));
}

#[test]
fn a_doomed_launch_dies_by_itself() {
    let mut cloud = cloud();
    cloud.doom_launches(1, SignedDuration::from_secs(3));
    let request = request(&mut cloud, "one", &["m5.large"], 2);
    create(&mut cloud, &request, start());
    cloud.tick(at(3));
    let gone = cloud.instances().filter(|instance| instance.state.is_gone()).count();
    assert_eq!(gone, 1);
}

#[test]
fn buckets_throttle_and_fill_again() {
    let mut cloud = cloud();
    cloud.options.throttle = true;
    let zones = Ec2Call::DescribeAvailabilityZones;
    let done = (0..150).filter(|_| cloud.apply(&zones, at(0)).is_ok()).count();
    assert_eq!(done, 100);
    assert_eq!(cloud.apply(&zones, at(0)).unwrap_err().kind, Ec2FailureKind::Throttled);
    assert_eq!((0..50).filter(|_| cloud.apply(&zones, at(1)).is_ok()).count(), 20);
    assert_eq!(cloud.audit().throttled, 81);
}

#[test]
fn spot_prices_drift_below_on_demand_and_follow_the_seed() {
    let mut cloud = cloud();
    let mut read = |now| match cloud.apply(&Ec2Call::DescribeSpotPriceHistory, now) {
        Ok(Ec2Answer::SpotPrices(prices)) => prices,
        other => panic!("{other:?}"),
    };
    let (early, late) = (read(at(0)), read(at(3 * 3600)));
    assert_ne!(early, late);
    assert_eq!(early, read(at(0)));
    assert!(early.iter().all(|(_, _, price)| *price > 0));
    let large = early.iter().filter(|(name, _, _)| name == "m5.large");
    assert!(large.clone().count() == 6 && large.clone().all(|(_, _, price)| *price < 96_000));
}

#[test]
fn images_and_subnets_are_found_by_the_terms_of_a_node_class() {
    let mut cloud = cloud();
    let tagged = SelectorTerm {
        tags: Tags::from([("karpenter.sh/discovery".to_owned(), "sandbox".to_owned())]),
        ..SelectorTerm::default()
    };
    let Ok(Ec2Answer::Subnets(subnets)) =
        cloud.apply(&Ec2Call::DescribeSubnets(vec![tagged.clone()]), start())
    else {
        panic!("no subnets");
    };
    let zones: Vec<&str> = subnets.iter().map(|subnet| subnet.zone.as_str()).collect();
    assert_eq!(zones[0], "us-east-1a");
    assert_eq!((zones.len(), subnets[0].zone_id.as_str()), (6, "use1-az4"));
    let Ok(Ec2Answer::SecurityGroups(groups)) =
        cloud.apply(&Ec2Call::DescribeSecurityGroups(vec![tagged.clone()]), start())
    else {
        panic!("no groups");
    };
    assert_eq!(groups.len(), 1);
    let name = SelectorTerm {
        name: Some("bottlerocket-aws-k8s-1.34-arm64-*".to_owned()),
        owner: Some("amazon".to_owned()),
        ..SelectorTerm::default()
    };
    let Ok(Ec2Answer::Images(images)) =
        cloud.apply(&Ec2Call::DescribeImages(vec![tagged, name]), start())
    else {
        panic!("no images");
    };
    assert_eq!(images.len(), 4 + 2);
    assert!(images.is_sorted_by(|left, right| left.creation_date >= right.creation_date));
}
