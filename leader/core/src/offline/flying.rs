//! Nodes on their way, as answers show them: what they are taken to become, and the pods that go there.

use std::collections::BTreeMap;

use drover_common::cluster::{Metadata, Node, ObjectKey};
use drover_common::id::{NodeClaimName, NodeName};
use drover_common::instance_type::{InstanceType, Offering};
use drover_common::labels;

use super::OfflineCluster;
use crate::planner::{InFlightNode, Launch, PlacementTarget, Plan};

impl OfflineCluster {
    /// The Nodes of claims that have joined, and take no pods yet.
    pub(super) fn joined(&self) -> BTreeMap<&NodeClaimName, &NodeName> {
        self.in_flight.iter().filter_map(|one| Some((&one.claim, one.node.as_ref()?))).collect()
    }

    /// NodeClaims of the dump whose node is not there.
    pub(super) fn without_node(&self) -> impl Iterator<Item = &InFlightNode> {
        let absent = self.in_flight.iter().filter(|one| one.node.is_none());
        absent.filter(|one| !self.static_launches.contains_key(&one.claim))
    }

    /// Launches of static pools, with the pods that a plan has placed there.
    pub(super) fn static_launches_with_pods(&self, plan: &Plan) -> Vec<Launch> {
        let placed = pods_of_claims(plan);
        let with_pods = |(claim, launch): (&NodeClaimName, &Launch)| {
            let mut launch = launch.clone();
            for pod in placed.get(claim).copied().unwrap_or_default() {
                if let Some(requests) = self.requests_of(pod) {
                    launch.requests.add(&requests);
                }
                launch.pods.push(pod.clone());
            }
            launch
        };
        self.static_launches.iter().map(with_pods).collect()
    }

    /// A node that looks like what is on its way: where that may become several things, the cheapest of them, which
    /// is what EC2 is asked for first.
    pub(super) fn likeness(&self, flying: &InFlightNode) -> Node {
        let mut own = flying.labels.clone();
        if let Some((kind, offering)) = self.cheapest(flying) {
            let mut assume = |key: &str, value: &str| {
                own.entry(key.to_owned()).or_insert_with(|| value.to_owned());
            };
            kind.labels.iter().for_each(|(key, value)| assume(key, value));
            assume(labels::INSTANCE_TYPE, &kind.name);
            assume(labels::ZONE, &offering.zone);
            assume(labels::CAPACITY_TYPE, offering.capacity_type.as_str());
        }
        let metadata = Metadata { labels: own, ..Metadata::default() };
        let mut node = Node { metadata, ..Node::default() };
        node.status.allocatable.clone_from(&flying.allocatable);
        node
    }

    fn cheapest(&self, flying: &InFlightNode) -> Option<(&InstanceType, &Offering)> {
        let pool = self.view.pools().get(&flying.nodepool)?;
        let class = pool.spec.template.spec.node_class_ref.name.as_str();
        let may_be = |key: &str, value: &str| match flying.labels.get(key) {
            Some(known) => known == value,
            None => flying.requirements.get(key).is_none_or(|values| values.contains(value)),
        };
        let types = self.catalogs.get(class)?.instance_types.iter();
        let offers =
            types.filter(|kind| may_be(labels::INSTANCE_TYPE, &kind.name)).flat_map(|kind| {
                let own = kind.offerings.iter().filter(|offer| {
                    may_be(labels::ZONE, &offer.zone)
                        && may_be(labels::CAPACITY_TYPE, offer.capacity_type.as_str())
                });
                own.map(move |offer| (kind, offer))
            });
        offers
            .min_by_key(|(kind, offer)| (offer.price.unwrap_or(u64::MAX), &kind.name, &offer.zone))
    }
}

/// What a plan places on claims.
pub(super) fn pods_of_claims(plan: &Plan) -> BTreeMap<&NodeClaimName, &[ObjectKey]> {
    let placed = plan.placements.iter().filter_map(|placement| match &placement.node_or_claim {
        PlacementTarget::Claim(name) => Some((name, placement.pods.as_slice())),
        PlacementTarget::Node(_) => None,
    });
    placed.collect()
}
