//! What any EC2 must do for the provider.

use std::time::Duration;

use drover_common::ec2::{
    BlockDevice, Ec2Answer, Ec2Call, Ec2FailureKind, FleetOverride, FleetRequest, Instance,
    InstanceQuery, LaunchTemplateRequest, MetadataOptions, SelectorTerm, Tags,
};
use drover_common::id::InstanceId;
use drover_common::instance_type::CapacityType;
use drover_common::labels;
use drover_ec2::{Ec2, Settings, StaticCredentials};
use jiff::Timestamp;

/// How an imitation differs from EC2 in ways that the contract can't see past.
pub(crate) struct Imitation {
    /// A public parameter that holds an image id.
    parameter: &'static str,
    /// What deleting a launch template that is gone fails with; EC2 says that it is not there.
    template_is_gone: Ec2FailureKind,
}

impl Imitation {
    pub(crate) fn sandbox() -> Self {
        Self {
            template_is_gone: Ec2FailureKind::NotFound,
            parameter: "/aws/service/eks/optimized-ami/1.34/amazon-linux-2023/x86_64/standard/recommended/image_id",
        }
    }

    pub(crate) fn moto() -> Self {
        Self {
            // Moto speaks of a missing parameter instead.
            template_is_gone: Ec2FailureKind::Invalid,
            parameter: "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64",
        }
    }
}

pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}

/// A client of an imitation; any key will do.
pub(crate) async fn connect([ec2, ssm, pricing, sqs]: [&str; 4]) -> Ec2 {
    Ec2::connect(Settings {
        region: "us-east-1".to_owned(),
        ec2_endpoint: Some(ec2.to_owned()),
        ssm_endpoint: Some(ssm.to_owned()),
        pricing_endpoint: Some(pricing.to_owned()),
        sqs_endpoint: Some(sqs.to_owned()),
        imds_endpoint: None,
        credentials: Some(StaticCredentials {
            access_key_id: "AKIDTEST".to_owned(),
            secret_access_key: "secret".to_owned(),
        }),
    })
    .await
}

