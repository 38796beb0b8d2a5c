//! Which of everything on sale is worth a look.
//!
//! An offer is dropped where another of the pool is no dearer, no smaller and lets everyone in whom
//! it does. On spot a node is never one offer: EC2 chooses among all types that the launch lists. So
//! a spot candidate stands for a set of types, as many as diversity asks for, with the room that all
//! of them have and a price that some of them exceed.

use std::collections::BTreeMap;

use drover_common::instance_type::CapacityType;
use fixedbitset::FixedBitSet;

use super::admission::{Admission, Rooms, clipped, is_as_large, is_within, keep_within, meets};
use super::board::Board;
use super::choose::price_ceiling;
use super::dimension::{Amounts, add_times};
use super::market::{NodeKind, Pool};
use super::pack::Candidate;
use super::split::Piece;

/// How much smaller than one type, in percent of its room, the others of its set may be.
const SIZES: [i64; 3] = [100, 96, 85];

/// Spot of one pool, zone and template.
#[derive(Clone, Copy)]
struct SpotMarket<'s> {
    pool: usize,
    offers: &'s [usize],
    admission: &'s Admission,
    pieces: &'s [Piece],
    enough: &'s [i64],
    rooms: &'s Rooms,
}

impl Board<'_> {
    /// What the pieces of one tier of pools may be packed into, by price.
    pub(super) fn candidates(&self, tier: &[usize], pieces: &[Piece]) -> Vec<Candidate> {
        let sets = pieces.iter().map(|piece| &piece.offers);
        let admission = Admission::new(self.market.offers.len(), pieces.len(), sets);
        let enough = self.enough(pieces);
        let rooms = Rooms::of(&self.market.kinds, &enough);
        let mut all = Vec::new();
        for number in tier {
            let Some(pool) = self.market.pools.get(*number) else { continue };
            for ((.., capacity_type), offers) in self.markets(pool, &admission) {
                if capacity_type == CapacityType::Spot {
                    let of = SpotMarket {
                        pool: *number,
                        offers: &offers,
                        admission: &admission,
                        pieces,
                        enough: &enough,
                        rooms: &rooms,
                    };
                    all.extend(self.spot_candidates(pool, &of));
                } else {
                    let kept = self.undominated_of(pool, &offers, &admission, &rooms, 1);
                    let counted = |offer: &&usize| self.market.slot_of(**offer).is_some();
                    let kept = kept.iter().filter(|offer| !counted(offer));
                    all.extend(kept.filter_map(|o| self.single(*number, *o, &admission)));
                }
            }
        }
        self.prune(all, &enough)
    }

    /// What all pieces ask for together: larger than that is not better.
    fn enough(&self, pieces: &[Piece]) -> Amounts {
        let mut all = vec![0; self.dimensions.len()];
        for piece in pieces {
            if let Some(group) = self.groups.get(piece.group) {
                add_times(&mut all, &group.request, piece.count);
            }
        }
        all
    }

    /// Reservations with room that pieces may be packed into, at what their nodes are worth.
    pub(super) fn reserved_candidates(&self, tier: &[usize], pieces: &[Piece]) -> Vec<Candidate> {
        let sets = pieces.iter().map(|piece| &piece.offers);
        let admission = Admission::new(self.market.offers.len(), pieces.len(), sets);
        let wanted = |piece: usize| pieces.get(piece).is_some_and(|piece| piece.count > 0);
        let mut all = Vec::new();
        for number in tier {
            let offers = self.market.pools.get(*number).map(|pool| pool.offers.clone());
            for offer in offers.into_iter().flatten() {
                let held = self.market.offers.get(offer).and_then(|offer| offer.reservation);
                let Some(held) = held.filter(|_| self.market.has_slot(offer, None)) else {
                    continue;
                };
                let candidate = self.single(*number, offer, &admission);
                let candidate = candidate.filter(|one| one.admits.ones().any(wanted));
                all.extend(candidate.map(|one| Candidate { price: held.worth, ..one }));
            }
        }
        all.sort_by_key(|candidate| (candidate.price, self.market.rank(candidate.offer)));
        all
    }

    /// A pool's offers that anyone may use, each in the order of buying, by what one launch is made
    /// of: one zone here, one template, one capacity type.
    fn markets(
        &self,
        pool: &Pool,
        admission: &Admission,
    ) -> BTreeMap<(&str, usize, CapacityType), Vec<usize>> {
        let mut markets: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        for offer in pool.offers.clone() {
            if admission.row(offer).iter().any(|word| *word != 0)
                && let Some(entry) = self.market.offers.get(offer)
                && let Some(kind) = self.market.kinds.get(entry.kind)
            {
                let market = (entry.zone, kind.template, entry.capacity_type);
                markets.entry(market).or_default().push(offer);
            }
        }
        for offers in markets.values_mut() {
            offers.sort_unstable_by_key(|offer| self.market.rank(*offer));
        }
        markets
    }

    fn single(&self, pool: usize, offer: usize, admission: &Admission) -> Option<Candidate> {
        let kind = self.market.kind_of(offer)?;
        let price = self.market.offers.get(offer)?.cost();
        Some(Candidate {
            offer,
            price,
            cheapest: price,
            room: kind.room.clone(),
            admits: admission.set(admission.row(offer)),
            pool,
            capacity: kind.capacity.clone(),
        })
    }

    /// Of offers in the order of buying, those that fewer than `depth` types dominate. Those of
    /// reservations are all kept, and dominate none: they may be full.
    fn undominated_of(
        &self,
        pool: &Pool,
        offers: &[usize],
        admission: &Admission,
        rooms: &Rooms,
        depth: usize,
    ) -> Vec<usize> {
        let mut all = Vec::new();
        let mut dominating: Vec<(&[usize], &[i64], &NodeKind<'_>)> = Vec::new();
        for offer in offers {
            let Some(entry) = self.market.offers.get(*offer) else { continue };
            let Some(kind) = self.market.kinds.get(entry.kind) else { continue };
            if self.market.slot_of(*offer).is_some() {
                all.push(*offer);
                continue;
            }
            let (row, room) = (admission.row(*offer), rooms.get(entry.kind));
            let better = dominating.iter().filter(|(other_row, other_room, other_kind)| {
                is_as_large(other_room, room)
                    && takes_no_more(&other_kind.capacity, &kind.capacity, pool)
                    && is_within(row, other_row)
            });
            if better.take(depth).count() < depth {
                all.push(*offer);
                dominating.push((row, room, kind));
            }
        }
        all
    }

    /// Sets of spot types in one zone. Items that no full set takes get what there is.
    fn spot_candidates(&self, pool: &Pool, of: &SpotMarket<'_>) -> Vec<Candidate> {
        let wanted = self.settings.min_spot_types.max(1);
        let offers = self.undominated_of(pool, of.offers, of.admission, of.rooms, wanted);
        let market = SpotMarket { offers: &offers, ..*of };
        let (mut full, mut short) = (Vec::new(), Vec::new());
        for offer in &offers {
            for size in SIZES {
                let Some((candidate, types)) = self.spot_set(&market, *offer, size, true) else {
                    continue;
                };
                if types >= wanted {
                    full.push(candidate);
                    continue;
                }
                short.push(candidate);
                // Enough types for some of the items, though not for all that this one takes.
                let part = self.spot_set(&market, *offer, size, false);
                full.extend(part.filter(|(_, types)| *types >= wanted).map(|(part, _)| part));
            }
        }
        let mut covered = FixedBitSet::with_capacity(of.pieces.len());
        for candidate in &full {
            covered.union_with(&candidate.admits);
        }
        for mut candidate in short {
            candidate.admits.difference_with(&covered);
            if !candidate.admits.is_clear() {
                full.push(candidate);
            }
        }
        self.prune(full, of.enough)
    }

    /// The cheapest types not much smaller than one offer's, and how many there are: those that take
    /// all items which the offer does (`all`), or any, for the items that every one takes.
    fn spot_set(
        &self,
        of: &SpotMarket<'_>,
        offer: usize,
        size: i64,
        all: bool,
    ) -> Option<(Candidate, usize)> {
        let SpotMarket { pool, offers, admission, pieces, enough, rooms } = *of;
        let own = self.market.kind_of(offer)?;
        let least: Amounts = own.room.iter().map(|room| room.saturating_mul(size) / 100).collect();
        let mut admits = admission.set(admission.row(offer));
        if size < 100 {
            let small = |item: &usize| {
                let group = pieces.get(*item).and_then(|piece| self.groups.get(piece.group));
                group.is_none_or(|group| !is_as_large(&least, &group.request))
            };
            let gone: Vec<usize> = admits.ones().filter(small).collect();
            gone.into_iter().for_each(|item| admits.remove(item));
        }
        if admits.is_clear() {
            return None;
        }
        let row = admits.clone();
        let least: Amounts = clipped(&least, enough).collect();
        let mut set: Vec<(usize, usize)> = Vec::with_capacity(self.settings.min_spot_types);
        for other in offers {
            let kind = self.market.offers.get(*other)?.kind;
            if !is_as_large(rooms.get(kind), &least) {
                continue;
            }
            let others = admission.row(*other);
            let wanted = match all {
                true => is_within(row.as_slice(), others),
                false => meets(admits.as_slice(), others),
            };
            if wanted {
                keep_within(&mut admits, others);
                set.push((*other, kind));
                if set.len() >= self.settings.min_spot_types {
                    break;
                }
            }
        }
        if admits.is_clear() {
            return None;
        }
        let planned_at = set.len().min(self.settings.spot_price_rank.max(1)).checked_sub(1)?;
        let (first, kind) = set.first()?;
        let kind = self.market.kinds.get(*kind)?;
        // What is dearer than the ceiling is listed for want of better, and seldom bought.
        let cost = |offer: usize| self.market.offers.get(offer).map(|offer| offer.cost());
        let cheapest = cost(*first)?;
        let price = cost(set.get(planned_at)?.0)?.min(price_ceiling(cheapest));
        // Limits are judged by the cheapest: types they have no room for are left off the list.
        let (mut room, capacity) = (kind.room.clone(), kind.capacity.clone());
        for kind in set.iter().filter_map(|(_, kind)| self.market.kinds.get(*kind)) {
            for (room, other) in room.iter_mut().zip(&kind.room) {
                *room = (*room).min(*other);
            }
        }
        let candidate = Candidate { offer: *first, price, cheapest, room, admits, pool, capacity };
        Some((candidate, set.len()))
    }

    /// Those that no other dominates, by price.
    fn prune(&self, mut all: Vec<Candidate>, enough: &[i64]) -> Vec<Candidate> {
        all.sort_by_key(|candidate| (candidate.price, self.market.rank(candidate.offer)));
        let mut kept: Vec<Candidate> = Vec::new();
        let mut rooms: Vec<Amounts> = Vec::new();
        for candidate in all {
            let room: Amounts = clipped(&candidate.room, enough).collect();
            let dominated = kept.iter().zip(&rooms).any(|(better, better_room)| {
                better.pool == candidate.pool
                    && is_as_large(better_room, &room)
                    && self.market.pools.get(candidate.pool).is_some_and(|pool| {
                        takes_no_more(&better.capacity, &candidate.capacity, pool)
                    })
                    && candidate.admits.is_subset(&better.admits)
            });
            if !dominated {
                kept.push(candidate);
                rooms.push(room);
            }
        }
        kept
    }

    /// The offers that the exact path opens nodes from, for some groups. Domains of their terms are
    /// kept apart, and pools with `minValues` are kept whole.
    pub(super) fn undominated(&self, groups: &[usize]) -> FixedBitSet {
        let entries = || groups.iter().filter_map(|group| self.groups.get(*group));
        let sets = entries().map(|group| &group.offers);
        let admission = Admission::new(self.market.offers.len(), groups.len(), sets);
        let mut scope = FixedBitSet::with_capacity(self.market.offers.len());
        // Others may come to these nodes later.
        let any = vec![i64::MAX; self.dimensions.len()];
        let rooms = Rooms::of(&self.market.kinds, &any);
        let keys: std::collections::BTreeSet<String> =
            entries().flat_map(|group| self.topology.keys(&group.part)).collect();
        for pool in &self.market.pools {
            if pool.wants_values() {
                scope.insert_range(pool.offers.clone());
                continue;
            }
            for offers in self.markets(pool, &admission).into_values() {
                let mut domains: BTreeMap<Vec<Option<&str>>, Vec<usize>> = BTreeMap::new();
                for offer in offers {
                    let domain = keys.iter().map(|key| self.market.label(offer, key)).collect();
                    domains.entry(domain).or_default().push(offer);
                }
                for offers in domains.values() {
                    scope.extend(self.undominated_of(pool, offers, &admission, &rooms, 1));
                }
            }
        }
        scope
    }
}

/// Whether one node takes no more of what its pool limits than another.
pub(super) fn takes_no_more(capacity: &[i64], other: &[i64], pool: &Pool) -> bool {
    pool.left
        .iter()
        .zip(capacity.iter().zip(other))
        .all(|(left, (own, other))| left.is_none() || own <= other)
}
