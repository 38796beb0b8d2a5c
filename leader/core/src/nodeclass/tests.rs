use std::collections::BTreeMap;

use drover_common::crd::{Condition, ConditionStatus, Ec2NodeClass, NodePool};
use drover_common::ec2::{Ec2Answer, Ec2Call, Ec2Failure, Ec2FailureKind, Image, Subnet, Tags};
use drover_common::instance_type::{CapacityType, InstanceTypeFacts};
use drover_common::resources::ResourceName;
use drover_common::taint::{Taint, TaintEffect};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;

mod reservations;

fn class(spec: Value) -> Ec2NodeClass {
    let mut object = json!({
        "metadata": {"name": "default", "generation": 3},
        "spec": {
            "role": "node-role",
            "subnetSelectorTerms": [{"tags": {"discovery": "c"}}],
            "securityGroupSelectorTerms": [{"tags": {"discovery": "c"}}],
            "amiSelectorTerms": [{"alias": "al2023@latest"}],
        },
    });
    let (Some(Value::Object(target)), Value::Object(fields)) = (object.get_mut("spec"), spec)
    else {
        panic!("specs are objects");
    };
    target.extend(fields);
    serde_json::from_value(object).unwrap()
}

fn cluster() -> ClusterSettings {
    ClusterSettings {
        name: "demo".to_owned(),
        endpoint: "https://api.example".to_owned(),
        ca_bundle: "Q0E=".to_owned(),
        kubernetes_version: "1.34".to_owned(),
        service_cidr: Some("10.100.0.0/16".to_owned()),
    }
}

fn node() -> NodeRegistration {
    NodeRegistration {
        labels: BTreeMap::from([
            ("karpenter.sh/nodepool".to_owned(), "default".to_owned()),
            ("node-role.kubernetes.io/worker".to_owned(), String::new()),
            ("team".to_owned(), "a".to_owned()),
        ]),
        taints: vec![Taint {
            key: "gpu".to_owned(),
            value: "yes".to_owned(),
            effect: TaintEffect::NoSchedule,
        }],
    }
}

fn image(id: &str, architecture: &str, day: i64) -> Image {
    Image {
        id: id.to_owned(),
        name: format!("name-{id}"),
        architecture: architecture.to_owned(),
        creation_date: Timestamp::from_second(day * 86_400).unwrap(),
        deprecated: false,
    }
}

/// A cloud that knows two subnets, one group, and the standard and GPU images of a family.
fn answer(call: &Ec2Call) -> Result<Ec2Answer, Ec2Failure> {
    let subnet = |id: &str, zone: &str, free| Subnet {
        id: id.to_owned(),
        zone: zone.to_owned(),
        zone_id: format!("id-{zone}"),
        available_addresses: free,
    };
    let missing = || Ec2Failure {
        kind: Ec2FailureKind::NotFound,
        code: "ParameterNotFound".to_owned(),
        message: "no".to_owned(),
    };
    Ok(match call {
        Ec2Call::DescribeSubnets(_) => Ec2Answer::Subnets(vec![
            subnet("subnet-1", "a", 10),
            subnet("subnet-2", "b", 200),
            subnet("subnet-3", "a", 100),
        ]),
        Ec2Call::DescribeSecurityGroups(_) => {
            Ec2Answer::SecurityGroups(vec![("sg-1".to_owned(), "nodes".to_owned())])
        }
        Ec2Call::GetParameter(name) if name.contains("x86_64/standard") => {
            Ec2Answer::Parameter("ami-amd".to_owned())
        }
        Ec2Call::GetParameter(name) if name.contains("arm64/standard") => {
            Ec2Answer::Parameter("ami-arm".to_owned())
        }
        Ec2Call::GetParameter(name) if name.contains("x86_64/nvidia") => {
            Ec2Answer::Parameter("ami-gpu".to_owned())
        }
        Ec2Call::GetParameter(_) => return Err(missing()),
        Ec2Call::DescribeImages(terms) => Ec2Answer::Images(
            [
                image("ami-amd", "amd64", 1),
                image("ami-arm", "arm64", 2),
                image("ami-gpu", "amd64", 3),
            ]
            .into_iter()
            .filter(|image| terms.iter().any(|term| term.id.as_ref() == Some(&image.id)))
            .collect(),
        ),
        _ => Ec2Answer::Done,
    })
}

