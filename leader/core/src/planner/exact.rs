//! The exact path: pod by pod, first fit over nodes, planned nodes, and a new node. It knows every
//! constraint; it is for pods whose place depends on where others are, and for what is left over.

use drover_common::cluster::ObjectKey;
use drover_common::labels;
use fixedbitset::FixedBitSet;

use super::bin::{Bin, most_room};
use super::board::Board;
use super::dimension::{fits, times};
use super::topology::Part;

impl Board<'_> {
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
        let waiting = self.restricted_first(waiting);
        let waiting = self.in_turn(waiting);
        let mut first_look = true;
        loop {
            let mut placed = false;
            for group in &waiting {
                if !self.steps.are_spent() {
                    placed |= self.place_exactly(*group);
                } else if first_look {
                    self.put_off(*group);
                }
            }
            first_look = false;
            if !placed || self.steps.are_spent() {
                break;
            }
        }
        for bin in first_bin..self.bins.len() {
            self.widen(bin);
        }
    }

    /// Gives a node of the exact path all the offers that hold what it has.
    pub(super) fn widen(&mut self, bin: usize) {
        let Some(target) = self.bins.get(bin) else { return };
        let Some(pool) = self.market.pools.get(target.pool) else { return };
        let mut offers = FixedBitSet::with_capacity(self.market.offers.len());
        offers.insert_range(pool.offers.clone());
        for (group, _) in &target.contents {
            if let Some(group) = self.groups.get(*group) {
                // Who fills up a node that others need takes what they would not be bought.
                let filled = !group.offers.contains(target.cheapest);
                offers.intersect_with(if filled { &group.possible } else { &group.offers });
            }
        }
        offers.intersect_with(&self.market.available);
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
                    || !self.can_have(*offer, Some(cheapest))
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
        self.place_up_to(group, u32::MAX)
    }

    /// Places so many pods of a group, if it can, one by one. Whether it placed any.
    pub(super) fn place_up_to(&mut self, group: usize, most: u32) -> bool {
        let Some(entry) = self.groups.get(group) else { return false };
        for key in self.topology.keys(&entry.part) {
            self.index.values(&self.market, &key);
        }
        let mut nodes = self.admitting_nodes(group);
        let mut bins = self.open_bins(group);
        let mut thrifty = bins.clone();
        let mut known = self.bins.len();
        let mut placed = 0;
        self.steps.take((nodes.len() + bins.len()) as u64);
        while placed < most && self.groups.get(group).is_some_and(|group| group.left() > 0) {
            self.seat_before(group, &mut nodes);
            // With no steps left to look for a place on what is there, nothing is bought either.
            if self.place_on_node(group, &mut nodes)
                || self.place_in_bin(group, &mut thrifty, true)
                || self.place_in_new_bin(group)
                || self.place_in_bin(group, &mut bins, false)
            {
                // A node that was made just now is open to the next pod.
                let opened = known..self.bins.len();
                known = opened.end;
                bins.extend(opened.clone());
                thrifty.extend(opened);
                placed += 1;
            } else {
                break;
            }
        }
        if placed < most && self.steps.are_spent() {
            self.put_off(group);
        }
        placed > 0
    }

    /// Places what it can of a group on existing nodes, pod by pod.
    pub(super) fn place_on_nodes(&mut self, group: usize) {
        let mut nodes = self.admitting_nodes(group);
        loop {
            self.seat_before(group, &mut nodes);
            let is_left = self.groups.get(group).is_some_and(|group| group.left() > 0);
            if !is_left || !self.place_on_node(group, &mut nodes) {
                break;
            }
        }
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

    /// Existing nodes whose labels and taints let the group in.
    pub(super) fn admitting_nodes(&self, group: usize) -> Vec<usize> {
        let Some(variant) = self.groups.get(group).and_then(|group| group.variant()) else {
            return Vec::new();
        };
        self.profiles.admitting(&self.existing, &variant.rules)
    }

    pub(super) fn node_has_room(&self, group: usize, node: usize) -> bool {
        self.node_is_open(group, node) && self.node_is_allowed(group, node)
    }

    /// Whether resources and ports have room. Where they don't, they won't later in the run.
    pub(super) fn node_is_open(&self, group: usize, node: usize) -> bool {
        let Some((entry, target)) = self.groups.get(group).zip(self.existing.get(node)) else {
            return false;
        };
        fits(&entry.request, &target.used, &target.room) && target.has_ports_for(entry)
    }

    /// Whether spread and affinity let one more in.
    pub(super) fn node_is_allowed(&self, group: usize, node: usize) -> bool {
        self.node_is_allowed_but(group, node, None)
    }

    /// The same, one topology key aside.
    pub(super) fn node_is_allowed_but(
        &self,
        group: usize,
        node: usize,
        aside: Option<&String>,
    ) -> bool {
        let Some((entry, target)) = self.groups.get(group).zip(self.existing.get(node)) else {
            return false;
        };
        let allows = |key: &str| {
            let domain = target.domain(key);
            // A value that is not decided yet may turn out to be any.
            if domain.is_none() && target.is_open(key) {
                return !self.matters(&entry.part, key);
            }
            self.topology.allows(&entry.part, key, domain.as_deref())
        };
        entry.part.is_free()
            || (allows(labels::HOSTNAME)
                && self
                    .topology
                    .keys(&entry.part)
                    .iter()
                    .all(|key| Some(key) == aside || allows(key)))
    }

    /// Whether it matters to pods, or to others that wait, in which domain of a key these are.
    fn matters(&self, part: &Part, key: &str) -> bool {
        let of_key = |term: &&usize| {
            self.topology.terms.get(**term).is_some_and(|tracked| tracked.term.key == key)
        };
        let owned = |term: &usize| self.owners.get(*term).is_some_and(|owners| *owners > 0);
        part.own.iter().any(|term| of_key(&term))
            || part.matched.iter().filter(of_key).any(|term| self.keeps_away(*term) || owned(term))
    }

    pub(super) fn book_on_node(&mut self, group: usize, node: usize, pods: Vec<ObjectKey>) {
        let Some((entry, target)) = self.groups.get(group).zip(self.existing.get_mut(node)) else {
            return;
        };
        let count = i64::try_from(pods.len()).unwrap_or(i64::MAX);
        if !entry.part.is_free() {
            self.topology.place(&entry.part, &|tracked| target.counted_domain(tracked), count);
        }
        target.book(entry, pods);
    }

    /// Puts a pod on the first of some nodes that takes it. Nodes that never will again are dropped
    /// from the list.
    fn place_on_node(&mut self, group: usize, nodes: &mut Vec<usize>) -> bool {
        let (look, left, mut spent) = (self.steps_of_a_look(group), self.steps.left(), 0);
        let found = first_of(nodes, |node| {
            spent += look;
            if spent > left {
                Answer::NotNow
            } else if !self.node_is_open(group, node) {
                Answer::Never
            } else if self.node_is_allowed(group, node) {
                Answer::Yes(())
            } else {
                Answer::NotNow
            }
        });
        self.steps.take(spent);
        let Some((node, ())) = found else { return false };
        let pods = self.groups.get_mut(group).map(|group| group.take(1)).unwrap_or_default();
        self.book_on_node(group, node, pods);
        true
    }

    /// Puts a pod into the first of some planned nodes that takes it; a `thrifty` search passes over
    /// nodes that would grow by more than a node of the pod's own costs. Nodes that never will take
    /// one again are dropped from the list.
    fn place_in_bin(&mut self, group: usize, bins: &mut Vec<usize>, thrifty: bool) -> bool {
        let Some(entry) = self.groups.get(group).filter(|_| !bins.is_empty()) else { return false };
        let alone = self.cheapest_free(&entry.offers).map_or(0, |offer| self.cost(offer));
        let domains = self.allowed_domains(group);
        let (look, left, mut spent) = (self.steps_of_a_look(group), self.steps.left(), 0);
        let found = first_of(bins, |bin| {
            spent += look;
            if spent > left {
                return Answer::NotNow;
            }
            let Some(target) = self.bins.get(bin) else { return Answer::Never };
            if !self.bin_is_open(group, target) {
                return Answer::Never;
            }
            if !domains.iter().all(|(key, allowed)| {
                target.pinned.get(key).is_none_or(|domain| allowed.contains(&domain.as_str()))
            }) {
                return Answer::NotNow;
            }
            let grown = self.cost(target.cheapest).saturating_add(alone);
            let mut most = if thrifty { grown } else { u64::MAX };
            spent += self.steps_of_narrowing(group, target.offers.count_ones(..));
            match self.least_cost(group, target) {
                None => return Answer::Never,
                Some(least) if least > most => match self.worth_growing_to(group, target, alone) {
                    Some(dearest) if dearest >= least => most = dearest,
                    _ => return Answer::Never,
                },
                Some(_) => {}
            }
            match self.narrow(group, target, Some(target.cheapest)) {
                Some(narrowed) if self.cost(narrowed.cheapest) <= most => Answer::Yes(narrowed),
                _ => Answer::NotNow,
            }
        });
        self.steps.take(spent);
        let Some((bin, narrowed)) = found else { return false };
        self.fill(group, bin, narrowed, 1);
        true
    }

    /// The most that a planned node may cost with as many more pods of a group as it would hold then, and be no dearer
    /// than with nodes of their own for these.
    fn worth_growing_to(&self, group: usize, bin: &Bin, alone: u64) -> Option<u64> {
        let entry = self.groups.get(group)?;
        let terms = entry.part.own.iter().chain(&entry.part.matched);
        let mut tracked = terms.filter_map(|term| self.topology.terms.get(*term));
        let by_host = tracked.any(|tracked| tracked.term.key == labels::HOSTNAME);
        let left = if by_host || !entry.shape.ports.is_empty() { 1 } else { entry.left() };
        let now = self.cost(bin.cheapest);
        let pays = |offer: usize| {
            let room = &self.market.kind_of(offer)?.room;
            let count = u64::from(times(&entry.request, &bin.used, room).min(left));
            let cost = self.cost(offer);
            let apart = now.saturating_add(alone.saturating_mul(count));
            (count > 0 && cost <= apart).then_some(cost)
        };
        bin.offers.intersection(&entry.offers).filter_map(pays).max()
    }

    /// Whether a planned node has room, ports and offers for one more. Once it has not, it never has
    /// again; a host that affinity does not favour yet may be favoured later.
    fn bin_is_open(&self, group: usize, bin: &Bin) -> bool {
        let Some(entry) = self.groups.get(group) else { return false };
        let ports = || !entry.shape.ports.iter().any(|p| bin.ports.iter().any(|q| p.conflicts(q)));
        fits(&entry.request, &bin.used, &bin.most)
            && !bin.offers.is_disjoint(&entry.offers)
            && (entry.shape.ports.is_empty() || ports())
            && (entry.part.own.iter().any(|term| self.topology.is_affinity(*term))
                || self.topology.allows(&entry.part, labels::HOSTNAME, Some(&bin.host)))
    }

    /// By key of the group's terms, host names aside: domains that may take one more pod now.
    fn allowed_domains(&self, group: usize) -> Vec<(String, Vec<&str>)> {
        let Some(entry) = self.groups.get(group) else { return Vec::new() };
        let keys = self.topology.keys(&entry.part).into_iter();
        keys.map(|key| {
            let values = self.index.known(&key).into_iter().flat_map(|values| values.keys());
            let allows = |value: &&String| self.topology.allows(&entry.part, &key, Some(value));
            let allowed = values.filter(allows).map(String::as_str).collect();
            (key, allowed)
        })
        .collect()
    }

    pub(super) fn cost(&self, offer: usize) -> u64 {
        self.market.offers.get(offer).map_or(0, |offer| offer.cost())
    }

    /// Opens a node of the heaviest pools that can take the pod, cheapest first among equals.
    fn place_in_new_bin(&mut self, group: usize) -> bool {
        for tier in self.tiers() {
            if self.steps.are_spent() {
                return false;
            }
            let mut offers = FixedBitSet::with_capacity(self.market.offers.len());
            for pool in tier {
                if let Some(pool) = self.market.pools.get(pool) {
                    offers.insert_range(pool.offers.clone());
                }
            }
            offers.intersect_with(&self.scope);
            self.steps.take(self.steps_of_narrowing(group, offers.count_ones(..)));
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

/// What a place says to one more pod.
enum Answer<T> {
    /// It takes it.
    Yes(T),
    /// Not as things stand.
    NotNow,
    /// Not any more in this run.
    Never,
}

/// The first place that says yes. Those passed on the way that say never are dropped.
fn first_of<T>(
    places: &mut Vec<usize>,
    mut ask: impl FnMut(usize) -> Answer<T>,
) -> Option<(usize, T)> {
    let mut found = None;
    let (mut kept, mut passed) = (0, 0);
    while found.is_none()
        && let Some(place) = places.get(passed).copied()
    {
        passed += 1;
        match ask(place) {
            Answer::Never => continue,
            Answer::NotNow => {}
            Answer::Yes(answer) => found = Some((place, answer)),
        }
        if let Some(slot) = places.get_mut(kept) {
            *slot = place;
        }
        kept += 1;
    }
    places.drain(kept..passed);
    found
}
