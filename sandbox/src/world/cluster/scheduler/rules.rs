//! What a pod itself says about nodes: selector, affinity, host ports, volumes.

use drover_common::cluster::{Node, NodeSelector, NodeSelectorTerm, PersistentVolume, Pod};
use drover_common::requirement::Requirements;
use serde::Deserialize;

use super::super::volume::{self, ClaimState};
use crate::world::resource::PERSISTENT_VOLUMES;
use crate::world::store::Store;

/// Node selector and required node affinity, ready to be matched.
#[derive(Debug)]
pub(in super::super) struct NodeRules {
    selector: Vec<(String, String)>,
    /// Alternatives; `None` where nothing is required.
    terms: Option<Vec<Term>>,
}

#[derive(Debug)]
struct Term {
    labels: Requirements,
    fields: Requirements,
}

impl Term {
    /// A term that cannot be read, or is empty, matches nothing.
    fn of(term: &NodeSelectorTerm) -> Option<Self> {
        if term.match_expressions.is_empty() && term.match_fields.is_empty() {
            return None;
        }
        Some(Self {
            labels: Requirements::from_requirements(&term.match_expressions).ok()?,
            fields: Requirements::from_requirements(&term.match_fields).ok()?,
        })
    }

    fn matches(&self, node: &Node) -> bool {
        let name = [("metadata.name".to_owned(), node.metadata.name.clone())].into();
        self.labels.matches_labels(&node.metadata.labels) && self.fields.matches_labels(&name)
    }
}

fn terms(selector: &NodeSelector) -> Vec<Term> {
    selector.node_selector_terms.iter().filter_map(Term::of).collect()
}

impl NodeRules {
    pub(in super::super) fn of(pod: &Pod) -> Self {
        let affinity = pod.spec.affinity.node_affinity.as_ref();
        Self {
            selector: pod
                .spec
                .node_selector
                .iter()
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
            terms: affinity.and_then(|affinity| affinity.required.as_ref()).map(terms),
        }
    }

    pub(in super::super) fn match_node(&self, node: &Node) -> bool {
        self.selector.iter().all(|(key, value)| node.metadata.labels.get(key) == Some(value))
            && self.terms.as_ref().is_none_or(|terms| terms.iter().any(|term| term.matches(node)))
    }
}

/// The share of a pod's preferred node affinity that a node satisfies, in percent.
pub(super) fn preference(pod: &Pod, node: &Node) -> i64 {
    let Some(affinity) = &pod.spec.affinity.node_affinity else { return 0 };
    let weight =
        |preferred: &drover_common::cluster::PreferredSchedulingTerm| i64::from(preferred.weight);
    let total: i64 = affinity.preferred.iter().map(weight).sum();
    let held: i64 = affinity
        .preferred
        .iter()
        .filter(|preferred| Term::of(&preferred.preference).is_some_and(|term| term.matches(node)))
        .map(weight)
        .sum();
    held.saturating_mul(100).checked_div(total).unwrap_or(0)
}

/// The ports of the host that a pod takes: address, port and protocol.
#[derive(Debug, Default)]
pub(super) struct HostPorts(Vec<(String, i32, String)>);

impl HostPorts {
    pub(super) fn of(pod: &Pod) -> Self {
        let sidecars = pod
            .spec
            .init_containers
            .iter()
            .filter(|container| container.restart_policy.as_deref() == Some("Always"));
        let ports =
            pod.spec.containers.iter().chain(sidecars).flat_map(|container| &container.ports);
        let or = |text: &str, default: &str| {
            if text.is_empty() { default.to_owned() } else { text.to_owned() }
        };
        Self(
            ports
                .filter(|port| port.host_port > 0)
                .map(|port| {
                    (or(&port.host_ip, "0.0.0.0"), port.host_port, or(&port.protocol, "TCP"))
                })
                .collect(),
        )
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn clash_with(&self, other: &Self) -> bool {
        self.0.iter().any(|(address, port, protocol)| {
            other.0.iter().any(|(own_address, own_port, own_protocol)| {
                let same_address =
                    address == own_address || address == "0.0.0.0" || own_address == "0.0.0.0";
                port == own_port && protocol == own_protocol && same_address
            })
        })
    }
}

/// The names of the claims that a pod mounts.
pub(in super::super) fn claim_names(pod: &Pod) -> Vec<String> {
    pod.spec
        .volumes
        .iter()
        .filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(claim), _) => Some(claim.claim_name.clone()),
            (None, Some(_)) => Some(format!("{}-{}", pod.metadata.name, volume.name)),
            (None, None) => None,
        })
        .collect()
}

/// Where a pod's volumes let it go.
#[derive(Debug, Default)]
pub(super) struct Claims {
    volumes: Vec<Vec<Term>>,
    zones: Vec<Vec<String>>,
}

impl Claims {
    /// Looks at every claim of a pod.
    ///
    /// # Errors
    /// kube-scheduler's words where no node will do.
    pub(super) fn of(store: &Store, pod: &Pod) -> Result<Self, String> {
        let mut claims = Self::default();
        for name in claim_names(pod) {
            match volume::state(store, &pod.metadata.namespace, &name) {
                ClaimState::Missing => {
                    return Err(format!("persistentvolumeclaim \"{name}\" not found"));
                }
                ClaimState::Unbound => {
                    return Err("pod has unbound immediate PersistentVolumeClaims".to_owned());
                }
                ClaimState::WaitsForPod(zones) => claims.zones.push(zones),
                ClaimState::Bound(volume) => {
                    let Some(found) = store.find(&PERSISTENT_VOLUMES, "", &volume) else {
                        return Err(format!("persistentvolume \"{volume}\" not found"));
                    };
                    let typed = PersistentVolume::deserialize(&**found).unwrap_or_default();
                    let required = typed.spec.node_affinity.and_then(|affinity| affinity.required);
                    claims.volumes.extend(required.as_ref().map(terms));
                }
            }
        }
        Ok(claims)
    }

    pub(super) fn match_node(&self, node: &Node) -> bool {
        let zone = node.metadata.labels.get("topology.kubernetes.io/zone");
        self.volumes.iter().all(|terms| terms.iter().any(|term| term.matches(node)))
            && self
                .zones
                .iter()
                .all(|zones| zones.is_empty() || zone.is_some_and(|zone| zones.contains(zone)))
    }
}
