//! Sharing spread pods out over domains: which gets how many, and what of that free room takes.

use std::borrow::Cow;
use std::collections::BTreeMap;

use drover_common::cluster::ObjectKey;
use fixedbitset::FixedBitSet;

use super::board::Board;
use super::dimension::{CPU, times};
use super::topology::{TermKind, Tracked};

/// Domains whose cheapest offer is this much dearer than that of the cheapest domain, in percent, are as good.
const AS_CHEAP_PERCENT: u64 = 110;

/// Where the pods of a spread go that could as well go to several domains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Leaning {
    /// To the domain with least in it.
    #[default]
    Apart,
    /// To the one with most in it: what is left over of several workloads shares nodes.
    Together,
}

/// What the groups of one round share out.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    /// Pods on nodes that are there, ahead of those of their group that nodes are yet to be bought for.
    pub seats: Vec<Seat>,
    /// Pods on free room of nodes that were planned before.
    pub filled: Vec<Filled>,
    /// By topology key and domain: milli-cores that are there, or were shared out to it.
    loads: BTreeMap<String, BTreeMap<String, i64>>,
}

/// Pods of a group that were put on a node.
#[derive(Debug)]
pub(super) struct Seat {
    pub group: usize,
    node: usize,
    pods: Vec<ObjectKey>,
}

/// How many pods of a group filled up a planned node.
#[derive(Clone, Debug)]
pub(super) struct Filled {
    pub group: usize,
    pub bin: usize,
    pub count: u32,
    /// Topology keys of which the node's domain was open before.
    pub pinned: Vec<String>,
}

impl Sharing {
    /// Counts what a group shared out.
    pub(super) fn note(
        &mut self,
        group: usize,
        key: &str,
        shares: &BTreeMap<String, u32>,
        board: &Board<'_>,
    ) {
        let request = board.groups.get(group).and_then(|group| group.request.get(CPU).copied());
        let each = request.unwrap_or(0).max(1);
        let loads = self.loads.entry(key.to_owned()).or_default();
        for (domain, count) in shares {
            let load = loads.entry(domain.clone()).or_default();
            *load = load.saturating_add(each.saturating_mul(i64::from(*count)));
        }
    }

    fn loads(&mut self, key: &str, board: &Board<'_>) -> &BTreeMap<String, i64> {
        self.loads.entry(key.to_owned()).or_insert_with(|| {
            let mut loads: BTreeMap<String, i64> = BTreeMap::new();
            for place in &board.existing {
                let Some(domain) = place.domain(key) else { continue };
                let load = loads.entry(domain.into_owned()).or_default();
                *load = load.saturating_add(place.used.get(CPU).copied().unwrap_or(0));
            }
            loads
        })
    }
}

