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
        let mut last = None;
        for bin in 0..self.bins.len() {
            if piece.count == 0 {
                return;
            }
            let mut count = 0;
            // Where hosts are capped they are asked pod by pod.
            while count < piece.cap
                && let Some((narrowed, more)) = self.fill_of(piece, bin, &wanted, &mut last)
            {
                self.fill(piece.group, bin, narrowed, more);
                piece.count = piece.count.saturating_sub(more);
                count += more;
                if piece.cap == u32::MAX {
                    break;
                }
            }
            if count > 0 {
                sharing.filled.push(Filled { group: piece.group, bin, count });
            }
        }
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
    /// plans many nodes alike: what one came to the next does.
    fn fill_of(
        &self,
        piece: &Piece,
        bin: usize,
        wanted: &FixedBitSet,
        last: &mut Option<(Alike, Option<(Narrowed, u32)>)>,
    ) -> Option<(Narrowed, u32)> {
        let room = self.room_left(piece, bin);
        let target = self.bins.get(bin).filter(|_| room > 0)?;
        if piece.cap != u32::MAX {
            return self.filled(piece, bin, wanted, 1).map(|narrowed| (narrowed, 1));
        }
        if let Some((like, fill)) = last
            && like.is(target)
            && fill.as_ref().is_none_or(|(_, count)| *count <= piece.count)
        {
            return fill.clone();
        }
        // The most that will do: all that there is room for, or less where types of spot are to be left.
        let (mut low, mut high, mut fill) = (0, room, None);
        let mut count = room;
        while low < high {
            match self.filled(piece, bin, wanted, count) {
                Some(narrowed) => (low, fill) = (count, Some((narrowed, count))),
                None => high = count - 1,
            }
            count = (low + high).div_ceil(2);
        }
        *last = Some((Alike::of(target), fill.clone()));
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
        bin: usize,
        wanted: &FixedBitSet,
        count: u32,
    ) -> Option<Narrowed> {
        let (entry, target) = self.groups.get(piece.group).zip(self.bins.get(bin))?;
        let mut pinned = target.pinned.clone();
        for (key, value) in &piece.pinned {
            let own = pinned.entry(key.clone()).or_insert_with(|| value.clone());
            if own != value {
                return None;
            }
        }
        let mut ports = entry.shape.ports.iter();
        if ports.any(|own| target.ports.iter().any(|port| own.conflicts(port)))
            || !self.topology.allows(&entry.part, labels::HOSTNAME, Some(&target.host))
        {
            return None;
        }
        let mut request: Amounts = vec![0; entry.request.len()];
        add_times(&mut request, &entry.request, count);
        if !fits(&request, &target.used, &target.most) {
            return None;
        }
        let mut offers = target.offers.clone();
        offers.intersect_with(wanted);
        let held = Some(target.cheapest);
        self.keep_affordable(&mut offers, &request, target, held, &entry.shape.ports);
        let still = held.filter(|offer| offers.contains(*offer));
        let cheapest = still.or_else(|| self.cheapest(&offers))?;
        let pool = self.market.pools.get(target.pool)?;
        let enough = self.are_enough(pool, &offers, cheapest);
        let same = self.is_no_dearer(target, &offers, cheapest);
        (enough && same).then_some(Narrowed { offers, cheapest, pinned })
    }

    /// Whether a node costs no more as one of fewer offers. EC2 chooses among spot types: there are to be as many of them, and
    /// the one that sets the price costs no more.
    fn is_no_dearer(&self, bin: &Bin, offers: &FixedBitSet, cheapest: usize) -> bool {
        let market = &self.market;
        let cost = |offer: usize| market.offers.get(offer).map_or(u64::MAX, |offer| offer.cost());
        if market.sort_of(cheapest) != market.sort_of(bin.cheapest)
            || market.slot_of(cheapest) != market.slot_of(bin.cheapest)
            || cost(cheapest) > cost(bin.cheapest)
        {
            return false;
        }
        let billed = market.offers.get(cheapest).map(|offer| offer.capacity_type);
        if billed != Some(CapacityType::Spot) || bin.offers == *offers {
            return true;
        }
        let (before, after) = (self.ladder(bin, &bin.offers), self.ladder(bin, offers));
        let priced = |ladder: &[u64]| {
            let last = ladder.len().min(self.settings.spot_price_rank.max(1)).checked_sub(1);
            last.and_then(|last| ladder.get(last)).copied()
        };
        after.len() >= before.len() && priced(&after) <= priced(&before)
    }

    /// The prices of a node's cheapest types, each once: as many as a launch on spot should list.
    fn ladder(&self, bin: &Bin, offers: &FixedBitSet) -> Vec<u64> {
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
