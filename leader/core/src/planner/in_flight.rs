//! Nodes on their way, as places for pods: what is still open must not matter to who goes there.

use std::collections::BTreeMap;

use drover_common::instance_type::{InstanceType, Offering};
use drover_common::labels;
use drover_common::requirement::Operator;
use drover_common::resources::Resources;

use super::attach::AttachLimits;
use super::daemon::{Daemon, is_of_no_offering};
use super::dimension::{Amounts, Dimensions, add_times};
use super::existing::{ExistingNode, NodeLabels, bound, runs_already};
use super::market::{is_offer_key, offering_label, type_label};
use super::rules::NODE_NAME;
use super::{InFlightNode, PlacementTarget, PlanInput};
use crate::view::HostPort;

pub(super) fn in_flight_node<'a>(
    input: &PlanInput<'a>,
    dimensions: &Dimensions,
    daemons: &[Daemon],
    limits: &AttachLimits,
    node: &InFlightNode,
) -> ExistingNode<'a> {
    let kinds = possible_types(input, node);
    let (mut room, mut ports) = room_of(input, dimensions, daemons, limits, node, &kinds);
    let mut used = vec![0; dimensions.len()];
    let mut known = node.labels.clone();
    if let Some(name) = &node.node {
        let (taken, taken_ports) = bound(input.view, dimensions, input.view.node_pods(name));
        used = taken;
        ports.extend(taken_ports);
        add_times(&mut used, &dimensions.dense(&limits.used_on(input.view, name)), 1);
        limits.set_joined_room(name, dimensions, &mut room);
        let joined = input.view.nodes().get(name);
        let host = joined.and_then(|node| node.metadata.labels.get(labels::HOSTNAME));
        let host = host.map_or_else(|| name.to_string(), Clone::clone);
        known.insert(labels::HOSTNAME.to_owned(), host);
        known.insert(NODE_NAME.to_owned(), name.to_string());
    }
    let decided = known.contains_key(labels::INSTANCE_TYPE);
    let readings: Vec<&InstanceType> = if decided { Vec::new() } else { kinds.clone() };
    // The pool may allow more values of a type's label than these types have.
    let of_types = |key: &str| {
        !readings.is_empty() && readings.iter().all(|kind| type_label(kind, key).is_some())
    };
    let mut open = Vec::new();
    for requirement in node.requirements.to_requirements() {
        let decided = known.contains_key(&requirement.key) || of_types(&requirement.key);
        if decided || requirement.operator != Operator::In {
            continue;
        }
        match requirement.values.as_slice() {
            [only] => drop(known.insert(requirement.key.clone(), only.clone())),
            _ => open.push((requirement.key, requirement.values)),
        }
    }
    add_zone_ids(&kinds, &mut known, &mut open);
    let target = PlacementTarget::Claim(node.claim.clone());
    ExistingNode {
        open,
        readings,
        ports,
        meant: node.pods.clone(),
        ..ExistingNode::new(target, NodeLabels::Known(known), node.taints.clone(), room, used)
    }
}

/// Claims speak of zones by name: what is known of them, or open, is so of their ids.
fn add_zone_ids(
    kinds: &[&InstanceType],
    known: &mut BTreeMap<String, String>,
    open: &mut Vec<(String, Vec<String>)>,
) {
    let offerings = || kinds.iter().flat_map(|kind| &kind.offerings);
    let id_of = |zone: &String| offerings().find(|o| o.zone == *zone)?.zone_id.clone();
    let zones = match known.get(labels::ZONE) {
        Some(zone) => Some(std::slice::from_ref(zone)),
        None => open.iter().find(|(key, _)| key == labels::ZONE).map(|(_, zones)| &**zones),
    };
    let ids: Option<Vec<String>> = zones.and_then(|zones| zones.iter().map(id_of).collect());
    let Some(mut ids) = ids else { return };
    // The ids that its pool allows are more than these.
    open.retain(|(key, _)| key != labels::ZONE_ID);
    match (ids.len(), ids.pop()) {
        (1, Some(id)) => drop(known.entry(labels::ZONE_ID.to_owned()).or_insert(id)),
        (_, last) => {
            ids.extend(last);
            open.push((labels::ZONE_ID.to_owned(), ids));
        }
    }
}

/// The types that a node may become; none if they are not known.
fn possible_types<'a>(input: &PlanInput<'a>, node: &InFlightNode) -> Vec<&'a InstanceType> {
    let class = input.view.pools().get(&node.nodepool);
    let class = class.map(|pool| pool.spec.template.spec.node_class_ref.name.as_str());
    let Some(catalog) = class.and_then(|class| input.catalogs.get(class)) else {
        return Vec::new();
    };
    let decided = node.labels.get(labels::INSTANCE_TYPE);
    let listed = node.requirements.get(labels::INSTANCE_TYPE);
    let possible = |kind: &&InstanceType| match (decided, listed) {
        (Some(name), _) => kind.name == *name,
        (None, Some(listed)) => listed.contains(&kind.name),
        (None, None) => false,
    };
    catalog.instance_types.iter().filter(possible).collect()
}

