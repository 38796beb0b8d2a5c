//! Bottlerocket: TOML settings, merged into the user's.

use std::collections::BTreeMap;

use drover_common::crd::{Ec2NodeClassSpec, InstanceStorePolicy, KubeletConfiguration};
use toml_edit::{Array, DocumentMut, Item, Table, value};

use super::UserDataError;
use crate::nodeclass::template::{ClusterSettings, NodeRegistration};

/// The user's settings with those of the cluster, the node and the kubelet over them.
pub(super) fn settings(
    spec: &Ec2NodeClassSpec,
    node: &NodeRegistration,
    cluster: &ClusterSettings,
) -> Result<String, UserDataError> {
    let own = spec.user_data.as_deref().unwrap_or_default();
    let mut document: DocumentMut = own
        .parse()
        .map_err(|error: toml_edit::TomlError| UserDataError::Toml(error.to_string()))?;
    let kubernetes = table(&mut document, &["settings", "kubernetes"])?;
    for (key, text) in [
        ("api-server", &cluster.endpoint),
        ("cluster-name", &cluster.name),
        ("cluster-certificate", &cluster.ca_bundle),
    ] {
        if !text.is_empty() {
            kubernetes.insert(key, value(text));
        }
    }
    kubelet_settings(&spec.kubelet.clone().unwrap_or_default(), kubernetes);

    let labels = table(&mut document, &["settings", "kubernetes", "node-labels"])?;
    for (key, text) in node.kubelet_labels() {
        labels.insert(key, value(text));
    }
    // Several taints may share a key.
    let mut taints: BTreeMap<String, Array> = BTreeMap::new();
    for taint in node.all_taints() {
        let list = taints.entry(taint.key).or_default();
        list.push(format!("{}:{:?}", taint.value, taint.effect));
    }
    let taint_table = table(&mut document, &["settings", "kubernetes", "node-taints"])?;
    for (key, list) in taints {
        taint_table.insert(&key, value(list));
    }
    if spec.instance_store_policy == Some(InstanceStorePolicy::Raid0) {
        let commands = table(&mut document, &["settings", "bootstrap-commands", "000-ephemeral"])?;
        let mut list = Array::new();
        list.push(Array::from_iter(["apiclient", "ephemeral-storage", "init"]));
        list.push(Array::from_iter([
            "apiclient",
            "ephemeral-storage",
            "bind",
            "--dirs",
            "/var/lib/containerd",
            "/var/lib/kubelet",
            "/var/log/pods",
        ]));
        commands.insert("commands", value(list));
        commands.insert("essential", value(true));
        commands.insert("mode", value("always"));
    }
    Ok(document.to_string())
}

fn kubelet_settings(kubelet: &KubeletConfiguration, kubernetes: &mut Table) {
    let mut number = |key: &str, amount: Option<i64>| {
        if let Some(amount) = amount {
            kubernetes.insert(key, value(amount));
        }
    };
    number("max-pods", kubelet.max_pods.map(i64::from));
    number("eviction-max-pod-grace-period", kubelet.eviction_max_pod_grace_period.map(i64::from));
    // Bottlerocket wants these two as texts.
    for (key, percent) in [
        ("image-gc-high-threshold-percent", kubelet.image_gc_high_threshold_percent),
        ("image-gc-low-threshold-percent", kubelet.image_gc_low_threshold_percent),
    ] {
        if let Some(percent) = percent {
            kubernetes.insert(key, value(percent.to_string()));
        }
    }
    if let Some(quota) = kubelet.cpu_cfs_quota {
        kubernetes.insert("cpu-cfs-quota-enforced", value(quota));
    }
    if let Some(address) = kubelet.cluster_dns.first() {
        kubernetes.insert("cluster-dns-ip", value(address));
    }
    for (key, map) in [
        ("system-reserved", &kubelet.system_reserved),
        ("kube-reserved", &kubelet.kube_reserved),
        ("eviction-hard", &kubelet.eviction_hard),
        ("eviction-soft", &kubelet.eviction_soft),
        ("eviction-soft-grace-period", &kubelet.eviction_soft_grace_period),
    ] {
        if !map.is_empty() {
            let entries = map.iter().map(|(key, text)| (key.as_str(), value(text)));
            kubernetes.insert(key, Item::Table(entries.collect()));
        }
    }
}

/// The table at a path, made where it is missing.
fn table<'document>(
    document: &'document mut DocumentMut,
    path: &[&str],
) -> Result<&'document mut Table, UserDataError> {
    let mut table = document.as_table_mut();
    for (depth, key) in path.iter().enumerate() {
        let item = table.entry(key).or_insert_with(|| {
            let mut made = Table::new();
            // Parents of tables need no heading of their own.
            made.set_implicit(true);
            Item::Table(made)
        });
        // An inline table can't hold the tables below: it becomes an ordinary one.
        if let Some(inline) = item.as_inline_table().cloned() {
            *item = Item::Table(inline.into_table());
        }
        table = item.as_table_mut().ok_or_else(|| {
            UserDataError::NotATable(path.get(..=depth).unwrap_or(path).join("."))
        })?;
    }
    Ok(table)
}
