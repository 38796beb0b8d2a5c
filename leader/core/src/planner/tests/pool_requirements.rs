//! Requirements of pools: all operators, labels left open, what is restricted.

use serde_json::{Value, json};

use super::world::{World, all_types};

fn request() -> Value {
    json!({"cpu": "500m", "memory": "1Gi"})
}

#[test]
fn every_operator_narrows_the_types() {
    let rows = [
        json!({"key": "karpenter.k8s.aws/instance-family", "operator": "In", "values": ["r5"]}),
        json!({"key": "karpenter.k8s.aws/instance-family", "operator": "NotIn", "values": ["c5", "m6g"]}),
        json!({"key": "karpenter.k8s.aws/instance-gpu-count", "operator": "Exists"}),
        json!({"key": "karpenter.k8s.aws/instance-gpu-count", "operator": "DoesNotExist"}),
        json!({"key": "karpenter.k8s.aws/instance-cpu", "operator": "Gt", "values": ["4"]}),
        json!({"key": "karpenter.k8s.aws/instance-cpu", "operator": "Gte", "values": ["4"]}),
        json!({"key": "karpenter.k8s.aws/instance-memory", "operator": "Lt", "values": ["4096"]}),
        json!({"key": "karpenter.k8s.aws/instance-memory", "operator": "Lte", "values": ["4096"]}),
        json!({"key": "beta.kubernetes.io/arch", "operator": "In", "values": ["arm64"]}),
    ];
    let mut text = Vec::new();
    for requirement in rows {
        let mut world = World::small();
        world.pool("default", json!([requirement]), json!({}));
        world.pods("web", 1, request(), json!({}));
        text.push(world.story());
    }
    insta::assert_snapshot!(text.join("\n"));
}

#[test]
fn an_open_label_is_fixed_by_the_pods_that_ask() {
    let mut world = World::small();
    let team = json!([{"key": "team", "operator": "In", "values": ["red", "blue"]}]);
    world.pool("default", team, json!({}));
    let team = |name: &str| json!({"spec": {"nodeSelector": {"team": name}}});
    world.pods("a", 1, request(), team("red"));
    world.pods("b", 1, request(), team("blue"));
    world.pods("c", 1, request(), team("green"));
    let plan = world.plan();
    let mut teams: Vec<&str> = plan.launches.iter().map(|l| l.labels["team"].as_str()).collect();
    teams.sort_unstable();
    assert_eq!(teams, ["blue", "red"]);
    insta::assert_snapshot!(world.story());
}

#[test]
fn pools_that_can_make_no_node_say_why() {
    let mut world = World::small();
    let own = json!([{"key": "karpenter.sh/nodepool", "operator": "In", "values": ["x"]}]);
    world.pool("restricted", own, json!({}));
    let contradiction = json!([{"key": "team", "operator": "In", "values": ["red"]}]);
    let labels = json!({"template": {"metadata": {"labels": {"team": "blue"}}}});
    world.pool("contradiction", contradiction, labels);
    let nothing =
        json!([{"key": "karpenter.k8s.aws/instance-family", "operator": "In", "values": ["z9"]}]);
    world.pool("nothing", nothing, json!({}));
    let class = json!({"template": {"spec": {"nodeClassRef": {"name": "missing"}}}});
    world.pool("no-class", json!([]), class);
    world.pool("static", json!([]), json!({"replicas": 2}));
    let bound =
        json!([{"key": "karpenter.k8s.aws/instance-cpu", "operator": "Gt", "values": ["four"]}]);
    world.pool("no-number", bound, json!({}));
    world.pods("web", 1, request(), json!({}));
    insta::assert_snapshot!(world.story());
}

#[test]
fn every_value_that_pods_name_is_planned_with() {
    let mut world = World::small();
    let teams: Vec<String> = (0..50).map(|team| format!("t{team:02}")).collect();
    let open = json!([{"key": "team", "operator": "In", "values": teams},
        {"key": "tier", "operator": "Exists"}]);
    world.pool("default", open, json!({}));
    for team in &teams {
        let selector = json!({"spec": {"nodeSelector": {"team": team, "tier": "gold"}}});
        world.pods(team, 1, request(), selector);
    }
    let plan = world.plan();
    assert_eq!(plan.unschedulable, []);
    assert_eq!(plan.launches.len(), 50);
}

#[test]
fn combinations_of_labels_beyond_measure_are_told() {
    let mut world = World::small();
    let open = json!([{"key": "a", "operator": "Exists"}, {"key": "b", "operator": "Exists"}]);
    world.pool("default", open, json!({}));
    for number in 0..12 {
        let value = format!("v{number:02}");
        let selector = json!({"spec": {"nodeSelector": {"a": value, "b": value}}});
        world.pods(&value, 1, request(), selector);
    }
    let plan = world.plan();
    assert_eq!(plan.unschedulable.len(), 2, "v10 and v11");
    let told =
        "NodePool default: of 144 combinations of its labels up to b the first 128 are looked at";
    assert_eq!(plan.report.problems, [told]);
    let reason = &plan.unschedulable[0].reasons[0].1;
    let words = "no instance type and zone together fulfil a In [v10], b In [v10]; pods name so many labels of the \
                 NodePool that the rest waits until those run";
    assert_eq!(reason, words);
}

