//! Every rule of Karpenter's three kinds refuses something.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::schema::Schema;
use super::super::*;
use crate::world::resource::{EC2_NODE_CLASSES, NODE_CLAIMS, NODE_POOLS};
use crate::world::store::{Part, Store, WriteOptions};
use crate::world::{World, WorldOptions};

/// An object that one rule refuses.
struct Case {
    /// The rule's message.
    message: &'static str,
    /// A merge patch that makes the good object bad.
    patch: Value,
    /// Whether the good object is there already and changes.
    is_change: bool,
}

fn new(message: &'static str, patch: Value) -> Case {
    Case { message, patch, is_change: false }
}

fn change(message: &'static str, patch: Value) -> Case {
    Case { message, patch, is_change: true }
}

/// A node class reference of another group or kind.
fn references(at: fn(Value) -> Value) -> [Case; 2] {
    [
        change(
            "the group of a nodeClassRef is immutable",
            at(json!({"nodeClassRef": {"group": "example.com"}})),
        ),
        change(
            "the kind of a nodeClassRef is immutable",
            at(json!({"nodeClassRef": {"kind": "Other"}})),
        ),
    ]
}

/// Requirements that no pool and no claim may have.
fn requirements(at: fn(Value) -> Value) -> Vec<Case> {
    let one = |requirement: Value| at(json!({"requirements": [requirement]}));
    let exists = |key: &str| one(json!({"key": key, "operator": "Exists"}));
    vec![
        new("the label domain karpenter.sh is restricted", exists("karpenter.sh/other")),
        new("the label domain karpenter.k8s.aws is restricted", exists("karpenter.k8s.aws/other")),
        new("the label kubernetes.io/hostname is restricted", exists("kubernetes.io/hostname")),
        new("the operator In needs a value", one(json!({"key": "a", "operator": "In"}))),
        new(
            "the operators Gt, Lt, Gte and Lte need exactly one integer that is not negative",
            one(json!({"key": "a", "operator": "Lte", "values": ["1", "2"]})),
        ),
        new(
            "a requirement with minValues needs at least as many values",
            one(json!({"key": "a", "operator": "In", "values": ["b"], "minValues": 2})),
        ),
    ]
}

fn pool() -> (Value, Vec<Case>) {
    let good = json!({
        "metadata": {"name": "good"},
        "spec": {"template": {"spec": {
            "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "a"},
            "requirements": [],
        }}},
    });
    let spec = |fields: Value| json!({"spec": fields});
    let template = |fields: Value| json!({"spec": {"template": {"spec": fields}}});
    let label = |key: &str| json!({"spec": {"template": {"metadata": {"labels": {key: "a"}}}}});
    let mut cases = vec![
        new("weight and replicas exclude each other", spec(json!({"weight": 1, "replicas": 1}))),
        change(
            "replicas can be neither added nor removed after creation",
            spec(json!({"replicas": 1})),
        ),
        new(
            "with replicas, nodes is the only limit",
            spec(json!({"replicas": 1, "limits": {"cpu": 1}})),
        ),
        new(
            "a budget has both schedule and duration, or neither",
            spec(json!({"disruption": {"budgets": [{"nodes": "1", "schedule": "@daily"}]}})),
        ),
        new("the label karpenter.sh/nodepool is restricted", label("karpenter.sh/nodepool")),
        new("the label domain karpenter.sh is restricted", label("karpenter.sh/other")),
        new("the label domain karpenter.k8s.aws is restricted", label("karpenter.k8s.aws/other")),
        new("the label kubernetes.io/hostname is restricted", label("kubernetes.io/hostname")),
        new(
            "the label karpenter.sh/nodepool is restricted",
            template(json!({"requirements": [
                {"key": "karpenter.sh/nodepool", "operator": "Exists"},
            ]})),
        ),
    ];
    cases.extend(references(template));
    cases.extend(requirements(template));
    (good, cases)
}

fn claim() -> (Value, Vec<Case>) {
    let good = json!({
        "metadata": {"name": "good"},
        "spec": {
            "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "a"},
            "requirements": [],
        },
    });
    let spec = |fields: Value| json!({"spec": fields});
    let mut cases = vec![change("the spec is immutable", spec(json!({"expireAfter": "1h"})))];
    cases.extend(references(spec));
    cases.extend(requirements(spec));
    (good, cases)
}

