//! What lies in `deploy/`, applied to the sandbox with kubectl and read back; and what the CRDs'
//! rules refuse. Where kubectl is missing the tests say so.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use drover_sandbox::{Options, Sandbox};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

fn deploy(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(folder)
}

/// Every object of a folder's files, in order.
fn objects(folder: &str) -> Vec<Value> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(deploy(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
        .iter()
        .flat_map(|file| {
            let text = std::fs::read_to_string(file).unwrap();
            serde_saphyr::from_multiple::<Value>(&text)
                .unwrap_or_else(|error| panic!("{}: {error}", file.display()))
        })
        .collect()
}

/// A sandbox and kubectl on it.
struct Kubectl {
    _sandbox: Sandbox,
    folder: tempfile::TempDir,
}

impl Kubectl {
    /// `None`, said aloud, where there is no kubectl.
    async fn start(test: &str) -> Option<Self> {
        let found = Command::new("kubectl").args(["version", "--client"]).output().await;
        if !found.is_ok_and(|output| output.status.success()) {
            let mut uncaptured = std::io::stderr();
            writeln!(uncaptured, "SKIPPED {test}: kubectl is missing").unwrap();
            return None;
        }
        let sandbox = Sandbox::start(Options::default()).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("kubeconfig"), sandbox.kubeconfig()).unwrap();
        Some(Self { _sandbox: sandbox, folder })
    }

    async fn run(&self, arguments: &[&str], input: &str) -> Result<String, String> {
        let mut child = Command::new("kubectl")
            .env("KUBECONFIG", self.folder.path().join("kubeconfig"))
            .env("HOME", self.folder.path())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
        let output = child.wait_with_output().await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    async fn apply(&self, folder: &str) {
        let path = deploy(folder);
        let applied = self.run(&["apply", "-f", path.to_str().unwrap()], "").await;
        if let Err(error) = applied {
            // kubectl shows the whole patch first; what is wrong comes last.
            panic!("{folder}: {}", error.lines().last().unwrap_or_default());
        }
    }

    async fn apply_object(&self, object: &Value) -> Result<String, String> {
        self.run(&["apply", "-f", "-"], &object.to_string()).await
    }
}

/// Whether everything in `part` is in `whole`; what an API server adds does not matter.
fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => part
            .iter()
            .all(|(key, value)| whole.get(key).is_some_and(|whole| contains(whole, value))),
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len()
                && whole.iter().zip(part).all(|(whole, part)| contains(whole, part))
        }
        _ => whole == part,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_are_applied_and_read_back() {
    let Some(kubectl) = Kubectl::start("manifests_are_applied_and_read_back").await else { return };
    for folder in ["crds", "manifests", "node-mode"] {
        kubectl.apply(folder).await;
        for object in objects(folder) {
            let field =
                |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            let (kind, name) = (field("/kind"), field("/metadata/name"));
            let mut arguments = vec!["get", kind, name, "-o", "json"];
            if !field("/metadata/namespace").is_empty() {
                arguments.extend(["-n", field("/metadata/namespace")]);
            }
            let read = kubectl.run(&arguments, "").await.unwrap();
            let read: Value = serde_json::from_str(&read).unwrap();
            assert!(contains(&read, &object), "{kind} {name} came back as {read:#}");
        }
        // A second time nothing changes.
        kubectl.apply(folder).await;
    }
}

/// The named object of a list.
fn named<'v>(list: &'v Value, name: &str) -> &'v Value {
    list.as_array().unwrap().iter().find(|object| object["name"] == name).unwrap()
}

