//! DaemonSets: the room their pods take on every node they match.

use std::collections::BTreeMap;
use std::sync::Arc;

use drover_common::cluster::{DaemonSet, ObjectKey};
use drover_common::instance_type::InstanceType;
use drover_common::labels;
use drover_common::requirement::Requirement;
use drover_common::taint::{Taint, Toleration};

use super::dimension::{Amounts, Dimensions, add_times};
use super::matching::{current_key, fulfils, repelling};
use crate::view::{HostPort, PodShape, View};

/// Labels of a node that its type does not tell.
pub(super) const NOT_OF_TYPE: [&str; 4] =
    [labels::ZONE, labels::CAPACITY_TYPE, labels::HOSTNAME, labels::ZONE_ID];

/// A DaemonSet as the planner sees it.
#[derive(Clone, Debug)]
pub(super) struct Daemon {
    pub key: ObjectKey,
    pub shape: PodShape,
}

/// Every DaemonSet of the cluster.
pub(super) fn daemons_of(view: &View) -> Vec<Daemon> {
    view.daemon_sets().values().map(daemon).collect()
}

fn daemon(set: &Arc<DaemonSet>) -> Daemon {
    let template = &set.spec.template;
    let mut shape =
        PodShape::of_template(&set.metadata.namespace, &template.metadata.labels, &template.spec);
    // The DaemonSet controller adds tolerations of node conditions to every pod it makes.
    for key in ["not-ready", "unreachable", "disk-pressure", "memory-pressure", "pid-pressure"] {
        shape.tolerations.push(condition_toleration(key));
    }
    for key in ["unschedulable", "network-unavailable"] {
        shape.tolerations.push(condition_toleration(key));
    }
    Daemon { key: ObjectKey::from(&set.metadata), shape }
}

fn condition_toleration(condition: &str) -> Toleration {
    Toleration {
        key: Some(format!("node.kubernetes.io/{condition}")),
        operator: Some("Exists".to_owned()),
        ..Toleration::default()
    }
}

impl Daemon {
    /// Whether a pod of it runs on a node with these labels and taints. Labels that are not known
    /// yet (`unknown`) are taken to match: too much room reserved beats too little.
    pub(super) fn runs_on<'l>(
        &self,
        label: &dyn Fn(&str) -> Option<&'l str>,
        taints: &[Taint],
        unknown: &dyn Fn(&str) -> bool,
    ) -> bool {
        if repelling(taints, &self.shape.tolerations, false).is_some() {
            return false;
        }
        let holds = |requirement: &Requirement| {
            let key = current_key(&requirement.key);
            unknown(key) || fulfils(requirement, label(key))
        };
        let selected = self.shape.node_selector.iter().all(|(key, value)| {
            let key = current_key(key);
            unknown(key) || label(key) == Some(value.as_str())
        });
        let required = self
            .shape
            .affinity
            .node_affinity
            .as_ref()
            .and_then(|affinity| affinity.required.as_ref());
        selected
            && required.is_none_or(|selector| {
                selector
                    .node_selector_terms
                    .iter()
                    .filter(|term| !term.match_expressions.is_empty())
                    .any(|term| term.match_expressions.iter().all(holds))
            })
    }
}

/// What all daemons together take of a new node of this type.
pub(super) fn load_of(
    daemons: &[Daemon],
    instance_type: &InstanceType,
    template_labels: Option<&BTreeMap<String, String>>,
    taints: &[Taint],
    dimensions: &Dimensions,
) -> (Amounts, Vec<HostPort>) {
    let label = |key: &str| {
        if key == labels::INSTANCE_TYPE {
            return Some(instance_type.name.as_str());
        }
        template_labels
            .and_then(|labels| labels.get(key))
            .or_else(|| instance_type.labels.get(key))
            .map(String::as_str)
    };
    let unknown = |key: &str| NOT_OF_TYPE.contains(&key);
    let mut taken = vec![0; dimensions.len()];
    let mut ports = Vec::new();
    for daemon in daemons.iter().filter(|daemon| daemon.runs_on(&label, taints, &unknown)) {
        add_times(&mut taken, &dimensions.dense(&daemon.shape.requests), 1);
        ports.extend(daemon.shape.ports.iter().cloned());
    }
    (taken, ports)
}
