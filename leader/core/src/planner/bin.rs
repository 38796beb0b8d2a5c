//! A node that is planned, while it is being filled.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use drover_common::cluster::ObjectKey;
use drover_common::labels;
use fixedbitset::FixedBitSet;

use super::MinValuesPolicy;
use super::board::Board;
use super::dimension::{Amounts, add_times, fits};
use super::market::{Market, Pool};
use super::topology::Tracked;
use crate::view::HostPort;

/// What stands-in for host names of planned nodes begin with: no Node's name has a slash.
pub(super) const NEW_HOST: &str = "new/";

/// A node that is planned.
#[derive(Clone, Debug)]
pub(super) struct Bin {
    pub pool: usize,
    /// What it may still become, with all it holds.
    pub offers: FixedBitSet,
    /// The cheapest of those.
    pub cheapest: usize,
    pub used: Amounts,
    /// The most room any of its offers has, for a quick no.
    pub most: Amounts,
    pub ports: Vec<HostPort>,
    /// Label values that topology has decided.
    pub pinned: BTreeMap<String, String>,
    /// Groups and their pods.
    pub contents: Vec<(usize, Vec<ObjectKey>)>,
    /// Stands for its host name; no two planned nodes' are the same.
    pub host: String,
    /// Of which that name is made, ascending in the order of planned nodes: some of them may be dropped.
    number: usize,
}

/// What becomes of a bin if one more pod goes in.
#[derive(Clone, Debug)]
pub(super) struct Narrowed {
    pub offers: FixedBitSet,
    pub cheapest: usize,
    pub pinned: BTreeMap<String, String>,
}

impl Bin {
    /// Its value of a topology key, as far as decided.
    pub(super) fn domain(&self, key: &str) -> Option<&str> {
        if key == labels::HOSTNAME {
            return Some(&self.host);
        }
        self.pinned.get(key).map(String::as_str)
    }

    /// Its domain of a term, if its pods count for the term. What is not decided yet is judged by
    /// the cheapest it may become.
    pub(super) fn counted_domain(
        &self,
        market: &Market<'_>,
        tracked: &Tracked,
    ) -> Option<Cow<'_, str>> {
        let domain = self.domain(&tracked.term.key)?;
        let label = |key: &str| match self.pinned.get(key) {
            Some(value) => Some(value.as_str()),
            None => market.label(self.cheapest, key),
        };
        let taints = market.pools.get(self.pool).map(|pool| pool.taints.as_slice());
        if !tracked.has_keys(&|key| label(key).is_some()) {
            return None;
        }
        tracked.counts_node(&label, taints.unwrap_or_default()).then_some(domain.into())
    }

    pub(super) fn hold(&mut self, group: usize, pods: Vec<ObjectKey>) {
        match self.contents.iter_mut().find(|(held, _)| *held == group) {
            Some((_, held)) => held.extend(pods),
            None => self.contents.push((group, pods)),
        }
    }
}

/// The largest room by dimension over the kinds of some offers.
pub(super) fn most_room(market: &Market<'_>, offers: &FixedBitSet) -> Amounts {
    let mut most = Amounts::new();
    let mut last = None;
    for offer in offers.ones() {
        let Some(index) = market.offers.get(offer).map(|offer| offer.kind) else { continue };
        if last == Some(index) {
            continue;
        }
        last = Some(index);
        let Some(kind) = market.kinds.get(index) else { continue };
        if most.is_empty() {
            most.clone_from(&kind.room);
        }
        for (most, room) in most.iter_mut().zip(&kind.room) {
            *most = (*most).max(*room);
        }
    }
    most
}

