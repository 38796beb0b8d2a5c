//! Amazon Linux: nodeadm's NodeConfig (2023), EKS's bootstrap script (2).

use drover_common::crd::{Ec2NodeClassSpec, InstanceStorePolicy};
use serde_json::{Map, Value, json};

use super::UserDataError;
use super::arguments::{arguments, label_argument};
use super::mime::{Part, archive, user_parts};
use super::yaml;
use crate::nodeclass::template::{ClusterSettings, NodeRegistration};

/// An archive of the user's parts and a NodeConfig; nodeadm merges configurations in order, so ours
/// has the last word.
pub(super) fn nodeadm(
    spec: &Ec2NodeClassSpec,
    node: &NodeRegistration,
    cluster: &ClusterSettings,
) -> Result<String, UserDataError> {
    let mut parts = user_parts(spec.user_data.as_deref().unwrap_or_default())?;
    let config = node_config(spec, node, cluster);
    parts.push(Part::new("application/node.eks.aws", yaml::document(&config)));
    Ok(archive(&parts))
}

fn node_config(
    spec: &Ec2NodeClassSpec,
    node: &NodeRegistration,
    cluster: &ClusterSettings,
) -> Value {
    let mut kubelet = match serde_json::to_value(spec.kubelet.clone().unwrap_or_default()) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    let taints = node.all_taints();
    kubelet.insert("registerWithTaints".to_owned(), json!(taints));
    let mut about = Map::new();
    for (key, value) in [
        ("name", Some(cluster.name.as_str())),
        ("apiServerEndpoint", Some(cluster.endpoint.as_str())),
        ("certificateAuthority", Some(cluster.ca_bundle.as_str())),
        ("cidr", cluster.service_cidr.as_deref()),
    ] {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            about.insert(key.to_owned(), json!(value));
        }
    }
    let flags: Vec<String> = label_argument(node, "").into_iter().collect();
    let mut config = json!({
        "apiVersion": "node.eks.aws/v1alpha1",
        "kind": "NodeConfig",
        "spec": {
            "cluster": about,
            "kubelet": {"config": kubelet, "flags": flags},
        },
    });
    if spec.instance_store_policy == Some(InstanceStorePolicy::Raid0)
        && let Some(Value::Object(spec)) = config.get_mut("spec")
    {
        spec.insert("instance".to_owned(), json!({"localStorage": {"strategy": "RAID0"}}));
    }
    config
}

/// An archive of the user's parts and a call of EKS's bootstrap script.
pub(super) fn bootstrap(
    spec: &Ec2NodeClassSpec,
    node: &NodeRegistration,
    cluster: &ClusterSettings,
) -> Result<String, UserDataError> {
    let mut parts = user_parts(spec.user_data.as_deref().unwrap_or_default())?;
    let kubelet = spec.kubelet.clone().unwrap_or_default();
    let mut command = vec![format!("/etc/eks/bootstrap.sh '{}'", cluster.name)];
    let mut option = |name: &str, value: &str| {
        if !value.is_empty() {
            command.push(format!("--{name} '{value}'"));
        }
    };
    option("apiserver-endpoint", &cluster.endpoint);
    option("b64-cluster-ca", &cluster.ca_bundle);
    option("dns-cluster-ip", kubelet.cluster_dns.first().map_or("", String::as_str));
    if spec.instance_store_policy == Some(InstanceStorePolicy::Raid0) {
        option("local-disks", "raid0");
    }
    if kubelet.max_pods.is_some() {
        option("use-max-pods", "false");
    }
    option("kubelet-extra-args", &arguments(&kubelet, node, "\"").join(" "));
    let script = format!("#!/bin/bash -e\n{}\n", command.join(" \\\n  "));
    parts.push(Part::new("text/x-shellscript; charset=\"us-ascii\"", script));
    Ok(archive(&parts))
}
