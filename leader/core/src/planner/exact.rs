//! The exact path: pod by pod, first fit over nodes, planned nodes, and a new node. It knows every
//! constraint; it is for pods whose place depends on where others are, and for what is left over.

use drover_common::cluster::ObjectKey;
use drover_common::labels;
use fixedbitset::FixedBitSet;

use super::bin::most_room;
use super::board::Board;
use super::dimension::{fits, times};

impl Board<'_> {
    /// Gives pods in-flight nodes were launched for their place there, as far as it still holds.
    pub(super) fn keep_meant(&mut self) {
        let owners: std::collections::BTreeMap<ObjectKey, usize> = self
            .groups
            .iter()
            .enumerate()
            .flat_map(|(index, group)| group.pods.iter().map(move |pod| (pod.clone(), index)))
            .collect();
        let mut waiting: Vec<(usize, usize, ObjectKey)> = Vec::new();
        for (node, place) in self.existing.iter().enumerate() {
            let pods = place.meant.iter();
            waiting.extend(pods.filter_map(|p| Some((*owners.get(p)?, node, p.clone()))));
        }
        // Pods may wait for each other, as when they were placed.
        loop {
            let before = waiting.len();
            waiting.retain(|(group, node, pod)| {
                // Its rules on labels held for all that the node may become when it was planned.
                let taken = self.node_has_room(*group, *node)
                    && self.groups.get_mut(*group).is_some_and(|group| group.take_named(pod));
                if taken {
                    self.book_on_node(*group, *node, vec![pod.clone()]);
                }
                !taken
            });
            if waiting.len() == before {
                break;
            }
        }
    }

    /// Places what it can of some groups. Pods may wait for each other (affinity, spread), so as
    /// long as one finds a place, all try again.
    pub(super) fn place_all_exactly(&mut self, groups: &[usize]) {
        let waiting: Vec<usize> = groups
            .iter()
            .copied()
            .filter(|group| self.groups.get(*group).is_some_and(|group| group.left() > 0))
            .collect();
        if waiting.is_empty() {
            return;
        }
        let first_bin = self.bins.len();
        self.scope = self.undominated(&waiting);
        loop {
            let mut placed = false;
            for group in &waiting {
                placed |= self.place_exactly(*group);
            }
            if !placed {
                break;
            }
        }
        for bin in first_bin..self.bins.len() {
            self.widen(bin);
        }
    }

    /// Gives a node of the exact path all the offers that hold what it has.
    fn widen(&mut self, bin: usize) {
        let Some(target) = self.bins.get(bin) else { return };
        let Some(pool) = self.market.pools.get(target.pool) else { return };
        let mut offers = FixedBitSet::with_capacity(self.market.offers.len());
        offers.insert_range(pool.offers.clone());
        for (group, _) in &target.contents {
            if let Some(group) = self.groups.get(*group) {
                offers.intersect_with(&group.offers);
            }
        }
        for (key, value) in &target.pinned {
            if let Some(bits) = self.index.known(key).and_then(|values| values.get(value)) {
                offers.intersect_with(bits);
            }
        }
        let (used, ports, cheapest) = (target.used.clone(), target.ports.clone(), target.cheapest);
        self.keep_fitting(&mut offers, &used);
        let conflicting: Vec<usize> = offers
            .ones()
            .filter(|offer| {
                let daemons = self.market.kind_of(*offer).map(|kind| &kind.daemon_ports);
                let mut daemons = daemons.into_iter().flatten();
                daemons.any(|daemon| ports.iter().any(|port| port.conflicts(daemon)))
                    || !self.within_limits(*offer, Some(cheapest))
            })
            .collect();
        for offer in conflicting {
            offers.remove(offer);
        }
        let most = most_room(&self.market, &offers);
        if let Some(target) = self.bins.get_mut(bin) {
            target.offers = offers;
            target.most = most;
        }
    }

    /// Places what it can of a group, pod by pod.
    pub(super) fn place_exactly(&mut self, group: usize) -> bool {
        let Some(entry) = self.groups.get(group) else { return false };
        for key in self.topology.keys(&entry.part) {
            self.index.values(&self.market, &key);
        }
        let admitting = self.admitting_nodes(group);
        let mut placed = false;
        while self.groups.get(group).is_some_and(|group| group.left() > 0) {
            if !(self.place_on_node(group, &admitting)
                || self.place_in_bin(group, true)
                || self.place_in_new_bin(group)
                || self.place_in_bin(group, false))
            {
                break;
            }
            placed = true;
        }
        placed
    }

    /// Places what it can of a group on existing nodes, pod by pod.
    pub(super) fn place_on_nodes(&mut self, group: usize) {
        let admitting = self.admitting_nodes(group);
        while self.groups.get(group).is_some_and(|group| group.left() > 0)
            && self.place_on_node(group, &admitting)
        {}
    }

    /// Places what it can of a group without topology on existing nodes, in bulk.
    pub(super) fn place_plainly(&mut self, group: usize) {
        for node in self.admitting_nodes(group) {
            let Some((entry, target)) = self.groups.get_mut(group).zip(self.existing.get(node))
            else {
                return;
            };
            if entry.left() == 0 {
                return;
            }
            let count = times(&entry.request, &target.used, &target.room).min(entry.left());
            if count > 0 {
                let pods = entry.take(count);
                self.book_on_node(group, node, pods);
            }
        }
    }

    /// Fills free room of planned nodes with a plain group, without making any of them dearer.
    pub(super) fn fill_bins(&mut self, group: usize) {
        for bin in 0..self.bins.len() {
            let Some((entry, target)) = self.groups.get(group).zip(self.bins.get(bin)) else {
                return;
            };
            if entry.left() == 0 {
                return;
            }
            if !entry.offers.contains(target.cheapest) {
                continue;
            }
            let Some(kind) = self.market.kind_of(target.cheapest) else { continue };
            let count = times(&entry.request, &target.used, &kind.room).min(entry.left());
            for _ in 0..count {
                let Some(target) = self.bins.get(bin) else { break };
                let cheapest = target.cheapest;
                match self.narrow(group, target, Some(cheapest)) {
                    Some(narrowed) if narrowed.cheapest == cheapest => {
                        self.fill(group, bin, narrowed, 1);
                    }
                    _ => break,
                }
            }
        }
    }

    /// Existing nodes whose labels and taints let the group in.
    fn admitting_nodes(&self, group: usize) -> Vec<usize> {
        let Some(variant) = self.groups.get(group).and_then(|group| group.variant()) else {
            return Vec::new();
        };
        let nodes = self.existing.iter().enumerate();
        nodes.filter(|(_, node)| node.admits(&variant.rules)).map(|(index, _)| index).collect()
    }

    fn node_has_room(&self, group: usize, node: usize) -> bool {
        let Some((entry, target)) = self.groups.get(group).zip(self.existing.get(node)) else {
            return false;
        };
        let allows = |key: &str| {
            let domain = target.domain(key);
            // A value that is not decided yet may turn out to be any.
            if domain.is_none() && target.is_open(key) {
                return false;
            }
            self.topology.allows(&entry.part, key, domain.as_deref())
        };
        fits(&entry.request, &target.used, &target.room)
            && target.has_ports_for(entry)
            && allows(labels::HOSTNAME)
            && self.topology.keys(&entry.part).iter().all(|key| allows(key))
    }

    fn book_on_node(&mut self, group: usize, node: usize, pods: Vec<ObjectKey>) {
        let Some((entry, target)) = self.groups.get(group).zip(self.existing.get_mut(node)) else {
            return;
        };
        let count = i64::try_from(pods.len()).unwrap_or(i64::MAX);
        if !entry.part.is_free() {
            self.topology.place(&entry.part, &|tracked| target.counted_domain(tracked), count);
        }
        target.book(entry, pods);
    }

    fn place_on_node(&mut self, group: usize, admitting: &[usize]) -> bool {
        let Some(node) = admitting.iter().copied().find(|node| self.node_has_room(group, *node))
        else {
            return false;
        };
        let pods = self.groups.get_mut(group).map(|group| group.take(1)).unwrap_or_default();
        self.book_on_node(group, node, pods);
        true
    }

    /// Puts a pod into the first planned node that takes it; a `thrifty` search passes over nodes
    /// that would grow by more than a node of the pod's own costs.
    fn place_in_bin(&mut self, group: usize, thrifty: bool) -> bool {
        let alone = self
            .groups
            .get(group)
            .and_then(|group| self.cheapest(&group.offers))
            .map_or(0, |offer| self.cost(offer));
        for bin in 0..self.bins.len() {
            let Some(target) = self.bins.get(bin) else { return false };
            let most =
                if thrifty { self.cost(target.cheapest).saturating_add(alone) } else { u64::MAX };
            if self.least_cost(group, target).is_none_or(|least| least > most) {
                continue;
            }
            if let Some(narrowed) = self.narrow(group, target, Some(target.cheapest))
                && self.cost(narrowed.cheapest) <= most
            {
                self.fill(group, bin, narrowed, 1);
                return true;
            }
        }
        false
    }

    fn cost(&self, offer: usize) -> u64 {
        self.market.offers.get(offer).map_or(0, |offer| offer.cost())
    }

    /// Opens a node of the heaviest pools that can take the pod, cheapest first among equals.
    fn place_in_new_bin(&mut self, group: usize) -> bool {
        for tier in self.tiers() {
            let mut offers = FixedBitSet::with_capacity(self.market.offers.len());
            for pool in tier {
                if let Some(pool) = self.market.pools.get(pool) {
                    offers.insert_range(pool.offers.clone());
                }
            }
            offers.intersect_with(&self.scope);
            let bin = self.empty_bin(offers);
            if let Some(narrowed) = self.narrow(group, &bin, None) {
                let bin = self.open(bin, &narrowed);
                self.fill(group, bin, narrowed, 1);
                return true;
            }
        }
        false
    }

    /// Pools by weight, heaviest first.
    pub(super) fn tiers(&self) -> Vec<Vec<usize>> {
        let mut tiers: Vec<(i32, Vec<usize>)> = Vec::new();
        for (index, pool) in self.market.pools.iter().enumerate() {
            match tiers.last_mut() {
                Some((weight, pools)) if *weight == pool.weight => pools.push(index),
                _ => tiers.push((pool.weight, vec![index])),
            }
        }
        tiers.into_iter().map(|(_, pools)| pools).collect()
    }
}
