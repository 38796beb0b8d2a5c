//! From bytes to answers.

use std::io::{Cursor, Write};

use drover_core::offline::NodeFlags;
use drover_core::planner::PlannerSettings;

use super::*;
use read::{Input, read_stream};

const POOL: &str = r#"{"apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": {"name": "default"},
  "spec": {"template": {"spec": {"requirements": [
      {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]}],
    "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default"}}}}}"#;

fn pod(name: &str, cpu: &str) -> String {
    format!(
        r#"{{"apiVersion": "v1", "kind": "Pod", "metadata": {{"name": "{name}", "namespace": "shop",
        "creationTimestamp": null}}, "spec": {{"containers": [{{"name": "c", "resources":
        {{"requests": {{"cpu": "{cpu}", "memory": "2Gi"}}}}}}], "nodeSelector": null}}}}"#
    )
}

fn list(objects: &[String]) -> String {
    format!(r#"{{"apiVersion": "v1", "items": [{}], "kind": "List"}}"#, objects.join(","))
}

fn read_text(text: &str) -> (Input, Vec<String>) {
    let mut input = Input::default();
    let mut errors = Vec::new();
    read_stream(&mut Cursor::new(text.as_bytes()), "f", &mut input, &mut errors).unwrap();
    (input, errors.iter().map(ToString::to_string).collect())
}

/// Two types, of which one is the obvious choice: what is tested here is not how pods are packed.
fn types() -> InstanceTypes {
    let kind = |name: &str, cpu: &str, price: f64| {
        format!(
            r#"{{"name": "{name}", "labels": {{"kubernetes.io/arch": "amd64"}}, "capacity":
            {{"cpu": "{cpu}", "memory": "16Gi", "pods": "58"}}, "offerings": [{{"zone": "us-east-1a",
            "capacityType": "on-demand", "price": {price}}}]}}"#
        )
    };
    let types = [kind("x.large", "8", 0.2), kind("y.huge", "96", 30.0)].join(",");
    let text = format!(r#"{{"region": "us-east-1", "instanceTypes": [{types}]}}"#);
    InstanceTypes::File(catalog::parse(&text).unwrap())
}

/// The answer to a text, in a format.
fn answered(text: &str, output: OutputFormat) -> String {
    let (input, errors) = read_text(text);
    assert_eq!(errors, Vec::<String>::new());
    let cluster = input.dump.into_cluster(&types(), &NodeFlags::default(), None);
    let plan = plan(&cluster.plan_input(&PlannerSettings::default()));
    render(output, &cluster, &plan, None, 0.0).unwrap()
}

fn small() -> String {
    let mut objects = vec![POOL.to_owned()];
    objects.extend((0..6).map(|number| pod(&format!("web-{number}"), "900m")));
    objects.push(pod("huge", "900"));
    list(&objects)
}

#[test]
fn a_small_cluster_as_a_table() {
    insta::assert_snapshot!(answered(&small(), OutputFormat::Table));
}

#[test]
fn a_small_cluster_as_json() {
    insta::assert_snapshot!(answered(&small(), OutputFormat::Json));
}

#[test]
fn yaml_says_what_json_says() {
    let json: serde_json::Value =
        serde_json::from_str(&answered(&small(), OutputFormat::Json)).unwrap();
    let yaml: serde_json::Value =
        serde_saphyr::from_str(&answered(&small(), OutputFormat::Yaml)).unwrap();
    assert_eq!(json, yaml);
}

#[test]
fn layouts_of_one_input_give_one_answer() {
    let expected = answered(&small(), OutputFormat::Json);
    let value: serde_json::Value = serde_json::from_str(&small()).unwrap();
    let items = value["items"].as_array().unwrap();
    let concatenated: String = items.iter().map(|item| format!("{item}\n")).collect();
    let documents: String = items
        .iter()
        .map(|item| format!("---\n{}", serde_saphyr::to_string(item).unwrap()))
        .collect();
    let one = serde_saphyr::to_string(&value).unwrap();
    let spaced = serde_json::to_string_pretty(&value).unwrap();
    let separated: String = items.iter().map(|item| format!("{item}\n---\n")).collect();
    let (first, rest) = items.split_at(2);
    let rest: String =
        rest.iter().map(|item| serde_saphyr::to_string(item).unwrap() + "---\n").collect();
    let mixed = format!("{}{}\n---\n{rest}", first[0], first[1]);
    let after_a_mark = format!("\u{feff}\n {}", small());
    for text in [concatenated, documents, one, spaced, separated, mixed, after_a_mark] {
        assert_eq!(answered(&text, OutputFormat::Json), expected, "{text}");
    }
}

#[test]
fn what_follows_json_is_told_apart_wherever_the_stream_is_cut() {
    let text = "{\"kind\":\"A\"}\n---\nkind: B\n---\n{\"kind\": \"C\"}\n";
    for capacity in 1..20 {
        let mut input = Input::default();
        let mut errors = Vec::new();
        let mut stream = std::io::BufReader::with_capacity(capacity, Cursor::new(text.as_bytes()));
        read_stream(&mut stream, "f", &mut input, &mut errors).unwrap();
        assert!(errors.is_empty());
        let ignored = input.ignored.warning().unwrap();
        assert_eq!(ignored, "3 objects of other kinds were ignored: 1 A, 1 B, 1 C");
        assert_eq!(input.bytes, text.len() as u64);
    }
    let (_, errors) = read_text("{\"kind\":\"A\"}\n-- {\"kind\":\"B\"}\n");
    assert_eq!(errors, ["f, document 2: not an object: \"-- {\\\"kind\\\":\\\"B\\\"}\""]);
}

