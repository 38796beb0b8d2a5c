//! Nodes that static NodePools (`spec.replicas`) lack, and those that they have too many.

use std::cmp::Reverse;

use drover_common::id::{NodeClaimName, NodeName, NodePoolName};
use drover_common::labels;
use jiff::Timestamp;

use super::OfflineCluster;
use super::bought::in_flight_of;
use crate::planner::{Launch, MOST_STATIC_NODES, PlannerSettings, plan_static};
use crate::replicas::{MayGo, first_to_go, pods_to_move, wanted_nodes};
use crate::staying::staying_pods;

/// A node of a static pool: one that is there, or one on its way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum OneOf {
    Node(NodeName),
    Claim(NodeClaimName),
}

impl OneOf {
    fn as_str(&self) -> &str {
        match self {
            OneOf::Node(name) => name.as_str(),
            OneOf::Claim(name) => name.as_str(),
        }
    }
}

impl OfflineCluster {
    /// Launches what static pools lack, before pods are planned for: they may have a place there. Pools
    /// whose nodes can't be made are told of in the warnings. What they have too many leaves, as do its pods.
    pub fn keep_static_pools(&mut self, settings: &PlannerSettings) {
        self.let_static_nodes_go();
        for (pool, missing) in self.missing_static() {
            let made = plan_static(&self.plan_input(settings), &pool, missing);
            let launches = made.unwrap_or_else(|reason| {
                self.warnings
                    .push(format!("static NodePool {pool} lacks {missing} nodes: {reason}"));
                Vec::new()
            });
            let rest = missing - launches.len();
            if launches.len() == MOST_STATIC_NODES && rest > 0 {
                self.warnings.push(format!(
                    "static NodePool {pool}: {rest} of {missing} nodes are not planned for"
                ));
            } else if !launches.is_empty() && rest > 0 {
                self.warnings.push(format!(
                    "static NodePool {pool}: {rest} of {missing} nodes can't be made"
                ));
            }
            for launch in launches {
                self.add_static(launch);
            }
        }
    }

    /// How many nodes each static pool lacks, by name.
    fn missing_static(&self) -> Vec<(NodePoolName, usize)> {
        let pools = self.view.pools().values();
        let lacking = pools.filter_map(|pool| {
            let name = NodePoolName::from(pool.metadata.name.clone().unwrap_or_default());
            let wanted = usize::try_from(pool.spec.replicas?).unwrap_or(0);
            if pool.metadata.deletion_timestamp.is_some() || self.static_excess.contains_key(&name)
            {
                return None;
            }
            let nodes = self.view.nodes().iter().filter(|(node, found)| {
                found.metadata.labels.get(labels::NODEPOOL).is_some_and(|pool| *pool == *name.0)
                    && !self.leaving.contains(*node)
            });
            let flying = self.in_flight.iter();
            let flying = flying.filter(|claim| claim.nodepool == name && claim.node.is_none());
            let missing = wanted.saturating_sub(nodes.count() + flying.count());
            (missing > 0).then_some((name, missing))
        });
        lacking.collect()
    }

    /// Takes the nodes that static pools have too many as leaving: a leader lets them go at once, whatever budgets say.
    fn let_static_nodes_go(&mut self) {
        let mut excess: Vec<(NodePoolName, Vec<OneOf>)> = Vec::new();
        for (name, pool) in self.view.pools() {
            if pool.spec.replicas.is_none() || pool.metadata.deletion_timestamp.is_some() {
                continue;
            }
            let (there, wanted) = (self.nodes_of(name), wanted_nodes(pool));
            let (has, too_many) = (there.len(), there.len().saturating_sub(wanted));
            let settled = there.into_iter().filter_map(|(settled, node)| settled.then_some(node));
            let going = first_to_go(settled.collect(), too_many);
            if !going.is_empty() {
                let names: Vec<&str> = going.iter().map(OneOf::as_str).collect();
                self.warnings.push(format!(
                    "static NodePool {name} keeps {wanted} nodes and has {has}: it lets {} go",
                    names.join(", ")
                ));
                excess.push((name.clone(), going));
            }
        }
        for (name, going) in excess {
            self.in_flight.retain(|flying| {
                !going.iter().any(|one| match one {
                    OneOf::Claim(claim) => flying.claim == *claim,
                    OneOf::Node(node) => flying.node.as_ref() == Some(node),
                })
            });
            let nodes = going.iter().filter_map(|one| match one {
                OneOf::Node(node) => Some(node.clone()),
                OneOf::Claim(_) => None,
            });
            self.leaving.extend(nodes);
            self.static_excess
                .insert(name, going.iter().map(|one| one.as_str().to_owned()).collect());
        }
        self.staying = staying_pods(&self.view, &self.leaving, self.now);
    }

    /// The nodes that a static pool counts, and whether each may go: what is being launched can't be called back.
    fn nodes_of(&self, pool: &NodePoolName) -> Vec<(bool, MayGo<OneOf>)> {
        let created = |metadata: Option<Timestamp>| Reverse(metadata.unwrap_or_default());
        let nodes = self.view.nodes().iter().filter(|(name, node)| {
            node.metadata.labels.get(labels::NODEPOOL).is_some_and(|own| *own == *pool.0)
                && !self.leaving.contains(*name)
        });
        let nodes = nodes.map(|(name, node)| {
            let claim = self.view.claim_of_node(node);
            let claimed_at = claim.and_then(|claim| claim.metadata.creation_timestamp.as_ref());
            let created_at = claimed_at.map(|time| time.0).or(node.metadata.creation_timestamp);
            let pods = pods_to_move(&self.view, name);
            (true, MayGo { pods, created_at: created(created_at), name: OneOf::Node(name.clone()) })
        });
        let flying = self.in_flight.iter();
        let flying = flying.filter(|one| one.nodepool == *pool && one.node.is_none()).map(|one| {
            let claim = self.view.claims().get(&one.claim);
            let created_at = claim.and_then(|claim| claim.metadata.creation_timestamp.as_ref());
            let launched =
                claim.is_some_and(|c| c.status.as_ref().is_some_and(|s| s.provider_id.is_some()));
            let created_at = created(created_at.map(|time| time.0));
            (launched, MayGo { pods: 0, created_at, name: OneOf::Claim(one.claim.clone()) })
        });
        nodes.chain(flying).collect()
    }

    fn add_static(&mut self, launch: Launch) {
        let number = self.static_launches.len();
        let claim = NodeClaimName::from(format!("{}-static-{number}", launch.nodepool));
        self.in_flight.push(in_flight_of(claim.clone(), &launch));
        self.static_launches.insert(claim, launch);
    }
}
