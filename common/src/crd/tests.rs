use serde_json::{Value, json};

use super::*;

/// The schema of a kind's only version.
fn schema(definition: &Value) -> &Value {
    &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
}

fn walk(value: &Value, path: &str, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, value);
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(key, value)| walk(value, &format!("{path}.{key}"), visit));
        }
        Value::Array(list) => {
            list.iter()
                .enumerate()
                .for_each(|(index, value)| walk(value, &format!("{path}[{index}]"), visit));
        }
        _ => {}
    }
}

#[test]
fn definitions_are_named_as_karpenters() {
    let [pool, claim, class, ..]: [Value; 5] = values().try_into().unwrap();
    assert_eq!(pool["metadata"]["name"], "nodepools.karpenter.sh");
    assert_eq!(claim["metadata"]["name"], "nodeclaims.karpenter.sh");
    assert_eq!(class["metadata"]["name"], "ec2nodeclasses.karpenter.k8s.aws");
    assert_eq!(class["spec"]["names"]["kind"], "EC2NodeClass");
    assert_eq!(class["spec"]["names"]["shortNames"], json!(["ec2nc", "ec2ncs"]));
    for definition in [&pool, &claim, &class] {
        assert_eq!(definition["spec"]["names"]["categories"], json!(["karpenter"]));
        assert_eq!(definition["spec"]["scope"], "Cluster");
        assert_eq!(definition["spec"]["versions"][0]["subresources"]["status"], json!({}));
    }
    assert_eq!(
        pool["spec"]["versions"][0]["subresources"]["scale"],
        json!({"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.nodes"})
    );
    assert_eq!(all().len(), 5);
}

#[test]
fn wide_columns_have_a_priority() {
    let columns = |definition: &Value| -> Vec<(String, i64)> {
        definition["spec"]["versions"][0]["additionalPrinterColumns"]
            .as_array()
            .unwrap()
            .iter()
            .map(|column| {
                let priority = column["priority"].as_i64().unwrap_or(0);
                (column["name"].as_str().unwrap().to_owned(), priority)
            })
            .collect()
    };
    let [pool, claim, class, ..]: [Value; 5] = values().try_into().unwrap();
    let named = |expected: &[(&str, i64)]| -> Vec<(String, i64)> {
        expected.iter().map(|(name, wide)| ((*name).to_owned(), *wide)).collect()
    };
    let expected = [
        ("NodeClass", 0),
        ("Nodes", 0),
        ("Ready", 0),
        ("Age", 0),
        ("Weight", 1),
        ("CPU", 1),
        ("Memory", 1),
    ];
    assert_eq!(columns(&pool), named(&expected));
    assert_eq!(columns(&class), named(&[("Ready", 0), ("Age", 0), ("Role", 1)]));
    let expected = [
        ("Type", 0),
        ("Capacity", 0),
        ("Zone", 0),
        ("Node", 0),
        ("Ready", 0),
        ("Age", 0),
        ("ImageID", 1),
        ("ID", 1),
        ("NodePool", 1),
        ("NodeClass", 1),
        ("Drifted", 1),
    ];
    assert_eq!(columns(&claim), named(&expected));
}

#[test]
fn schemas_are_structural() {
    for definition in values() {
        walk(schema(&definition), "", &mut |path, value| {
            let Value::Object(map) = value else { return };
            let is_schema = !path.ends_with("properties")
                && (path.is_empty()
                    || path.ends_with("items")
                    || path.ends_with("additionalProperties")
                    || path
                        .rsplit_once('.')
                        .is_some_and(|(parent, _)| parent.ends_with("properties")));
            if !is_schema {
                return;
            }
            let int_or_string = map.get("x-kubernetes-int-or-string") == Some(&json!(true));
            let preserved = map.get("x-kubernetes-preserve-unknown-fields") == Some(&json!(true));
            assert!(
                map.get("type").is_some_and(Value::is_string) || int_or_string || preserved,
                "{path} has no type: {value}"
            );
            let values = map.get("enum").and_then(Value::as_array);
            assert!(
                values.is_none_or(|values| !values.contains(&Value::Null)),
                "{path} has a null"
            );
            for banned in ["$ref", "$defs", "nullable", "oneOf", "anyOf", "const", "title"] {
                assert!(!map.contains_key(banned), "{path} has {banned}");
            }
        });
    }
}

