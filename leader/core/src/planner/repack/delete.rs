//! One attempt: first the nodes whose pods fit on nodes that stay.

use std::collections::BTreeSet;

use drover_common::crd::DisruptionReason;

use super::room::Placed;
use super::yard::Yard;
use super::{Batch, LeftAlone, Move, MoveTarget};

/// What one threshold leads to.
#[derive(Clone, Debug, Default)]
pub(super) struct Attempt {
    pub batches: Vec<Batch>,
    pub left: Vec<LeftAlone>,
    /// Micro-dollars an hour saved, evictions and launches paid for.
    pub worth: i64,
}

/// Which candidates go for free room.
#[derive(Clone, Debug, Default)]
pub(super) struct Deletions {
    /// Nodes that go, and where their pods went.
    pub removed: Vec<(usize, Vec<Placed>)>,
    /// Candidates that neither go nor took pods.
    pub kept: Vec<usize>,
}

impl Yard<'_> {
    /// Plans from the start with the nodes as targets that are worth the threshold, and with those that can't go and
    /// are worth `stays_from`.
    pub(super) fn attempt(&mut self, threshold: u32, stays_from: u32) -> Attempt {
        self.enter(threshold);
        let done = self.delete(threshold.max(stays_from));
        let mut attempt = Attempt::default();
        for (place, placed) in &done.removed {
            attempt.batches.extend(self.deletion(*place, placed));
        }
        let gone: BTreeSet<usize> = done.removed.iter().map(|(place, _)| *place).collect();
        self.targets.retain(|place| !gone.contains(place));
        self.replace_all(done.kept, &mut attempt.batches, &mut attempt.left);
        self.delete_rest(&mut attempt);
        let each = |batch: &Batch| {
            let launches = batch.replacements.len() as u64;
            let cost = self
                .eviction_price(batch.eviction_cost)
                .saturating_add(self.input.settings.eviction_micro.saturating_mul(launches));
            batch.saving_micro.saturating_sub(i64::try_from(cost).unwrap_or(i64::MAX))
        };
        attempt.worth = attempt.batches.iter().map(each).fold(0, i64::saturating_add);
        attempt
    }

    /// Goes through the candidates and takes down those whose pods fit elsewhere. One that can't go and is worth so
    /// much of its price, in percent, stays for good and takes pods from then on.
    pub(super) fn delete(&mut self, stays_from: u32) -> Deletions {
        let mut done = Deletions::default();
        let mut received: BTreeSet<usize> = BTreeSet::new();
        let mut kept = Vec::new();
        for place in self.order.clone() {
            if received.contains(&place) {
                continue;
            }
            let rank = self.rank.get(place).copied();
            match self.delete_one(place, rank) {
                Some(placed) => {
                    received.extend(placed.iter().map(|one| one.place));
                    done.removed.push((place, placed));
                }
                None => {
                    kept.push(place);
                    let lot = self.lots.get(place);
                    if lot.is_some_and(|lot| lot.takes_moves && lot.is_worth(stays_from)) {
                        self.stayed.push(place);
                    }
                }
            }
        }
        kept.retain(|place| !received.contains(place));
        done.kept = kept;
        done
    }

    /// Moves all pods of a node to targets, those after a position in the order of removal where one is given.
    pub(super) fn delete_one(&mut self, place: usize, after: Option<usize>) -> Option<Vec<Placed>> {
        let lot = self.lots.get(place)?;
        if lot.price < self.eviction_price(lot.eviction_cost) {
            return None;
        }
        let contents: Vec<(usize, u32)> = lot
            .contents
            .iter()
            .map(|(group, pods)| (*group, u32::try_from(pods.len()).unwrap_or(u32::MAX)))
            .collect();
        let mut placed = Vec::new();
        self.lift(place, -1);
        for (group, count) in contents {
            if self.settle(group, count, after, &mut placed) > 0 {
                self.unsettle(&mut placed);
                self.lift(place, 1);
                return None;
            }
        }
        self.forget_alone(&[place], &placed);
        Some(placed)
    }

    /// What evictions of this cost must save, micro-dollars an hour.
    pub(super) fn eviction_price(&self, eviction_cost: i64) -> u64 {
        let cost = u64::try_from(eviction_cost).unwrap_or(0);
        self.input.settings.eviction_micro.saturating_mul(cost) / 1_000
    }

    /// What deletions save, with replacements of the rest as they are expected.
    pub(super) fn estimate(&self, tried: &Deletions) -> i64 {
        let signed = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX);
        let removed = tried.removed.iter().filter_map(|(place, _)| self.lots.get(*place));
        let removed = removed.map(|lot| {
            signed(lot.price).saturating_sub(signed(self.eviction_price(lot.eviction_cost)))
        });
        let replaced = tried.kept.iter().filter_map(|place| self.gain(*place));
        removed.chain(replaced).fold(0, i64::saturating_add)
    }

    pub(super) fn deletion(&self, place: usize, placed: &[Placed]) -> Option<Batch> {
        let lot = self.lots.get(place)?;
        let from = self.node_name(place)?;
        let mut moves = Vec::with_capacity(lot.pods());
        for (group, pods) in &lot.contents {
            let mut pods = pods.iter();
            for one in placed.iter().filter(|one| one.group == *group) {
                let to = self.node_name(one.place)?;
                for pod in pods.by_ref().take(one.count as usize) {
                    let to = MoveTarget::Node(to.clone());
                    moves.push(Move { pod: (*pod).clone(), from: from.clone(), to });
                }
            }
        }
        moves.sort();
        Some(Batch {
            reason: DisruptionReason::Underutilized,
            nodes: vec![from],
            moves,
            price_micro: lot.price,
            saving_micro: i64::try_from(lot.price).unwrap_or(i64::MAX),
            eviction_cost: lot.eviction_cost,
            ..Batch::default()
        })
    }
}
