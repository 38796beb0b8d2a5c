//! `drover simulate` as a user runs it: on what kubectl dumps from a sandbox, and on bad input.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use drover_sandbox::{Options, Sandbox};
use serde_json::Value;

const KINDS: &str = "pods,nodes,nodepools,nodeclaims,ec2nodeclasses,poddisruptionbudgets,daemonsets,\
                     replicasets,statefulsets,jobs,persistentvolumeclaims,persistentvolumes,\
                     storageclasses,csinodes,namespaces,configmaps";

const MANIFESTS: &str = r#"
apiVersion: karpenter.sh/v1
kind: NodePool
metadata: {name: default}
spec:
  template:
    spec:
      nodeClassRef: {group: karpenter.k8s.aws, kind: EC2NodeClass, name: default}
      requirements:
      - {key: karpenter.sh/capacity-type, operator: In, values: [on-demand]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: default}
spec:
  replicas: 12
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: c, image: i, resources: {requests: {cpu: "1", memory: 2Gi}}}]
      topologySpreadConstraints:
      - maxSkew: 1
        topologyKey: topology.kubernetes.io/zone
        whenUnsatisfiable: DoNotSchedule
        labelSelector: {matchLabels: {app: web}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent, namespace: kube-system}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      containers: [{name: c, image: i, resources: {requests: {cpu: 100m, memory: 128Mi}}}]
---
apiVersion: v1
kind: Pod
metadata: {name: huge, namespace: default}
spec:
  containers: [{name: c, image: i, resources: {requests: {cpu: "2000"}}}]
"#;

fn simulate(arguments: &[&str], input: Option<&[u8]>) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_drover"))
        .arg("simulate")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    if let Some(bytes) = input {
        stdin.write_all(bytes).unwrap();
    }
    drop(stdin);
    child.wait_with_output().unwrap()
}

/// The answer without the time it took.
fn answer(output: &Output) -> Value {
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaints}");
    let mut answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    answer["summary"]["planSeconds"] = Value::Null;
    answer
}