#[test]
fn defaults_are_karpenters() {
    let [pool, claim, class, ..]: [Value; 5] = values().try_into().unwrap();
    let at = |definition: &Value, path: &str| {
        schema(definition).pointer(path).cloned().unwrap_or_else(|| panic!("no {path}"))
    };
    let disruption = "/properties/spec/properties/disruption";
    assert_eq!(at(&pool, &format!("{disruption}/default")), json!({"consolidateAfter": "0s"}));
    for (field, default) in [
        ("consolidateAfter", json!("0s")),
        ("consolidationPolicy", json!("WhenEmptyOrUnderutilized")),
        ("budgets", json!([{"nodes": "10%"}])),
    ] {
        assert_eq!(at(&pool, &format!("{disruption}/properties/{field}/default")), default);
    }
    assert_eq!(
        at(&pool, &format!("{disruption}/properties/budgets/items/properties/nodes/default")),
        json!("10%")
    );
    let template = "/properties/spec/properties/template/properties/spec/properties";
    assert_eq!(at(&pool, &format!("{template}/expireAfter/default")), json!("720h"));
    assert_eq!(at(&pool, "/properties/status/properties/nodes/default"), json!(0));
    assert_eq!(at(&claim, "/properties/spec/properties/expireAfter/default"), json!("720h"));
    assert_eq!(at(&class, "/properties/spec/properties/detailedMonitoring/default"), json!(false));
    assert_eq!(
        at(&class, "/properties/spec/properties/metadataOptions/default"),
        json!({
            "httpEndpoint": "enabled",
            "httpProtocolIPv6": "disabled",
            "httpPutResponseHopLimit": 1,
            "httpTokens": "required",
        })
    );
}

#[test]
fn manifests_are_written_back_as_they_were() {
    let pool = json!({
        "apiVersion": "karpenter.sh/v1",
        "kind": "NodePool",
        "metadata": {"name": "default"},
        "spec": {
            "weight": 10,
            "limits": {"cpu": 1000, "memory": "1000Gi", "nvidia.com/gpu": "8"},
            "disruption": {
                "consolidateAfter": "Never",
                "consolidationPolicy": "WhenEmpty",
                "budgets": [
                    {"nodes": "10%"},
                    {"nodes": "0", "reasons": ["Drifted"], "schedule": "@daily", "duration": "10m0s"},
                ],
            },
            "template": {
                "metadata": {"labels": {"team": "a"}, "annotations": {"note": "b"}},
                "spec": {
                    "taints": [{"key": "gpu", "value": "true", "effect": "NoSchedule"}],
                    "startupTaints": [{"key": "boot", "effect": "NoExecute"}],
                    "requirements": [
                        {"key": "kubernetes.io/arch", "operator": "In", "values": ["arm64"]},
                        {"key": "karpenter.k8s.aws/instance-cpu", "operator": "Gte", "values": ["4"]},
                        {"key": "node.kubernetes.io/instance-type", "operator": "Exists", "minValues": 5},
                    ],
                    "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default"},
                    "terminationGracePeriod": "1h30m",
                    "expireAfter": "90m",
                },
            },
        },
    });
    let read: NodePool = serde_json::from_value(pool.clone()).unwrap();
    assert_eq!(validate_node_pool(&read), []);
    assert_eq!(serde_json::to_value(&read).unwrap(), pool);
}

#[test]
fn a_class_is_written_back_as_it_was() {
    let class = json!({
        "apiVersion": "karpenter.k8s.aws/v1",
        "kind": "EC2NodeClass",
        "metadata": {"name": "default"},
        "spec": {
            "subnetSelectorTerms": [{"tags": {"karpenter.sh/discovery": "c"}}, {"id": "subnet-1"}],
            "securityGroupSelectorTerms": [{"name": "nodes"}],
            "capacityReservationSelectorTerms": [{"ownerID": "012345678901", "tags": {"a": "*"}, "instanceMatchCriteria": "open"}],
            "placementGroupSelector": {"name": "p"},
            "associatePublicIPAddress": false,
            "ipPrefixCount": 2,
            "amiSelectorTerms": [{"alias": "bottlerocket@v1.20.0"}],
            "userData": "[settings]\n",
            "role": "node",
            "tags": {"team": "a"},
            "kubelet": {
                "clusterDNS": ["10.0.0.10"],
                "maxPods": 20,
                "podsPerCore": 2,
                "systemReserved": {"cpu": "100m"},
                "kubeReserved": {"memory": "1Gi"},
                "evictionHard": {"memory.available": "5%"},
                "evictionSoft": {"memory.available": "500Mi"},
                "evictionSoftGracePeriod": {"memory.available": "1m"},
                "evictionMaxPodGracePeriod": 60,
                "imageGCHighThresholdPercent": 85,
                "imageGCLowThresholdPercent": 80,
                "cpuCFSQuota": true,
            },
            "blockDeviceMappings": [{
                "deviceName": "/dev/xvda",
                "rootVolume": true,
                "ebs": {
                    "volumeSize": "100Gi", "volumeType": "gp3", "iops": 3000, "throughput": 125,
                    "encrypted": true, "kmsKeyID": "k", "deleteOnTermination": true,
                    "snapshotID": "snap-1", "volumeInitializationRate": 200,
                },
            }],
            "instanceStorePolicy": "RAID0",
            "networkInterfaces": [{"networkCardIndex": 0, "deviceIndex": 0, "interfaceType": "interface"}],
            "detailedMonitoring": true,
            "metadataOptions": {
                "httpEndpoint": "enabled", "httpProtocolIPv6": "enabled",
                "httpPutResponseHopLimit": 2, "httpTokens": "optional",
            },
            "connectionTracking": {"udpTimeout": 45},
            "context": "fleet",
            "cpuOptions": {"nestedVirtualization": "enabled"},
        },
    });
    let read: Ec2NodeClass = serde_json::from_value(class.clone()).unwrap();
    assert_eq!(validate_node_class(&read), []);
    assert_eq!(serde_json::to_value(&read).unwrap(), class);
    assert_eq!(read.spec.family(), Some(AmiFamily::Bottlerocket));
    assert_eq!(read.spec.alias(), Some((AmiFamily::Bottlerocket, "v1.20.0")));
}