/// What of a type's offerings the node may be bought by.
fn offerings_of<'k>(
    node: &InFlightNode,
    kind: &'k InstanceType,
) -> impl Iterator<Item = &'k Offering> {
    let may_have = |key: &str, value: &str| match node.labels.get(key) {
        Some(known) => known == value,
        None => node.requirements.get(key).is_none_or(|listed| listed.contains(value)),
    };
    kind.offerings.iter().filter(move |offering| {
        [labels::ZONE, labels::CAPACITY_TYPE, labels::RESERVATION_ID]
            .into_iter()
            .all(|key| offering_label(offering, key).is_none_or(|value| may_have(key, value)))
    })
}

/// Room for pods whichever type it becomes by whichever offering, and ports that daemons will take. A daemon that runs on
/// some only takes its room there.
fn room_of(
    input: &PlanInput<'_>,
    dimensions: &Dimensions,
    daemons: &[Daemon],
    limits: &AttachLimits,
    node: &InFlightNode,
    kinds: &[&InstanceType],
) -> (Amounts, Vec<HostPort>) {
    let pods = node.node.as_ref().and_then(|name| input.view.node_pods(name));
    let missing = daemons.iter().filter(|daemon| !runs_already(pods, daemon));
    let (by_offering, everywhere): (Vec<&Daemon>, Vec<&Daemon>) =
        missing.partition(|daemon| daemon.asks_for_offering());
    let mut ports = Vec::new();
    let mut least: Option<Amounts> = None;
    let mut take = |allocatable: &Resources, kind: Option<&InstanceType>| {
        let mut room = dimensions.dense(allocatable);
        limits.set_type_room(kind.map(|kind| kind.name.as_str()), dimensions, &mut room);
        subtract(&everywhere, node, (kind, None), dimensions, &mut room, &mut ports);
        let offerings = kind.into_iter().flat_map(|kind| offerings_of(node, kind));
        let mut choices: Vec<Option<&Offering>> =
            offerings.filter(|_| !by_offering.is_empty()).map(Some).collect();
        if choices.is_empty() {
            choices.push(None);
        }
        for offering in choices {
            let mut room = room.clone();
            subtract(&by_offering, node, (kind, offering), dimensions, &mut room, &mut ports);
            least = Some(match least.take() {
                None => room,
                Some(known) => known.into_iter().zip(room).map(|(a, b)| a.min(b)).collect(),
            });
        }
    };
    if let [only] = kinds {
        take(&node.allocatable, Some(only));
    }
    for kind in kinds.iter().filter(|_| kinds.len() > 1) {
        // What overlays add is known from the plan alone.
        let mut allocatable = kind.allocatable.clone();
        for (name, amount) in node.allocatable.iter() {
            if !allocatable.contains(name) {
                allocatable.set(name.clone(), amount);
            }
        }
        take(&allocatable, Some(kind));
    }
    if kinds.is_empty() {
        take(&node.allocatable, None);
    }
    (least.unwrap_or_default(), ports)
}

/// Takes off what daemons will take of a node that becomes this type by this offering, as far as they are known.
fn subtract(
    daemons: &[&Daemon],
    node: &InFlightNode,
    (kind, offering): (Option<&InstanceType>, Option<&Offering>),
    dimensions: &Dimensions,
    room: &mut Amounts,
    ports: &mut Vec<HostPort>,
) {
    let label = |key: &str| {
        let of_kind = kind.and_then(|kind| match key {
            labels::INSTANCE_TYPE => Some(&kind.name),
            _ => kind.labels.get(key),
        });
        let known = node.labels.get(key).or(of_kind).map(String::as_str);
        known.or_else(|| offering.and_then(|offering| offering_label(offering, key)))
    };
    let open = |key: &str| match (kind, offering) {
        (None, _) => true,
        (Some(_), None) => is_of_no_offering(key, None) || is_offer_key(key),
        (Some(_), Some(offering)) => is_of_no_offering(key, offering.zone_id.as_deref()),
    };
    let unknown = |key: &str| !node.labels.contains_key(key) && open(key);
    for daemon in daemons.iter().filter(|d| d.runs_on(&label, &node.taints, &unknown)) {
        for (room, taken) in room.iter_mut().zip(dimensions.dense(&daemon.shape.requests)) {
            *room = room.saturating_sub(taken);
        }
        ports.extend(daemon.shape.ports.iter().cloned());
    }
}
