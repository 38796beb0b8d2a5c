//! One batch, tried: its nodes' pods are taken up, moved to free room, and the rest is bought for; then it is made, or
//! everything is as before.

use std::collections::BTreeMap;

use drover_common::cluster::ObjectKey;
use drover_common::crd::DisruptionReason;
use drover_common::id::{NodeName, NodePoolName};

use super::parts::Parts;
use super::purchase::dearest;
use super::room::Placed;
use super::yard::Yard;
use super::{Batch, Move, MoveTarget};
use crate::planner::group::Group;
use crate::planner::share::Leaning;
use crate::planner::topology::Tracked;
use crate::planner::{Launch, MOST_PLANNED_TWICE, round};

/// Why a node stays whose replacement others in its batch would pay for.
pub(super) const TOO_LITTLE_ALONE: &str = "what would replace it alone saves too little";

/// Why a batch is not made.
pub(super) enum Refusal {
    /// It would be right only with others that were made before it.
    Depends,
    /// These places are not worth it, others of it are.
    Drags(Vec<usize>),
    /// Anything else, in words.
    Other(String),
}

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Self::Other(reason)
    }
}

/// What a batch is made of while it is tried.
#[derive(Default)]
pub(super) struct Attempt<'a> {
    /// Pods on nodes that stay.
    pub placed: Vec<Placed>,
    /// The pods of the nodes by group, each with its node's place, node by node, so that nodes share few
    /// replacements; those with a place first.
    pub pods: BTreeMap<usize, Vec<(&'a ObjectKey, usize)>>,
    pub price: u64,
    pub eviction_cost: i64,
    pub spot: bool,
    pub nodes: usize,
}

impl<'a> Yard<'a> {
    /// Whether the places of the nodes' pods concern no others: any part of a batch then stands
    /// alone as the whole does.
    pub(super) fn is_free(&self, nodes: &[usize]) -> bool {
        let lots = nodes.iter().filter_map(|place| self.lots.get(*place));
        lots.flat_map(|lot| &lot.contents).all(|(group, _)| {
            self.board.groups.get(*group).is_some_and(|group| group.part.is_free())
        })
    }

    /// Makes a batch of these nodes; nothing has changed if it is refused.
    pub(super) fn try_batch(&mut self, nodes: &[usize]) -> Result<(Batch, Parts), Refusal> {
        let mut attempt = self.begin(nodes);
        let limits = self.limits();
        let outcome = self.plan_batch(&mut attempt).map_err(Refusal::from);
        let outcome = outcome.and_then(|launches| {
            if !self.following && !self.is_right_alone() {
                return Err(Refusal::Depends);
            }
            let batch = self.batch_of(nodes, &attempt, launches)?;
            let parts = self.parts_of(nodes, &batch);
            if parts.is_empty() {
                return Err(Refusal::Other(TOO_LITTLE_ALONE.to_owned()));
            }
            // Where pods concern others, those that stay change what is right for the rest.
            if !parts.dragged.is_empty() && !self.is_free(nodes) {
                return Err(Refusal::Drags(parts.dragged));
            }
            Ok((batch, parts))
        });
        self.end(nodes, &mut attempt, outcome.is_ok());
        if outcome.is_err() {
            self.set_limits(limits);
        }
        outcome
    }

