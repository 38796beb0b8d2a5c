//! What pods would cost on new nodes: prices of cpu and memory under which no offer is a bargain.
//!
//! For each set of offers the prices are the dual of the fluid problem: of all pairs under which no
//! offer is worth more than it costs, the pair that makes the demand worth most. A sum of such values
//! bounds what new nodes for the pods cost from below.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use fixedbitset::FixedBitSet;

use super::yard::{Lot, Yard};
use crate::planner::board::Board;
use crate::planner::dimension::{CPU, MEMORY, add_times};

/// How far above the bound a plan for a handful of nodes is expected to be, in percent.
const PACKING_LOSS_PERCENT: u64 = 6;
/// Directions looked at between cpu alone and memory alone.
const DIRECTIONS: u32 = 24;

/// Prices of one unit of cpu and of memory.
type Prices = (f64, f64);

/// Puts a value on what every node holds.
pub(super) fn appraise(board: &Board<'_>, lots: &mut [Lot<'_>]) {
    let values = values(board, lots);
    for lot in lots.iter_mut() {
        let value: f64 = lot
            .contents
            .iter()
            .map(|(group, pods)| values.get(*group).copied().unwrap_or(0.0) * pods.len() as f64)
            .sum();
        lot.value = value.max(0.0) as u64;
    }
    if board.market.slots.any() {
        appraise_reserved(board, lots);
    }
}

/// Pods of a node that a reservation has room for cost next to nothing there. The dearest nodes have
/// the first choice, and each takes the place of one node in the reservation.
fn appraise_reserved(board: &Board<'_>, lots: &mut [Lot<'_>]) {
    let mut slots = board.market.slots.clone();
    let offers: Vec<usize> = board
        .market
        .by_rank
        .iter()
        .copied()
        .filter(|offer| board.market.slot_of(*offer).is_some())
        .collect();
    let mut order: Vec<usize> = (0..lots.len()).collect();
    order.sort_by_key(|place| Reverse(lots.get(*place).map(|lot| lot.price)));
    for place in order {
        let Some(lot) = lots.get_mut(place).filter(|lot| lot.candidate) else { continue };
        let holds = |offer: &usize| {
            let free = board.market.slot_of(*offer).is_some_and(|slot| slots.left(slot) > 0);
            free && holds(board, lot, *offer)
        };
        let slot = offers.iter().find(|offer| holds(offer)).and_then(|o| board.market.slot_of(*o));
        if let Some(slot) = slot {
            slots.take(slot, 1);
            lot.value = lot.value.min(1);
        }
    }
}

/// Whether one node of an offer may hold everything that a node holds.
fn holds(board: &Board<'_>, lot: &Lot<'_>, offer: usize) -> bool {
    let Some(kind) = board.market.kind_of(offer) else { return false };
    let mut used = vec![0; kind.room.len()];
    let fit = lot.contents.iter().all(|(group, pods)| {
        let Some(group) = board.groups.get(*group) else { return false };
        let count = u32::try_from(pods.len()).unwrap_or(u32::MAX);
        add_times(&mut used, &group.request, count);
        group.offers.contains(offer)
    });
    fit && used.iter().zip(&kind.room).all(|(used, room)| used <= room)
}

/// Micro-dollars an hour of one pod, by group.
fn values(board: &Board<'_>, lots: &[Lot<'_>]) -> Vec<f64> {
    let mut demand = vec![0_usize; board.groups.len()];
    for (group, pods) in lots.iter().flat_map(|lot| &lot.contents) {
        if let Some(demand) = demand.get_mut(*group) {
            *demand += pods.len();
        }
    }
    let mut classes: BTreeMap<Vec<usize>, Vec<usize>> = BTreeMap::new();
    for (number, group) in
        board.groups.iter().enumerate().filter(|(n, _)| demand.get(*n) != Some(&0))
    {
        classes.entry(group.offers.ones().collect()).or_default().push(number);
    }
    let mut values = vec![0.0; board.groups.len()];
    for members in classes.values() {
        let Some(offers) = members.first().and_then(|first| board.groups.get(*first)) else {
            continue;
        };
        let prices = prices(board, &offers.offers, members, &demand);
        for member in members {
            let Some(group) = board.groups.get(*member) else { continue };
            let scarce = scarce_value(board, &offers.offers, &group.request);
            if let Some(value) = values.get_mut(*member) {
                *value = worth(&group.request, prices).max(scarce);
            }
        }
    }
    values
}

