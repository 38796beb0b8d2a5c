//! NodeClaims and managed nodes of a dump: what is in flight, what leaves, what pools hold.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use drover_common::cluster::Node;
use drover_common::crd::{Condition, NodeClaim, NodeClaimStatus, parse_resources};
use drover_common::id::{NodeClaimName, NodeName, NodePoolName};
use drover_common::instance_type::InstanceType;
use drover_common::labels;
use drover_common::requirement::{Requirement, Requirements, ValueSet};
use drover_common::resources::{ResourceName, Resources};

use crate::joined::{as_joined, is_labelled_registered, will_take_pods};
use crate::nodeclass::catalog::NodeClassCatalog;
use crate::planner::InFlightNode;
use crate::view::View;

/// The pool of a node that some NodePool manages.
fn pool_of_node(node: &Node) -> Option<NodePoolName> {
    node.metadata.labels.get(labels::NODEPOOL).map(|name| NodePoolName::from(name.as_str()))
}

fn pool_of_claim(claim: &NodeClaim) -> Option<NodePoolName> {
    let name = claim.metadata.labels.as_ref()?.get(labels::NODEPOOL)?;
    Some(NodePoolName::from(name.as_str()))
}

fn status_of(claim: &NodeClaim) -> NodeClaimStatus {
    claim.status.clone().unwrap_or_default()
}

/// The Node of a claim: by instance, else by the name its status tells.
fn node_of_claim<'v>(view: &'v View, claim: &NodeClaim) -> Option<&'v Arc<Node>> {
    let status = claim.status.as_ref()?;
    let by_instance = status
        .provider_id
        .as_deref()
        .and_then(drover_common::id::instance_of_provider_id)
        .and_then(|instance| view.node_of_instance(&instance));
    by_instance.or_else(|| view.nodes().get(&NodeName::from(status.node_name.as_deref()?)))
}

/// Managed nodes that are being deleted, by themselves or by their claim.
pub(super) fn leaving(view: &View) -> BTreeSet<NodeName> {
    let deleted = view.nodes().iter().filter(|(_, node)| {
        pool_of_node(node).is_some() && node.metadata.deletion_timestamp.is_some()
    });
    let mut leaving: BTreeSet<NodeName> = deleted.map(|(name, _)| name.clone()).collect();
    for claim in view.claims().values().filter(|c| c.metadata.deletion_timestamp.is_some()) {
        leaving.extend(
            node_of_claim(view, claim).map(|node| NodeName::from(node.metadata.name.as_str())),
        );
    }
    leaving
}

/// Claims whose node is not there yet, or not ready for pods. One that will take none is left out.
pub(super) fn in_flight(
    view: &View,
    catalogs: &BTreeMap<String, NodeClassCatalog>,
    leaving: &BTreeSet<NodeName>,
    warnings: &mut Vec<String>,
) -> Vec<InFlightNode> {
    let mut known = Known::default();
    view.claims()
        .iter()
        .filter(|(_, claim)| claim.metadata.deletion_timestamp.is_none())
        .filter(|(_, claim)| match node_of_claim(view, claim) {
            None => true,
            // The planner finds a claim's node by instance alone.
            Some(node) => {
                view.claim_of_node(node).is_some()
                    && !is_initialized(claim, node)
                    && will_take_pods(node)
                    && !leaving.contains(&NodeName::from(node.metadata.name.as_str()))
            }
        })
        .filter_map(|(name, claim)| {
            let node = node_of_claim(view, claim);
            let mut found = in_flight_node(name, claim, &known.may_become(claim, catalogs))?;
            if let Some(node) = node {
                let is_registered = is_registered(claim, node);
                found = as_joined(found, node, is_registered, &claim.spec.startup_taints);
                found.node = Some(NodeName::from(node.metadata.name.as_str()));
            }
            if !has_zone(&found) {
                warnings.push(format!(
                    "NodeClaim {name} says nothing of its zone, and its EC2NodeClass is not known: no pod counts on it"
                ));
                return None;
            }
            Some(found)
        })
        .collect()
}

pub(super) fn is_initialized(claim: &NodeClaim, node: &Node) -> bool {
    let labelled = node.metadata.labels.get(labels::INITIALIZED).is_some_and(|v| v == "true");
    labelled || has_condition(claim, "Initialized")
}

fn is_registered(claim: &NodeClaim, node: &Node) -> bool {
    is_labelled_registered(node) || has_condition(claim, "Registered")
}

fn has_condition(claim: &NodeClaim, kind: &str) -> bool {
    let status = claim.status.as_ref();
    status.is_some_and(|status| Condition::is_true(&status.conditions, kind))
}

/// What claims may become, by class, stated type and requirements: those of one pool mostly say the same.
#[derive(Default)]
struct Known<'c>(BTreeMap<(String, Option<String>, Vec<Requirement>), Rc<MayBecome<'c>>>);

/// What a claim may become.
struct MayBecome<'c> {
    types: Vec<&'c InstanceType>,
    requirements: Requirements,
    /// What is sure to be there.
    least: Resources,
    /// The most of each resource that may be there.
    most: Resources,
}

impl<'c> Known<'c> {
    fn may_become(
        &mut self,
        claim: &NodeClaim,
        catalogs: &'c BTreeMap<String, NodeClassCatalog>,
    ) -> Rc<MayBecome<'c>> {
        let class = claim.spec.node_class_ref.name.clone();
        let stated = claim.metadata.labels.as_ref().and_then(|l| l.get(labels::INSTANCE_TYPE));
        let key = (class, stated.cloned(), claim.spec.requirements.clone());
        let found = self.0.entry(key).or_insert_with(|| {
            let types = possible_types(claim, catalogs);
            let capacities = types.iter().map(|kind| &kind.capacity);
            Rc::new(MayBecome {
                requirements: what_may_come(claim, &types),
                least: least(&types),
                most: capacities.fold(Resources::new(), |most, own| most.maximum(own)),
                types,
            })
        });
        Rc::clone(found)
    }
}

