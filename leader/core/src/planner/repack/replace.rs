//! Nodes whose pods would cost less on new nodes: m go for n, if even the dearest that may launch is
//! cheap enough.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::cluster::ObjectKey;
use drover_common::crd::DisruptionReason;
use drover_common::id::{NodeName, NodePoolName};
use drover_common::instance_type::CapacityType;

use super::room::Placed;
use super::yard::Yard;
use super::{Batch, LeftAlone, LeftKind, Move, MoveTarget};
use crate::planner::market::Pool;
use crate::planner::topology::Tracked;
use crate::planner::{Launch, MinValuesPolicy, round};

/// Batches tried at most, so that a cluster where none pays is not looked at for long.
const MOST_TRIES: usize = 400;

/// About how many batches are bought for, one by one.
const MOST_LOTS: usize = 24;

/// What a batch is made of while it is tried.
#[derive(Default)]
struct Attempt {
    /// Pods on nodes that stay.
    placed: Vec<Placed>,
    /// The pods of the nodes by group, each with its node, node by node, so that nodes share few
    /// replacements; those with a place first.
    pods: BTreeMap<usize, Vec<(ObjectKey, NodeName)>>,
    price: u64,
    eviction_cost: i64,
    spot: bool,
}

impl Yard<'_> {
    /// Makes batches of the nodes that are worth replacing; tells of the others why not.
    pub(super) fn replace_all(
        &mut self,
        kept: Vec<usize>,
        batches: &mut Vec<Batch>,
        left: &mut Vec<LeftAlone>,
    ) {
        let mut ranked: Vec<(i128, usize)> = Vec::new();
        for place in kept {
            match (self.gain(place), self.lots.get(place)) {
                (Some(gain), Some(lot)) => {
                    let cost = i128::from(lot.eviction_cost.max(0)) + 1_000;
                    ranked.push((i128::from(gain) * 1_000_000 / cost, place));
                }
                _ => self.leave(place, self.small_gain(place), left),
            }
        }
        ranked.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        // Nodes that are to go take no pods.
        let going: BTreeSet<usize> = ranked.iter().map(|(_, place)| *place).collect();
        self.targets.retain(|place| !going.contains(place));
        self.stayed.retain(|place| !going.contains(place));
        self.cursors.fill((0, 0));
        let ranked: Vec<usize> = ranked.into_iter().map(|(_, place)| place).collect();
        let mut tries = 0;
        for batch in self.batches_of(&ranked) {
            self.replace(&batch, &mut tries, batches, left);
        }
    }

    /// Cuts nodes into batches that their pools' budgets let begin.
    fn batches_of(&self, ranked: &[usize]) -> Vec<Vec<usize>> {
        // Large clusters are bought for in larger lots; what shares no new node is parted afterwards.
        let most = self.input.settings.max_batch_nodes.max(ranked.len() / MOST_LOTS).max(1);
        let mut batches: Vec<(Vec<usize>, BTreeMap<NodePoolName, u32>)> = Vec::new();
        for place in ranked {
            let Some(pool) = self.pool_of(*place) else { continue };
            let allowed = self.allowed.get(&pool).copied().unwrap_or(0);
            let fits = batches.last().is_some_and(|(nodes, counts)| {
                nodes.len() < most && counts.get(&pool).copied().unwrap_or(0) < allowed
            });
            if !fits {
                batches.push((Vec::new(), BTreeMap::new()));
            }
            if let Some((nodes, counts)) = batches.last_mut() {
                nodes.push(*place);
                *counts.entry(pool).or_default() += 1;
            }
        }
        batches.into_iter().map(|(nodes, _)| nodes).collect()
    }

    fn pool_of(&self, place: usize) -> Option<NodePoolName> {
        let name = self.node_name(place)?;
        Some(self.input.nodes.get(&name)?.nodepool.clone())
    }

    /// Tries a batch, and its halves where it does not pay.
    fn replace(
        &mut self,
        nodes: &[usize],
        tries: &mut usize,
        batches: &mut Vec<Batch>,
        left: &mut Vec<LeftAlone>,
    ) {
        *tries += 1;
        match self.try_batch(nodes) {
            Ok(batch) if self.is_free(nodes) => batches.extend(self.parts_of(nodes, batch)),
            Ok(batch) => batches.push(batch),
            Err(_) if nodes.len() > 1 && *tries < MOST_TRIES => {
                let (first, second) = nodes.split_at(nodes.len() / 2);
                self.replace(first, tries, batches, left);
                self.replace(second, tries, batches, left);
            }
            Err(reason) => {
                for place in nodes {
                    self.leave(*place, reason.clone(), left);
                }
            }
        }
    }

    /// Whether the places of the nodes' pods concern no others: any part of a batch then stands
    /// alone as the whole does.
    fn is_free(&self, nodes: &[usize]) -> bool {
        let lots = nodes.iter().filter_map(|place| self.lots.get(*place));
        lots.flat_map(|lot| &lot.contents).all(|(group, _)| {
            self.board.groups.get(*group).is_some_and(|group| group.part.is_free())
        })
    }

    fn leave(&self, place: usize, reason: String, left: &mut Vec<LeftAlone>) {
        if let Some(node) = self.node_name(place) {
            left.push(LeftAlone { node, reason, kind: LeftKind::NoGain });
        }
    }

    fn small_gain(&self, place: usize) -> String {
        let Some(lot) = self.lots.get(place) else { return String::new() };
        format!(
            "its pods fit on no other node, and on new ones they would cost about {} of its {}; at \
             least {} % must be saved",
            dollars(lot.value),
            dollars(lot.price),
            self.input.settings.min_saving_percent
        )
    }

    fn try_batch(&mut self, nodes: &[usize]) -> Result<Batch, String> {
        let mut attempt = self.begin(nodes);
        let limits: Vec<(Vec<Option<i64>>, Option<i64>)> =
            self.board.market.pools.iter().map(|p| (p.left.clone(), p.nodes_left)).collect();
        let slots = self.board.market.slots.clone();
        let outcome = self.plan_batch(&mut attempt);
        let outcome = outcome.and_then(|launches| {
            self.check_alone()?;
            self.batch_of(nodes, &attempt, launches)
        });
        self.end(nodes, &mut attempt, outcome.is_ok());
        if outcome.is_err() {
            for (pool, (left, nodes_left)) in self.board.market.pools.iter_mut().zip(limits) {
                pool.left = left;
                pool.nodes_left = nodes_left;
            }
            self.board.market.slots = slots;
        }
        outcome
    }

    /// Takes the nodes' pods up, and moves those that fit free room.
    fn begin(&mut self, nodes: &[usize]) -> Attempt {
        let mut attempt = Attempt::default();
        for place in nodes {
            self.lift(*place, -1);
            let name = self.node_name(*place);
            let (Some(lot), Some(name)) = (self.lots.get(*place), name) else { continue };
            attempt.price = attempt.price.saturating_add(lot.price);
            attempt.eviction_cost = attempt.eviction_cost.saturating_add(lot.eviction_cost);
            attempt.spot |= lot.spot;
            for (group, pods) in &lot.contents {
                let entry = attempt.pods.entry(*group).or_default();
                entry.extend(pods.iter().map(|pod| (pod.clone(), name.clone())));
            }
        }
        for (group, pods) in &mut attempt.pods {
            let count = u32::try_from(pods.len()).unwrap_or(u32::MAX);
            let rest = self.settle(*group, count, None, &mut attempt.placed);
            let placed = pods.len().saturating_sub(rest as usize);
            if let Some(group) = self.board.groups.get_mut(*group) {
                let rest = pods.get(placed..).unwrap_or_default();
                group.pods = rest.iter().map(|(pod, _)| pod.clone()).collect();
                group.placed = 0;
            }
        }
        attempt
    }

    /// Buys new nodes for the rest, under a ceiling.
    fn plan_batch(&mut self, attempt: &mut Attempt) -> Result<Vec<Launch>, String> {
        let places = std::mem::take(&mut self.board.existing);
        let all: Vec<usize> = (0..self.board.groups.len()).collect();
        round(&mut self.board, &all);
        self.board.existing = places;
        let stuck = self.board.groups.iter().find(|group| group.left() > 0);
        if let Some(pod) = stuck.and_then(|group| group.pods.get(group.placed)) {
            return Err(format!("Pod {pod} fits on no other node, and on no new one"));
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
        if self.board.bins.is_empty() {
            return Ok(Vec::new());
        }
        self.board.ceiling_percent = Some(most.saturating_mul(100) / cheapest.max(1));
        let launches = self.board.launches();
        self.board.ceiling_percent = None;
        if launches.len() != self.board.bins.len() {
            return Err("a replacement could become nothing that is cheaper".to_owned());
        }
        let worst = launches.iter().map(dearest).fold(0, u64::saturating_add);
        if worst > most {
            return Err(self.too_dear(attempt.price, worst));
        }
        self.check_diversity(attempt, &launches)?;
        Ok(launches)
    }

    fn too_dear(&self, price: u64, replaced: u64) -> String {
        format!(
            "its pods would cost {} on new nodes against {} now; at least {} % must be saved",
            dollars(replaced),
            dollars(price),
            self.input.settings.min_saving_percent
        )
    }

    /// Spot for spot only with many cheaper types, and `minValues` also under the ceiling.
    fn check_diversity(&self, attempt: &Attempt, launches: &[Launch]) -> Result<(), String> {
        for launch in launches {
            let types: BTreeSet<&str> =
                launch.offerings.iter().map(|offering| offering.instance_type.as_str()).collect();
            if attempt.spot && launch.capacity_type == CapacityType::Spot {
                if !self.input.settings.spot_to_spot {
                    return Err("spot nodes are not replaced by spot nodes".to_owned());
                }
                let least = self.input.settings.min_spot_types;
                if types.len() < least {
                    return Err(format!(
                        "a spot replacement needs {least} cheaper types to choose from, and has {}",
                        types.len()
                    ));
                }
            }
            let pool = self.board.market.pools.iter().find(|pool| pool.name == launch.nodepool);
            if self.board.settings.min_values_policy == MinValuesPolicy::Strict
                && let Some(pool) = pool
                && launch.reservation.is_none()
            {
                self.check_min_values(pool, launch)?;
            }
        }
        Ok(())
    }

    fn check_min_values(&self, pool: &Pool, launch: &Launch) -> Result<(), String> {
        let wanted = pool.requirements.iter().filter_map(|r| Some((r, r.min_values?)));
        for (requirement, least) in wanted {
            let mut values: BTreeSet<&str> = BTreeSet::new();
            for offer in pool.offers.clone() {
                let Some(entry) = self.board.market.offers.get(offer) else { continue };
                let Some(kind) = self.board.market.kind_of(offer) else { continue };
                let listed = entry.capacity_type == launch.capacity_type
                    && launch.offerings.iter().any(|listed| {
                        listed.instance_type == kind.instance_type.name && listed.zone == entry.zone
                    });
                if listed {
                    values.extend(self.board.market.label(offer, &requirement.key));
                }
            }
            if values.len() < least as usize {
                return Err(format!(
                    "too few cheaper types: minValues wants {least} values of {}",
                    requirement.key
                ));
            }
        }
        Ok(())
    }

    /// Whether the new places are also right if no other batch is done: the board's counts have
    /// those before in them. Placements on nodes that stay were checked both ways.
    fn check_alone(&mut self) -> Result<(), String> {
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
                let allows =
                    |key: &str| self.alone.allows(part, key, target.domain(key).as_deref());
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
        if waiting.is_empty() {
            Ok(())
        } else {
            Err("where its pods may go depends on other nodes that are to be removed".to_owned())
        }
    }

    fn batch_of(
        &self,
        nodes: &[usize],
        attempt: &Attempt,
        launches: Vec<Launch>,
    ) -> Result<Batch, String> {
        let gone = || "a node is gone".to_owned();
        let mut from: BTreeMap<&ObjectKey, &NodeName> = BTreeMap::new();
        let mut moves = Vec::new();
        for (group, pods) in &attempt.pods {
            let mut pods = pods.iter();
            for one in attempt.placed.iter().filter(|one| one.group == *group) {
                let to = self.node_name(one.place).ok_or_else(gone)?;
                for (pod, from) in pods.by_ref().take(one.count as usize) {
                    let to = MoveTarget::Node(to.clone());
                    moves.push(Move { pod: pod.clone(), from: from.clone(), to });
                }
            }
            from.extend(pods.map(|(pod, from)| (pod, from)));
        }
        for (number, launch) in launches.iter().enumerate() {
            for pod in &launch.pods {
                let from = from.get(pod).ok_or_else(gone)?;
                let to = MoveTarget::Replacement(number);
                moves.push(Move { pod: pod.clone(), from: (*from).clone(), to });
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
        let names = nodes.iter().map(|place| self.node_name(*place).ok_or_else(gone));
        let mut names = names.collect::<Result<Vec<NodeName>, _>>()?;
        names.sort();
        Ok(Batch {
            reason: DisruptionReason::Underutilized,
            wave: 0,
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
    fn end(&mut self, nodes: &[usize], attempt: &mut Attempt, done: bool) {
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
        if done {
            self.forget_alone(nodes, &attempt.placed);
        } else {
            self.unsettle(&mut attempt.placed);
            for place in nodes {
                self.lift(*place, 1);
            }
        }
    }
}

/// The most that a launch may cost.
pub(super) fn dearest(launch: &Launch) -> u64 {
    let prices = launch.offerings.iter().map(|offering| offering.price_micro.unwrap_or(u64::MAX));
    prices.max().unwrap_or(u64::MAX)
}

fn dollars(micro: u64) -> String {
    format!("${:.4}/h", micro as f64 / 1e6)
}
