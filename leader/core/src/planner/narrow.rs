//! Where a spread leaves pods without a place: domains where no node is, or will be, don't count.
//!
//! As long as there is a choice a spread is kept over every domain that could be bought, as nodes
//! may come to each. The scheduler sees less: the domains of nodes that are there. So pods that are
//! left at last are placed by that, and from then on no node may be planned that would bring in a
//! domain which tips a spread.

use std::collections::BTreeSet;

use drover_common::labels;
use fixedbitset::FixedBitSet;

use super::board::Board;
use super::topology::{TermKind, Tracked, terms_of};
use crate::view::View;

impl Board<'_> {
    /// Places what is left of groups that spread over the domains in use, then whoever waited for
    /// those.
    pub(super) fn place_over_domains_in_use(&mut self, view: &View) {
        let spreads: Vec<usize> =
            (0..self.groups.len()).filter(|group| self.is_left_and_spreads(*group)).collect();
        if spreads.is_empty() || self.steps.are_spent() {
            return;
        }
        let hard = self.hard_spreads(view);
        let mut placed = false;
        for group in spreads {
            placed |= self.place_last(view, group, &hard);
        }
        for group in (0..self.groups.len()).filter(|_| placed) {
            self.place_last(view, group, &hard);
        }
    }

    fn place_last(&mut self, view: &View, group: usize, hard: &BTreeSet<usize>) -> bool {
        if self.groups.get(group).is_none_or(|group| group.left() == 0) || self.steps.are_spent() {
            return false;
        }
        let mut placed = self.place_narrowly(group, hard);
        self.turn_back(view, group);
        placed |= self.turn_to_avoided(group) && self.place_narrowly(group, hard);
        self.turn_back(view, group);
        placed
    }

    fn is_left_and_spreads(&self, group: usize) -> bool {
        self.groups.get(group).is_some_and(|entry| {
            let mut own = entry.part.own.iter().filter_map(|term| self.topology.terms.get(*term));
            entry.left() > 0 && own.any(spreads_over_labels)
        })
    }

    /// The spreads that some pod requires.
    fn hard_spreads(&self, view: &View) -> BTreeSet<usize> {
        let mut hard = BTreeSet::new();
        for group in &self.groups {
            let Some(required) = group.variants.last() else { continue };
            let terms = terms_of(view, &group.shape, required);
            hard.extend(terms.iter().filter_map(|term| self.topology.position(term)));
        }
        hard.retain(|term| self.topology.terms.get(*term).is_some_and(spreads_over_labels));
        hard
    }

    fn place_narrowly(&mut self, group: usize, hard: &BTreeSet<usize>) -> bool {
        let first = self.bins.len();
        let mut placed = false;
        loop {
            let bins = self.bins.len();
            self.steps.take((self.topology.terms.len() * (1 + bins)) as u64);
            self.narrow_universes();
            let closed = self.tipping_offers(hard);
            if let Some(entry) = self.groups.get_mut(group) {
                entry.offers.difference_with(&closed);
            }
            self.scope = self.undominated(&[group]);
            while self.bins.len() == bins && self.place_up_to(group, 1) {
                placed = true;
            }
            // A new node may have brought in a domain.
            if self.bins.len() == bins {
                break;
            }
        }
        for bin in first..self.bins.len() {
            self.widen(bin);
        }
        placed
    }

    /// Takes every spread's minimum over the domains of nodes, there or planned.
    pub(super) fn narrow_universes(&mut self) {
        let mut universes = Vec::with_capacity(self.topology.terms.len());
        for tracked in &self.topology.terms {
            let mut universe = tracked.there.clone();
            if spreads_over_labels(tracked) {
                self.add_planned_domains(tracked, &mut universe);
            }
            universes.push(universe);
        }
        for (tracked, universe) in self.topology.terms.iter_mut().zip(universes) {
            tracked.universe = universe;
        }
    }

    /// A planned node comes to the domains of what it may become: of its cheapest offer's capacity type, in the zones of
    /// that offer's type, as [`Self::choose`] lists it. Where its domain is decided, a term may count it for one of its types
    /// and not for another.
    fn add_planned_domains(&self, tracked: &Tracked, universe: &mut BTreeSet<String>) {
        let Some(values) = self.index.known(&tracked.term.key) else { return };
        for bin in &self.bins {
            let Some(cheapest) = self.market.offers.get(bin.cheapest) else { continue };
            let zones = self.zones_of(bin, cheapest.capacity_type);
            let may_become = |offer: &usize| {
                self.market.offers.get(*offer).is_some_and(|offer| {
                    offer.capacity_type == cheapest.capacity_type && zones.contains(offer.zone)
                })
            };
            let taints = self.market.pools.get(bin.pool).map(|pool| pool.taints.as_slice());
            let taints = taints.unwrap_or_default();
            for (value, bits) in values {
                let counts = bits.intersection(&bin.offers).filter(may_become).any(|offer| {
                    let label = |key: &str| match bin.pinned.get(key) {
                        Some(value) => Some(value.as_str()),
                        None => self.market.label(offer, key),
                    };
                    tracked.counts_node(&label, taints)
                });
                if counts && !universe.contains(value) {
                    universe.insert(value.clone());
                }
            }
        }
    }

    /// Offers that would bring an empty domain to a spread which its skew does not allow.
    fn tipping_offers(&mut self, hard: &BTreeSet<usize>) -> FixedBitSet {
        let mut closed = FixedBitSet::with_capacity(self.market.offers.len());
        for term in hard {
            let Some(tracked) = self.topology.terms.get(*term) else { continue };
            let TermKind::Spread { max_skew, .. } = &tracked.term.kind else { continue };
            if tracked.matching.values().max().is_none_or(|most| most <= max_skew) {
                continue;
            }
            let counted = tracked.counted_offers(&self.market, &mut self.index);
            let known = self.index.known(&tracked.term.key).into_iter().flatten();
            for (_, bits) in known.filter(|(value, _)| !tracked.universe.contains(*value)) {
                let mut offers = counted.clone();
                offers.intersect_with(bits);
                closed.union_with(&offers);
            }
        }
        closed
    }
}

fn spreads_over_labels(tracked: &Tracked) -> bool {
    matches!(tracked.term.kind, TermKind::Spread { .. }) && tracked.term.key != labels::HOSTNAME
}
