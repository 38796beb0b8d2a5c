//! Spread and self-anti-affinity as counts: a group that keeps to itself needs no pod-by-pod path.
//! It is split into one piece a domain, with a cap a node, and packed in bulk with the rest. Host ports that are
//! nobody else's are such a cap.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::labels;
use fixedbitset::FixedBitSet;

use super::board::Board;
use super::market::NodeKind;
use super::share::{Filled, Sharing};
use super::topology::{Part, TermKind, Tracked};

/// Pods of one group that may go to one domain.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub group: usize,
    pub offers: FixedBitSet,
    /// Topology keys and the domains that they are decided to be.
    pub pinned: Vec<(String, String)>,
    /// Pods left.
    pub count: u32,
    /// Most pods a new node.
    pub cap: u32,
}

/// How many groups of pods are concerned.
#[derive(Clone, Debug, Default)]
pub(super) struct Users {
    /// By term.
    terms: Vec<u32>,
    /// By number of the host's port.
    ports: BTreeMap<i32, u32>,
}

impl Board<'_> {
    /// How many groups each term and each host port concerns.
    pub(super) fn users(&self) -> Users {
        let mut users = Users { terms: vec![0; self.topology.terms.len()], ports: BTreeMap::new() };
        for group in &self.groups {
            let Part { own, matched } = &group.part;
            let both = own.iter().filter(|term| matched.binary_search(term).is_err());
            for term in both.chain(matched) {
                if let Some(users) = users.terms.get_mut(*term) {
                    *users += 1;
                }
            }
            let ports: BTreeSet<i32> = group.shape.ports.iter().map(|port| port.port).collect();
            for port in ports {
                *users.ports.entry(port).or_default() += 1;
            }
        }
        users
    }

    /// Whether the group's terms and host ports concern no pods but its own, and are of the kinds that counting is
    /// enough for: spread over hosts and over one other key, and anti-affinity between hosts.
    pub(super) fn is_splittable(&self, group: usize, users: &Users) -> bool {
        let Some(entry) = self.groups.get(group) else { return false };
        let part = &entry.part;
        let mut keys = 0;
        let own = part.own.iter().all(|index| {
            let Some(tracked) = self.topology.terms.get(*index) else { return false };
            let host = tracked.term.key == labels::HOSTNAME;
            if self.only_domain(tracked, &entry.offers).is_some() {
                return true;
            }
            keys += usize::from(!host);
            let kind = match tracked.term.kind {
                TermKind::Spread { .. } => true,
                TermKind::AntiAffinity | TermKind::PreferredAntiAffinity => host,
                TermKind::Affinity => false,
            };
            let alone = users.terms.get(*index) == Some(&1);
            kind && alone && part.matched.contains(index)
        });
        own && keys <= 1
            && entry.shape.ports.iter().all(|port| users.ports.get(&port.port) == Some(&1))
            && part.matched.iter().all(|index| {
                part.own.contains(index)
                    // Terms that others have left behind, or that it had itself at an earlier step.
                    || (users.terms.get(*index) == Some(&1) && !self.keeps_away(*index))
            })
    }

    /// The domain that a spread is over, where it is the only one: its pods may come there in any number.
    fn only_domain(&self, tracked: &Tracked, offers: &FixedBitSet) -> Option<&String> {
        let TermKind::Spread { min_domains: None, .. } = tracked.term.kind else { return None };
        let values = self.index.known(&tracked.term.key).into_iter().flatten();
        let mut reachable = values.filter(|(_, bits)| !bits.is_disjoint(offers));
        let only = reachable.next().filter(|_| reachable.next().is_none());
        let only = only.filter(|(value, bits)| {
            tracked.term.key != labels::HOSTNAME
                && offers.is_subset(bits)
                && tracked.universe.iter().all(|domain| domain == *value)
        });
        only.map(|(value, _)| value)
    }

    /// Whether a term forbids domains to pods that it is about.
    pub(super) fn keeps_away(&self, term: usize) -> bool {
        let tracked = self.topology.terms.get(term);
        tracked.is_none_or(|tracked| tracked.term.kind == TermKind::AntiAffinity)
    }

    /// The pieces of a group's remaining pods. Those that free room takes are seated on the way.
    pub(super) fn pieces(&mut self, group: usize, sharing: &mut Sharing) -> Vec<Piece> {
        let Some(entry) = self.groups.get(group) else { return Vec::new() };
        let (left, mut offers, part) = (entry.left(), entry.offers.clone(), entry.part.clone());
        let ports = &entry.shape.ports;
        let taken = |kind: &&NodeKind<'_>| {
            ports.iter().any(|own| kind.daemon_ports.iter().any(|taken| own.conflicts(taken)))
        };
        for kind in self.market.kinds.iter().filter(taken) {
            offers.remove_range(kind.offers.clone());
        }
        let most = if ports.is_empty() { u32::MAX } else { 1 };
        let terms: Vec<Tracked> =
            part.own.iter().filter_map(|index| self.topology.terms.get(*index).cloned()).collect();
        let cap = terms.iter().filter(|t| t.term.key == labels::HOSTNAME).map(host_cap).min();
        let cap = cap.unwrap_or(u32::MAX).min(most);
        // Pods are counted on a node whose domain is known, and a batch of a repack is right without others only so.
        let decided =
            |t: &Tracked| Some((t.term.key.clone(), self.only_domain(t, &offers)?.clone()));
        let decided: Vec<(String, String)> = terms.iter().filter_map(decided).collect();
        let divides = |t: &Tracked| {
            t.term.key != labels::HOSTNAME && decided.iter().all(|(key, _)| *key != t.term.key)
        };
        let Some(spread) = terms.into_iter().find(divides) else {
            return vec![Piece { group, offers, pinned: decided, count: left, cap }];
        };
        let spread = self.with_held(group, spread);
        let mut domains: BTreeMap<String, FixedBitSet> = BTreeMap::new();
        for (value, bits) in self.index.values(&self.market, &spread.term.key) {
            if !bits.is_disjoint(&offers) {
                let mut narrowed = bits.clone();
                narrowed.intersect_with(&offers);
                domains.insert(value.clone(), narrowed);
            }
        }
        let nodes = self.open_nodes(group);
        let free = self.free_seats(group, &spread, &nodes, cap);
        let mut shares = self.share_out(&spread, &domains, &free, left, sharing);
        let uneven = shares.values().min() < shares.values().max();
        self.opened.shared |= uneven;
        sharing.note(group, &spread.term.key, &shares, self);
        self.seat_on_nodes(group, &spread, nodes, &mut shares, sharing);
        domains
            .into_iter()
            .filter_map(|(value, offers)| {
                let count = *shares.get(&value)?;
                let own = (spread.term.key.clone(), value);
                let pinned = std::iter::once(own).chain(decided.iter().cloned()).collect();
                (count > 0).then_some(Piece { group, offers, pinned, count, cap })
            })
            .collect()
    }

    /// A term as it will be once those of the group that room is held for have their places.
    fn with_held(&self, group: usize, mut tracked: Tracked) -> Tracked {
        for meant in self.held.iter().filter(|meant| meant.group == group) {
            let node = self.existing.get(meant.node);
            if let Some(domain) = node.and_then(|node| node.counted_domain(&tracked)) {
                *tracked.matching.entry(domain.into_owned()).or_default() += 1;
            }
        }
        tracked
    }

    /// Takes up to so many of a group's pods out of each of some planned nodes, to place them another way.
    pub(super) fn take_back(&mut self, group: usize, fills: &[Filled]) {
        let mut returned = Vec::new();
        for Filled { bin, count: most, pinned, .. } in fills {
            let bin = *bin;
            let Some(target) = self.bins.get_mut(bin) else { continue };
            let Some(position) = target.contents.iter().position(|(held, _)| *held == group) else {
                continue;
            };
            let Some((_, held)) = target.contents.get_mut(position) else { continue };
            let pods = held.split_off(held.len().saturating_sub(*most as usize));
            if held.is_empty() {
                target.contents.remove(position);
            }
            let Some(entry) = self.groups.get(group) else { return };
            for (used, request) in target.used.iter_mut().zip(&entry.request) {
                let amount = i64::try_from(pods.len()).unwrap_or(i64::MAX);
                *used = used.saturating_sub(request.saturating_mul(amount));
            }
            let part = entry.part.clone();
            let count = i64::try_from(pods.len()).unwrap_or(i64::MAX);
            if let Some(target) = self.bins.get(bin) {
                let market = &self.market;
                let domain = |tracked: &Tracked| target.counted_domain(market, tracked);
                self.topology.place(&part, &domain, -count);
            }
            self.shrink(bin, pinned);
            returned.extend(pods);
        }
        if let Some(entry) = self.groups.get_mut(group) {
            entry.give_back(returned);
        }
    }

    /// Plans a node that gave pods up as the cheapest of its sort for those that it still has. What was `pinned` for
    /// them is open again, if it matters to no other.
    fn shrink(&mut self, bin: usize, pinned: &[String]) {
        let Some(mut before) = self.bins.get(bin).filter(|bin| !bin.contents.is_empty()).cloned()
        else {
            return;
        };
        let groups = before.contents.iter().filter_map(|(group, _)| self.groups.get(*group));
        let keys: BTreeSet<String> =
            groups.clone().flat_map(|group| self.topology.keys(&group.part)).collect();
        before.ports = groups.flat_map(|group| group.shape.ports.clone()).collect();
        if let Some(target) = self.bins.get_mut(bin) {
            target.ports.clone_from(&before.ports);
        }
        // A node that is reserved is paid for, used or not.
        if self.market.slot_of(before.cheapest).is_some() {
            return;
        }
        self.count_contents(bin, -1);
        if let Some(target) = self.bins.get_mut(bin) {
            target.pinned.retain(|key, _| keys.contains(key) || !pinned.contains(key));
        }
        self.widen(bin);
        let sort = self.market.sort_of(before.cheapest);
        let like = |offer: &usize| self.market.sort_of(*offer) == sort;
        let wide = self.bins.get(bin).map(|bin| bin.offers.clone()).unwrap_or_default();
        let cheapest = wide.ones().filter(like).min_by_key(|offer| self.market.rank(*offer));
        let pool = self.market.pools.get(before.pool);
        let cheapest = cheapest
            .filter(|cheapest| pool.is_some_and(|pool| self.are_enough(pool, &wide, *cheapest)));
        if let Some(target) = self.bins.get_mut(bin) {
            match cheapest {
                Some(cheapest) => target.cheapest = cheapest,
                None => *target = before.clone(),
            }
        }
        if let Some(cheapest) = cheapest {
            self.reserve(before.cheapest, -1);
            self.reserve(cheapest, 1);
        }
        self.count_contents(bin, 1);
    }

    /// Counts a planned node's pods out of their domains (`sign` -1) or back in (1).
    pub(super) fn count_contents(&mut self, bin: usize, sign: i64) {
        let Some(target) = self.bins.get(bin) else { return };
        for (group, pods) in &target.contents {
            let Some(part) = self.groups.get(*group).map(|group| &group.part) else { continue };
            if !part.is_free() {
                let market = &self.market;
                let domain = |tracked: &Tracked| target.counted_domain(market, tracked);
                let count = i64::try_from(pods.len()).unwrap_or(i64::MAX);
                self.topology.place(part, &domain, count.saturating_mul(sign));
            }
        }
    }

    /// Drops nodes planned from `first` on that nothing is left on.
    pub(super) fn drop_empty_bins(&mut self, first: usize) {
        let bins = std::mem::take(&mut self.bins);
        let mut kept = Vec::with_capacity(bins.len());
        for (number, bin) in bins.into_iter().enumerate() {
            if number >= first && bin.contents.is_empty() {
                self.reserve(bin.cheapest, -1);
            } else {
                kept.push(bin);
            }
        }
        self.bins = kept;
        self.hosts.forget();
    }
}

/// Most pods of a term's group on a new host.
fn host_cap(tracked: &Tracked) -> u32 {
    match tracked.term.kind {
        TermKind::Spread { max_skew, .. } => u32::try_from(max_skew).unwrap_or(u32::MAX),
        TermKind::Affinity | TermKind::AntiAffinity | TermKind::PreferredAntiAffinity => 1,
    }
}