#[test]
fn errors_name_field_and_reason() {
    let pool: NodePool = serde_json::from_value(json!({
        "metadata": {"name": "bad"},
        "spec": {
            "limits": {"cpu": "ten"},
            "disruption": {
                "consolidateAfter": "soon",
                "budgets": [{"nodes": "10%"}, {"nodes": "200%", "schedule": "nightly", "duration": "1h"}],
            },
            "template": {"metadata": {"labels": {"my.karpenter.k8s.aws/rack": "r", "rack": "r"}}, "spec": {
                "taints": [{"key": "a", "effect": "NoSchedule"}],
                "startupTaints": [{"key": "a", "effect": "NoSchedule"}],
                "requirements": [
                    {"key": "karpenter.sh/nodepool", "operator": "Exists"},
                    {"key": "karpenter.sh/initialized", "operator": "Exists"},
                    {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["cheap"]},
                    {"key": "karpenter.k8s.aws/instance-cpu", "operator": "Gt", "values": ["-1"]},
                    {"key": "", "operator": "In", "values": ["spot"]},
                    {"key": "team", "operator": "Exists", "minValues": 51},
                ],
                "nodeClassRef": {"group": "g", "kind": "k", "name": "n"},
                "expireAfter": "1d",
                "terminationGracePeriod": "Never",
            }},
        },
    }))
    .unwrap();
    let errors: Vec<String> = validate_node_pool(&pool).iter().map(FieldError::to_string).collect();
    insta::assert_snapshot!(errors.join("\n"));
}

/// The same keys as the CEL rules of the CRD.
#[test]
fn keys_of_karpenters_own_domains_are_restricted() {
    for (key, restricted) in [
        ("karpenter.sh/capacity-type", false),
        ("karpenter.sh/nodepool", true),
        ("karpenter.sh", true),
        ("a.karpenter.sh/x", true),
        ("karpenter.sh.example.com/x", false),
        ("example.com/karpenter.sh", false),
        ("karpenter.k8s.aws/ec2nodeclass", false),
        ("karpenter.k8s.aws/instance-family", false),
        ("karpenter.k8s.aws/rack", true),
        ("a.karpenter.k8s.aws/instance-family", true),
        ("kubernetes.io/hostname", true),
        ("kubernetes.io/arch", false),
        ("team", false),
    ] {
        assert_eq!(crate::labels::is_restricted(key), restricted, "{key}");
    }
    let of_schema = serde_json::to_string(&NodePool::crd()).unwrap();
    let known = of_schema.split('\'').filter(|text| text.starts_with("karpenter.k8s.aws/"));
    let known: std::collections::BTreeSet<&str> = known.collect();
    assert!(known.len() > 25 && !known.iter().any(|key| crate::labels::is_restricted(key)));
}

#[test]
fn errors_of_a_class_name_field_and_reason() {
    let class: Ec2NodeClass = serde_json::from_value(json!({
        "metadata": {"name": "bad"},
        "spec": {
            "subnetSelectorTerms": [], "securityGroupSelectorTerms": [],
            "amiSelectorTerms": [{"id": "ami-1"}],
            "userData": "x".repeat(USER_DATA_LIMIT + 1),
            "kubelet": {
                "kubeReserved": {"cpu": "much"},
                "evictionHard": {"memory.available": "120%"},
                "registerWithTaints": [],
                "topologyManagerPolicy": "best-effort",
            },
        },
    }))
    .unwrap();
    let errors: Vec<String> =
        validate_node_class(&class).iter().map(FieldError::to_string).collect();
    insta::assert_snapshot!(errors.join("\n"));
}
