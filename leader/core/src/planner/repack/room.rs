//! Moving pods to free room, and taking it back.

use drover_common::labels;

use super::yard::Yard;
use crate::planner::dimension::{add_times, fits, times};
use crate::planner::topology::{Topology, Tracked};

/// Pods that need looking at pod by pod are tried on so many nodes at most.
const MOST_LOOKS: usize = 512;

/// So many pods of a group on a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub group: usize,
    pub place: usize,
    pub count: u32,
}

impl Yard<'_> {
    /// Counts a node's pods out of their domains (`sign` -1) or back in (1).
    pub(super) fn lift(&mut self, place: usize, sign: i64) {
        let Some(lot) = self.lots.get(place) else { return };
        for (group, pods) in &lot.contents {
            if self.plain.get(*group).copied().unwrap_or(true) {
                continue;
            }
            let count = i64::try_from(pods.len()).unwrap_or(0) * sign;
            let Some((group, node)) =
                self.board.groups.get(*group).zip(self.board.existing.get(place))
            else {
                continue;
            };
            let domain = |tracked: &Tracked| node.counted_domain(tracked);
            self.board.topology.place(&group.part, &domain, count);
            self.alone.place(&group.part, &domain, count);
        }
    }

    /// Counts a node's pods back into their domains, for batches alone only: the batches after this
    /// one see them gone.
    pub(super) fn forget_alone(&mut self, places: &[usize], placed: &[Placed]) {
        for place in places {
            let Some(lot) = self.lots.get(*place) else { continue };
            for (group, pods) in &lot.contents {
                let count = i64::try_from(pods.len()).unwrap_or(0);
                count_at(&mut self.alone, &self.board, *group, *place, count);
            }
        }
        for Placed { group, place, count } in placed {
            count_at(&mut self.alone, &self.board, *group, *place, -i64::from(*count));
        }
    }

    /// Moves up to `count` pods of a group to targets, those after position `after` in the order of
    /// removal where one is given. Returns how many found none.
    pub(super) fn settle(
        &mut self,
        group: usize,
        count: u32,
        after: Option<usize>,
        placed: &mut Vec<Placed>,
    ) -> u32 {
        let plain = self.plain.get(group).copied().unwrap_or(false);
        let (mut at, mut at_stayed) = self.cursors.get(group).copied().unwrap_or_default();
        // A cursor only passes places that had no room before this attempt took any.
        let mut passing = true;
        let mut left = count;
        let mut looks = 0;
        while left > 0 && looks < MOST_LOOKS {
            let in_targets = self
                .targets
                .get(at)
                .copied()
                .filter(|place| after.is_none_or(|after| self.rank.get(*place) > Some(&after)));
            let Some(place) = in_targets.or_else(|| self.stayed.get(at_stayed).copied()) else {
                break;
            };
            let taken = self.settle_on(group, left, place, plain);
            if taken > 0 {
                placed.push(Placed { group, place, count: taken });
                left = left.saturating_sub(taken);
                passing = false;
                if left == 0 {
                    break;
                }
            } else if passing && !touched(placed, place) && self.has_no_room(group, place) {
                if let Some(cursor) = self.cursors.get_mut(group) {
                    let step = usize::from(in_targets.is_some());
                    *cursor = (at + step, at_stayed + 1 - step);
                }
            } else {
                passing = false;
                looks += usize::from(!plain);
            }
            if in_targets.is_some() { at += 1 } else { at_stayed += 1 }
        }
        left
    }

    /// Whether it is not the topology but room, or rules, that keep a pod of the group away.
    fn has_no_room(&mut self, group: usize, place: usize) -> bool {
        if !self.admits(group, place) {
            return true;
        }
        let Some((entry, node)) = self.board.groups.get(group).zip(self.board.existing.get(place))
        else {
            return true;
        };
        !fits(&entry.request, &node.used, &node.room)
    }

    fn settle_on(&mut self, group: usize, left: u32, place: usize, plain: bool) -> u32 {
        if plain {
            let Some((entry, node)) =
                self.board.groups.get(group).zip(self.board.existing.get(place))
            else {
                return 0;
            };
            let count = times(&entry.request, &node.used, &node.room).min(left);
            if count == 0 || !self.admits(group, place) {
                return 0;
            }
            self.book(group, place, count);
            return count;
        }
        if !self.admits(group, place) {
            return 0;
        }
        let mut taken = 0;
        while taken < left && self.takes_one(group, place) {
            self.book(group, place, 1);
            taken += 1;
        }
        taken
    }

    /// Whether a place takes one more pod of a group, with all other batches and without them.
    fn takes_one(&self, group: usize, place: usize) -> bool {
        let Some((entry, node)) = self.board.groups.get(group).zip(self.board.existing.get(place))
        else {
            return false;
        };
        if !fits(&entry.request, &node.used, &node.room) || !node.has_ports_for(entry) {
            return false;
        }
        let part = &entry.part;
        [&self.board.topology, &self.alone].into_iter().all(|topology| {
            let allows = |key: &str| topology.allows(part, key, node.domain(key).as_deref());
            part.is_free()
                || (allows(labels::HOSTNAME) && topology.keys(part).iter().all(|key| allows(key)))
        })
    }

    fn book(&mut self, group: usize, place: usize, count: u32) {
        let signed = i64::from(count);
        count_at(&mut self.alone, &self.board, group, place, signed);
        let board = &mut self.board;
        let Some((entry, node)) = board.groups.get(group).zip(board.existing.get_mut(place)) else {
            return;
        };
        if !entry.part.is_free() {
            let node = &*node;
            board.topology.place(&entry.part, &|tracked| node.counted_domain(tracked), signed);
        }
        add_times(&mut node.used, &entry.request, count);
        node.ports.extend(entry.shape.ports.iter().cloned());
    }

    /// Takes placements back, the last first.
    pub(super) fn unsettle(&mut self, placed: &mut Vec<Placed>) {
        while let Some(Placed { group, place, count }) = placed.pop() {
            let signed = -i64::from(count);
            count_at(&mut self.alone, &self.board, group, place, signed);
            self.unbook(group, place, count);
        }
    }

    /// The same for the board alone: `alone` has forgotten them.
    pub(super) fn unbook(&mut self, group: usize, place: usize, count: u32) {
        let signed = -i64::from(count);
        let board = &mut self.board;
        let Some((entry, node)) = board.groups.get(group).zip(board.existing.get_mut(place)) else {
            return;
        };
        if !entry.part.is_free() {
            let node = &*node;
            board.topology.place(&entry.part, &|tracked| node.counted_domain(tracked), signed);
        }
        for (used, request) in node.used.iter_mut().zip(&entry.request) {
            *used = used.saturating_add(request.saturating_mul(signed));
        }
        let ports = node.ports.len().saturating_sub(entry.shape.ports.len());
        node.ports.truncate(ports);
    }
}

fn touched(placed: &[Placed], place: usize) -> bool {
    placed.iter().any(|placed| placed.place == place)
}

fn count_at(
    topology: &mut Topology,
    board: &crate::planner::board::Board<'_>,
    group: usize,
    place: usize,
    count: i64,
) {
    let Some((entry, node)) = board.groups.get(group).zip(board.existing.get(place)) else {
        return;
    };
    if !entry.part.is_free() {
        topology.place(&entry.part, &|tracked| node.counted_domain(tracked), count);
    }
}
