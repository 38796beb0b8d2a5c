//! Planned nodes that are cheaper as one. Packing takes what is worth most for its price, so the last pods of
//! a plan come to nodes of their own, and pods that go one by one each make do with what is there.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::cluster::ObjectKey;
use drover_common::instance_type::CapacityType;
use drover_common::labels;
use fixedbitset::FixedBitSet;

use super::bin::{Bin, most_room};
use super::board::Board;
use super::dimension::Amounts;
use super::topology::{Part, Tracked};

/// Of so many planned nodes each two are looked at together.
const MOST_BINS: usize = 32;
/// Of more, so many that are used least: what two nodes could save is little among all.
const LEAST_USED: usize = 12;
/// Of so many, each three and all of them, too.
const FEW_BINS: usize = 8;
/// What became one node may become one with another.
const ROUNDS: usize = 4;

/// What some planned nodes would be as one.
struct Union {
    offers: FixedBitSet,
    cheapest: usize,
    used: Amounts,
    pinned: BTreeMap<String, String>,
    /// Micro-dollars an hour.
    saving: u64,
}

impl Board<'_> {
    /// Makes one node of several planned ones wherever that costs less.
    pub(super) fn merge_bins(&mut self) {
        for _ in 0..ROUNDS {
            let mut gains: Vec<(u64, Vec<usize>)> = Vec::new();
            for set in self.sets_to_merge() {
                if !self.steps.may_fill() {
                    return;
                }
                let offers = self.market.offers.len() / 4;
                self.steps.take_of_filling(offers as u64);
                gains.extend(self.union_of(&set).map(|union| (union.saving, set)));
            }
            gains.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
            let mut merged: BTreeSet<usize> = BTreeSet::new();
            for (_, set) in gains {
                if set.iter().all(|bin| !merged.contains(bin)) && self.merge(&set) {
                    merged.extend(set);
                }
            }
            if merged.is_empty() {
                return;
            }
            self.bins.retain(|bin| !bin.contents.is_empty());
            self.hosts.forget();
        }
    }

    fn sets_to_merge(&self) -> Vec<Vec<usize>> {
        let mut bins: Vec<usize> = (0..self.bins.len()).collect();
        if bins.len() > MOST_BINS {
            bins.sort_by_cached_key(|bin| (self.used_percent(*bin), *bin));
            bins.truncate(LEAST_USED);
            bins.sort_unstable();
        }
        let mut sets = Vec::new();
        for (at, one) in bins.iter().enumerate() {
            for (next, other) in bins.iter().enumerate().skip(at + 1) {
                sets.push(vec![*one, *other]);
                if bins.len() <= FEW_BINS {
                    let third = bins.iter().skip(next + 1);
                    sets.extend(third.map(|third| vec![*one, *other, *third]));
                }
            }
        }
        if (4..=FEW_BINS).contains(&bins.len()) {
            sets.push(bins);
        }
        sets
    }

    /// How much of a planned node's scarcest resource is used.
    fn used_percent(&self, bin: usize) -> i64 {
        let Some(bin) = self.bins.get(bin) else { return 0 };
        let room = self.market.kind_of(bin.cheapest).map(|kind| &kind.room);
        let both = bin.used.iter().zip(room.into_iter().flatten());
        let shares = both.filter(|(_, room)| **room > 0);
        shares.map(|(used, room)| used.saturating_mul(100) / room).max().unwrap_or(0)
    }

    /// What some planned nodes would be as one, if that costs less; hosts and limits aside.
    fn union_of(&self, set: &[usize]) -> Option<Union> {
        let bins: Vec<&Bin> = set.iter().filter_map(|bin| self.bins.get(*bin)).collect();
        let (first, rest) = bins.split_first()?;
        let sort = self.market.sort_of(first.cheapest);
        let alike = |bin: &&Bin| {
            self.market.sort_of(bin.cheapest) == sort && self.market.slot_of(bin.cheapest).is_none()
        };
        if !bins.iter().all(alike) || !self.may_share(&bins) {
            return None;
        }
        let (mut offers, mut used) = (first.offers.clone(), first.used.clone());
        let mut pinned = first.pinned.clone();
        for bin in rest {
            offers.intersect_with(&bin.offers);
            used.iter_mut().zip(&bin.used).for_each(|(used, more)| *used += more);
            pinned.extend(bin.pinned.clone());
        }
        self.keep_fitting(&mut offers, &used);
        let of_sort = offers.ones().filter(|offer| self.market.sort_of(*offer) == sort);
        let cheapest = of_sort.min_by_key(|offer| self.market.rank(*offer))?;
        let before: u64 = bins.iter().map(|bin| self.cost(bin.cheapest)).sum();
        let mut saving = before.checked_sub(self.cost(cheapest)).filter(|saving| *saving > 0)?;
        if sort.is_some_and(|(billed, _)| billed == CapacityType::Spot) {
            let ladders: Vec<_> = bins.iter().map(|bin| self.ladder(bin, &bin.offers)).collect();
            let ladder = self.ladder(first, &offers);
            let prices = ladders.iter().filter_map(|ladder| self.price_on(ladder));
            saving = prices.sum::<u64>().checked_sub(self.price_on(&ladder)?)?;
            // EC2 is to have as much of a choice as with each of them.
            if saving == 0 || ladders.iter().any(|before| ladder.len() < before.len()) {
                return None;
            }
        }
        let pool = self.market.pools.get(first.pool)?;
        let enough = self.are_enough(pool, &offers, cheapest);
        enough.then_some(Union { offers, cheapest, used, pinned, saving })
    }

    /// Makes one node of planned ones, if their pods may be on one host and limits allow it.
    fn merge(&mut self, set: &[usize]) -> bool {
        let Some((union, (first, rest))) = self.union_of(set).zip(set.split_first()) else {
            return false;
        };
        let before: Vec<(usize, Bin)> =
            set.iter().filter_map(|bin| Some((*bin, self.bins.get(*bin)?.clone()))).collect();
        for bin in set {
            self.count_contents(*bin, -1);
        }
        for (bin, target) in &before {
            if rest.contains(bin) {
                self.reserve(target.cheapest, -1);
            }
        }
        let Some((_, one)) = before.first() else { return false };
        let mut whole = one.clone();
        let held = whole.cheapest;
        whole.most = most_room(&self.market, &union.offers);
        (whole.offers, whole.cheapest) = (union.offers, union.cheapest);
        (whole.used, whole.pinned) = (union.used, union.pinned);
        let can_have = self.can_have(whole.cheapest, Some(held));
        let seated = if can_have { self.seat_together(&whole, &before) } else { None };
        let Some(contents) = seated else {
            for (bin, target) in before {
                if rest.contains(&bin) {
                    self.reserve(target.cheapest, 1);
                }
                self.count_contents(bin, 1);
            }
            return false;
        };
        whole.ports = before.iter().flat_map(|(_, bin)| bin.ports.clone()).collect();
        self.reserve(held, -1);
        self.reserve(whole.cheapest, 1);
        whole.contents = contents;
        for bin in rest {
            if let Some(target) = self.bins.get_mut(*bin) {
                target.contents.clear();
            }
        }
        if let Some(target) = self.bins.get_mut(*first) {
            *target = whole;
        }
        true
    }

    /// Counts all pods of some nodes on one, each as its host allows it with those before. `None`, and nothing is
    /// counted, if one is not allowed.
    fn seat_together(
        &mut self,
        whole: &Bin,
        bins: &[(usize, Bin)],
    ) -> Option<Vec<(usize, Vec<ObjectKey>)>> {
        let mut seated = whole.clone();
        seated.contents.clear();
        let mut counted: Vec<(usize, i64)> = Vec::new();
        for (group, pods) in bins.iter().flat_map(|(_, bin)| &bin.contents) {
            let Some(part) = self.groups.get(*group).map(|group| group.part.clone()) else {
                continue;
            };
            for _ in pods.iter().filter(|_| !part.is_free()) {
                if !self.topology.allows(&part, labels::HOSTNAME, Some(&whole.host)) {
                    for (group, count) in counted {
                        self.count_on(whole, group, -count);
                    }
                    return None;
                }
                self.count_on(whole, *group, 1);
                counted.push((*group, 1));
            }
            seated.hold(*group, pods.clone());
        }
        Some(seated.contents)
    }

    fn count_on(&mut self, bin: &Bin, group: usize, count: i64) {
        let Some(part) = self.groups.get(group).map(|group| &group.part) else { return };
        let domain = |tracked: &Tracked| bin.counted_domain(&self.market, tracked);
        self.topology.place(part, &domain, count);
    }

    /// Whether ports and decided domains let pods of some planned nodes be on one.
    fn may_share(&self, bins: &[&Bin]) -> bool {
        bins.iter().enumerate().all(|(at, one)| {
            bins.iter().skip(at + 1).all(|other| {
                let apart = |(key, domain): (&String, &String)| {
                    other.pinned.get(key).is_some_and(|own| own != domain)
                };
                let mut ports = one.ports.iter();
                !one.pinned.iter().any(apart)
                    && !ports.any(|port| other.ports.iter().any(|own| own.conflicts(port)))
                    && self.may_be_pinned(one, other)
                    && self.may_be_pinned(other, one)
            })
        })
    }

    /// Whether it is nothing to a node's pods in which domains another's are: they would be counted there.
    fn may_be_pinned(&self, bin: &Bin, other: &Bin) -> bool {
        let open: Vec<&String> =
            other.pinned.keys().filter(|key| !bin.pinned.contains_key(*key)).collect();
        let groups = bin.contents.iter().filter_map(|(group, _)| self.groups.get(*group));
        open.is_empty()
            || groups.flat_map(|group| terms(&group.part)).all(|term| {
                let tracked = self.topology.terms.get(*term);
                tracked.is_none_or(|tracked| !open.contains(&&tracked.term.key))
            })
    }
}

fn terms(part: &Part) -> impl Iterator<Item = &usize> {
    part.own.iter().chain(&part.matched)
}