fn amount(amounts: &[i64], dimension: usize) -> f64 {
    amounts.get(dimension).copied().unwrap_or(0).max(0) as f64
}

fn worth(request: &[i64], (cpu, memory): Prices) -> f64 {
    amount(request, CPU) * cpu + amount(request, MEMORY) * memory
}

fn prices(board: &Board<'_>, offers: &FixedBitSet, members: &[usize], demand: &[usize]) -> Prices {
    let mut wanted = (0.0, 0.0);
    for member in members {
        let Some(group) = board.groups.get(*member) else { continue };
        let count = demand.get(*member).copied().unwrap_or(0) as f64;
        wanted.0 += count * amount(&group.request, CPU);
        wanted.1 += count * amount(&group.request, MEMORY);
    }
    // What reservations have room for is not what any number of pods can have.
    let sold = |offer: &usize| board.market.slot_of(*offer).is_none();
    let rooms: Vec<(f64, f64, f64)> = offers
        .ones()
        .filter(sold)
        .filter_map(|offer| {
            let room = &board.market.kind_of(offer)?.room;
            let price = board.market.offers.get(offer)?.price?;
            Some((amount(room, CPU), amount(room, MEMORY), price as f64))
        })
        .collect();
    // One millicore weighs about as much as 4 MiB, so that directions are spread evenly.
    let scale = f64::from(4_u32 << 20);
    let mut best = (f64::MIN, (0.0, 0.0));
    for step in 0..=DIRECTIONS {
        let share = f64::from(step) / f64::from(DIRECTIONS);
        let (cpu, memory) = (1.0 - share, share / scale);
        let factor = rooms
            .iter()
            .map(|(c, m, price)| price / (c * cpu + m * memory).max(f64::MIN_POSITIVE))
            .fold(f64::INFINITY, f64::min);
        if !factor.is_finite() {
            continue;
        }
        let total = factor * (wanted.0 * cpu + wanted.1 * memory);
        if total > best.0 {
            best = (total, (factor * cpu, factor * memory));
        }
    }
    best.1
}

/// The value by whatever is asked besides cpu and memory: its share of the cheapest node for it.
fn scarce_value(board: &Board<'_>, offers: &FixedBitSet, request: &[i64]) -> f64 {
    let asked: Vec<usize> =
        (MEMORY + 1..request.len()).filter(|d| amount(request, *d) > 0.0).collect();
    asked
        .into_iter()
        .map(|dimension| {
            offers
                .ones()
                .filter(|offer| board.market.slot_of(*offer).is_none())
                .filter_map(|offer| {
                    let room = amount(&board.market.kind_of(offer)?.room, dimension);
                    let price = board.market.offers.get(offer)?.price? as f64;
                    (room > 0.0).then(|| price * amount(request, dimension) / room)
                })
                .fold(f64::INFINITY, f64::min)
        })
        .filter(|value| value.is_finite())
        .fold(0.0, f64::max)
}

impl Yard<'_> {
    /// What replacing a node is expected to save, evictions paid for; `None` if not enough.
    pub(super) fn gain(&self, place: usize) -> Option<i64> {
        let lot = self.lots.get(place)?;
        let rehosting = lot.value.saturating_mul(100 + PACKING_LOSS_PERCENT) / 100;
        let least = self.least_saving(lot.price);
        let saving = lot.price.checked_sub(rehosting).filter(|saving| *saving >= least)?;
        let saving = saving.checked_sub(self.eviction_price(lot.eviction_cost))?;
        i64::try_from(saving).ok().filter(|saving| *saving > 0)
    }

    /// The least that must be saved of this price.
    pub(super) fn least_saving(&self, price: u64) -> u64 {
        price.saturating_mul(u64::from(self.input.settings.min_saving_percent)).div_ceil(100).max(1)
    }
}
