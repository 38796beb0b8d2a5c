//! Types that are bought for those alone who can have no others: larger than the cap, exotic, of unknown price.

use fixedbitset::FixedBitSet;

use super::board::Board;
use crate::view::View;

/// After so many turns in which one pod of each group came to such a node, all that can go at once.
const MOST_TURNS: usize = 64;

/// What it takes to give a group other offers.
const STEPS_OF_TURNING: u64 = 32;

impl Board<'_> {
    /// Places what is left of some groups on types that are avoided as long as others do: larger
    /// than the cap, exotic, of unknown price.
    pub(super) fn place_on_avoided(&mut self, groups: &[usize]) {
        for turn in 0.. {
            // Where a pod came to such a node, a spread may let the next one on others again.
            let most = if turn < MOST_TURNS { 1 } else { u32::MAX };
            if self.steps.are_spent() || !self.place_some_on_avoided(groups, most) {
                return;
            }
            self.place_all_exactly(groups);
        }
    }

    /// Places up to so many pods of each group whose places depend on others', and all that it can of the rest.
    fn place_some_on_avoided(&mut self, groups: &[usize], most: u32) -> bool {
        let mut before: Vec<(usize, FixedBitSet)> = Vec::new();
        for group in groups.iter().copied() {
            let offers = self.groups.get(group).map(|group| group.offers.clone());
            if self.turn_to_avoided(group) {
                before.extend(offers.map(|offers| (group, offers)));
            }
        }
        if before.is_empty() {
            return false;
        }
        // What is worth buying is found anew: for these, and then for all.
        let offers = 4 * self.market.offers.len() as u64;
        self.steps.take(before.len() as u64 * STEPS_OF_TURNING + offers);
        let turned: Vec<usize> = before.iter().map(|(group, _)| *group).collect();
        self.scope = self.undominated(&turned);
        let first = self.bins.len();
        let mut placed = false;
        for group in turned {
            let is_free = self.groups.get(group).is_some_and(|group| group.part.is_free());
            placed |= self.place_up_to(group, if is_free { u32::MAX } else { most });
        }
        for bin in first..self.bins.len() {
            self.widen(bin);
        }
        for (group, offers) in before {
            if let Some(entry) = self.groups.get_mut(group) {
                entry.offers = offers;
            }
        }
        placed
    }

    /// Gives a group with pods left the offers of its step again.
    pub(super) fn turn_back(&mut self, view: &View, group: usize) {
        let Some(entry) = self.groups.get(group).filter(|group| group.left() > 0) else { return };
        self.enter_step(view, group, entry.step);
    }

    /// Leaves a group with pods left only the offers that were avoided so far, and where a pool has `minValues` all
    /// that it has. False if none were avoided.
    pub(super) fn turn_to_avoided(&mut self, group: usize) -> bool {
        let Some(entry) = self.groups.get(group).filter(|group| group.left() > 0) else {
            return false;
        };
        let mut avoided = entry.possible.clone();
        avoided.intersect_with(&self.market.available);
        let all = avoided.clone();
        avoided.difference_with(&entry.offers);
        if avoided.is_clear() {
            return false;
        }
        for pool in self.market.pools.iter().filter(|pool| pool.wants_values()) {
            avoided.extend(all.intersection(&pool.bits));
        }
        if let Some(entry) = self.groups.get_mut(group) {
            entry.offers = avoided;
        }
        true
    }
}