#[test]
fn agents_of_node_mode_have_the_kubelets_kubeconfig_and_no_token() {
    let agents = |folder| {
        let all = objects(folder);
        all.into_iter().find(|object| object["kind"] == "DaemonSet").unwrap()
    };
    let (mut usual, mut other) = (agents("manifests"), agents("node-mode"));
    let pod = &other["spec"]["template"]["spec"];
    assert_eq!(pod["automountServiceAccountToken"], false);
    for token in ["\"serviceAccountToken\"", "--token-file"] {
        assert!(!pod.to_string().contains(token), "{pod}");
    }
    let container = &pod["containers"][0];
    for (volume, path) in [
        ("kubeconfig", "/var/lib/kubelet/kubeconfig"),
        ("cluster-ca", "/etc/kubernetes/pki/ca.crt"),
    ] {
        let mount = named(&container["volumeMounts"], volume);
        assert_eq!((&mount["mountPath"], &mount["readOnly"]), (&json!(path), &json!(true)));
        let host = &named(&pod["volumes"], volume)["hostPath"];
        assert_eq!(host, &json!({"path": path, "type": "File"}));
    }
    // The cluster's DNS may be on the nodes that are interrupted.
    assert_eq!(pod["dnsConfig"]["nameservers"], json!(["169.254.169.253"]));
    assert_eq!(named(&pod["dnsConfig"]["options"], "timeout")["value"], "1");
    // Leaders' certificates are where the other agents have them.
    let usual_container = &usual["spec"]["template"]["spec"]["containers"][0];
    let at =
        |container: &Value, volume| named(&container["volumeMounts"], volume)["mountPath"].clone();
    assert_eq!(at(container, "leader-ca"), at(usual_container, "drover-token"));
    let leaders = &named(&pod["volumes"], "leader-ca")["configMap"];
    let items = json!([{"key": "ca.crt", "path": "ca.crt"}]);
    let expected = json!({"name": "drover-leader-ca", "optional": true, "items": items});
    assert_eq!(leaders, &expected);
    let arguments = container["args"].as_array().unwrap().clone();
    assert!(arguments.contains(&json!("--kubeconfig=/var/lib/kubelet/kubeconfig")));
    // All else is as in service-account mode.
    let own = &usual["spec"]["template"]["spec"];
    let theirs = own["containers"][0]["args"].as_array().unwrap();
    let kept = |arguments: &[Value]| -> Vec<Value> {
        let differs = |text: &str| text.starts_with("--kubeconfig") || text.starts_with("--token");
        arguments.iter().filter(|one| !differs(one.as_str().unwrap())).cloned().collect()
    };
    assert_eq!(kept(&arguments), kept(theirs));
    for agents in [&mut usual, &mut other] {
        let pod = &mut agents["spec"]["template"]["spec"];
        let differs = |one: &Value| {
            let own = ["kubeconfig", "cluster-ca", "leader-ca", "drover-token"];
            own.contains(&one["name"].as_str().unwrap())
        };
        pod["volumes"].as_array_mut().unwrap().retain(|volume| !differs(volume));
        let container = pod["containers"][0].as_object_mut().unwrap();
        container["volumeMounts"].as_array_mut().unwrap().retain(|mount| !differs(mount));
        container.remove("args");
        for field in ["serviceAccountName", "automountServiceAccountToken"] {
            pod.as_object_mut().unwrap().remove(field);
        }
    }
    assert_eq!(other, usual);
}

#[test]
fn rights_are_narrow() {
    let roles = objects("manifests");
    let roles = roles
        .iter()
        .filter(|object| object["kind"].as_str().is_some_and(|kind| kind.ends_with("Role")));
    for role in roles {
        for rule in role["rules"].as_array().unwrap() {
            if let Some(paths) = rule["nonResourceURLs"].as_array() {
                // Paths are those of the leaders' API, and given for looking alone.
                let within =
                    |path: &Value| path.as_str().is_some_and(|path| path.starts_with("/v1/"));
                assert!(paths.iter().all(within), "{}: {rule}", role["metadata"]["name"]);
                assert_eq!(rule["verbs"], json!(["get"]), "{}", role["metadata"]["name"]);
                assert_eq!(rule.as_object().unwrap().len(), 2, "{}", role["metadata"]["name"]);
                continue;
            }
            for field in ["apiGroups", "resources", "verbs"] {
                let all = rule[field].as_array().unwrap();
                assert!(!all.contains(&json!("*")), "{}: {rule}", role["metadata"]["name"]);
                assert!(!all.contains(&json!("secrets")), "{}: {rule}", role["metadata"]["name"]);
            }
        }
    }
}