impl Board<'_> {
    /// The first of some offers in the order of buying.
    pub(super) fn cheapest(&self, offers: &FixedBitSet) -> Option<usize> {
        offers.ones().min_by_key(|offer| self.market.rank(*offer))
    }

    /// The least a bin would cost with one more pod of a group, topology and limits aside.
    pub(super) fn least_cost(&self, group: usize, bin: &Bin) -> Option<u64> {
        let entry = self.groups.get(group)?;
        if !fits(&entry.request, &bin.used, &bin.most) {
            return None;
        }
        let roomy = |offer: usize| {
            let kind = self.market.kind_of(offer);
            kind.is_some_and(|kind| fits(&entry.request, &bin.used, &kind.room))
        };
        if entry.offers.contains(bin.cheapest) && roomy(bin.cheapest) {
            return self.market.offers.get(bin.cheapest).map(|offer| offer.cost());
        }
        bin.offers
            .intersection(&entry.offers)
            .filter_map(|offer| Some((self.market.offers.get(offer)?.cost(), offer)))
            .filter(|(_, offer)| roomy(*offer))
            .map(|(cost, _)| cost)
            .min()
    }

    /// What a bin would become with one more pod of a group; `None` if it can't take it.
    /// `reserved` is the offer whose capacity the bin already holds under its pool's limits.
    pub(super) fn narrow(
        &self,
        group: usize,
        bin: &Bin,
        reserved: Option<usize>,
    ) -> Option<Narrowed> {
        let entry = self.groups.get(group)?;
        if !fits(&entry.request, &bin.used, &bin.most) || bin.offers.is_disjoint(&entry.offers) {
            return None;
        }
        let shape = &entry.shape;
        if shape.ports.iter().any(|own| bin.ports.iter().any(|port| own.conflicts(port))) {
            return None;
        }
        if !self.topology.allows(&entry.part, labels::HOSTNAME, Some(&bin.host)) {
            return None;
        }
        let mut offers = bin.offers.clone();
        offers.intersect_with(&entry.offers);
        self.keep_affordable(&mut offers, &entry.request, bin, reserved, &shape.ports);
        let mut pinned = bin.pinned.clone();
        let keys = self.topology.keys(&entry.part);
        if keys.len() > 1 {
            keys.iter().for_each(|key| self.keep_allowed(&entry.part, key, &mut offers));
        }
        for key in &keys {
            self.pin(&entry.part, key, &mut offers, &mut pinned)?;
        }
        let enough = |offer: &usize| self.may_be_bought(&offers, *offer);
        let still = reserved.filter(|offer| offers.contains(*offer)).filter(enough);
        let cheapest = still.or_else(|| self.cheapest_to_have(&offers))?;
        // A bin is of one pool from its first pod on.
        let pool = self.market.pools.get(self.market.pool_of(cheapest)?)?;
        offers.intersect_with(&pool.bits);
        Some(Narrowed { offers, cheapest, pinned })
    }

    /// Whether these offers of a pool have the values that it wants to choose from. What is reserved is there: it
    /// needs nothing to fall back on.
    pub(super) fn are_enough(&self, pool: &Pool, offers: &FixedBitSet, cheapest: usize) -> bool {
        if self.settings.min_values_policy != MinValuesPolicy::Strict
            || !pool.wants_values()
            || self.market.slot_of(cheapest).is_some()
        {
            return true;
        }
        let sort = self.market.sort_of(cheapest);
        let launched = offers.ones().filter(|offer| self.market.sort_of(*offer) == sort);
        self.missing_values(pool, offers).is_none()
            && !self.is_launch_short(pool, &launched.collect())
    }

    /// Whether a launch of these offers has too few of a pool's `minValues`. It is of one capacity type, whatever else
    /// its pool could have had.
    pub(super) fn is_launch_short(&self, pool: &Pool, offers: &FixedBitSet) -> bool {
        let mut missing = self.all_missing_values(pool, offers);
        missing.any(|(key, ..)| key != labels::CAPACITY_TYPE)
    }

    /// The same where the offers are of several pools: of the cheapest's.
    fn may_be_bought(&self, offers: &FixedBitSet, cheapest: usize) -> bool {
        let pool = self.market.pool_of(cheapest).and_then(|pool| self.market.pools.get(pool));
        pool.is_some_and(|pool| {
            !pool.wants_values()
                || self.are_enough(pool, &offers.intersection(&pool.bits).collect(), cheapest)
        })
    }

    /// The first of some offers in the order of buying that has enough others of its sort.
    fn cheapest_to_have(&self, offers: &FixedBitSet) -> Option<usize> {
        let first = self.cheapest(offers)?;
        if self.may_be_bought(offers, first) {
            return Some(first);
        }
        let mut seen = vec![self.market.sort_of(first)];
        let ranked = self.market.by_rank.iter().copied().filter(|offer| offers.contains(*offer));
        for offer in ranked {
            let sort = self.market.sort_of(offer);
            if !seen.contains(&sort) {
                seen.push(sort);
                if self.may_be_bought(offers, offer) {
                    return Some(offer);
                }
            }
        }
        None
    }

    /// Drops offers without room for the request, and those that the pool's limits or a full
    /// reservation forbid.
    pub(super) fn keep_affordable(
        &self,
        offers: &mut FixedBitSet,
        request: &[i64],
        bin: &Bin,
        reserved: Option<usize>,
        ports: &[HostPort],
    ) {
        let mut judged: Option<(usize, bool)> = None;
        let set: Vec<usize> = offers.ones().collect();
        for offer in set {
            let Some(kind) = self.market.offers.get(offer).map(|offer| offer.kind) else {
                continue;
            };
            let of_kind = match judged {
                Some((known, good)) if known == kind => good,
                _ => {
                    self.market.kinds.get(kind).is_some_and(|kind| {
                        fits(request, &bin.used, &kind.room)
                            && !ports
                                .iter()
                                .any(|p| kind.daemon_ports.iter().any(|d| p.conflicts(d)))
                    }) && self.within_limits(offer, reserved)
                }
            };
            judged = Some((kind, of_kind));
            if !of_kind || !self.market.has_slot(offer, reserved) {
                offers.remove(offer);
            }
        }
    }

    /// Whether the pool's limits allow a node of this offer, given what the bin already reserves.
    pub(super) fn within_limits(&self, offer: usize, reserved: Option<usize>) -> bool {
        let market = &self.market;
        let Some((pool, kind)) =
            market.pool_of(offer).and_then(|p| market.pools.get(p)).zip(market.kind_of(offer))
        else {
            return false;
        };
        let own = reserved.and_then(|offer| market.kind_of(offer)).map(|kind| &kind.capacity);
        if reserved.is_none() && pool.nodes_left.is_some_and(|left| left < 1) {
            return false;
        }
        kind.capacity.iter().enumerate().all(|(index, amount)| {
            let Some(left) = pool.left.get(index).copied().flatten() else { return true };
            let held = own.and_then(|own| own.get(index)).copied().unwrap_or(0);
            *amount <= left.saturating_add(held)
        })
    }

    /// Drops offers in domains of a key that take no more pods: the best domain of one key would lead to one of another
    /// that has nothing to offer.
    fn keep_allowed(&self, part: &super::topology::Part, key: &str, offers: &mut FixedBitSet) {
        let values = self.index.known(key).into_iter().flatten();
        for (_, bits) in values.filter(|(value, _)| !self.topology.allows(part, key, Some(value))) {
            offers.difference_with(bits);
        }
    }

    /// Decides a topology key of a bin: the allowed domain with the fewest pods, then the cheapest.
    fn pin(
        &self,
        part: &super::topology::Part,
        key: &str,
        offers: &mut FixedBitSet,
        pinned: &mut BTreeMap<String, String>,
    ) -> Option<()> {
        let none = BTreeMap::new();
        let values = self.index.known(key).unwrap_or(&none);
        let decided = pinned.get(key);
        let best = values
            .iter()
            .filter(|(value, _)| decided.is_none_or(|decided| decided == *value))
            .filter(|(value, bits)| {
                !bits.is_disjoint(offers) && self.topology.allows(part, key, Some(value))
            })
            .filter_map(|(value, bits)| {
                let mut narrowed = offers.clone();
                narrowed.intersect_with(bits);
                // The emptiest domain may have too few types for `minValues`, and another enough.
                let rank = self.market.rank(self.cheapest_to_have(&narrowed)?);
                Some((self.topology.weight(part, key, value), rank, value, narrowed))
            })
            .min_by(|a, b| (a.0, a.1, a.2).cmp(&(b.0, b.1, b.2)));
        if let Some((_, _, value, narrowed)) = best {
            pinned.insert(key.to_owned(), value.clone());
            *offers = narrowed;
            return Some(());
        }
        // A node without the label is in no domain.
        let labelled = values.values().any(|bits| !bits.is_disjoint(offers));
        (!labelled && self.topology.allows(part, key, None)).then_some(())
    }

    /// The first `minValues` of a pool that these offers don't have, and how many they have.
    pub(super) fn missing_values<'p>(
        &self,
        pool: &'p Pool,
        offers: &FixedBitSet,
    ) -> Option<(&'p str, u32, usize)> {
        self.all_missing_values(pool, offers).next()
    }

    /// Every `minValues` of a pool that these offers don't have, and how many they have.
    pub(super) fn all_missing_values<'p>(
        &self,
        pool: &'p Pool,
        offers: &FixedBitSet,
    ) -> impl Iterator<Item = (&'p str, u32, usize)> {
        pool.requirements.iter().filter_map(|requirement| {
            let least = requirement.min_values?;
            let values: BTreeSet<&str> = offers
                .ones()
                .filter_map(|offer| self.market.label(offer, &requirement.key))
                .collect();
            let short = values.len() < least as usize;
            short.then_some((requirement.key.as_str(), least, values.len()))
        })
    }

    /// Puts pods of a group into a bin that was narrowed for them.
    pub(super) fn fill(&mut self, group: usize, bin: usize, narrowed: Narrowed, count: u32) {
        let Some(target) = self.bins.get_mut(bin) else { return };
        let Some(entry) = self.groups.get_mut(group) else { return };
        let before = target.cheapest;
        target.offers = narrowed.offers;
        target.cheapest = narrowed.cheapest;
        target.pinned = narrowed.pinned;
        target.most = most_room(&self.market, &target.offers);
        add_times(&mut target.used, &entry.request, count);
        target.ports.extend(entry.shape.ports.iter().cloned());
        let pods = entry.take(count);
        target.hold(group, pods);
        let part = entry.part.clone();
        if !part.is_free()
            && let Some(target) = self.bins.get(bin)
        {
            let market = &self.market;
            let domain = |tracked: &Tracked| target.counted_domain(market, tracked);
            self.topology.place(&part, &domain, i64::from(count));
        }
        self.reserve(before, -1);
        self.reserve(narrowed.cheapest, 1);
    }

    /// Takes a node of this offer off what its pool's limits and its reservation leave, or gives it
    /// back.
    pub(super) fn reserve(&mut self, offer: usize, sign: i64) {
        if let Some(slot) = self.market.slot_of(offer) {
            self.market.slots.take(slot, sign);
        }
        let Some(kind) = self.market.offers.get(offer).map(|offer| offer.kind) else { return };
        let Some(pool) = self.market.pool_of(offer) else { return };
        let Some(capacity) = self.market.kinds.get(kind).map(|kind| kind.capacity.clone()) else {
            return;
        };
        let Some(pool) = self.market.pools.get_mut(pool) else { return };
        for (left, amount) in pool.left.iter_mut().zip(capacity) {
            if let Some(left) = left {
                *left = left.saturating_sub(amount.saturating_mul(sign));
            }
        }
        if let Some(left) = &mut pool.nodes_left {
            *left = left.saturating_sub(sign);
        }
    }

    /// An empty bin over some offers.
    pub(super) fn empty_bin(&self, offers: FixedBitSet) -> Bin {
        let number = self.bins.last().map_or(0, |last| last.number + 1);
        Bin {
            pool: 0,
            offers,
            cheapest: 0,
            used: vec![0; self.dimensions.len()],
            most: vec![i64::MAX; self.dimensions.len()],
            ports: Vec::new(),
            pinned: BTreeMap::new(),
            contents: Vec::new(),
            host: format!("{NEW_HOST}{number}"),
            number,
        }
    }

    /// Adds a bin that was narrowed, with nothing in it yet.
    pub(super) fn open(&mut self, mut bin: Bin, narrowed: &Narrowed) -> usize {
        bin.cheapest = narrowed.cheapest;
        bin.pool = self.market.pool_of(narrowed.cheapest).unwrap_or_default();
        self.reserve(narrowed.cheapest, 1);
        self.bins.push(bin);
        self.bins.len() - 1
    }
}