fn kubectl(kubeconfig: &Path, arguments: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new("kubectl")
        .env("KUBECONFIG", kubeconfig)
        .env("HOME", kubeconfig.parent().unwrap())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Dumps the sandbox once the controllers have made every pod.
fn dump_when_settled(kubeconfig: &Path) -> (String, String) {
    for _ in 0..200 {
        let pods = kubectl(kubeconfig, &["get", "pods", "-A", "-o", "name"], "").unwrap();
        if pods.lines().count() == 13 {
            let dump =
                |format| kubectl(kubeconfig, &["get", KINDS, "-A", "-o", format], "").unwrap();
            return (dump("json"), dump("yaml"));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("the pods never came");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kubectl_dumps_is_planned_for() {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    if let Err(error) = kubectl(&kubeconfig, &["version", "--client"], "") {
        let mut uncaptured = std::io::stderr();
        writeln!(
            uncaptured,
            "SKIPPED what_kubectl_dumps_is_planned_for: kubectl is missing: {error}"
        )
        .unwrap();
        return;
    }
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    std::fs::write(&kubeconfig, sandbox.kubeconfig()).unwrap();
    let crds = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/crds");
    let at = kubeconfig.clone();
    let (json, yaml) = tokio::task::spawn_blocking(move || {
        kubectl(&at, &["apply", "-f", crds], "").unwrap();
        kubectl(&at, &["apply", "-f", "-"], MANIFESTS).unwrap();
        dump_when_settled(&at)
    })
    .await
    .unwrap();
    sandbox.shutdown().await;

    let file = folder.path().join("dump.json");
    std::fs::write(&file, &json).unwrap();
    let path = file.to_str().unwrap();
    let first = answer(&simulate(&["-f", path, "-o", "json"], None));
    let summary = &first["summary"];
    assert_eq!(summary["pods"], 13, "{first:#}");
    assert_eq!((&summary["onNew"], &summary["unschedulable"]), (&12.into(), &1.into()));
    assert_eq!(first["unschedulable"][0]["pod"], "default/huge");
    let launches = first["launches"].as_array().unwrap();
    assert!(launches.iter().all(|launch| launch["zones"].as_array().unwrap().len() == 1));
    let again = answer(&simulate(&["-f", path, "-o", "json"], None));
    assert_eq!(first, again);

    let from_yaml = simulate(&["-f", "-", "-o", "json"], Some(yaml.as_bytes()));
    assert_eq!(answer(&from_yaml), first);
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(json.as_bytes()).unwrap();
    let packed = packer.finish().unwrap();
    assert_eq!(answer(&simulate(&["-f", "-", "-o", "json"], Some(&packed))), first);

    let table = simulate(&["-f", path], None);
    let text = String::from_utf8_lossy(&table.stdout);
    assert!(text.starts_with("13 pods waiting: 0 on nodes that are there"), "{text}");
    let notes = String::from_utf8_lossy(&table.stderr);
    assert!(notes.contains("peak memory"), "{notes}");
}

#[test]
fn the_status_tells_what_went_wrong() {
    let broken = simulate(
        &["-f", "-"],
        Some(
            br#"{"kind": "Pod", "apiVersion": "v1", "metadata":
        {"name": "a"}, "spec": {"containers": 7}}"#,
        ),
    );
    assert_eq!(broken.status.code(), Some(2));
    assert!(broken.stdout.is_empty());
    assert_eq!(
        String::from_utf8_lossy(&broken.stderr),
        "error: -, document 1: Pod a: field spec.containers: invalid type: integer `7`, expected a sequence\n"
    );
    let missing = simulate(&["-f", "/nowhere/at/all.json"], None);
    assert_eq!(missing.status.code(), Some(2));
    let catalog = simulate(&["-f", "-", "--catalog", "/nowhere/at/all.json"], Some(b"{}"));
    assert_eq!(catalog.status.code(), Some(2));
    let nothing = simulate(&["-f", "-"], Some(b""));
    assert_eq!(nothing.status.code(), Some(0));
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let unwritable = Command::new(env!("CARGO_BIN_EXE_drover"))
        .args(["simulate", "-f", "-"])
        .stdin(Stdio::null())
        .stdout(full)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(unwritable.status.code(), Some(1));
}

#[test]
fn a_wrong_command_line_is_no_unreadable_input() {
    for arguments in [&["--nonsense"][..], &[], &["-f", "-", "--max-node-vcpus", "0"]] {
        let refused = simulate(arguments, Some(b""));
        assert_eq!(refused.status.code(), Some(1), "{arguments:?}");
        assert!(refused.stdout.is_empty() && !refused.stderr.is_empty());
    }
    assert_eq!(simulate(&["--help"], None).status.code(), Some(0));
}

#[test]
fn flags_set_what_a_leaders_do() {
    let pod = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "NAME"}, "spec": {"containers":
        [{"name": "c", "resources": {"requests": {"cpu": "1", "memory": "2Gi"}}}]}}"#;
    let pods = (0..40).map(|number| pod.replace("NAME", &format!("p{number}")));
    let pool = MANIFESTS.split("---").next().unwrap();
    let pods: Vec<String> = pods.collect();
    let input = format!("{pool}---\n{}", pods.join("\n---\n"));
    let launches = |flags: &[&str]| {
        let arguments = [&["-f", "-", "-o", "json"], flags].concat();
        answer(&simulate(&arguments, Some(input.as_bytes())))["launches"].as_array().unwrap().len()
    };
    let (usual, small) = (launches(&[]), launches(&["--max-node-vcpus", "4"]));
    assert!(usual <= 4 && small >= 10, "{usual} and {small} launches");
}

/// Objects of all kinds that a plan may find several answers for.
fn crowd() -> Vec<String> {
    let mut objects: Vec<String> =
        MANIFESTS.split("---").take(1).map(|pool| pool.trim().to_owned()).collect();
    for number in 0..60 {
        let (app, cpu) = (number % 7, 200 + number % 7 * 150);
        let rule = match app {
            0 => {
                "topologySpreadConstraints: [{maxSkew: 1, topologyKey: topology.kubernetes.io/zone, \
                  whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: app0}}}]"
            }
            1 => {
                "affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: \
                  [{topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: app1}}}]}}"
            }
            2 => {
                "affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: \
                  [{topologyKey: topology.kubernetes.io/zone, labelSelector: {matchLabels: {app: app3}}}]}}"
            }
            _ => "hostNetwork: false",
        };
        objects.push(format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: pod-{number:02}, namespace: n{}, labels: {{app: \
             app{app}}}}}\nspec:\n  containers: [{{name: c, resources: {{requests: {{cpu: {cpu}m, memory: \
             1Gi}}}}}}]\n  {rule}",
            number % 2
        ));
    }
    for number in 0..6 {
        objects.push(format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{name: node-{number}, creationTimestamp: \
             \"2026-01-0{}T00:00:00Z\", labels: {{karpenter.sh/nodepool: default, \
             karpenter.sh/capacity-type: on-demand, node.kubernetes.io/instance-type: m5.large, \
             kubernetes.io/hostname: node-{number}, topology.kubernetes.io/zone: us-east-1{}}}}}\nstatus: \
             {{allocatable: {{cpu: 1900m, memory: 6Gi, pods: \"29\"}}, capacity: {{cpu: \"2\", memory: \
             8Gi, pods: \"29\"}}}}",
            number + 1,
            ["a", "b", "c"][number % 3]
        ));
    }
    objects
}

