//! Plain groups into new nodes: offers are pruned to those worth a look, packed, and turned into
//! planned nodes.

use std::collections::BTreeMap;

use fixedbitset::FixedBitSet;

use super::MinValuesPolicy;
use super::bin::{Narrowed, most_room};
use super::board::Board;
use super::dimension::{add_times, fits};
use super::pack::{Allowance, Candidate, Item, Packed, pack};
use super::split::Piece;
use super::topology::Tracked;

impl Board<'_> {
    /// Plans new nodes for groups that can be packed in bulk, pools by weight. Returns the price of
    /// plain grouped first fit, to compare with.
    pub(super) fn buy_in_bulk(&mut self, groups: &[usize]) -> u64 {
        let first_bin = self.bins.len();
        let mut first_fit_price = 0_u64;
        let mut pieces: Vec<Piece> = groups.iter().flat_map(|group| self.pieces(*group)).collect();
        for tier in self.tiers() {
            pieces.retain(|piece| piece.count > 0);
            if pieces.is_empty() {
                break;
            }
            let candidates = self.candidates(&tier, &pieces);
            let items: Vec<Item> = pieces
                .iter()
                .map(|piece| Item {
                    request: self
                        .groups
                        .get(piece.group)
                        .map(|group| group.request.clone())
                        .unwrap_or_default(),
                    demand: piece.count,
                    cap: piece.cap,
                })
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
                self.open_packed(&mut pieces, &candidates, packed);
            }
        }
        // A spread that could not be had as planned is not half kept.
        for piece in pieces.iter().filter(|piece| piece.count > 0 && piece.pinned.is_some()) {
            self.take_back(piece.group, first_bin);
        }
        first_fit_price
    }

    /// Offers of a tier worth a look: dropped where another of the pool is no dearer, no smaller
    /// and lets everyone in whom it does.
    fn candidates(&self, tier: &[usize], pieces: &[Piece]) -> Vec<Candidate> {
        let mut all = Vec::new();
        for pool_index in tier {
            let Some(pool) = self.market.pools.get(*pool_index) else { continue };
            for offer in pool.offers.clone() {
                if let Some(candidate) = self.candidate(*pool_index, offer, pieces) {
                    all.push(candidate);
                }
            }
        }
        self.prune(all)
    }

    fn prune(&self, mut all: Vec<Candidate>) -> Vec<Candidate> {
        all.sort_by_key(|candidate| (candidate.price, self.market.rank(candidate.offer)));
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

    /// The offers that the exact path opens nodes from, for some groups. Domains of their terms are
    /// kept apart, and pools with `minValues` are kept whole.
    pub(super) fn undominated(&self, groups: &[usize]) -> FixedBitSet {
        let mut scope = FixedBitSet::with_capacity(self.market.offers.len());
        let keys: std::collections::BTreeSet<String> = groups
            .iter()
            .filter_map(|group| self.groups.get(*group))
            .flat_map(|group| self.topology.keys(&group.part))
            .collect();
        for (number, pool) in self.market.pools.iter().enumerate() {
            if pool.requirements.iter().any(|requirement| requirement.min_values.is_some()) {
                scope.insert_range(pool.offers.clone());
                continue;
            }
            let mut domains: BTreeMap<Vec<Option<&str>>, Vec<usize>> = BTreeMap::new();
            for offer in pool.offers.clone() {
                let domain = keys.iter().map(|key| self.market.label(offer, key)).collect();
                domains.entry(domain).or_default().push(offer);
            }
            for offers in domains.values() {
                let all = offers.iter().filter_map(|offer| {
                    self.candidate_of(number, *offer, groups.len(), |item| {
                        groups
                            .get(item)
                            .and_then(|group| self.groups.get(*group))
                            .is_some_and(|group| group.offers.contains(*offer))
                    })
                });
                for candidate in self.prune(all.collect()) {
                    scope.insert(candidate.offer);
                }
            }
        }
        scope
    }

    fn candidate(&self, pool: usize, offer: usize, pieces: &[Piece]) -> Option<Candidate> {
        let admitted =
            |item: usize| pieces.get(item).is_some_and(|piece| piece.offers.contains(offer));
        self.candidate_of(pool, offer, pieces.len(), admitted)
    }

    fn candidate_of(
        &self,
        pool: usize,
        offer: usize,
        items: usize,
        admitted: impl Fn(usize) -> bool,
    ) -> Option<Candidate> {
        let kind = self.market.kind_of(offer)?;
        let mut admits = FixedBitSet::with_capacity(items);
        for item in (0..items).filter(|item| admitted(*item)) {
            admits.insert(item);
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
    fn open_packed(&mut self, pieces: &mut [Piece], candidates: &[Candidate], packed: &Packed) {
        let Some(candidate) = candidates.get(packed.candidate) else { return };
        let Some(pool) = self.market.pools.get(candidate.pool) else { return };
        let mut offers = FixedBitSet::with_capacity(self.market.offers.len());
        offers.insert_range(pool.offers.clone());
        let mut used = vec![0; self.dimensions.len()];
        let mut pinned = BTreeMap::new();
        for (item, count) in &packed.contents {
            let Some(piece) = pieces.get(*item) else { return };
            let Some(group) = self.groups.get(piece.group) else { return };
            offers.intersect_with(&piece.offers);
            pinned.extend(piece.pinned.clone());
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
            bin.pool = candidate.pool;
            bin.cheapest = candidate.offer;
            bin.used.clone_from(&used);
            bin.most.clone_from(&most);
            bin.pinned.clone_from(&pinned);
            for (item, count) in &packed.contents {
                let Some(piece) = pieces.get_mut(*item) else { continue };
                let Some(entry) = self.groups.get_mut(piece.group) else { continue };
                piece.count = piece.count.saturating_sub(*count);
                bin.contents.push((piece.group, entry.take(*count)));
                if !entry.part.is_free() {
                    let domain = |term: &Tracked| bin.counted_domain(&self.market, term);
                    self.topology.place(&entry.part, &domain, i64::from(*count));
                }
            }
            let narrowed = Narrowed {
                offers: FixedBitSet::new(),
                cheapest: candidate.offer,
                pinned: BTreeMap::new(),
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
