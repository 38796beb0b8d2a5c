//! Moving pods to free room, and taking it back.

use super::shut::Position;
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
        self.round += 1;
        let mut position = Position::Target(0);
        let mut left = count;
        let mut looks = 0;
        while left > 0 && looks < MOST_LOOKS {
            position = self.shut.first_open(group, position);
            let Some(place) = self.place_at(position, after) else {
                match position {
                    Position::Target(_) => position = Position::Stayed(0),
                    Position::Stayed(_) => break,
                }
                continue;
            };
            if self.closed.contains(place) {
                position = position.next();
                continue;
            }
            let taken = self.settle_on(group, left, place, plain);
            if taken > 0 {
                placed.push(Placed { group, place, count: taken });
                left = left.saturating_sub(taken);
            } else if !touched(placed, place) && self.has_no_room(group, place) {
                // Only what had no room before this attempt took any: that may be given back.
                self.shut.shut(group, position);
            } else {
                looks += usize::from(!plain);
            }
            position = position.next();
        }
        left
    }

    /// The place at a position, unless it goes before what is to move (`after`) does.
    fn place_at(&self, position: Position, after: Option<usize>) -> Option<usize> {
        match position {
            Position::Target(at) => {
                let stays =
                    |place: &usize| after.is_none_or(|after| self.rank.get(*place) > Some(&after));
                self.targets.get(at).copied().filter(stays)
            }
            Position::Stayed(at) => self.stayed.get(at).copied(),
        }
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
    fn takes_one(&mut self, group: usize, place: usize) -> bool {
        let Some((entry, node)) = self.board.groups.get(group).zip(self.board.existing.get(place))
        else {
            return false;
        };
        if !fits(&entry.request, &node.used, &node.room) || !node.has_ports_for(entry) {
            return false;
        }
        let Some(keys) = self.keys.get(group) else { return false };
        let both = [&self.board.topology, &self.alone];
        let allows = |key: &String| {
            let domain = node.domain(key);
            both.iter().all(|topology| topology.allows(&entry.part, key, domain.as_deref()))
        };
        // What places of one district are told is the same until a pod is placed.
        let known = self.districts.get(place).and_then(|district| self.told.get_mut(*district));
        let shared = match known {
            Some((round, told)) if *round == self.round => *told,
            Some(known) => {
                *known = (self.round, keys.shared.iter().all(allows));
                known.1
            }
            None => keys.shared.iter().all(allows),
        };
        shared && keys.host.as_ref().is_none_or(allows)
    }

    fn book(&mut self, group: usize, place: usize, count: u32) {
        self.round += 1;
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
