//! Plain groups into new nodes: offers are pruned to those worth a look, packed, and turned into
//! planned nodes.

use fixedbitset::FixedBitSet;

use super::MinValuesPolicy;
use super::bin::{Narrowed, most_room};
use super::board::Board;
use super::dimension::{add_times, fits};
use super::pack::{Allowance, Candidate, Item, Packed, pack};

impl Board<'_> {
    /// Plans new nodes for plain groups, pools by weight. Returns the price of plain grouped first
    /// fit, to compare with.
    pub(super) fn buy_in_bulk(&mut self, groups: &[usize]) -> u64 {
        let mut first_fit_price = 0_u64;
        for tier in self.tiers() {
            let open: Vec<usize> = groups
                .iter()
                .copied()
                .filter(|group| self.groups.get(*group).is_some_and(|group| group.left() > 0))
                .collect();
            if open.is_empty() {
                break;
            }
            let candidates = self.candidates(&tier, &open);
            let items: Vec<Item> = open
                .iter()
                .filter_map(|group| self.groups.get(*group))
                .map(|group| Item { request: group.request.clone(), demand: group.left() })
                .collect();
            let allowances: Vec<Allowance> = self
                .market
                .pools
                .iter()
                .map(|pool| Allowance { left: pool.left.clone(), nodes: pool.nodes_left })
                .collect();
            let (packing, price) =
                pack(&items, &candidates, &allowances, self.settings.packing_passes);
            first_fit_price = first_fit_price.saturating_add(price);
            for packed in &packing.nodes {
                self.open_packed(&open, &candidates, packed);
            }
        }
        first_fit_price
    }

    /// Offers of a tier worth a look: dropped where another of the pool is no dearer, no smaller
    /// and lets everyone in whom it does.
    fn candidates(&self, tier: &[usize], groups: &[usize]) -> Vec<Candidate> {
        let mut all = Vec::new();
        for pool_index in tier {
            let Some(pool) = self.market.pools.get(*pool_index) else { continue };
            for offer in pool.offers.clone() {
                if let Some(candidate) = self.candidate(*pool_index, offer, groups) {
                    all.push(candidate);
                }
            }
        }
        all.sort_by(|a, b| self.price_order(a.offer).cmp(&self.price_order(b.offer)));
        let mut kept: Vec<Candidate> = Vec::new();
        for candidate in all {
            let dominated = kept.iter().any(|better| {
                better.pool == candidate.pool
                    && better.room.iter().zip(&candidate.room).all(|(b, c)| b >= c)
                    && better.capacity_within(&candidate, &self.market.pools)
                    && candidate.admits.is_subset(&better.admits)
            });
            if !dominated {
                kept.push(candidate);
            }
        }
        kept
    }

    fn candidate(&self, pool: usize, offer: usize, groups: &[usize]) -> Option<Candidate> {
        let kind = self.market.kind_of(offer)?;
        let mut admits = FixedBitSet::with_capacity(groups.len());
        for (item, group) in groups.iter().enumerate() {
            if self.groups.get(*group).is_some_and(|group| group.offers.contains(offer)) {
                admits.insert(item);
            }
        }
        if admits.is_clear() {
            return None;
        }
        Some(Candidate {
            offer,
            price: self.market.offers.get(offer)?.cost(),
            room: kind.room.clone(),
            admits,
            pool,
            capacity: kind.capacity.clone(),
        })
    }

    /// Turns packed nodes into bins. Nodes whose types would not meet `minValues` are left out;
    /// their pods go the exact way.
    fn open_packed(&mut self, groups: &[usize], candidates: &[Candidate], packed: &Packed) {
        let Some(candidate) = candidates.get(packed.candidate) else { return };
        let Some(pool) = self.market.pools.get(candidate.pool) else { return };
        let mut offers = FixedBitSet::with_capacity(self.market.offers.len());
        offers.insert_range(pool.offers.clone());
        let mut used = vec![0; self.dimensions.len()];
        for (item, count) in &packed.contents {
            let Some(group) = groups.get(*item).and_then(|group| self.groups.get(*group)) else {
                return;
            };
            offers.intersect_with(&group.offers);
            add_times(&mut used, &group.request, *count);
        }
        self.keep_fitting(&mut offers, &used);
        let strict = self.settings.min_values_policy == MinValuesPolicy::Strict;
        let sound = offers.contains(candidate.offer)
            && !(strict && self.missing_values(pool, &offers).is_some())
            && fits(&used, &vec![0; used.len()], &candidate.room);
        if !sound {
            return;
        }
        let most = most_room(&self.market, &offers);
        for _ in 0..packed.count {
            if !self.within_limits(candidate.offer, None) {
                return;
            }
            let mut bin = self.empty_bin(offers.clone());
            bin.used.clone_from(&used);
            bin.most.clone_from(&most);
            for (item, count) in &packed.contents {
                if let Some(group) = groups.get(*item)
                    && let Some(entry) = self.groups.get_mut(*group)
                {
                    bin.contents.push((*group, entry.take(*count)));
                }
            }
            let narrowed = Narrowed {
                offers: FixedBitSet::new(),
                cheapest: candidate.offer,
                pinned: std::collections::BTreeMap::new(),
            };
            self.open(bin, &narrowed);
        }
    }
}

impl Candidate {
    /// Whether this one uses no more of what its pool limits than another does.
    fn capacity_within(&self, other: &Candidate, pools: &[super::market::Pool]) -> bool {
        let Some(pool) = pools.get(self.pool) else { return false };
        pool.left
            .iter()
            .zip(self.capacity.iter().zip(&other.capacity))
            .all(|(left, (own, others))| left.is_none() || own <= others)
    }
}