/// The types that a claim's labels and requirements leave.
fn possible_types<'c>(
    claim: &NodeClaim,
    catalogs: &'c BTreeMap<String, NodeClassCatalog>,
) -> Vec<&'c InstanceType> {
    let Some(catalog) = catalogs.get(&claim.spec.node_class_ref.name) else { return Vec::new() };
    let stated = claim.metadata.labels.as_ref().and_then(|l| l.get(labels::INSTANCE_TYPE));
    let Ok(requirements) = Requirements::from_requirements(&claim.spec.requirements) else {
        return Vec::new();
    };
    catalog
        .instance_types
        .iter()
        .filter(|kind| match stated {
            Some(name) => kind.name == *name,
            None => requirements.iter().all(|(key, values)| match key {
                labels::INSTANCE_TYPE => values.contains(&kind.name),
                key => kind.labels.get(key).is_none_or(|value| values.contains(value)),
            }),
        })
        .collect()
}

/// Whether anything is known of where it may be.
fn has_zone(found: &InFlightNode) -> bool {
    found.labels.contains_key(labels::ZONE) || found.requirements.get(labels::ZONE).is_some()
}

fn in_flight_node(
    name: &NodeClaimName,
    claim: &NodeClaim,
    may_become: &MayBecome<'_>,
) -> Option<InFlightNode> {
    let nodepool = pool_of_claim(claim)?;
    let stated = parse_resources(&status_of(claim).allocatable).unwrap_or_default();
    let allocatable = if stated.is_empty() { may_become.least.clone() } else { stated };
    let mut own = match may_become.types.as_slice() {
        [only] => only.labels.clone(),
        _ => BTreeMap::new(),
    };
    own.extend(claim.metadata.labels.clone().unwrap_or_default());
    own.insert(labels::NODEPOOL.to_owned(), nodepool.to_string());
    Some(InFlightNode {
        claim: name.clone(),
        node: None,
        nodepool,
        labels: own,
        requirements: may_become.requirements.clone(),
        taints: claim.spec.taints.clone(),
        allocatable,
        pods: Vec::new(),
    })
}

/// A claim's requirements with the types, zones and capacity types that are left of the catalogue: what a
/// claim does not speak of is open all the same.
fn what_may_come(claim: &NodeClaim, types: &[&InstanceType]) -> Requirements {
    let stated = &claim.spec.requirements;
    let mut all = Requirements::from_requirements(stated).unwrap_or_default();
    if types.is_empty() {
        return all;
    }
    let may_be = |key: &str, value: &str| all.get(key).is_none_or(|set| set.contains(value));
    let offers = types.iter().flat_map(|kind| &kind.offerings).filter(|offer| {
        may_be(labels::ZONE, &offer.zone)
            && may_be(labels::CAPACITY_TYPE, offer.capacity_type.as_str())
    });
    let (zones, capacity_types): (BTreeSet<_>, BTreeSet<_>) =
        offers.map(|offer| (offer.zone.clone(), offer.capacity_type.as_str())).unzip();
    all.insert(
        labels::INSTANCE_TYPE,
        ValueSet::one_of(types.iter().map(|kind| kind.name.as_str())),
    );
    if !zones.is_empty() {
        all.insert(labels::ZONE, ValueSet::one_of(zones));
        all.insert(labels::CAPACITY_TYPE, ValueSet::one_of(capacity_types));
    }
    all
}

/// What is sure to be there whatever the type turns out to be.
fn least(types: &[&InstanceType]) -> Resources {
    let Some((first, rest)) = types.split_first() else { return Resources::new() };
    let mut least = first.allocatable.clone();
    for kind in rest {
        least = least
            .iter()
            .map(|(name, n)| (name.clone(), n.min(kind.allocatable.get(name))))
            .collect();
    }
    least
}

/// What each pool holds: nodes as they are, claims without a node as the largest they may become.
pub(super) fn pool_usage(
    view: &View,
    catalogs: &BTreeMap<String, NodeClassCatalog>,
) -> BTreeMap<NodePoolName, Resources> {
    let mut usage: BTreeMap<NodePoolName, Resources> = BTreeMap::new();
    let mut book = |pool: NodePoolName, mut capacity: Resources| {
        capacity.set(ResourceName::from("nodes"), 1);
        usage.entry(pool).or_default().add(&capacity);
    };
    let mut known = Known::default();
    let mut starting: BTreeMap<&str, Resources> = BTreeMap::new();
    for claim in view.claims().values() {
        let stated = parse_resources(&status_of(claim).capacity).unwrap_or_default();
        if let Some(node) = node_of_claim(view, claim) {
            if !is_initialized(claim, node) {
                starting.insert(&node.metadata.name, stated);
            }
            continue;
        }
        let Some(pool) = pool_of_claim(claim) else { continue };
        let capacity =
            if stated.is_empty() { known.may_become(claim, catalogs).most.clone() } else { stated };
        book(pool, capacity);
    }
    for node in view.nodes().values() {
        let Some(pool) = pool_of_node(node) else { continue };
        // What device plugins have is not told by a node until they run.
        let mut capacity = starting.remove(node.metadata.name.as_str()).unwrap_or_default();
        for (name, amount) in node.status.capacity.iter().filter(|(_, amount)| *amount > 0) {
            capacity.set(name.clone(), amount);
        }
        book(pool, capacity);
    }
    usage
}