/// The answer's bytes, but for the line with the time it took.
fn bytes_of(folder: &Path, output: &str) -> String {
    let path = folder.to_str().unwrap();
    let done = simulate(&["-f", path, "--consolidate", "-o", output], None);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let text = String::from_utf8(done.stdout).unwrap();
    text.lines().filter(|line| !line.contains("planSeconds")).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_same_objects_give_the_same_bytes_in_each_process_and_order() {
    let objects = crowd();
    let folder = |files: usize, backwards: bool| {
        let made = tempfile::tempdir().unwrap();
        let mut parts: Vec<Vec<&str>> = vec![Vec::new(); files];
        for (number, object) in objects.iter().enumerate() {
            parts[number % files].push(object);
        }
        for (number, part) in parts.iter_mut().enumerate() {
            if backwards {
                part.reverse();
            }
            let name = if backwards { files - number } else { number };
            let file = made.path().join(format!("{name}.yaml"));
            std::fs::write(file, part.join("\n---\n")).unwrap();
        }
        made
    };
    let (one, many, back) = (folder(1, false), folder(5, false), folder(4, true));
    for output in ["json", "yaml", "table"] {
        let first = bytes_of(one.path(), output);
        assert!(first.lines().count() > 10, "{first}");
        assert_eq!(bytes_of(one.path(), output), first);
        assert_eq!(bytes_of(many.path(), output), first);
        assert_eq!(bytes_of(back.path(), output), first);
    }
}

/// Two nodes with a pod each, which one of them could run, and a window in which none may go.
const HALF_EMPTY: &str = r#"
apiVersion: karpenter.sh/v1
kind: NodePool
metadata: {name: default}
spec:
  disruption:
    budgets:
    - {nodes: "100%"}
    - {nodes: "0", schedule: "0 9 * * *", duration: 8h}
  template:
    spec:
      requirements: []
      nodeClassRef: {group: karpenter.k8s.aws, kind: EC2NodeClass, name: default}
---
apiVersion: v1
kind: Node
metadata:
  name: NAME
  labels:
    karpenter.sh/nodepool: default
    karpenter.sh/capacity-type: on-demand
    node.kubernetes.io/instance-type: m5.large
    topology.kubernetes.io/zone: us-east-1a
    kubernetes.io/hostname: NAME
spec: {providerID: "aws:///us-east-1a/i-NAME"}
status:
  allocatable: {cpu: 1930m, memory: 6903Mi, pods: "29"}
  capacity: {cpu: "2", memory: 7577Mi, pods: "29"}
---
apiVersion: v1
kind: Pod
metadata: {name: on-NAME}
spec:
  nodeName: NAME
  containers: [{name: c, resources: {requests: {cpu: 500m, memory: 1Gi}}}]
"#;

#[test]
fn consolidation_is_planned_when_asked_for_and_budgets_keep_their_hours() {
    let input = [HALF_EMPTY.replace("NAME", "n1"), HALF_EMPTY.replace("NAME", "n2")].join("---");
    let nodes = |flags: &[&str]| {
        let arguments = [&["-f", "-", "-o", "json"], flags].concat();
        let answer = answer(&simulate(&arguments, Some(input.as_bytes())));
        let disruptions = answer["disruptions"].as_array().cloned().unwrap_or_default();
        disruptions.iter().map(|one| one["nodes"].as_array().unwrap().len()).sum::<usize>()
    };
    assert_eq!(nodes(&["--now", "2026-11-26T20:00:00Z"]), 0, "it was not asked for");
    assert!(nodes(&["--consolidate", "--now", "2026-11-26T20:00:00Z"]) >= 1);
    assert_eq!(nodes(&["--consolidate", "--now", "2026-11-26T10:00:00Z"]), 0, "within the window");
}
