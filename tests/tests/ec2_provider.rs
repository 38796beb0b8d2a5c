//! The EC2 provider through the AWS SDKs: one contract, tried on the sandbox and on moto, which
//! nobody here wrote; and what only the sandbox imitates, such as idempotency and throttling.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "ec2_provider/contract.rs"]
mod contract;
#[path = "ec2_provider/moto.rs"]
mod moto;
#[path = "ec2_provider/queue.rs"]
mod queue;
#[path = "ec2_provider/reservations.rs"]
mod reservations;

use std::collections::BTreeMap;
use std::io::Write as _;

use contract::{Imitation, connect, fleet_request, launch_template, now};
use drover_common::catalog;
use drover_common::ec2::{
    Ec2Answer, Ec2Call, Ec2FailureKind, FleetAnswer, InstanceQuery, SelectorTerm, Tags,
};
use drover_common::id::InstanceId;
use drover_common::instance_type::CapacityType;
use drover_ec2::Ec2;
use drover_sandbox::world::faults::{Face, Fault, FaultEffect};
use drover_sandbox::{Options, Sandbox};

/// A sandbox whose describe calls do not lag, and a client of it.
async fn sandbox() -> (Sandbox, Ec2) {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let endpoints = sandbox.endpoints();
    let ec2 = connect([&endpoints.ec2, &endpoints.ssm, &endpoints.pricing, &endpoints.sqs]).await;
    (sandbox, ec2)
}

/// A fleet request that the sandbox can fulfil, with its launch template made.
async fn ready(ec2: &Ec2, token: &str) -> drover_common::ec2::FleetRequest {
    let imitation = Imitation::sandbox();
    let image = contract::image(ec2, &imitation).await;
    let template = launch_template("drover-test", &image);
    ec2.execute(&Ec2Call::CreateLaunchTemplate(template)).await.unwrap();
    fleet_request(ec2, "drover-test", token).await
}

fn fault(operation: &str, effect: FaultEffect) -> Fault {
    let operation = operation.to_owned();
    Fault { face: Face::Ec2, operation, effect, probability: 1.0, remaining: Some(1) }
}

