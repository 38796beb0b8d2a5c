//! Free room of planned nodes: what fits there, and makes none of them dearer, needs no node of its own.

use std::collections::BTreeMap;

use fixedbitset::FixedBitSet;

use drover_common::instance_type::CapacityType;
use drover_common::labels;

use super::bin::{Bin, Narrowed};
use super::board::Board;
use super::dimension::{Amounts, add_times, fits, times};
use super::share::{Filled, Sharing};
use super::split::Piece;

impl Board<'_> {
    /// Whether nodes are bought for a group which nothing else would be bought: exotic ones, or larger than the cap.
    pub(super) fn needs_avoided(&self, group: usize) -> bool {
        let group = self.groups.get(group).filter(|group| !group.offers.is_clear());
        group.is_some_and(|group| {
            let mut plain = group.offers.intersection(&self.market.plain);
            !plain.any(|offer| self.market.capped.contains(offer))
        })
    }

    /// Puts what it can of a piece on nodes that are planned already, also of types that nobody would buy for it.
    pub(super) fn fill_bins(&mut self, piece: &mut Piece, sharing: &mut Sharing) {
        if self.bins.is_empty() {
            return;
        }
        let Some(wanted) = self.possible_for(piece) else { return };
        let mut search = Search { wanted, last: None, spent: 0 };
        for bin in 0..self.bins.len() {
            if piece.count == 0 || !self.steps.may_fill() {
                return;
            }
            let is_open = |key: &&String| {
                self.bins.get(bin).is_some_and(|bin| !bin.pinned.contains_key(*key))
            };
            let pinned: Vec<String> =
                piece.pinned.iter().map(|(key, _)| key).filter(is_open).cloned().collect();
            let count = self.fill_bin(piece, bin, &mut search);
            self.steps.take_of_filling(std::mem::take(&mut search.spent));
            if count > 0 {
                sharing.filled.push(Filled { group: piece.group, bin, count, pinned });
            }
        }
    }

    /// Puts what it can of a piece on one planned node; returns how many.
    fn fill_bin(&mut self, piece: &mut Piece, bin: usize, search: &mut Search) -> u32 {
        let mut count = 0;
        // Where hosts are capped they are asked pod by pod.
        while count < piece.cap
            && let Some((narrowed, more)) = self.fill_of(piece, bin, search)
        {
            self.fill(piece.group, bin, narrowed, more);
            piece.count = piece.count.saturating_sub(more);
            count += more;
            if piece.cap == u32::MAX {
                break;
            }
        }
        count
    }

    /// All that could hold a pod of a piece, in its domain.
    fn possible_for(&self, piece: &Piece) -> Option<FixedBitSet> {
        let mut wanted = self.groups.get(piece.group)?.possible.clone();
        for (key, value) in &piece.pinned {
            wanted.intersect_with(self.index.known(key)?.get(value)?);
        }
        Some(wanted)
    }

    /// What becomes of a node with as many pods of a piece as make it no dearer, and how many these are. Bulk packing
    /// plans many nodes alike: what one came to the next does, as long as limits allow it.
    fn fill_of(&self, piece: &Piece, bin: usize, search: &mut Search) -> Option<(Narrowed, u32)> {
        search.spent += self.steps_of_a_look(piece.group);
        let room = self.room_left(piece, bin);
        let target = self.bins.get(bin).filter(|_| room > 0)?;
        search.spent += target.offers.as_slice().len() as u64;
        let is_else = |(key, own): &(String, String)| {
            target.pinned.get(key).is_some_and(|decided| decided != own)
        };
        let entry = self.groups.get(piece.group)?;
        let mut ports = entry.shape.ports.iter();
        if target.offers.is_disjoint(&search.wanted)
            || piece.pinned.iter().any(is_else)
            || ports.any(|own| target.ports.iter().any(|port| own.conflicts(port)))
            || !self.topology.allows(&entry.part, labels::HOSTNAME, Some(&target.host))
        {
            return None;
        }
        if piece.cap != u32::MAX {
            let ladder = self.ladder_of(target, search);
            let narrowed = self.filled(piece, target, &ladder, 1, search);
            return narrowed.map(|narrowed| (narrowed, 1));
        }
        if let Some((like, fill)) = &search.last
            && like.is(target)
            && fill.as_ref().is_none_or(|(narrowed, count)| {
                *count <= piece.count && self.can_have(narrowed.cheapest, Some(target.cheapest))
            })
        {
            return fill.clone();
        }
        let ladder = self.ladder_of(target, search);
        // The most that will do: all that there is room for, or less where types of spot are to be left.
        let (mut low, mut high, mut fill) = (0, room, None);
        let mut count = room;
        while low < high {
            match self.filled(piece, target, &ladder, count, search) {
                Some(narrowed) => (low, fill) = (count, Some((narrowed, count))),
                None => high = count - 1,
            }
            count = (low + high).div_ceil(2);
        }
        search.last = Some((Alike::of(target), fill.clone()));
        fill
    }

    /// How many pods of a piece a node would hold as what it is planned.
    fn room_left(&self, piece: &Piece, bin: usize) -> u32 {
        let Some((entry, target)) = self.groups.get(piece.group).zip(self.bins.get(bin)) else {
            return 0;
        };
        let kind = self.market.kind_of(target.cheapest);
        let room = kind.map_or(0, |kind| times(&entry.request, &target.used, &kind.room));
        room.min(piece.count)
    }

    /// What becomes of a node with some pods of a piece; `None` if it can't take them, or would be dearer.
    fn filled(
        &self,
        piece: &Piece,
        target: &Bin,
        ladder: &[u64],
        count: u32,
        search: &mut Search,
    ) -> Option<Narrowed> {
        let entry = self.groups.get(piece.group)?;
        let mut request: Amounts = vec![0; entry.request.len()];
        add_times(&mut request, &entry.request, count);
        if !fits(&request, &target.used, &target.most) {
            return None;
        }
        let mut offers = target.offers.clone();
        offers.intersect_with(&search.wanted);
        // Each type that is to be left has an offer at least.
        let left = offers.count_ones(..);
        if left < ladder.len() {
            return None;
        }
        search.spent += self.steps_of_narrowing(piece.group, left);
        let held = Some(target.cheapest);
        self.keep_affordable(&mut offers, &request, target, held, &entry.shape.ports);
        let still = held.filter(|offer| offers.contains(*offer));
        let cheapest = still.or_else(|| self.cheapest(&offers))?;
        let pool = self.market.pools.get(target.pool)?;
        let enough = self.are_enough(pool, &offers, cheapest);
        let same = self.is_no_dearer(target, ladder, &offers, cheapest);
        let mut pinned = target.pinned.clone();
        pinned.extend(piece.pinned.iter().cloned());
        (enough && same).then_some(Narrowed { offers, cheapest, pinned })
    }

    /// Whether a node costs no more as one of fewer offers. EC2 chooses among spot types: there are to be as many of them, and
    /// the one that sets the price costs no more.
    fn is_no_dearer(
        &self,
        bin: &Bin,
        before: &[u64],
        offers: &FixedBitSet,
        cheapest: usize,
    ) -> bool {
        let market = &self.market;
        let cost = |offer: usize| market.offers.get(offer).map_or(u64::MAX, |offer| offer.cost());
        if market.sort_of(cheapest) != market.sort_of(bin.cheapest)
            || market.slot_of(cheapest) != market.slot_of(bin.cheapest)
            || cost(cheapest) > cost(bin.cheapest)
        {
            return false;
        }
        if before.is_empty() || bin.offers == *offers {
            return true;
        }
        let after = self.ladder(bin, offers);
        after.len() >= before.len() && self.price_on(&after) <= self.price_on(before)
    }

    /// The price that a node on spot is planned at, of those that it is to be had at.
    pub(super) fn price_on(&self, ladder: &[u64]) -> Option<u64> {
        let last = ladder.len().min(self.settings.spot_price_rank.max(1)).checked_sub(1);
        last.and_then(|last| ladder.get(last)).copied()
    }

    /// The prices that a node on spot is to be had at as it is planned; none on demand.
    fn ladder_of(&self, bin: &Bin, search: &mut Search) -> Vec<u64> {
        let billed = self.market.offers.get(bin.cheapest).map(|offer| offer.capacity_type);
        if billed != Some(CapacityType::Spot) {
            return Vec::new();
        }
        search.spent += self.market.offers.len() as u64 / 64;
        self.ladder(bin, &bin.offers)
    }

    /// The prices of a node's cheapest types, each once: as many as a launch on spot should list.
    pub(super) fn ladder(&self, bin: &Bin, offers: &FixedBitSet) -> Vec<u64> {
        let sort = self.market.sort_of(bin.cheapest);
        let like =
            |offer: &&usize| offers.contains(**offer) && self.market.sort_of(**offer) == sort;
        let mut types: Vec<usize> = Vec::new();
        let mut prices = Vec::new();
        for offer in self.market.by_rank.iter().filter(like) {
            let first = self.market.kind_of(*offer).map(|kind| kind.of_type.start);
            let Some(first) = first.filter(|first| !types.contains(first)) else { continue };
            types.push(first);
            prices.extend(self.market.offers.get(*offer).map(|offer| offer.cost()));
            if types.len() >= self.settings.min_spot_types {
                break;
            }
        }
        prices
    }
}

/// A search for nodes that take pods of a piece.
struct Search {
    /// All that could hold one of them, in their domain.
    wanted: FixedBitSet,
    /// What the search last came to.
    last: Option<(Alike, Option<(Narrowed, u32)>)>,
    /// Steps since they were last taken off the plan's.
    spent: u64,
}

/// What two planned nodes have in common that take the same.
struct Alike {
    offers: FixedBitSet,
    cheapest: usize,
    used: Amounts,
    pinned: BTreeMap<String, String>,
}

impl Alike {
    fn of(bin: &Bin) -> Self {
        Self {
            offers: bin.offers.clone(),
            cheapest: bin.cheapest,
            used: bin.used.clone(),
            pinned: bin.pinned.clone(),
        }
    }

    fn is(&self, bin: &Bin) -> bool {
        self.cheapest == bin.cheapest
            && self.used == bin.used
            && self.pinned == bin.pinned
            && self.offers == bin.offers
    }
}