pub(crate) async fn image(ec2: &Ec2, imitation: &Imitation) -> String {
    let call = Ec2Call::GetParameter(imitation.parameter.to_owned());
    match ec2.execute(&call).await {
        Ok(Ec2Answer::Parameter(image)) => image,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn launch_template(name: &str, image: &str) -> LaunchTemplateRequest {
    LaunchTemplateRequest {
        name: name.to_owned(),
        image: image.to_owned(),
        security_groups: Vec::new(),
        instance_profile: Some("nodes".to_owned()),
        user_data: "#!/bin/bash\necho \"<&>\" é\n".to_owned(),
        block_devices: vec![BlockDevice {
            device_name: "/dev/xvda".to_owned(),
            size_gib: Some(20),
            volume_type: Some("gp3".to_owned()),
            encrypted: Some(true),
            delete_on_termination: Some(true),
            ..BlockDevice::default()
        }],
        metadata_options: MetadataOptions {
            http_endpoint: "enabled".to_owned(),
            http_protocol_ipv6: "disabled".to_owned(),
            http_put_response_hop_limit: 1,
            http_tokens: "required".to_owned(),
        },
        detailed_monitoring: false,
        associate_public_ip: None,
        reservation: None,
        tags: Tags::from([(labels::NODEPOOL.to_owned(), "default".to_owned())]),
    }
}

/// Two spot instances of one of two types in one of two zones.
pub(crate) async fn fleet_request(ec2: &Ec2, template: &str, token: &str) -> FleetRequest {
    let Ok(Ec2Answer::Subnets(subnets)) = ec2.execute(&Ec2Call::DescribeSubnets(Vec::new())).await
    else {
        panic!("no subnets");
    };
    let mut subnets: Vec<_> =
        subnets.into_iter().filter(|one| one.zone.as_str() < "us-east-1c").collect();
    subnets.sort_by(|left, right| left.zone.cmp(&right.zone));
    assert_eq!(subnets.len(), 2);
    let overrides = ["m5.large", "m5a.large"].into_iter().flat_map(|instance_type| {
        subnets.iter().map(move |subnet| FleetOverride {
            instance_type: instance_type.to_owned(),
            subnet: subnet.id.clone(),
            zone: subnet.zone.clone(),
            image: None,
        })
    });
    FleetRequest {
        client_token: token.to_owned(),
        launch_template: template.to_owned(),
        overrides: overrides.collect(),
        capacity_type: CapacityType::Spot,
        capacity_block: false,
        prioritized: false,
        count: 2,
        tags: Tags::from([
            (labels::NODEPOOL.to_owned(), "default".to_owned()),
            (labels::INTENT_TAG.to_owned(), token.to_owned()),
            ("Name".to_owned(), "a b&c=d/é".to_owned()),
        ]),
        context: None,
    }
}

/// The whole contract.
pub(crate) async fn holds(ec2: &Ec2, imitation: &Imitation) {
    reads(ec2).await;
    let image = image(ec2, imitation).await;
    let missing = Ec2Call::GetParameter("/no/such/parameter".to_owned());
    let refused = ec2.execute(&missing).await.unwrap_err();
    assert_eq!(refused.kind, Ec2FailureKind::NotFound, "{refused}");
    let template = launch_template("drover-contract", &image);
    let create = Ec2Call::CreateLaunchTemplate(template);
    let made = ec2.execute(&create).await.unwrap();
    assert!(matches!(&made, Ec2Answer::LaunchTemplate(id) if id.starts_with("lt-")));
    assert_eq!(ec2.execute(&create).await.unwrap(), made, "a template is made once");
    let request = fleet_request(ec2, "drover-contract", "contract-1").await;
    launches(ec2, &request).await;
    let of_pool = |name: &str| Tags::from([(labels::NODEPOOL.to_owned(), name.to_owned())]);
    let describe = Ec2Call::DescribeLaunchTemplates(of_pool("default"));
    let shown = ec2.execute(&describe).await.unwrap();
    assert!(
        matches!(&shown, Ec2Answer::LaunchTemplates(found) if found.len() == 1
            && found[0].name == "drover-contract"
            && found[0].tags == of_pool("default")
            && now().duration_since(found[0].created_at).as_secs() < 300),
        "{shown:?}"
    );
    let describe = Ec2Call::DescribeLaunchTemplates(of_pool("another"));
    let shown = ec2.execute(&describe).await.unwrap();
    assert_eq!(shown, Ec2Answer::LaunchTemplates(Vec::new()));
    let delete = Ec2Call::DeleteLaunchTemplate("drover-contract".to_owned());
    assert_eq!(ec2.execute(&delete).await.unwrap(), Ec2Answer::Done);
    let again = ec2.execute(&delete).await.unwrap_err();
    assert_eq!(again.kind, imitation.template_is_gone, "{again}");
}

async fn reads(ec2: &Ec2) {
    let Ok(Ec2Answer::Zones(zones)) = ec2.execute(&Ec2Call::DescribeAvailabilityZones).await else {
        panic!("no zones");
    };
    assert!(zones.iter().any(|(name, id)| name == "us-east-1a" && id.starts_with("use1-az")));
    let Ok(Ec2Answer::InstanceTypes(types)) = ec2.execute(&Ec2Call::DescribeInstanceTypes).await
    else {
        panic!("no types");
    };
    assert!(types.len() > 1000, "{} types: were all pages read?", types.len());
    let large = types.iter().find(|one| one.name == "m5.large").unwrap();
    assert_eq!((large.arch.as_str(), large.vcpus, large.memory_mib), ("amd64", 2, 8192));
    assert_eq!((large.network_interfaces, large.ipv4_per_interface), (3, 10));
    assert_eq!(large.hypervisor, "nitro");
    let gpu = types.iter().find(|one| one.name == "g5.xlarge").and_then(|one| one.gpu.clone());
    let gpu = gpu.unwrap();
    assert_eq!((gpu.name.as_str(), gpu.manufacturer.as_str(), gpu.count), ("a10g", "nvidia", 1));
    let Ok(Ec2Answer::Offerings(offerings)) =
        ec2.execute(&Ec2Call::DescribeInstanceTypeOfferings).await
    else {
        panic!("no offerings");
    };
    assert!(offerings.contains(&("m5.large".to_owned(), "us-east-1a".to_owned())));
    assert!(offerings.len() > 3000, "{} offerings: were all pages read?", offerings.len());
    let prices = ec2.execute(&Ec2Call::DescribeSpotPriceHistory).await;
    assert!(
        matches!(&prices, Ok(Ec2Answer::SpotPrices(rows)) if rows.iter().all(|row| row.2 >= 100)),
        "a placeholder is no price"
    );
    let Ok(Ec2Answer::SecurityGroups(groups)) =
        ec2.execute(&Ec2Call::DescribeSecurityGroups(Vec::new())).await
    else {
        panic!("no groups");
    };
    let (id, name) = groups.first().unwrap();
    let term = SelectorTerm { id: Some(id.clone()), ..SelectorTerm::default() };
    let one = ec2.execute(&Ec2Call::DescribeSecurityGroups(vec![term])).await.unwrap();
    assert_eq!(one, Ec2Answer::SecurityGroups(vec![(id.clone(), name.clone())]));
}

async fn launches(ec2: &Ec2, request: &FleetRequest) {
    let Ok(Ec2Answer::Fleet(answer)) = ec2.execute(&Ec2Call::CreateFleet(request.clone())).await
    else {
        panic!("no fleet");
    };
    assert_eq!((answer.instances.len(), answer.errors.len()), (2, 0), "{answer:?}");
    for launched in &answer.instances {
        assert_eq!(launched.capacity_type, CapacityType::Spot);
        assert!(request.overrides.iter().any(|one| {
            one.instance_type == launched.instance_type
                && one.zone == launched.zone
                && one.subnet == launched.subnet
        }));
    }
    let ids: Vec<InstanceId> =
        answer.instances.iter().map(|launched| launched.instance.clone()).collect();
    let tagged = Tags::from([
        (labels::INTENT_TAG.to_owned(), request.client_token.clone()),
        (labels::NODEPOOL.to_owned(), "*".to_owned()),
    ]);
    let by_tag = InstanceQuery { instances: Vec::new(), tags: tagged };
    let shown = until(ec2, &by_tag, |shown| shown.len() == 2).await;
    for instance in &shown {
        assert!(ids.contains(&instance.instance));
        assert_eq!(instance.capacity_type, CapacityType::Spot);
        assert_eq!(instance.tags["Name"], "a b&c=d/é");
        assert!(instance.private_dns_name.starts_with("ip-"), "{instance:?}");
        assert!(instance.zone.starts_with("us-east-1") && instance.subnet.starts_with("subnet-"));
    }
    let claim = Tags::from([(labels::NODECLAIM_TAG.to_owned(), "default-1".to_owned())]);
    let tag = Ec2Call::CreateTags { instances: ids.clone(), tags: claim.clone() };
    assert_eq!(ec2.execute(&tag).await.unwrap(), Ec2Answer::Done);
    until(ec2, &InstanceQuery { instances: Vec::new(), tags: claim }, |shown| shown.len() == 2)
        .await;
    // An id that EC2 never knew, or has forgotten, keeps nothing else from being done.
    let mut all = ids.clone();
    all.insert(1, InstanceId::from("i-0123456789abcdef0"));
    let end = Ec2Call::TerminateInstances(all.clone());
    assert_eq!(ec2.execute(&end).await.unwrap(), Ec2Answer::Done);
    assert_eq!(ec2.execute(&end).await.unwrap(), Ec2Answer::Done, "twice is no error");
    let by_id = InstanceQuery { instances: all, tags: Tags::new() };
    let gone = |shown: &[Instance]| shown.iter().all(|instance| instance.state.is_gone());
    let shown = until(ec2, &by_id, gone).await;
    assert_eq!(shown.len(), 2, "an unknown id is only absent");
}

/// Describes until it is as wanted: describe calls lag behind.
async fn until(
    ec2: &Ec2,
    query: &InstanceQuery,
    wanted: impl Fn(&[Instance]) -> bool,
) -> Vec<Instance> {
    for _ in 0..100 {
        let Ok(Ec2Answer::Instances(shown)) =
            ec2.execute(&Ec2Call::DescribeInstances(query.clone())).await
        else {
            panic!("no instances");
        };
        if wanted(&shown) {
            return shown;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("EC2 never showed what was wanted of {query:?}");
}