fn fleet(answer: Ec2Answer) -> FleetAnswer {
    match answer {
        Ec2Answer::Fleet(answer) => answer,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sandbox_keeps_the_contract() {
    let (_sandbox, ec2) = sandbox().await;
    contract::holds(&ec2, &Imitation::sandbox()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn moto_keeps_the_contract() {
    let moto = match moto::start().await {
        Ok(moto) => moto,
        Err(moto::NoMoto::Broken(why)) => panic!("{why}"),
        Err(moto::NoMoto::Missing(missing)) => {
            let mut uncaptured = std::io::stderr();
            writeln!(uncaptured, "SKIPPED moto_keeps_the_contract: {missing}").unwrap();
            return;
        }
    };
    let ec2 = connect([moto.url.as_str(); 4]).await;
    contract::holds(&ec2, &Imitation::moto()).await;
    queue::holds(&ec2, &moto.url).await;
    // What moto lacks is told from what fails.
    let prices = ec2.execute(&Ec2Call::GetOnDemandPrices).await.unwrap_err();
    assert_eq!(prices.kind, Ec2FailureKind::Unsupported, "{prices}");
    let term = drover_common::ec2::ReservationTerm::default();
    let reservations = Ec2Call::DescribeCapacityReservations(vec![term]);
    let reservations = ec2.execute(&reservations).await.unwrap_err();
    assert_eq!(reservations.kind, Ec2FailureKind::Unsupported, "{reservations}");
}

#[tokio::test(flavor = "multi_thread")]
async fn types_and_prices_arrive_as_the_catalogue_has_them() {
    let (_sandbox, ec2) = sandbox().await;
    let entries = catalog::reference();
    let Ok(Ec2Answer::InstanceTypes(types)) = ec2.execute(&Ec2Call::DescribeInstanceTypes).await
    else {
        panic!("no types");
    };
    assert_eq!(types.len(), entries.len());
    let by_name: BTreeMap<&str, _> = types.iter().map(|one| (one.name.as_str(), one)).collect();
    for entry in &entries {
        assert_eq!(by_name[entry.facts.name.as_str()], &entry.facts);
    }
    let Ok(Ec2Answer::OnDemandPrices(prices)) = ec2.execute(&Ec2Call::GetOnDemandPrices).await
    else {
        panic!("no prices");
    };
    let prices: BTreeMap<String, u64> = prices.into_iter().collect();
    assert_eq!(prices["m5.large"], 96_000);
    let priced = |entry: &catalog::CatalogEntry| {
        entry.offerings.iter().find(|one| one.capacity_type == CapacityType::OnDemand)?.price
    };
    for entry in &entries {
        assert_eq!(prices.get(&entry.facts.name).copied(), priced(entry), "{}", entry.facts.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_launches_nothing_and_another_request_under_its_token_is_an_alarm() {
    let (sandbox, ec2) = sandbox().await;
    let mut request = ready(&ec2, "token-1").await;
    let call = Ec2Call::CreateFleet(request.clone());
    let first = fleet(ec2.execute(&call).await.unwrap());
    assert_eq!(first.instances.len(), 2);
    assert_eq!(fleet(ec2.execute(&call).await.unwrap()), first);
    request.count = 1;
    let refused = ec2.execute(&Ec2Call::CreateFleet(request)).await.unwrap_err();
    assert_eq!(refused.kind, Ec2FailureKind::TokenMismatch);
    let audit = sandbox.world().with(|world, _| world.cloud.audit());
    assert_eq!((audit.launches, audit.token_mismatches), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_unknown_and_its_replay_finds_the_same_instances() {
    let (sandbox, ec2) = sandbox().await;
    let call = Ec2Call::CreateFleet(ready(&ec2, "token-1").await);
    sandbox
        .world()
        .with(|world, _| world.faults.add(fault("CreateFleet", FaultEffect::LostAnswer)));
    let lost = ec2.execute(&call).await.unwrap_err();
    assert_eq!(lost.kind, Ec2FailureKind::Unknown, "{lost}");
    let launched: Vec<InstanceId> = sandbox
        .world()
        .with(|world, _| world.cloud.instances().map(|instance| instance.id.clone()).collect());
    assert_eq!(launched.len(), 2, "it was done, and the SDK did not repeat it");
    let mut replayed: Vec<InstanceId> = fleet(ec2.execute(&call).await.unwrap())
        .instances
        .into_iter()
        .map(|launched| launched.instance)
        .collect();
    replayed.sort();
    assert_eq!(replayed, launched);
    let requests = sandbox.world().with(|world, _| world.cloud.audit().tokens["token-1"].requests);
    assert_eq!(requests, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_have_the_kinds_that_lead_to_the_right_next_step() {
    let (sandbox, ec2) = sandbox().await;
    let call = Ec2Call::CreateFleet(ready(&ec2, "token-1").await);
    for (status, code, kind) in [
        (503, "RequestLimitExceeded", Ec2FailureKind::Throttled),
        (403, "UnauthorizedOperation", Ec2FailureKind::Unauthorized),
        (400, "InvalidAction", Ec2FailureKind::Unsupported),
        (400, "InvalidParameterValue", Ec2FailureKind::Invalid),
        (500, "InternalError", Ec2FailureKind::Unknown),
    ] {
        let code = code.to_owned();
        let effect = FaultEffect::Error { status, code, message: "put in".to_owned() };
        sandbox.world().with(|world, _| world.faults.add(fault("CreateFleet", effect)));
        let failed = ec2.execute(&call).await.unwrap_err();
        assert_eq!((failed.kind, failed.message.as_str()), (kind, "put in"), "{failed}");
    }
    assert_eq!(sandbox.world().with(|world, _| world.cloud.audit().launches), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn buckets_throttle_launches_at_once_and_reads_are_tried_again() {
    let (sandbox, ec2) = sandbox().await;
    let request = ready(&ec2, "token-0").await;
    let mut throttled = 0;
    for attempt in 0..12 {
        let mut request = request.clone();
        request.client_token = format!("token-{attempt}");
        request.count = 1;
        match ec2.execute(&Ec2Call::CreateFleet(request)).await {
            Ok(_) => {}
            Err(failed) if failed.kind == Ec2FailureKind::Throttled => throttled += 1,
            Err(failed) => panic!("{failed}"),
        }
    }
    assert!(throttled > 0, "five may burst and two a second follow");
    let audit = sandbox.world().with(|world, _| world.cloud.audit());
    assert_eq!(audit.throttled, throttled, "a throttled launch is not repeated by the SDK");
    let code = "RequestLimitExceeded".to_owned();
    let effect = FaultEffect::Error { status: 503, code, message: String::new() };
    sandbox.world().with(|world, _| world.faults.add(fault("DescribeSubnets", effect)));
    let subnets = ec2.execute(&Ec2Call::DescribeSubnets(Vec::new())).await;
    assert!(matches!(subnets, Ok(Ec2Answer::Subnets(found)) if found.len() == 6));
}

#[tokio::test(flavor = "multi_thread")]
async fn shortage_is_told_per_offering_and_a_part_may_succeed() {
    let (sandbox, ec2) = sandbox().await;
    let request = ready(&ec2, "token-1").await;
    let admin = &sandbox.endpoints().admin;
    let http = reqwest_client();
    for rule in [r#"{"available": false}"#, r#"{"zone": "us-east-1a", "available": 1}"#] {
        let sent = http
            .post(format!("{admin}/capacity"))
            .header("content-type", "application/json")
            .body(rule)
            .send()
            .await
            .unwrap();
        assert_eq!(sent.status(), 200);
    }
    let answer = fleet(ec2.execute(&Ec2Call::CreateFleet(request)).await.unwrap());
    assert_eq!(answer.instances.len(), 1);
    assert_eq!(answer.instances[0].zone, "us-east-1a");
    assert!(answer.errors.iter().all(|error| error.is_unfulfillable()));
    assert!(answer.errors.iter().any(|error| {
        error.zone.as_deref() == Some("us-east-1b") && error.instance_type.is_some()
    }));
}

#[tokio::test(flavor = "multi_thread")]
async fn on_demand_comes_in_the_order_that_is_asked_for() {
    let (_sandbox, ec2) = sandbox().await;
    for (token, zone) in [("token-1", "us-east-1b"), ("token-2", "us-east-1a")] {
        let mut request = ready(&ec2, token).await;
        request.capacity_type = drover_common::instance_type::CapacityType::OnDemand;
        request.prioritized = true;
        request.overrides.sort_by_key(|one| one.zone != zone);
        let answer = fleet(ec2.execute(&Ec2Call::CreateFleet(request)).await.unwrap());
        let zones: Vec<&str> = answer.instances.iter().map(|one| one.zone.as_str()).collect();
        assert_eq!(zones, [zone, zone]);
    }
}

fn reqwest_client() -> reqwest::Client {
    // The crypto provider is chosen once a process; whoever came first is right.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn describe_lags_behind_a_launch_but_a_tag_and_an_end_do_not_wait() {
    let (sandbox, ec2) = sandbox().await;
    sandbox.world().with(|world, _| {
        world.cloud.options.visible_after = jiff::SignedDuration::from_secs(3600);
    });
    let call = Ec2Call::CreateFleet(ready(&ec2, "token-1").await);
    let launched = fleet(ec2.execute(&call).await.unwrap()).instances.remove(0).instance;
    let query = InstanceQuery { instances: vec![launched.clone()], tags: Tags::new() };
    let seen = ec2.execute(&Ec2Call::DescribeInstances(query)).await.unwrap();
    assert_eq!(seen, Ec2Answer::Instances(Vec::new()), "not yet");
    let tags = Tags::from([("a".to_owned(), "b".to_owned())]);
    let tag = Ec2Call::CreateTags { instances: vec![launched.clone()], tags };
    assert_eq!(ec2.execute(&tag).await.unwrap(), Ec2Answer::Done);
    let end = Ec2Call::TerminateInstances(vec![launched.clone()]);
    assert_eq!(ec2.execute(&end).await.unwrap(), Ec2Answer::Done);
    let gone = sandbox
        .world()
        .with(|world, _| world.cloud.instance(&launched).map(|instance| instance.state.is_gone()));
    assert_eq!(gone, Some(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn images_of_every_family_are_found_by_parameter_and_by_name() {
    let (_sandbox, ec2) = sandbox().await;
    for path in [
        "/aws/service/eks/optimized-ami/1.34/amazon-linux-2023/x86_64/standard/recommended/image_id",
        "/aws/service/eks/optimized-ami/1.34/amazon-linux-2023/arm64/standard/recommended/image_id",
        "/aws/service/eks/optimized-ami/1.32/amazon-linux-2/recommended/image_id",
        "/aws/service/bottlerocket/aws-k8s-1.34/x86_64/latest/image_id",
        "/aws/service/bottlerocket/aws-k8s-1.34-nvidia/arm64/latest/image_id",
        "/aws/service/ami-windows-latest/Windows_Server-2022-English-Core-EKS_Optimized-1.34/image_id",
    ] {
        let parameter = ec2.execute(&Ec2Call::GetParameter(path.to_owned())).await;
        let Ok(Ec2Answer::Parameter(id)) = parameter else { panic!("{path}: {parameter:?}") };
        let term = SelectorTerm { id: Some(id.clone()), ..SelectorTerm::default() };
        let images = ec2.execute(&Ec2Call::DescribeImages(vec![term])).await.unwrap();
        assert!(
            matches!(&images, Ec2Answer::Images(found) if found.len() == 1 && found[0].id == id)
        );
    }
    let term = SelectorTerm {
        name: Some("amazon-eks-node-al2023-*-standard-1.34-*".to_owned()),
        ..SelectorTerm::default()
    };
    let Ok(Ec2Answer::Images(images)) = ec2.execute(&Ec2Call::DescribeImages(vec![term])).await
    else {
        panic!("no images");
    };
    assert_eq!(images.len(), 4, "two releases for two architectures");
    assert!(images[0].creation_date > images[3].creation_date && images[0].creation_date < now());
}