fn class() -> (Value, Vec<Case>) {
    let good = json!({
        "metadata": {"name": "good"},
        "spec": {
            "role": "node",
            "amiSelectorTerms": [{"alias": "al2023@latest"}],
            "subnetSelectorTerms": [{"id": "subnet-1"}],
            "securityGroupSelectorTerms": [{"id": "sg-1"}],
        },
    });
    let mut cases = whole_class();
    cases.extend(selectors());
    cases.extend(tags());
    cases.extend(kubelet());
    cases.extend(devices());
    let cases = cases.into_iter().map(|(message, fields)| new(message, json!({"spec": fields})));
    (good, cases.collect())
}

/// Messages, and the fields of a spec that they are for.
type Specs = Vec<(&'static str, Value)>;

fn whole_class() -> Specs {
    let other_family = |family: &str, alias: &str| {
        let fields = json!({"amiFamily": family, "amiSelectorTerms": [{"alias": alias}]});
        ("amiFamily is that of the alias, or Custom", fields)
    };
    vec![
        ("exactly one of role and instanceProfile", json!({"instanceProfile": "a"})),
        (
            "amiFamily is needed where no alias gives it",
            json!({"amiSelectorTerms": [{"id": "ami-1"}]}),
        ),
        other_family("AL2", "al2023@latest"),
        other_family("AL2023", "al2@latest"),
        other_family("Bottlerocket", "al2023@latest"),
        other_family("Windows2019", "windows2022@latest"),
        other_family("Windows2022", "windows2025@latest"),
        other_family("Windows2025", "windows2019@latest"),
    ]
}

fn selectors() -> Specs {
    let image = |terms: Value| json!({"amiFamily": "AL2023", "amiSelectorTerms": terms});
    let subnet = |term: Value| json!({"subnetSelectorTerms": [term]});
    let group = |term: Value| json!({"securityGroupSelectorTerms": [term]});
    let reservation = |term: Value| json!({"capacityReservationSelectorTerms": [term]});
    vec![
        (
            "an alias is family@version, with the family al2, al2023, bottlerocket, windows2019, \
             windows2022 or windows2025",
            json!({"amiSelectorTerms": [{"alias": "ubuntu@latest"}]}),
        ),
        (
            "Windows images have the version latest alone",
            json!({"amiSelectorTerms": [{"alias": "windows2022@v1"}]}),
        ),
        ("a term has tags, id, name, alias or ssmParameter", image(json!([{"owner": "self"}]))),
        ("id excludes everything else", image(json!([{"id": "ami-1", "name": "a"}]))),
        (
            "alias excludes everything else",
            image(json!([{"alias": "al2023@latest", "owner": "self"}])),
        ),
        (
            "a term with an alias is the only one",
            image(json!([{"alias": "al2023@latest"}, {"id": "ami-1"}])),
        ),
        ("a term has tags or id", subnet(json!({}))),
        ("id excludes tags", subnet(json!({"id": "subnet-1", "tags": {"a": "b"}}))),
        ("a term has tags, id or name", group(json!({}))),
        ("id excludes tags and name", group(json!({"id": "sg-1", "tags": {"a": "b"}}))),
        ("name excludes tags and id", group(json!({"name": "a", "tags": {"a": "b"}}))),
        (
            "a term has tags, id or instanceMatchCriteria",
            reservation(json!({"ownerID": "012345678901"})),
        ),
        (
            "id excludes tags, ownerID and instanceMatchCriteria",
            reservation(json!({"id": "cr-1", "instanceMatchCriteria": "open"})),
        ),
        (
            "exactly one of name and id",
            json!({"placementGroupSelector": {"name": "a", "id": "pg-1"}}),
        ),
    ]
}

fn tags() -> Specs {
    let empty = "tags have neither empty keys nor empty values";
    let term = json!([{"tags": {"a": ""}}]);
    vec![
        (empty, json!({"subnetSelectorTerms": term})),
        (empty, json!({"securityGroupSelectorTerms": term})),
        (empty, json!({"capacityReservationSelectorTerms": term})),
        (empty, json!({"amiFamily": "AL2023", "amiSelectorTerms": term})),
        ("tags have no empty keys", json!({"tags": {"": "a"}})),
        (
            "tags that begin with kubernetes.io/cluster are restricted",
            json!({"tags": {"kubernetes.io/cluster/a": "owned"}}),
        ),
        (
            "the tag eks:eks-cluster-name is restricted",
            json!({"tags": {"eks:eks-cluster-name": "a"}}),
        ),
        (
            "the tag karpenter.sh/nodepool is restricted",
            json!({"tags": {"karpenter.sh/nodepool": "a"}}),
        ),
        (
            "the tag karpenter.sh/nodeclaim is restricted",
            json!({"tags": {"karpenter.sh/nodeclaim": "a"}}),
        ),
        (
            "the tag karpenter.k8s.aws/ec2nodeclass is restricted",
            json!({"tags": {"karpenter.k8s.aws/ec2nodeclass": "a"}}),
        ),
    ]
}

fn kubelet() -> Specs {
    let signal = "unknown eviction signal";
    let reserved = "only cpu, memory, ephemeral-storage and pid can be reserved";
    let negative = "a reserved amount is not negative";
    [
        (signal, json!({"evictionHard": {"disk": "5%"}})),
        (signal, json!({"evictionSoft": {"disk": "5%"}})),
        (signal, json!({"evictionSoftGracePeriod": {"disk": "1m"}})),
        (reserved, json!({"kubeReserved": {"gpu": "1"}})),
        (reserved, json!({"systemReserved": {"gpu": "1"}})),
        (negative, json!({"kubeReserved": {"cpu": "-1"}})),
        (negative, json!({"systemReserved": {"cpu": "-1"}})),
        (
            "evictionSoft and evictionSoftGracePeriod need each other",
            json!({"evictionSoft": {"memory.available": "5%"}}),
        ),
        (
            "evictionSoft and evictionSoftGracePeriod name the same signals",
            json!({
                "evictionSoft": {"memory.available": "5%"},
                "evictionSoftGracePeriod": {"pid.available": "1m"},
            }),
        ),
        (
            "imageGCHighThresholdPercent is greater than imageGCLowThresholdPercent",
            json!({"imageGCHighThresholdPercent": 50, "imageGCLowThresholdPercent": 50}),
        ),
    ]
    .map(|(message, settings)| (message, json!({"kubelet": settings})))
    .into()
}

fn devices() -> Specs {
    let disks = |disks: Value| json!({"blockDeviceMappings": disks});
    let interfaces = |list: &[(u32, u32, &str)]| {
        let list = list.iter().map(|(card, device, kind)| {
            json!({"networkCardIndex": card, "deviceIndex": device, "interfaceType": kind})
        });
        json!({"networkInterfaces": list.collect::<Vec<_>>()})
    };
    vec![
        (
            "at most one disk has rootVolume",
            disks(json!([{"rootVolume": true}, {"rootVolume": true}])),
        ),
        ("snapshotID or volumeSize is needed", disks(json!([{"ebs": {"encrypted": true}}]))),
        (
            "volumeInitializationRate needs snapshotID",
            disks(json!([{"ebs": {"volumeSize": "1Gi", "volumeInitializationRate": 100}}])),
        ),
        ("the first device of the first card is an interface", interfaces(&[(0, 0, "efa-only")])),
        (
            "a device of a card is named once",
            interfaces(&[(0, 0, "interface"), (0, 0, "interface")]),
        ),
        (
            "a card has at most one efa-only interface",
            interfaces(&[(0, 0, "interface"), (1, 0, "efa-only"), (1, 1, "efa-only")]),
        ),
        ("at least one timeout", json!({"connectionTracking": {}})),
    ]
}

/// Where a definition has its rules: the path of their schema, their place in it, their message.
fn rules_of(schema: &Value) -> Vec<(Vec<String>, usize, String)> {
    fn walk(schema: &Value, path: &mut Vec<String>, found: &mut Vec<(Vec<String>, usize, String)>) {
        for (index, rule) in object::list(schema, "/x-kubernetes-validations").iter().enumerate() {
            found.push((path.clone(), index, object::text(rule, "/message").to_owned()));
        }
        let properties = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
        let inner = ["items", "additionalProperties"].into_iter();
        let inner = inner.filter_map(|member| Some((member, schema.get(member)?)));
        for (member, schema) in
            properties.map(|(name, schema)| (name.as_str(), schema)).chain(inner)
        {
            path.push(member.to_owned());
            walk(schema, path, found);
            path.pop();
        }
    }
    let mut found = Vec::new();
    walk(schema, &mut Vec::new(), &mut found);
    found
}

/// A schema without one of its rules.
fn without(schema: &Schema, path: &[String], index: usize) -> Schema {
    let mut schema = schema.clone();
    let mut place = &mut schema;
    for member in path {
        place = match member.as_str() {
            "items" => place.items.as_deref_mut().unwrap(),
            "additionalProperties" => place.additional.as_deref_mut().unwrap(),
            name => place.properties.get_mut(name).unwrap(),
        };
    }
    place.rules.remove(index);
    schema
}

/// How often a message is among the reasons of a refusal.
fn said(causes: &[Cause], message: &str) -> usize {
    let end = format!(": {message}");
    causes.iter().filter(|cause| cause.message.ends_with(&end)).count()
}

/// Why the API refuses a case.
fn refusal(store: &mut Store, resource: &Resource, stored: &Value, case: &Case) -> Vec<Cause> {
    let now = Timestamp::UNIX_EPOCH;
    let mut bad = stored.clone();
    let answer = if case.is_change {
        json_patch::merge(&mut bad, &case.patch);
        store.update(resource, bad, Part::Main, &WriteOptions::default(), now)
    } else {
        bad["metadata"] = json!({"name": "bad"});
        json_patch::merge(&mut bad, &case.patch);
        store.create(resource, bad, &WriteOptions::default(), now)
    };
    let failure = answer.err().unwrap_or_else(|| panic!("accepted: {}", case.message));
    assert_eq!((failure.code, failure.reason), (422, "Invalid"), "{failure}");
    failure.causes
}

#[test]
fn every_rule_of_karpenters_kinds_refuses_an_object() {
    let now = Timestamp::UNIX_EPOCH;
    let mut store = World::new(WorldOptions::default(), now).store;
    let definitions = drover_common::crd::values();
    let kinds = [(NODE_POOLS, pool()), (NODE_CLAIMS, claim()), (EC2_NODE_CLASSES, class())];
    for ((resource, (good, cases)), definition) in kinds.iter().zip(&definitions) {
        let served = definition_of(definition).unwrap();
        assert_eq!(served.resource, *resource);
        let schema = &served.custom.as_ref().unwrap().schemas["v1"];
        let admit = |schema: Schema, case: &Case| {
            let custom = CustomResource {
                schemas: [("v1".to_owned(), Arc::new(schema))].into(),
                ..CustomResource::default()
            };
            let mut old = good.clone();
            let accepted = custom.admit("v1", &mut old, None);
            assert!(accepted.causes.is_empty(), "{accepted:?}");
            let mut bad = good.clone();
            json_patch::merge(&mut bad, &case.patch);
            custom.admit("v1", &mut bad, case.is_change.then_some(&old)).causes
        };
        let stored = store.create(resource, good.clone(), &WriteOptions::default(), now).unwrap();
        for case in cases {
            let causes = refusal(&mut store, resource, &stored, case);
            assert_eq!(said(&causes, case.message), 1, "{}: {causes:?}", case.message);
        }
        // A case belongs to the rule without which its message is not said.
        let mut used = BTreeSet::new();
        for (path, index, message) in rules_of(&served.custom.as_ref().unwrap().texts["v1"]) {
            let own =
                cases.iter().enumerate().filter(|(_, case)| case.message == message).find(
                    |(_, case)| said(&admit(without(schema, &path, index), case), &message) == 0,
                );
            let (case, _) = own.unwrap_or_else(|| {
                panic!("nothing is refused by {}, {path:?}: {message}", object::name(definition))
            });
            assert!(used.insert(case), "{path:?}: {message}: the case of another rule");
        }
        assert_eq!(used.len(), cases.len(), "a case belongs to no rule");
    }
}
