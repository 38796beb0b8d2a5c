//! The kubelet's command line.

use std::collections::BTreeMap;

use drover_common::crd::KubeletConfiguration;
use drover_common::taint::Taint;

use crate::nodeclass::template::NodeRegistration;

/// `--node-labels=…`; empty if there are none.
pub(super) fn label_argument(node: &NodeRegistration, quote: &str) -> Option<String> {
    let labels: Vec<String> =
        node.kubelet_labels().iter().map(|(key, value)| format!("{key}={value}")).collect();
    (!labels.is_empty()).then(|| format!("--node-labels={quote}{}{quote}", labels.join(",")))
}

/// A taint as the kubelet's command line takes it.
fn taint(taint: &Taint) -> String {
    format!("{}={}:{:?}", taint.key, taint.value, taint.effect)
}

/// Everything a kubelet is told that has no configuration file.
pub(super) fn arguments(
    kubelet: &KubeletConfiguration,
    node: &NodeRegistration,
    quote: &str,
) -> Vec<String> {
    let mut list: Vec<String> = label_argument(node, quote).into_iter().collect();
    let taints: Vec<String> = node.all_taints().iter().map(taint).collect();
    list.push(format!("--register-with-taints={quote}{}{quote}", taints.join(",")));
    let mut number = |flag: &str, value: Option<i64>| {
        list.extend(value.map(|value| format!("--{flag}={value}")));
    };
    number("max-pods", kubelet.max_pods.map(i64::from));
    number("pods-per-core", kubelet.pods_per_core.map(i64::from));
    number("eviction-max-pod-grace-period", kubelet.eviction_max_pod_grace_period.map(i64::from));
    number("image-gc-high-threshold", kubelet.image_gc_high_threshold_percent.map(i64::from));
    number("image-gc-low-threshold", kubelet.image_gc_low_threshold_percent.map(i64::from));
    for (flag, map, sign) in [
        ("system-reserved", &kubelet.system_reserved, "="),
        ("kube-reserved", &kubelet.kube_reserved, "="),
        ("eviction-hard", &kubelet.eviction_hard, "<"),
        ("eviction-soft", &kubelet.eviction_soft, "<"),
        ("eviction-soft-grace-period", &kubelet.eviction_soft_grace_period, "="),
    ] {
        list.extend(pairs(map, sign).map(|pairs| format!("--{flag}={quote}{pairs}{quote}")));
    }
    list.extend(kubelet.cpu_cfs_quota.map(|quota| format!("--cpu-cfs-quota={quota}")));
    list
}

fn pairs(map: &BTreeMap<String, String>, sign: &str) -> Option<String> {
    let pairs: Vec<String> = map.iter().map(|(key, value)| format!("{key}{sign}{value}")).collect();
    (!pairs.is_empty()).then(|| pairs.join(","))
}
