//! A made-up dump in the layout of kubectl, to try `drover simulate` on.

use std::io::{BufWriter, Write};
use std::process::ExitCode;

use anyhow::Context;
use serde::Serialize;
use serde_json::{Value, json};

use crate::args::{DumpArgs, DumpFormat};

/// Deployments that the pods belong to.
const DEPLOYMENTS: u32 = 200;
const ZONES: [&str; 3] = ["us-east-1a", "us-east-1b", "us-east-1c"];

/// Prints a list of pods, nodes and a NodePool. The same arguments give the same bytes.
///
/// # Errors
/// Standard output can't be written to.
pub(crate) fn run(args: &DumpArgs) -> anyhow::Result<ExitCode> {
    let mut out = BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
    write(args, &mut out).context("cannot write the dump")?;
    out.flush().context("cannot write the dump")?;
    Ok(ExitCode::SUCCESS)
}

fn write(args: &DumpArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let nodes = (0..args.nodes).map(node);
    let bound = args.nodes.saturating_mul(args.pods_per_node).min(args.pods);
    let pods = (0..args.pods).map(|number| {
        let on = (number < bound).then(|| format!("ip-10-0-{}", number % args.nodes.max(1)));
        pod(number, on, args.managed_fields)
    });
    let all = std::iter::once(pool()).chain(nodes).chain(pods);
    match args.format {
        DumpFormat::Json => {
            out.write_all(b"{\n    \"apiVersion\": \"v1\",\n    \"items\": [\n")?;
            for (number, object) in all.enumerate() {
                if number > 0 {
                    out.write_all(b",\n")?;
                }
                let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
                let mut printer = serde_json::Serializer::with_formatter(&mut *out, formatter);
                object.serialize(&mut printer)?;
            }
            out.write_all(b"\n    ],\n    \"kind\": \"List\",\n    \"metadata\": {}\n}\n")?;
        }
        DumpFormat::Yaml => {
            out.write_all(b"apiVersion: v1\nitems:\n")?;
            for object in all {
                for (number, line) in serde_saphyr::to_string(&object)?.lines().enumerate() {
                    let margin = if number == 0 { "- " } else { "  " };
                    writeln!(out, "{margin}{line}")?;
                }
            }
            out.write_all(b"kind: List\nmetadata:\n  resourceVersion: \"\"\n")?;
        }
    }
    Ok(())
}

fn pool() -> Value {
    json!({
        "apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": {"name": "default"},
        "spec": {"template": {"spec": {
            "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default"},
            "requirements": [
                {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]},
            ],
        }}},
    })
}

fn node(number: u32) -> Value {
    let name = format!("ip-10-0-{number}");
    let zone = ZONES.get(number as usize % ZONES.len()).copied().unwrap_or_default();
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {
            "kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux",
            "kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone,
            "karpenter.sh/nodepool": "default", "karpenter.sh/capacity-type": "on-demand",
            "node.kubernetes.io/instance-type": "m5.4xlarge", "karpenter.sh/initialized": "true",
        }},
        "spec": {"providerID": format!("aws:///{zone}/i-{number:017x}")},
        "status": {
            "allocatable": {"cpu": "15890m", "memory": "57691Mi", "pods": "234", "ephemeral-storage": "17Gi"},
            "capacity": {"cpu": "16", "memory": "60620Mi", "pods": "234", "ephemeral-storage": "20Gi"},
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady",
                "lastHeartbeatTime": "2026-01-01T00:05:00Z",
                "lastTransitionTime": "2026-01-01T00:00:30Z"}],
            "images": (0..20).map(|image| json!({"names": [format!("registry.example.com/team/image-{image}:v1.{number}")],
                "sizeBytes": 123_456_789})).collect::<Vec<_>>(),
        },
    })
}

fn pod(number: u32, node: Option<String>, managed_fields: bool) -> Value {
    let deployment = number % DEPLOYMENTS;
    let app = format!("service-{deployment}");
    let owner = format!("{app}-{:010x}", u64::from(deployment).wrapping_mul(0x9e37_79b9_7f4a) >> 8);
    let name = format!("{owner}-{number:05x}");
    let mut object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": format!("team-{}", deployment % 20),
            "generateName": format!("{owner}-"), "uid": format!("{number:08x}-0000-4000-8000-000000000000"),
            "resourceVersion": format!("{}", 1_000_000 + number),
            "creationTimestamp": "2026-01-01T00:04:00Z",
            "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "9090",
                "checksum/config": "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"},
            "labels": {"app.kubernetes.io/name": app, "app.kubernetes.io/part-of": "shop",
                "pod-template-hash": owner.rsplit_once('-').map_or("", |(_, hash)| hash)},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner,
                "uid": format!("{deployment:08x}-0000-4000-9000-000000000000"), "controller": true,
                "blockOwnerDeletion": true}],
        },
        "spec": spec(deployment, node.as_deref()),
        "status": status(deployment, node.is_some()),
    });
    if managed_fields {
        object["metadata"]["managedFields"] = json!([{"apiVersion": "v1", "fieldsType": "FieldsV1",
            "manager": "kube-controller-manager", "operation": "Update", "time": "2026-01-01T00:04:00Z",
            "fieldsV1": fields_of(&object["spec"])}]);
    }
    object
}