/// An action or several, as a policy writes them.
fn actions(statement: &Value) -> Vec<String> {
    let written = &statement["Action"];
    let several = written.as_array().map_or_else(|| vec![written.clone()], Vec::clone);
    several.iter().map(|action| action.as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_leaders_policy_allows_the_calls_they_make_and_no_others() {
    let policy = std::fs::read_to_string(deploy("aws/policy.json")).unwrap();
    let policy: Value = serde_json::from_str(&policy).unwrap();
    let allowed: BTreeSet<String> =
        policy["Statement"].as_array().unwrap().iter().flat_map(actions).collect();
    // The names that `Ec2Call::name` gives.
    let source = deploy("../common/src/ec2.rs");
    let source = std::fs::read_to_string(source).unwrap();
    let (_, names) = source.split_once("pub const fn name").unwrap();
    let (names, _) = names.split_once("\n    }\n").unwrap();
    let calls = names.split('"').skip(1).step_by(2).map(|name| match name {
        "GetProducts" => format!("pricing:{name}"),
        "GetParameter" => format!("ssm:{name}"),
        // IAM knows the batch by the single deletion.
        "DeleteMessageBatch" => "sqs:DeleteMessage".to_owned(),
        "ReceiveMessage" => format!("sqs:{name}"),
        name => format!("ec2:{name}"),
    });
    // A fleet's instances are run in the leaders' name, with a role that they give; a queue has a name.
    let implied = ["ec2:RunInstances", "iam:PassRole", "sqs:GetQueueUrl"].map(str::to_owned);
    let needed: BTreeSet<String> = calls.chain(implied).collect();
    assert_eq!(allowed, needed);
}

#[test]
fn leaders_never_run_where_drover_may_remove_the_node() {
    let objects = objects("manifests");
    let leader = objects.iter().find(|object| object["kind"] == "StatefulSet").unwrap();
    let pointer = "/spec/template/spec/affinity/nodeAffinity\
                   /requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
    let expected = json!([{"matchExpressions": [
        {"key": "karpenter.sh/nodepool", "operator": "DoesNotExist"},
    ]}]);
    assert_eq!(leader.pointer(pointer), Some(&expected));
}

fn pool(spec: &Value) -> Value {
    let mut pool = json!({
        "apiVersion": "karpenter.sh/v1",
        "kind": "NodePool",
        "metadata": {"name": "pool"},
        "spec": {"template": {"spec": {
            "requirements": [{"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]}],
            "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "c"},
        }}},
    });
    merge(&mut pool["spec"], spec);
    pool
}

fn class(spec: &Value) -> Value {
    let mut class = json!({
        "apiVersion": "karpenter.k8s.aws/v1",
        "kind": "EC2NodeClass",
        "metadata": {"name": "class"},
        "spec": {
            "role": "node",
            "amiSelectorTerms": [{"alias": "al2023@latest"}],
            "subnetSelectorTerms": [{"id": "subnet-1"}],
            "securityGroupSelectorTerms": [{"id": "sg-1"}],
        },
    });
    merge(&mut class["spec"], spec);
    class
}

/// A JSON merge patch without removals.
fn merge(target: &mut Value, patch: &Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(target.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (target, patch) => *target = patch.clone(),
    }
}

fn requirement(key: &str, operator: &str, values: &[&str]) -> Value {
    let requirement = json!({"key": key, "operator": operator, "values": values});
    json!({"template": {"spec": {"requirements": [requirement]}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rules_of_node_pools_hold() {
    let Some(kubectl) = Kubectl::start("the_rules_of_node_pools_hold").await else { return };
    kubectl.apply("crds").await;
    let refused = [
        (json!({"weight": 1, "replicas": 2}), "weight and replicas exclude each other"),
        (json!({"weight": 101}), "weight"),
        (json!({"replicas": 2, "limits": {"cpu": "1"}}), "nodes is the only limit"),
        (json!({"limits": {"cpu": "much"}}), "limits"),
        (
            json!({"disruption": {"budgets": [{"nodes": "1", "schedule": "@daily"}]}}),
            "both schedule and duration",
        ),
        (json!({"disruption": {"budgets": [{"nodes": "101%"}]}}), "nodes"),
        (json!({"disruption": {"consolidationPolicy": "Always"}}), "consolidationPolicy"),
        (json!({"template": {"spec": {"expireAfter": "1d"}}}), "expireAfter"),
        (
            json!({"template": {"metadata": {"labels": {"karpenter.sh/nodepool": "a"}}}}),
            "restricted",
        ),
        (
            json!({"template": {"metadata": {"labels": {"karpenter.k8s.aws/mine": "a"}}}}),
            "restricted",
        ),
        (json!({"template": {"spec": {"taints": [{"key": "a", "effect": "Never"}]}}}), "effect"),
        (requirement("karpenter.sh/nodepool", "In", &["a"]), "restricted"),
        (requirement("kubernetes.io/hostname", "In", &["a"]), "restricted"),
        (requirement("a", "In", &[]), "the operator In needs a value"),
        (requirement("a", "Gt", &["1", "2"]), "exactly one integer"),
        (requirement("a", "Gte", &["-1"]), "values"),
        (requirement("a", "Within", &["1"]), "operator"),
        (requirement("a b", "In", &["1"]), "key"),
    ];
    for (spec, reason) in refused {
        let error = kubectl.apply_object(&pool(&spec)).await.expect_err(&spec.to_string());
        assert!(error.contains(reason), "{spec}: {error}");
    }
    let accepted = [
        requirement("karpenter.sh/capacity-type", "In", &["spot"]),
        requirement("karpenter.k8s.aws/instance-cpu", "Gte", &["4"]),
        json!({"disruption": {"consolidateAfter": "Never", "budgets": [
            {"nodes": "5", "schedule": "0 9 * * mon-fri", "duration": "8h", "reasons": ["Empty"]},
        ]}}),
    ];
    for spec in accepted {
        kubectl.apply_object(&pool(&spec)).await.unwrap();
    }
    // Defaults are filled in; groups and the kind of scaling never change.
    let read = kubectl.run(&["get", "nodepool", "pool", "-o", "json"], "").await.unwrap();
    let read: Value = serde_json::from_str(&read).unwrap();
    assert_eq!(read["spec"]["template"]["spec"]["expireAfter"], "720h");
    assert_eq!(read["spec"]["disruption"]["consolidationPolicy"], "WhenEmptyOrUnderutilized");
    let moved = json!({"template": {"spec": {"nodeClassRef": {"group": "other"}}}});
    let error = kubectl.apply_object(&pool(&moved)).await.unwrap_err();
    assert!(error.contains("immutable"), "{error}");
    let error = kubectl.apply_object(&pool(&json!({"replicas": 1}))).await.unwrap_err();
    assert!(error.contains("neither added nor removed"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rules_of_node_classes_hold() {
    let Some(kubectl) = Kubectl::start("the_rules_of_node_classes_hold").await else { return };
    kubectl.apply("crds").await;
    let refused = [
        (json!({"instanceProfile": "p"}), "exactly one of role and instanceProfile"),
        (json!({"amiFamily": "Bottlerocket"}), "that of the alias"),
        (json!({"amiSelectorTerms": [{"id": "ami-1"}]}), "amiFamily is needed"),
        (
            json!({"amiSelectorTerms": [{"alias": "al2023@latest"}, {"id": "ami-1"}]}),
            "the only one",
        ),
        (json!({"amiSelectorTerms": [{"alias": "fedora@latest"}]}), "family@version"),
        (json!({"amiSelectorTerms": [{"alias": "windows2022@1"}]}), "latest alone"),
        (json!({"subnetSelectorTerms": []}), "subnetSelectorTerms"),
        (json!({"subnetSelectorTerms": [{}]}), "tags or id"),
        (json!({"subnetSelectorTerms": [{"tags": {"a": ""}}]}), "empty"),
        (json!({"securityGroupSelectorTerms": [{"id": "sg-1", "name": "a"}]}), "excludes"),
        (json!({"tags": {"karpenter.sh/nodepool": "a"}}), "restricted"),
        (json!({"tags": {"kubernetes.io/cluster/a": "owned"}}), "restricted"),
        (json!({"kubelet": {"evictionSoft": {"memory.available": "5%"}}}), "need each other"),
        (json!({"kubelet": {"evictionHard": {"memory": "5%"}}}), "unknown eviction signal"),
        (json!({"kubelet": {"kubeReserved": {"gpu": "1"}}}), "can be reserved"),
        (
            json!({"kubelet": {"imageGCHighThresholdPercent": 5, "imageGCLowThresholdPercent": 9}}),
            "greater",
        ),
        (json!({"blockDeviceMappings": [{"ebs": {"iops": 3000}}]}), "snapshotID or volumeSize"),
        (json!({"blockDeviceMappings": [{"ebs": {"volumeSize": "90Ti"}}]}), "volumeSize"),
        (
            json!({"blockDeviceMappings": [{"rootVolume": true}, {"rootVolume": true}]}),
            "at most one disk",
        ),
        (json!({"metadataOptions": {"httpPutResponseHopLimit": 65}}), "httpPutResponseHopLimit"),
        (json!({"connectionTracking": {}}), "at least one timeout"),
        (
            json!({"placementGroupSelector": {"name": "a", "id": "pg-1"}}),
            "exactly one of name and id",
        ),
        (
            json!({"networkInterfaces": [{"networkCardIndex": 1, "deviceIndex": 0, "interfaceType": "interface"}]}),
            "first card",
        ),
    ];
    for (spec, reason) in refused {
        let error = kubectl.apply_object(&class(&spec)).await.expect_err(&spec.to_string());
        assert!(error.contains(reason), "{spec}: {error}");
    }
    let accepted = [
        json!({"amiFamily": "Custom"}),
        json!({"amiFamily": "AL2", "amiSelectorTerms": [{"name": "mine-*"}, {"tags": {"a": "*"}}]}),
        json!({"blockDeviceMappings": [{"deviceName": "/dev/xvda", "ebs": {"volumeSize": "58Ti"}}]}),
        json!({"kubelet": {"maxPods": 20, "topologyManagerPolicy": "best-effort"}}),
    ];
    for spec in accepted {
        kubectl.apply_object(&class(&spec)).await.unwrap();
    }
    let read = kubectl.run(&["get", "ec2nc", "class", "-o", "json"], "").await.unwrap();
    let read: Value = serde_json::from_str(&read).unwrap();
    assert_eq!(read["spec"]["metadataOptions"]["httpTokens"], "required");
    assert_eq!(read["spec"]["kubelet"]["topologyManagerPolicy"], "best-effort");
}