fn answers(
    class: &Ec2NodeClass,
    answer: impl Fn(&Ec2Call) -> Result<Ec2Answer, Ec2Failure>,
) -> ClassAnswers {
    let mut answers = ClassAnswers::default();
    for _ in 0..4 {
        for call in class_calls(class, &cluster(), &answers) {
            assert!(answers.record(&call, &answer(&call)), "{call:?}");
        }
    }
    assert_eq!(class_calls(class, &cluster(), &answers), []);
    answers
}

fn resolved(class: &Ec2NodeClass) -> ResolvedClass {
    resolve(class, &cluster(), &answers(class, answer), Timestamp::UNIX_EPOCH)
}

#[test]
fn an_alias_is_resolved_through_parameters_to_images_by_architecture() {
    let class = class(json!({}));
    let resolved = resolved(&class);
    assert!(resolved.is_ready(), "{:?}", resolved.conditions);
    insta::assert_snapshot!(serde_json::to_string_pretty(&resolved.status).unwrap());
    assert_eq!(resolved.subnet("a").unwrap().id, "subnet-3");
}

#[test]
fn what_is_not_found_is_said() {
    let nothing = |call: &Ec2Call| {
        Ok(match call {
            Ec2Call::DescribeSubnets(_) => Ec2Answer::Subnets(Vec::new()),
            Ec2Call::DescribeSecurityGroups(_) => Ec2Answer::SecurityGroups(Vec::new()),
            Ec2Call::DescribeImages(_) => Ec2Answer::Images(Vec::new()),
            other => return answer(other),
        })
    };
    let class = class(json!({"cpuOptions": {"nestedVirtualization": "enabled"}}));
    let resolved = resolve(&class, &cluster(), &answers(&class, nothing), Timestamp::UNIX_EPOCH);
    assert!(!resolved.is_ready());
    let said: Vec<String> = resolved
        .conditions
        .iter()
        .map(|c| format!("{} {:?} {}: {}", c.type_, c.status, c.reason, c.message))
        .collect();
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn a_failed_call_leaves_its_condition_unknown() {
    let throttled = |call: &Ec2Call| match call {
        Ec2Call::DescribeSubnets(_) => Err(Ec2Failure {
            kind: Ec2FailureKind::Throttled,
            code: "RequestLimitExceeded".to_owned(),
            message: "slow down".to_owned(),
        }),
        other => answer(other),
    };
    let class = class(json!({}));
    let answers = answers(&class, throttled);
    assert_eq!(answers.failures().keys().collect::<Vec<_>>(), ["DescribeSubnets"]);
    let resolved = resolve(&class, &cluster(), &answers, Timestamp::UNIX_EPOCH);
    let status = |type_| Condition::find(&resolved.conditions, type_).unwrap().status;
    assert_eq!(status("SubnetsReady"), ConditionStatus::Unknown);
    assert_eq!(status("Ready"), ConditionStatus::Unknown);
    assert_eq!(status("AMIsReady"), ConditionStatus::True);
}

#[test]
fn aliases_name_awss_parameters() {
    let mut names = Vec::new();
    for alias in ["al2023@v20260818", "al2@latest", "bottlerocket@v1.48.0", "windows2022@latest"] {
        let class = class(json!({"amiSelectorTerms": [{"alias": alias}]}));
        for call in class_calls(&class, &cluster(), &ClassAnswers::default()) {
            if let Ec2Call::GetParameter(name) = call {
                names.push(name);
            }
        }
    }
    insta::assert_snapshot!(names.join("\n"));
}

#[test]
fn images_of_terms_are_the_newest_by_architecture() {
    let class = class(json!({
        "amiFamily": "AL2023",
        "amiSelectorTerms": [{"name": "mine-*"}, {"id": "ami-1"}],
    }));
    let images = |call: &Ec2Call| match call {
        Ec2Call::DescribeImages(terms) => {
            let owners: Vec<Option<&str>> = terms.iter().map(|t| t.owner.as_deref()).collect();
            assert_eq!(owners, [Some("self"), Some("amazon"), None]);
            let mut old = image("ami-deprecated", "arm64", 9);
            old.deprecated = true;
            Ok(Ec2Answer::Images(vec![
                image("ami-old", "amd64", 1),
                image("ami-new", "amd64", 2),
                old,
                image("ami-arm", "arm64", 1),
            ]))
        }
        other => answer(other),
    };
    let resolved = resolve(&class, &cluster(), &answers(&class, images), Timestamp::UNIX_EPOCH);
    let ids: Vec<&str> = resolved.images.iter().map(|image| image.image.id.as_str()).collect();
    assert_eq!(ids, ["ami-new", "ami-arm"]);
}

fn facts(name: &str, arch: &str) -> InstanceTypeFacts {
    InstanceTypeFacts {
        name: name.to_owned(),
        arch: arch.to_owned(),
        vcpus: 2,
        memory_mib: 8192,
        network_interfaces: 3,
        ipv4_per_interface: 10,
        spot: true,
        ..InstanceTypeFacts::default()
    }
}

fn cloud() -> CloudFacts {
    let mut cloud = CloudFacts::default();
    let mut gpu = facts("g5.xlarge", "amd64");
    gpu.gpu = Some(drover_common::instance_type::GpuFacts {
        name: "a10g".to_owned(),
        manufacturer: "amd".to_owned(),
        count: 1,
        memory_mib: 24_576,
    });
    let types = vec![facts("m5.large", "amd64"), facts("m7g.large", "arm64"), gpu];
    let offered = ["m5.large", "m7g.large", "g5.xlarge"]
        .into_iter()
        .flat_map(|name| ["a", "b", "c"].map(|zone| (name.to_owned(), zone.to_owned())))
        .collect();
    let spot = vec![
        ("m5.large".to_owned(), "a".to_owned(), 40_000),
        ("m5.large".to_owned(), "b".to_owned(), 10),
    ];
    cloud.record(&Ec2Call::DescribeInstanceTypes, &Ec2Answer::InstanceTypes(types));
    cloud.record(&Ec2Call::DescribeInstanceTypeOfferings, &Ec2Answer::Offerings(offered));
    cloud.record(&Ec2Call::DescribeSpotPriceHistory, &Ec2Answer::SpotPrices(spot));
    assert!(!cloud.record(&Ec2Call::DescribeSubnets(Vec::new()), &Ec2Answer::Done));
    cloud
}

fn flags() -> CatalogFlags {
    CatalogFlags {
        region: "us-east-1".to_owned(),
        vm_memory_overhead_ppm: 75_000,
        reserved_enis: 0,
    }
}

#[test]
fn a_catalogue_has_types_with_image_and_subnet() {
    let class = class(json!({"kubelet": {"maxPods": 20}}));
    let mut cloud = cloud();
    let estimated = catalog(&class, &resolved(&class), &cloud, &flags());
    assert!(estimated.estimated);
    cloud.record(
        &Ec2Call::GetOnDemandPrices,
        &Ec2Answer::OnDemandPrices(vec![("m5.large".to_owned(), 96_000)]),
    );
    let catalog = catalog(&class, &resolved(&class), &cloud, &flags());
    assert!(!catalog.estimated);
    let names: Vec<&str> = catalog.instance_types.iter().map(|kind| kind.name.as_str()).collect();
    // No image has drivers for an AMD GPU.
    assert_eq!(names, ["m5.large", "m7g.large"]);
    let m5 = &catalog.instance_types[0];
    assert_eq!(m5.capacity.get(&ResourceName::Pods), 20);
    let offerings: Vec<_> = m5
        .offerings
        .iter()
        .map(|offering| (offering.zone.as_str(), offering.capacity_type, offering.price))
        .collect();
    use CapacityType::{OnDemand, Spot};
    assert_eq!(
        offerings,
        [
            ("a", Spot, Some(40_000)),
            ("a", OnDemand, Some(96_000)),
            // An absurd price is no price.
            ("b", Spot, None),
            ("b", OnDemand, Some(96_000)),
        ]
    );
    assert_eq!(catalog.instance_types[1].offerings[1].price, None);
    let estimate = |name: &str| {
        let kind = estimated.instance_types.iter().find(|kind| kind.name == name).unwrap();
        kind.offerings[1].price
    };
    assert!(estimate("m5.large").unwrap() > estimate("m7g.large").unwrap());
}

#[test]
fn the_disk_that_counts_is_marked_or_the_familys() {
    let disks = json!([
        {"deviceName": "/dev/xvda", "ebs": {"volumeSize": "4Gi"}},
        {"deviceName": "/dev/xvdb", "ebs": {"volumeSize": "1T"}},
        {"deviceName": "/dev/xvdc", "ebs": {"volumeSize": "7Gi"}},
    ]);
    let mut marked = disks.clone();
    marked[2]["rootVolume"] = json!(true);
    for (family, disks, gib) in [
        ("AL2023", json!([]), 20),
        ("Windows2022", json!([]), 50),
        ("AL2023", disks.clone(), 4),
        ("Bottlerocket", disks.clone(), 932),
        ("Custom", disks, 7),
        ("AL2", marked, 7),
    ] {
        let class = class(json!({
            "amiFamily": family, "amiSelectorTerms": [{"id": "ami-1"}], "blockDeviceMappings": disks,
        }));
        assert_eq!(node_settings(&class.spec, &flags()).root_volume_gib, gib, "{family}");
    }
}

fn user_data(spec: Value) -> Result<String, UserDataError> {
    let class = class(spec);
    let resolved = resolved(&class);
    launch_template(&class, &resolved, "ami-1", &node(), &cluster(), &Tags::new(), None)
        .map(|request| request.user_data)
}

fn kubelet() -> Value {
    json!({
        "clusterDNS": ["10.100.0.10"],
        "maxPods": 29,
        "kubeReserved": {"cpu": "100m"},
        "evictionHard": {"memory.available": "5%"},
        "evictionSoft": {"memory.available": "10%"},
        "evictionSoftGracePeriod": {"memory.available": "1m"},
        "imageGCHighThresholdPercent": 85,
        "cpuCFSQuota": false,
    })
}

#[test]
fn user_data_of_amazon_linux_2023() {
    let mut kubelet = kubelet();
    kubelet["topologyManagerPolicy"] = json!("best-effort");
    insta::assert_snapshot!(
        user_data(json!({
            "userData": "#!/bin/bash\necho hello\n",
            "kubelet": kubelet,
            "instanceStorePolicy": "RAID0",
        }))
        .unwrap()
    );
}

#[test]
fn user_data_archives_are_taken_apart_and_put_together() {
    let own = "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"BOUNDARY\"\r\n\r\n\
               --BOUNDARY\r\nContent-Type: text/x-shellscript; charset=\"us-ascii\"\r\n\r\n\
               #!/bin/sh\r\necho one\r\n\r\n\
               --BOUNDARY\r\nContent-Type: application/node.eks.aws\r\n\r\n\
               apiVersion: node.eks.aws/v1alpha1\r\nkind: NodeConfig\r\n--BOUNDARY--\r\n";
    insta::assert_snapshot!(user_data(json!({"userData": own})).unwrap());
    assert_eq!(user_data(json!({"userData": "MIME-Version: 1.0\n"})), Err(UserDataError::Boundary));
}

#[test]
fn user_data_of_amazon_linux_2() {
    insta::assert_snapshot!(
        user_data(json!({
            "amiSelectorTerms": [{"alias": "al2@latest"}],
            "userData": "echo hello",
            "kubelet": kubelet(),
        }))
        .unwrap()
    );
}

#[test]
fn user_data_of_bottlerocket() {
    insta::assert_snapshot!(
        user_data(json!({
            "amiSelectorTerms": [{"alias": "bottlerocket@latest"}],
            "userData": "[settings.kubernetes]\nmax-pods = 110\nstatic-pods = {}\n\n\
                         [settings.kubernetes.node-labels]\nown = \"label\"\n\n\
                         [settings.host-containers.admin]\nenabled = true # for debugging\n",
            "kubelet": kubelet(),
            "instanceStorePolicy": "RAID0",
        }))
        .unwrap()
    );
    let bottlerocket = |text: &str| {
        user_data(json!({"amiSelectorTerms": [{"alias": "bottlerocket@latest"}], "userData": text}))
    };
    assert!(matches!(bottlerocket("[broken"), Err(UserDataError::Toml(_))));
    assert_eq!(bottlerocket("settings = 1"), Err(UserDataError::NotATable("settings".to_owned())));
    // Written inline, it is still a table.
    let inline = bottlerocket("settings = { kubernetes = { max-pods = 5 } }").unwrap();
    assert!(inline.contains("max-pods = 5") && inline.contains("demo"), "{inline}");
}

#[test]
fn user_data_that_cannot_be_merged_keeps_a_class_from_being_ready() {
    for (text, reason) in [
        ("[broken".to_owned(), "UnsupportedConfiguration"),
        ("# long\n".repeat(2_340), "UserDataSizeLimitExceeded"),
    ] {
        let class = class(json!({
            "amiSelectorTerms": [{"alias": "bottlerocket@latest"}], "userData": text,
        }));
        let resolved = resolved(&class);
        let condition = Condition::find(&resolved.conditions, "ValidationSucceeded").unwrap();
        assert_eq!(condition.status, ConditionStatus::False);
        assert_eq!(condition.reason, reason);
        assert!(condition.message.starts_with("spec.userData: "), "{}", condition.message);
    }
}

#[test]
fn user_data_of_windows() {
    insta::assert_snapshot!(
        user_data(json!({
            "amiSelectorTerms": [{"alias": "windows2022@latest"}],
            "userData": "<powershell>\nWrite-Host hello\n</powershell>",
            "kubelet": kubelet(),
        }))
        .unwrap()
    );
}

#[test]
fn user_data_of_custom_images_is_untouched() {
    let own = "\tanything\r\n";
    let spec = json!({
        "amiFamily": "Custom", "amiSelectorTerms": [{"id": "ami-1"}], "userData": own,
    });
    assert_eq!(user_data(spec).unwrap(), own);
}

#[test]
fn equal_templates_have_equal_names() {
    let class = class(json!({}));
    let resolved = resolved(&class);
    let tags = resource_tags(&class, &cluster(), Some("default"));
    let make = |image: &str, node: &NodeRegistration| {
        launch_template(&class, &resolved, image, node, &cluster(), &tags, None).unwrap()
    };
    let one = make("ami-1", &node());
    assert_eq!(one, make("ami-1", &node()));
    assert!(one.name.starts_with("karpenter.k8s.aws/"), "{}", one.name);
    assert_ne!(one.name, make("ami-2", &node()).name);
    assert_ne!(one.name, make("ami-1", &NodeRegistration::default()).name);
    assert_eq!(one.instance_profile.as_deref(), Some("node-role"));
    assert_eq!(one.block_devices[0].size_gib, Some(20));
    insta::assert_snapshot!(serde_json::to_string_pretty(&one.tags).unwrap());
}

#[test]
fn hashes_follow_what_is_static() {
    let hash = |spec: Value| node_class_hash(&class(spec));
    let plain = hash(json!({}));
    assert_eq!(plain, hash(json!({"subnetSelectorTerms": [{"id": "subnet-9"}]})));
    assert_eq!(plain, hash(json!({"amiFamily": "AL2023"})));
    assert_eq!(plain, hash(json!({"detailedMonitoring": false})), "the API server's default");
    assert_ne!(plain, hash(json!({"detailedMonitoring": true})));
    assert_ne!(plain, hash(json!({"amiSelectorTerms": [{"alias": "al2@latest"}]})));
    assert_ne!(plain, hash(json!({"kubelet": {"maxPods": 3}})));

    let pool = |template: Value, weight: i32| -> NodePool {
        serde_json::from_value(json!({
            "metadata": {"name": "p"}, "spec": {"weight": weight, "template": {"spec": template}},
        }))
        .unwrap()
    };
    let reference = json!({"group": "g", "kind": "k", "name": "n"});
    let taint = |key: &str| json!({"key": key, "effect": "NoSchedule"});
    let base =
        json!({"requirements": [], "nodeClassRef": reference, "taints": [taint("a"), taint("b")]});
    let mut moved = base.clone();
    moved["taints"] = json!([taint("b"), taint("a")]);
    moved["requirements"] = json!([{"key": "x", "operator": "Exists"}]);
    let mut changed = base.clone();
    changed["expireAfter"] = json!("Never");
    let base = node_pool_hash(&pool(base, 1));
    assert_eq!(base, node_pool_hash(&pool(moved, 2)));
    assert_ne!(base, node_pool_hash(&pool(changed, 1)));
}