impl Board<'_> {
    /// Shares pods out one by one to the emptiest domain in reach, as long as the skew allows. Of equals one with free room
    /// goes first, then the one whose nodes are cheap, then as the plan is leaning.
    pub(super) fn share_out(
        &self,
        spread: &Tracked,
        reachable: &BTreeMap<String, FixedBitSet>,
        free: &BTreeMap<String, u32>,
        pods: u32,
        sharing: &mut Sharing,
    ) -> BTreeMap<String, u32> {
        let TermKind::Spread { max_skew, min_domains, .. } = &spread.term.kind else {
            return BTreeMap::new();
        };
        let loads = sharing.loads(&spread.term.key, self);
        let cost = |offers: &FixedBitSet| {
            let costs = offers.ones().filter_map(|offer| self.market.offers.get(offer));
            costs.map(super::market::Offer::cost).min().unwrap_or(u64::MAX)
        };
        let costs: BTreeMap<&String, u64> =
            reachable.iter().map(|(domain, offers)| (domain, cost(offers))).collect();
        let least = costs.values().copied().min().unwrap_or(0);
        let standing = |domain: &String| {
            let cost = costs.get(domain).copied().unwrap_or(u64::MAX);
            let as_cheap = cost <= least.saturating_mul(AS_CHEAP_PERCENT) / 100;
            let load = loads.get(domain).copied().unwrap_or(0);
            let load = if self.leaning == Leaning::Together { -load } else { load };
            (if as_cheap { 0 } else { cost }, load)
        };
        let standings: BTreeMap<&String, (u64, i64)> =
            reachable.keys().map(|domain| (domain, standing(domain))).collect();
        let mut tracked = spread.clone();
        let mut shares: BTreeMap<String, u32> =
            reachable.keys().map(|domain| (domain.clone(), 0)).collect();
        for _ in 0..pods {
            let count = |domain: &String| tracked.matching.get(domain).copied().unwrap_or(0);
            let is_full =
                |domain: &String, share: u32| free.get(domain).is_none_or(|n| *n <= share);
            let ranked = shares
                .iter()
                .map(|(one, share)| ((count(one), is_full(one, *share), standings.get(one)), one));
            let Some(emptiest) = ranked.min().map(|(_, domain)| domain.clone()) else { break };
            if count(&emptiest) + 1 - tracked.least(*min_domains) > *max_skew {
                break;
            }
            *tracked.matching.entry(emptiest.clone()).or_default() += 1;
            *shares.entry(emptiest).or_default() += 1;
        }
        shares
    }

    /// Nodes that would take a pod of a group, topology aside.
    pub(super) fn open_nodes(&self, group: usize) -> Vec<usize> {
        if self.existing.is_empty() {
            return Vec::new();
        }
        let open = |node: &usize| self.node_is_open(group, *node);
        self.admitting_nodes(group).into_iter().filter(open).collect()
    }

    /// How many pods of a group, `cap` a node, free room of each domain would take.
    pub(super) fn free_seats(
        &self,
        group: usize,
        spread: &Tracked,
        nodes: &[usize],
        cap: u32,
    ) -> BTreeMap<String, u32> {
        let mut free: BTreeMap<String, u32> = BTreeMap::new();
        for node in nodes {
            let Some((entry, place)) = self.groups.get(group).zip(self.existing.get(*node)) else {
                continue;
            };
            let Some(domain) = place.counted_domain(spread) else { continue };
            if self.node_is_allowed_but(group, *node, Some(&spread.term.key)) {
                let seats = times(&entry.request, &place.used, &place.room).min(cap);
                let free = free.entry(domain.into_owned()).or_default();
                *free = free.saturating_add(seats);
            }
        }
        free
    }

    /// Seats pods on nodes of the domains that they were shared out to, and takes them off the shares. The spread may
    /// forbid it as things stand: all shares together keep it.
    pub(super) fn seat_on_nodes(
        &mut self,
        group: usize,
        spread: &Tracked,
        nodes: Vec<usize>,
        shares: &mut BTreeMap<String, u32>,
        sharing: &mut Sharing,
    ) {
        // Room that is held for some of the group has an order of its own.
        if self.held.iter().any(|meant| meant.group == group) {
            return;
        }
        for node in nodes {
            let place = self.existing.get(node);
            let domain = place.and_then(|place| place.counted_domain(spread)).map(Cow::into_owned);
            let Some(share) = domain.and_then(|domain| shares.get_mut(&domain)) else { continue };
            let mut pods = Vec::new();
            while *share > 0
                && self.node_is_open(group, node)
                && self.node_is_allowed_but(group, node, Some(&spread.term.key))
            {
                let taken = self.groups.get_mut(group).map(|group| group.take(1));
                let Some(taken) = taken.filter(|taken| !taken.is_empty()) else { break };
                self.book_on_node(group, node, taken.clone());
                pods.extend(taken);
                *share -= 1;
            }
            if !pods.is_empty() {
                sharing.seats.push(Seat { group, node, pods });
            }
        }
    }

    /// Takes pods off their seats, which could not be kept without the rest of their group.
    pub(super) fn leave_seats(&mut self, seats: impl IntoIterator<Item = Seat>) {
        for Seat { group, node, pods } in seats {
            let Some((entry, place)) = self.groups.get(group).zip(self.existing.get_mut(node))
            else {
                continue;
            };
            let count = i64::try_from(pods.len()).unwrap_or(i64::MAX);
            for (used, request) in place.used.iter_mut().zip(&entry.request) {
                *used = used.saturating_sub(request.saturating_mul(count));
            }
            place.pods.retain(|pod| !pods.contains(pod));
            place.ports.retain(|port| !entry.shape.ports.contains(port));
            let place = &*place;
            let domain = |tracked: &Tracked| place.counted_domain(tracked);
            self.topology.place(&entry.part, &domain, -count);
            if let Some(entry) = self.groups.get_mut(group) {
                entry.give_back(pods);
            }
        }
    }
}