#[test]
fn pools_of_old_versions_are_named_with_them() {
    let old =
        r#"{"apiVersion": "karpenter.sh/v1beta1", "kind": "NodePool", "metadata": {"name": "a"}}"#;
    let (input, errors) = read_text(&format!("{old}\n{{\"kind\": \"Secret\"}}"));
    assert_eq!(errors, Vec::<String>::new());
    let expected =
        "2 objects of other kinds were ignored: 1 NodePool of karpenter.sh/v1beta1, 1 Secret";
    assert_eq!(input.ignored.warning().unwrap(), expected);
}

#[test]
fn kubectls_yaml_lists_are_cut_into_items() {
    let text = "apiVersion: v1\nitems:\n- apiVersion: v1\n  kind: Pod\n  metadata:\n    name: a\n    \
                annotations:\n      x: |\n        - b\n\n        kind: c\n- apiVersion: v1\n  kind: Pod\n  \
                metadata:\n    name: b\nkind: List\nmetadata:\n  resourceVersion: \"\"\n";
    let (input, errors) = read_text(text);
    assert_eq!(errors, Vec::<String>::new());
    let cluster = input.dump.into_cluster(&types(), &NodeFlags::default(), None);
    assert_eq!(cluster.view.counts().pods, 2);
}

#[test]
fn the_time_is_the_newest_in_json_and_in_yaml() {
    for told in [
        r#"{"name": "a", "managedFields": [{"time": "TIME", "fieldsV1": {"f:metadata": {}}}]},
            "spec": {}"#,
        r#"{"name": "a"}, "spec": {}, "status": {"containerStatuses": [{"name": "c", "state":
            {"running": {"startedAt": "TIME"}}}]}"#,
        r#"{"name": "a"}, "spec": {}, "status": {"containerStatuses": [{"name": "c", "lastState":
            {"terminated": {"finishedAt": "TIME", "message": "2027-01-01T00:00:00Z"}}}]}"#,
    ] {
        let told = told.replace("TIME", "2026-01-05T10:00:00Z");
        let pod = format!(r#"{{"apiVersion": "v1", "kind": "Pod", "metadata": {told}}}"#);
        let value: serde_json::Value = serde_json::from_str(&pod).unwrap();
        for text in [&pod, &serde_saphyr::to_string(&value).unwrap()] {
            let (input, errors) = read_text(text);
            assert_eq!(errors, Vec::<String>::new());
            let cluster = input.dump.into_cluster(&types(), &NodeFlags::default(), None);
            assert_eq!(cluster.now.to_string(), "2026-01-05T10:00:00Z", "{text}");
        }
    }
}

#[test]
fn other_kinds_are_counted() {
    let config = r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}"#;
    let event = r#"{"apiVersion": "v1", "kind": "Event", "metadata": {"name": "c"}}"#;
    let (input, errors) = read_text(&list(&[config.into(), event.into(), config.into()]));
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(
        input.ignored.warning().unwrap(),
        "3 objects of other kinds were ignored: 2 ConfigMap, 1 Event"
    );
}

#[test]
fn what_cannot_be_read_is_named_by_file_document_field_and_reason() {
    let operator = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"affinity":
        {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms":
        [{"matchExpressions": [{"key": "a", "operator": "Like"}]}]}}}}}"#;
    let text = format!(
        "{}\n{}\n{}\n{}",
        list(&[pod("a", "1"), pod("b", "two"), operator.to_owned()]),
        r#"{"apiVersion": "v1", "kind": "Node", "metadata": {}}"#,
        r#"{"metadata": {"name": "x"}}"#,
        r#"{"apiVersion": "v1", "kind": "Pod", "metadata": 7}"#,
    );
    let (_, errors) = read_text(&text);
    insta::assert_snapshot!(errors.join("\n"));
    for (text, expected) in [
        ("{\"a\": ", "f, document 1: not JSON: the input ends in the middle of it"),
        ("[1]", "f, document 1: not an object: \"[1]\""),
        ("a: [", "f, document 1: not YAML"),
        ("a: 1\n---\n- 7\n", "f, document 1: field kind: it is missing"),
        ("kind: Pod\n---\n7\n", "f, document 2: not an object"),
    ] {
        let (_, errors) = read_text(text);
        assert!(errors.iter().any(|error| error.starts_with(expected)), "{text}: {errors:?}");
    }
}

#[test]
fn files_folders_and_gzip_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let packed = std::fs::File::create(folder.path().join("b.json.gz")).unwrap();
    let mut packer = flate2::write::GzEncoder::new(packed, flate2::Compression::fast());
    packer.write_all(list(&[pod("a", "1"), pod("b", "1")]).as_bytes()).unwrap();
    packer.finish().unwrap();
    std::fs::write(
        folder.path().join("a.yaml"),
        serde_saphyr::to_string(&serde_json::from_str::<serde_json::Value>(POOL).unwrap()).unwrap(),
    )
    .unwrap();
    std::fs::write(folder.path().join("notes.txt"), "not for us").unwrap();
    let input = read::read(&[folder.path().to_owned()]).unwrap();
    let cluster = input.dump.into_cluster(&types(), &NodeFlags::default(), None);
    assert_eq!((cluster.view.counts().pods, cluster.view.counts().pools), (2, 1));
    let missing = folder.path().join("missing.json");
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let errors = read::read(&[missing, empty]).unwrap_err().errors;
    assert_eq!(errors.len(), 2);
}
