//! Plain groups into new nodes: packed into what is worth buying, and turned into planned nodes.

use std::collections::BTreeMap;

use fixedbitset::FixedBitSet;

use super::bin::{Narrowed, most_room};
use super::board::Board;
use super::candidate::takes_no_more;
use super::dimension::{add_times, fits};
use super::market::Pool;
use super::pack::{Allowance, Candidate, Item, Packed, pack};
use super::share::{Filled, Sharing};
use super::split::Piece;
use super::topology::Tracked;

impl Board<'_> {
    /// Plans new nodes for groups that can be packed in bulk, pools by weight. Returns the price of
    /// plain grouped first fit, to compare with.
    pub(super) fn buy_in_bulk(&mut self, groups: &[usize]) -> u64 {
        let first_bin = self.bins.len();
        let mut first_fit_price = 0_u64;
        let mut sharing = Sharing::default();
        let mut pieces: Vec<Piece> =
            groups.iter().flat_map(|group| self.pieces(*group, &mut sharing)).collect();
        for piece in &mut pieces {
            self.fill_bins(piece, &mut sharing);
        }
        // What nothing is offered for is no part of what is worth buying.
        let (hopeless, mut pieces): (Vec<Piece>, Vec<Piece>) =
            pieces.into_iter().partition(|piece| piece.offers.is_clear());
        for tier in self.tiers() {
            pieces.retain(|piece| piece.count > 0);
            if pieces.is_empty() {
                break;
            }
            if self.market.slots.any() {
                self.buy_reserved(&tier, &mut pieces);
                pieces.retain(|piece| piece.count > 0);
                if pieces.is_empty() {
                    break;
                }
            }
            let candidates = self.candidates(&tier, &pieces);
            let (items, allowances) = (self.items_of(&pieces), self.allowances());
            let (packing, price) =
                pack(&items, &candidates, &allowances, self.settings.packing_passes);
            first_fit_price = first_fit_price.saturating_add(price);
            for packed in &packing.nodes {
                self.open_packed(&mut pieces, &candidates, packed);
            }
        }
        // A spread that could not be had as planned is not half kept.
        let left = pieces.iter().filter(|piece| piece.count > 0).chain(&hopeless);
        for piece in left.filter(|piece| !piece.pinned.is_empty()) {
            let filled = sharing.filled.extract_if(.., |filled| filled.group == piece.group);
            let group = piece.group;
            let opened = (first_bin..self.bins.len()).map(|bin| Filled {
                group,
                bin,
                count: u32::MAX,
                pinned: Vec::new(),
            });
            let all: Vec<Filled> = filled.chain(opened).collect();
            self.take_back(group, &all);
            self.drop_empty_bins(first_bin);
            self.leave_seats(sharing.seats.extract_if(.., |seat| seat.group == piece.group));
        }
        first_fit_price
    }

    /// What there is to pack.
    pub(super) fn items_of(&self, pieces: &[Piece]) -> Vec<Item> {
        let request = |piece: &Piece| {
            let group = self.groups.get(piece.group);
            group.map(|group| group.request.clone()).unwrap_or_default()
        };
        pieces
            .iter()
            .map(|piece| Item { request: request(piece), demand: piece.count, cap: piece.cap })
            .collect()
    }

    /// What limits leave of each pool.
    pub(super) fn allowances(&self) -> Vec<Allowance> {
        let pools = self.market.pools.iter();
        pools.map(|pool| Allowance { left: pool.left.clone(), nodes: pool.nodes_left }).collect()
    }

    /// Turns packed nodes into bins. Nodes whose types would not meet `minValues` are left out;
    /// their pods go the exact way.
    pub(super) fn open_packed(
        &mut self,
        pieces: &mut [Piece],
        candidates: &[Candidate],
        packed: &Packed,
    ) {
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
        let reserved = self.market.slot_of(candidate.offer).is_some();
        let sound = offers.contains(candidate.offer)
            && self.are_enough(pool, &offers, candidate.offer)
            && fits(&used, &vec![0; used.len()], &candidate.room);
        if !sound {
            return;
        }
        let most = most_room(&self.market, &offers);
        let cheapest = match reserved {
            true => candidate.offer,
            false => self.cheapest_like(candidate, pool, &offers),
        };
        for _ in 0..packed.count {
            if !self.can_have(cheapest, None) {
                return;
            }
            let mut bin = self.empty_bin(offers.clone());
            bin.pool = candidate.pool;
            bin.cheapest = cheapest;
            bin.used.clone_from(&used);
            bin.most.clone_from(&most);
            bin.pinned.clone_from(&pinned);
            for (item, count) in &packed.contents {
                let Some(piece) = pieces.get_mut(*item) else { continue };
                let Some(entry) = self.groups.get_mut(piece.group) else { continue };
                piece.count = piece.count.saturating_sub(*count);
                bin.contents.push((piece.group, entry.take(*count)));
                bin.ports.extend(entry.shape.ports.iter().cloned());
                if !entry.part.is_free() {
                    let domain = |term: &Tracked| bin.counted_domain(&self.market, term);
                    self.topology.place(&entry.part, &domain, i64::from(*count));
                }
            }
            let narrowed =
                Narrowed { offers: FixedBitSet::new(), cheapest, pinned: BTreeMap::new() };
            self.open(bin, &narrowed);
        }
    }

    /// The first to buy of some offers that a candidate may become as well, at no more of what limits
    /// count: a set of spot types is not the only one that holds what was packed for it.
    fn cheapest_like(&self, candidate: &Candidate, pool: &Pool, offers: &FixedBitSet) -> usize {
        let wanted = self.market.sort_of(candidate.offer);
        let like = |offer: &usize| {
            self.market.sort_of(*offer) == wanted
                && self
                    .market
                    .kind_of(*offer)
                    .is_some_and(|kind| takes_no_more(&kind.capacity, &candidate.capacity, pool))
        };
        let first = offers.ones().filter(like).min_by_key(|offer| self.market.rank(*offer));
        first.unwrap_or(candidate.offer)
    }
}