#[test]
fn an_open_label_may_be_what_no_pod_names_or_absent() {
    let label_of = |rule: Value, wanted: Value| {
        let mut world = World::small();
        let mut requirement = json!({"key": "team"});
        super::world::merge(&mut requirement, rule);
        world.pool("default", json!([requirement]), json!({}));
        let mut expression = json!({"key": "team"});
        super::world::merge(&mut expression, wanted);
        let affinity = json!({"spec": {"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [expression]}]}}}}});
        world.pods("web", 1, json!({"cpu": "500m", "memory": "1Gi"}), affinity);
        let plan = world.plan();
        assert_eq!(plan.report.problems, [""; 0]);
        plan.launches.first().map(|launch| launch.labels.get("team").cloned())
    };
    let exists = || json!({"operator": "Exists"});
    let but = |value: &str| json!({"operator": "NotIn", "values": [value]});
    let absent = || json!({"operator": "DoesNotExist"});
    let above = |n: &str| json!({"operator": "Gt", "values": [n]});
    assert_eq!(label_of(exists(), but("a")), Some(Some("other".to_owned())));
    assert_eq!(label_of(exists(), but("other")), Some(Some("other-1".to_owned())));
    assert_eq!(label_of(but("z"), but("a")).unwrap().as_deref(), Some("other"));
    assert_eq!(label_of(but("z"), absent()), Some(None));
    assert_eq!(label_of(exists(), absent()), None);
    assert_eq!(label_of(above("3"), above("7")), Some(Some("8".to_owned())));
    // What is listed is all there is.
    assert_eq!(label_of(json!({"operator": "In", "values": ["a"]}), but("a")), None);
}

#[test]
fn values_of_one_open_label_beyond_measure_wait_for_those_looked_at() {
    let mut world = World::small();
    world.pool("default", json!([{"key": "team", "operator": "Exists"}]), json!({}));
    for number in 0..130 {
        let team = format!("t{number:03}");
        world.pods(&team, 1, request(), json!({"spec": {"nodeSelector": {"team": team}}}));
    }
    let plan = world.plan();
    let left: Vec<&str> = plan.unschedulable.iter().map(|left| left.pod.name.as_str()).collect();
    assert_eq!(left, ["t128-0", "t129-0"]);
    let words = "needs team In [t128]; pods name so many labels of the NodePool that 128 of its values are looked at \
                 now, and the rest waits until those run";
    assert_eq!(plan.unschedulable[0].reasons[0].1, words);
}

#[test]
fn labels_of_the_template_that_a_type_or_an_offering_decides_are_kept_to() {
    let mut world = World::small();
    let labels = json!({"topology.kubernetes.io/zone": "us-east-1b", "team": "a",
        "karpenter.sh/capacity-type": "on-demand", "karpenter.k8s.aws/instance-family": "r5"});
    world.pool("default", json!([]), json!({"template": {"metadata": {"labels": labels}}}));
    world.pods("web", 1, json!({"cpu": "1"}), json!({}));
    let elsewhere =
        json!({"spec": {"nodeSelector": {"topology.kubernetes.io/zone": "us-east-1a"}}});
    world.pods("away", 1, json!({"cpu": "1"}), elsewhere);
    let plan = world.plan();
    assert_eq!((plan.launches.len(), plan.unschedulable.len()), (1, 1));
    let launch = &plan.launches[0];
    assert_eq!(
        (launch.zones.as_slice(), launch.capacity_type.as_str()),
        (&["us-east-1b".to_owned()][..], "on-demand")
    );
    assert!(launch.offerings.iter().all(|one| one.instance_type.as_str().starts_with("r5.")));
}

#[test]
fn templates_of_all_types_are_fewer_than_combinations() {
    let mut world = World::new();
    world.pool("default", json!([{"key": "team", "operator": "Exists"}]), json!({}));
    let teams: Vec<String> = (0..128).map(|number| format!("t{number:03}")).collect();
    let term = json!({"matchExpressions": [{"key": "team", "operator": "In", "values": teams}]});
    let affinity = json!({"spec": {"affinity": {"nodeAffinity":
        {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}}});
    world.pods("any", 1, request(), affinity);
    let plan = world.plan();
    assert_eq!(plan.launches.len(), 1);
    let offers: usize = all_types().iter().map(|kind| kind.offerings.len()).sum();
    let looked_at = 400_000 / offers;
    assert!(looked_at < 128);
    let told = format!(
        "NodePool default: of 128 combinations of its labels up to team the first {looked_at} are looked at"
    );
    assert_eq!(plan.report.problems, [told]);
}