    /// Takes the nodes' pods up, and moves those that fit free room.
    fn begin(&mut self, nodes: &[usize]) -> Attempt<'a> {
        let mut attempt = Attempt { nodes: nodes.len(), ..Attempt::default() };
        for place in nodes {
            self.lift(*place, -1);
            let Some(lot) = self.lots.get(*place) else { continue };
            attempt.price = attempt.price.saturating_add(lot.price);
            attempt.eviction_cost = attempt.eviction_cost.saturating_add(lot.eviction_cost);
            attempt.spot |= lot.spot;
            for (group, pods) in &lot.contents {
                let entry = attempt.pods.entry(*group).or_default();
                entry.extend(pods.iter().map(|pod| (*pod, *place)));
            }
        }
        for (group, pods) in &mut attempt.pods {
            let count = u32::try_from(pods.len()).unwrap_or(u32::MAX);
            let rest = self.settle(*group, count, None, &mut attempt.placed);
            let placed = pods.len().saturating_sub(rest as usize);
            if let Some(group) = self.board.groups.get_mut(*group) {
                let rest = pods.get(placed..).unwrap_or_default();
                group.pods = rest.iter().map(|(pod, _)| (*pod).clone()).collect();
                group.placed = 0;
            }
        }
        attempt
    }

    /// Buys new nodes for the rest, under a ceiling.
    fn plan_batch(&mut self, attempt: &mut Attempt<'_>) -> Result<Vec<Launch>, String> {
        let places = std::mem::take(&mut self.board.existing);
        let all: Vec<usize> = (0..self.board.groups.len()).collect();
        // What many workloads leave over fills nodes in every zone.
        let pods: usize = attempt.pods.values().map(Vec::len).sum();
        let together = pods <= MOST_PLANNED_TWICE;
        self.board.leaning = if together { Leaning::Together } else { Leaning::Apart };
        round(&mut self.board, &all);
        self.board.merge_bins();
        self.board.existing = places;
        let stuck = self.board.groups.iter().find(|group| group.left() > 0);
        if let Some((group, pod)) = stuck.and_then(|g| Some((g, g.pods.get(g.placed)?))) {
            let why = match self.are_used_up(group) {
                true => "limits or reservations leave no room for a new one beside it",
                false => "on no new one",
            };
            return Err(format!("Pod {pod} fits on no other node, and {why}"));
        }
        if let Some(reason) = self.falls_back(attempt) {
            return Err(reason);
        }
        let most = attempt.price.saturating_sub(self.least_saving(attempt.price));
        let cheapest: u64 = self
            .board
            .bins
            .iter()
            .filter_map(|bin| self.board.market.offers.get(bin.cheapest))
            .fold(0, |sum, offer| sum.saturating_add(offer.cost()));
        if cheapest > most {
            return Err(self.too_dear(attempt.price, cheapest));
        }
        let launches = self.launches_under(attempt, most)?;
        self.check_diversity(attempt, &launches)?;
        Ok(launches)
    }

    /// Whether a pod would leave its NodePool for one of less weight: what keeps it from being bought in its own is a limit that
    /// its node's leaving will raise, or a shortage that ends, and then it would move back.
    fn falls_back(&self, attempt: &Attempt<'_>) -> Option<String> {
        let pools = &self.board.market.pools;
        let named = |name: &NodePoolName| pools.iter().find(|pool| pool.name == *name);
        let heaviest = pools.iter().map(|pool| pool.weight).max()?;
        let bins = self.board.bins.iter().filter_map(|bin| Some((bin, pools.get(bin.pool)?)));
        let lighter: Vec<_> = bins.filter(|(_, pool)| pool.weight < heaviest).collect();
        if lighter.is_empty() {
            return None;
        }
        let from: BTreeMap<&ObjectKey, usize> = attempt.pods.values().flatten().copied().collect();
        for (bin, pool) in lighter {
            for (group, pods) in &bin.contents {
                let Some(entry) = self.board.groups.get(*group) else { continue };
                for pod in pods {
                    let own = from.get(pod).and_then(|place| self.pool_of(*place));
                    let own = own.as_ref().and_then(named);
                    if let Some(own) = own.filter(|own| own.weight > pool.weight)
                        && !own.bits.is_disjoint(&entry.possible)
                    {
                        let (from, to) = (&own.name, &pool.name);
                        return Some(format!(
                            "Pod {pod} would leave NodePool {from} for {to}, which weighs less"
                        ));
                    }
                }
            }
        }
        None
    }

    /// Whether nothing else keeps a new node for a group from being made.
    fn are_used_up(&self, group: &Group) -> bool {
        let mut offers = group.offers.ones();
        !group.offers.is_clear() && !offers.any(|offer| self.board.can_have(offer, None))
    }

    /// Whether the new places are also right if no other batch is done: the board's counts have
    /// those before in them. Placements on nodes that stay were checked both ways.
    fn is_right_alone(&mut self) -> bool {
        let mut waiting: Vec<(usize, usize)> = Vec::new();
        for (number, bin) in self.board.bins.iter().enumerate() {
            for (group, pods) in &bin.contents {
                let entangled =
                    self.board.groups.get(*group).is_some_and(|group| !group.part.is_free());
                waiting.extend(pods.iter().filter(|_| entangled).map(|_| (*group, number)));
            }
        }
        let mut replayed = Vec::new();
        loop {
            let before = waiting.len();
            waiting.retain(|(group, bin)| {
                let Some((entry, target)) =
                    self.board.groups.get(*group).zip(self.board.bins.get(*bin))
                else {
                    return false;
                };
                let part = &entry.part;
                let allows = |key: &str| self.alone.allows(part, key, target.domain(key));
                let right = allows(drover_common::labels::HOSTNAME)
                    && self.alone.keys(part).iter().all(|key| allows(key));
                if right {
                    let market = &self.board.market;
                    let domain = |tracked: &Tracked| target.counted_domain(market, tracked);
                    self.alone.place(part, &domain, 1);
                    replayed.push((*group, *bin));
                }
                !right
            });
            if waiting.is_empty() || waiting.len() == before {
                break;
            }
        }
        for (group, bin) in replayed {
            if let Some((entry, target)) =
                self.board.groups.get(group).zip(self.board.bins.get(bin))
            {
                let market = &self.board.market;
                let domain = |tracked: &Tracked| target.counted_domain(market, tracked);
                self.alone.place(&entry.part, &domain, -1);
            }
        }
        waiting.is_empty()
    }

    fn batch_of(
        &self,
        nodes: &[usize],
        attempt: &Attempt<'_>,
        launches: Vec<Launch>,
    ) -> Result<Batch, String> {
        let gone = || "a node is gone".to_owned();
        let mut names: BTreeMap<usize, NodeName> = BTreeMap::new();
        for place in nodes {
            names.insert(*place, self.node_name(*place).ok_or_else(gone)?);
        }
        let mut from: BTreeMap<&ObjectKey, usize> = BTreeMap::new();
        let mut moves = Vec::new();
        for (group, pods) in &attempt.pods {
            let mut pods = pods.iter();
            for one in attempt.placed.iter().filter(|one| one.group == *group) {
                let to = self.node_name(one.place).ok_or_else(gone)?;
                for (pod, from) in pods.by_ref().take(one.count as usize) {
                    let to = MoveTarget::Node(to.clone());
                    let from = names.get(from).ok_or_else(gone)?.clone();
                    moves.push(Move { pod: (*pod).clone(), from, to });
                }
            }
            from.extend(pods.copied());
        }
        for (number, launch) in launches.iter().enumerate() {
            for pod in &launch.pods {
                let from = from.get(pod).and_then(|place| names.get(place)).ok_or_else(gone)?;
                let to = MoveTarget::Replacement(number);
                moves.push(Move { pod: pod.clone(), from: from.clone(), to });
            }
        }
        moves.sort();
        let expected = launches
            .iter()
            .fold(0_u64, |sum, launch| sum.saturating_add(launch.hourly_price_micro));
        let saving = attempt.price.saturating_sub(expected);
        if saving < self.eviction_price(attempt.eviction_cost) {
            return Err("what it saves is not worth its evictions".to_owned());
        }
        let mut names: Vec<NodeName> = names.into_values().collect();
        names.sort();
        Ok(Batch {
            reason: DisruptionReason::Underutilized,
            wave: 0,
            follows: self.following,
            nodes: names,
            moves,
            price_micro: attempt.price,
            dearest_micro: launches.iter().map(dearest).fold(0, u64::saturating_add),
            saving_micro: i64::try_from(saving).unwrap_or(i64::MAX),
            eviction_cost: attempt.eviction_cost,
            replacements: launches,
        })
    }

    /// Clears the board of new nodes; takes everything back if the batch is not done.
    fn end(&mut self, nodes: &[usize], attempt: &mut Attempt<'_>, done: bool) {
        let bins = std::mem::take(&mut self.board.bins);
        for bin in &bins {
            for (group, pods) in &bin.contents {
                let Some(entry) = self.board.groups.get(*group) else { continue };
                if entry.part.is_free() {
                    continue;
                }
                let part = entry.part.clone();
                let count = -i64::try_from(pods.len()).unwrap_or(0);
                // Host names of new nodes are used again by the next batch.
                let market = &self.board.market;
                let domain = |tracked: &Tracked| {
                    let own = tracked.term.key == drover_common::labels::HOSTNAME;
                    bin.counted_domain(market, tracked).filter(|_| own || !done)
                };
                self.board.topology.place(&part, &domain, count);
            }
        }
        for group in &mut self.board.groups {
            group.pods.clear();
            group.placed = 0;
        }
        if done && !self.following {
            self.forget_alone(nodes, &attempt.placed);
        } else if !done {
            self.unsettle(&mut attempt.placed);
            for place in nodes {
                self.lift(*place, 1);
            }
        }
    }
}
