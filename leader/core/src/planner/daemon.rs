//! DaemonSets: the room their pods take on every node they match.

use std::collections::BTreeMap;

use drover_common::cluster::{DaemonSet, NodeSelector, ObjectKey};
use drover_common::instance_type::{InstanceType, Offering};
use drover_common::labels;
use drover_common::requirement::Requirement;
use drover_common::taint::{Taint, Toleration};

use super::dimension::{Amounts, Dimensions, add_times};
use super::market::{is_offer_key, offering_label, type_label};
use super::matching::{current_key, fulfils, repelling};
use crate::view::{HostPort, PodShape, View};

/// Whether neither a node's type nor its offering tells this label. Ids of zones are known if they were resolved.
pub(super) fn is_of_no_offering(key: &str, zone_id: Option<&str>) -> bool {
    key == labels::HOSTNAME || (key == labels::ZONE_ID && zone_id.is_none())
}

/// A DaemonSet as the planner sees it.
#[derive(Clone, Debug)]
pub(super) struct Daemon {
    pub key: ObjectKey,
    pub shape: PodShape,
}

/// Every DaemonSet of the cluster.
pub(super) fn daemons_of(view: &View) -> Vec<Daemon> {
    view.daemon_sets().values().map(|set| daemon(view, set)).collect()
}

fn daemon(view: &View, set: &DaemonSet) -> Daemon {
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
    let key = ObjectKey::from(&set.metadata);
    // Its pods may be of an older template, too: the larger of both, as too much room beats too little.
    if let Some(requests) = view.daemon_requests(&key) {
        shape.requests = shape.requests.maximum(requests);
    }
    Daemon { key, shape }
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
        selected
            && self.required().is_none_or(|selector| {
                selector
                    .node_selector_terms
                    .iter()
                    .filter(|term| !term.match_expressions.is_empty())
                    .any(|term| term.match_expressions.iter().all(holds))
            })
    }

    fn required(&self) -> Option<&NodeSelector> {
        self.shape.affinity.node_affinity.as_ref()?.required.as_ref()
    }

    /// Whether it asks for a zone, a capacity type or a reservation.
    pub(super) fn asks_for_offering(&self) -> bool {
        let terms = self.required().into_iter().flat_map(|required| &required.node_selector_terms);
        let expressions = terms.flat_map(|term| &term.match_expressions);
        let keys = expressions.map(|expression| &expression.key);
        keys.chain(self.shape.node_selector.keys()).any(|key| is_offer_key(current_key(key)))
    }
}

/// What all daemons together take of a new node.
pub(super) type Load = (Amounts, Vec<HostPort>);

/// What daemons take of new nodes of one type. Those that no offering decides about are counted once.
#[derive(Debug)]
pub(super) struct TypeLoad<'a> {
    instance_type: &'a InstanceType,
    template_labels: Option<&'a BTreeMap<String, String>>,
    taints: &'a [Taint],
    dimensions: &'a Dimensions,
    everywhere: Load,
    by_offering: Vec<&'a Daemon>,
}

impl<'a> TypeLoad<'a> {
    pub(super) fn new(
        daemons: &'a [Daemon],
        instance_type: &'a InstanceType,
        template_labels: Option<&'a BTreeMap<String, String>>,
        taints: &'a [Taint],
        dimensions: &'a Dimensions,
    ) -> Self {
        let (by_offering, others): (Vec<&Daemon>, Vec<&Daemon>) =
            daemons.iter().partition(|daemon| daemon.asks_for_offering());
        let everywhere = (vec![0; dimensions.len()], Vec::new());
        let mut load =
            Self { instance_type, template_labels, taints, dimensions, everywhere, by_offering };
        load.everywhere = load.with(&others, load.everywhere.clone(), |_| None);
        load
    }

    /// What they take of nodes of this offering.
    pub(super) fn of(&self, offering: &Offering) -> Load {
        let of_offering = |key: &str| offering_label(offering, key);
        self.with(&self.by_offering, self.everywhere.clone(), of_offering)
    }

    fn with<'l>(
        &'l self,
        daemons: &[&Daemon],
        (mut taken, mut ports): Load,
        of_offering: impl Fn(&str) -> Option<&'l str>,
    ) -> Load {
        let label = |key: &str| {
            if is_offer_key(key) {
                return of_offering(key);
            }
            let fixed = self.template_labels.and_then(|labels| labels.get(key));
            fixed.map(String::as_str).or_else(|| type_label(self.instance_type, key))
        };
        let zone_id = of_offering(labels::ZONE_ID);
        let unknown = |key: &str| is_of_no_offering(key, zone_id);
        for daemon in daemons.iter().filter(|one| one.runs_on(&label, self.taints, &unknown)) {
            add_times(&mut taken, &self.dimensions.dense(&daemon.shape.requests), 1);
            ports.extend(daemon.shape.ports.iter().cloned());
        }
        (taken, ports)
    }
}