/// What a managed field entry says of a value.
fn fields_of(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, field)| (format!("f:{name}"), fields_of(field)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        _ => json!({}),
    }
}

fn spec(deployment: u32, node: Option<&str>) -> Value {
    let cpu = 50 + deployment * 37 % 1950;
    let memory = 64 + deployment * 211 % 8000;
    let container = |name: &str, cpu: u32, memory: u32| {
        json!({
            "name": name, "image": format!("registry.example.com/team/{name}:v1.2.{deployment}"),
            "imagePullPolicy": "IfNotPresent",
            "args": ["--listen=:8080", "--log-format=json", "--config=/etc/service/config.yaml"],
            "env": (0..8).map(|n| json!({"name": format!("SETTING_{n}"),
                "value": format!("https://service-{n}.example.com:8443/path")})).collect::<Vec<_>>(),
            "ports": [{"containerPort": 8080, "name": "http", "protocol": "TCP"}],
            "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080, "scheme": "HTTP"},
                "failureThreshold": 3, "periodSeconds": 10, "successThreshold": 1, "timeoutSeconds": 1},
            "livenessProbe": {"httpGet": {"path": "/live", "port": 8080, "scheme": "HTTP"},
                "failureThreshold": 3, "periodSeconds": 10, "successThreshold": 1, "timeoutSeconds": 1},
            "resources": {"requests": {"cpu": format!("{cpu}m"), "memory": format!("{memory}Mi")},
                "limits": {"memory": format!("{}Mi", memory * 2)}},
            "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": true},
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
            "volumeMounts": [
                {"mountPath": "/etc/service", "name": "config", "readOnly": true},
                {"mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
                    "name": "kube-api-access", "readOnly": true}],
        })
    };
    let mut spec = json!({
        "containers": [container("main", cpu, memory), container("proxy", 10, 32)],
        "dnsPolicy": "ClusterFirst", "enableServiceLinks": true,
        "preemptionPolicy": "PreemptLowerPriority", "priority": 0, "restartPolicy": "Always",
        "schedulerName": "default-scheduler", "securityContext": {"fsGroup": 2000, "runAsNonRoot": true},
        "serviceAccount": "service", "serviceAccountName": "service",
        "terminationGracePeriodSeconds": 30,
        "tolerations": [
            {"effect": "NoExecute", "key": "node.kubernetes.io/not-ready", "operator": "Exists",
                "tolerationSeconds": 300},
            {"effect": "NoExecute", "key": "node.kubernetes.io/unreachable", "operator": "Exists",
                "tolerationSeconds": 300}],
        "volumes": [
            {"name": "config", "configMap": {"defaultMode": 420, "name": format!("service-{deployment}")}},
            {"name": "kube-api-access", "projected": {"defaultMode": 420, "sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [{"path": "namespace",
                    "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}}]}}],
    });
    if let Some(node) = node {
        spec["nodeName"] = json!(node);
    }
    spec
}

fn status(deployment: u32, runs: bool) -> Value {
    if !runs {
        return json!({"phase": "Pending", "qosClass": "Burstable", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                "lastProbeTime": null, "lastTransitionTime": "2026-01-01T00:04:01Z",
                "message": "0/0 nodes are available: preemption is not helpful for scheduling."}]});
    }
    let condition = |kind: &str| {
        json!({"type": kind, "status": "True", "lastProbeTime": null,
            "lastTransitionTime": "2026-01-01T00:04:10Z"})
    };
    let containers = ["main", "proxy"].map(|name| {
        json!({
            "name": name, "ready": true, "restartCount": 0, "started": true, "lastState": {},
            "image": format!("registry.example.com/team/{name}:v1.2.{deployment}"),
            "imageID": format!("registry.example.com/team/{name}@sha256:{deployment:064x}"),
            "containerID": format!("containerd://{deployment:064x}"),
            "state": {"running": {"startedAt": "2026-01-01T00:04:05Z"}},
        })
    });
    let conditions =
        ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"]
            .map(condition);
    json!({
        "phase": "Running", "qosClass": "Burstable", "hostIP": "10.0.0.1", "podIP": "10.0.1.1",
        "startTime": "2026-01-01T00:04:02Z", "conditions": conditions,
        "containerStatuses": containers,
    })
}
