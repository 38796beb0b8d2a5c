//! Pods that nodes in flight were launched for.
//!
//! They have their places before anybody else, or a batch that comes meanwhile takes the room and they
//! are bought another. A pod may need others to be placed first that no node in flight is meant for (an
//! affinity to pods that fit nodes which are there): its room is held until all else has a place.

use std::collections::BTreeMap;

use drover_common::cluster::ObjectKey;

use super::board::Board;
use super::dimension::add_times;
use crate::view::View;

/// A pod, its group, and the place that was made for it.
#[derive(Debug)]
pub(super) struct Meant {
    group: usize,
    node: usize,
    pod: ObjectKey,
}

impl Board<'_> {
    /// Gives pods that in-flight nodes were launched for their place there, as far as it still
    /// holds. Returns those that can't have it yet.
    pub(super) fn keep_meant(&mut self, view: &View) -> Vec<Meant> {
        if self.existing.iter().all(|node| node.meant.is_empty()) {
            return Vec::new();
        }
        let owners: BTreeMap<ObjectKey, usize> = self
            .groups
            .iter()
            .enumerate()
            .flat_map(|(index, group)| group.pods.iter().map(move |pod| (pod.clone(), index)))
            .collect();
        let mut waiting: Vec<Meant> = Vec::new();
        for (node, place) in self.existing.iter().enumerate() {
            let pods = place.meant.iter();
            waiting.extend(pods.filter_map(|pod| {
                Some(Meant { group: *owners.get(pod)?, node, pod: pod.clone() })
            }));
        }
        self.seat(view, &mut waiting);
        waiting
    }

    /// Sets pods aside that can't have their place yet, and holds the room.
    pub(super) fn hold(&mut self, waiting: Vec<Meant>) {
        for meant in waiting {
            self.hold_one(meant);
        }
    }

    fn hold_one(&mut self, meant: Meant) {
        let Meant { group, node, ref pod } = meant;
        let has_room = self.node_is_open(group, node)
            && self.groups.get_mut(group).is_some_and(|group| group.take_named(pod));
        if has_room
            && let Some((group, node)) = self.groups.get(group).zip(self.existing.get_mut(node))
        {
            add_times(&mut node.used, &group.request, 1);
            node.ports.extend(group.shape.ports.iter().cloned());
            self.held.push(meant);
        }
    }

    fn release(&mut self, Meant { group, node, pod }: &Meant) {
        let Some(group) = self.groups.get_mut(*group) else { return };
        group.give_back(vec![pod.clone()]);
        let Some(node) = self.existing.get_mut(*node) else { return };
        for (used, amount) in node.used.iter_mut().zip(&group.request) {
            *used = used.saturating_sub(*amount);
        }
        for port in &group.shape.ports {
            if let Some(position) = node.ports.iter().position(|taken| taken == port) {
                node.ports.swap_remove(position);
            }
        }
    }

    /// Seats the pods that [`Board::hold`] set aside as far as they may have their places by now, and
    /// goes on holding the rest. Whether one was seated.
    pub(super) fn seat_held(&mut self) -> bool {
        let held = std::mem::take(&mut self.held);
        let before = held.len();
        for meant in held {
            self.release(&meant);
            let mut waiting = vec![meant];
            self.seat_as_they_are(&mut waiting);
            self.hold(waiting);
        }
        self.held.len() < before
    }

    /// Gives back all that is held, to the pods that it was held for as far as they may have it now,
    /// without their preferences where need be. Returns those that may not.
    pub(super) fn let_go(&mut self, view: &View) -> Vec<Meant> {
        let mut waiting = std::mem::take(&mut self.held);
        for meant in &waiting {
            self.release(meant);
        }
        self.seat(view, &mut waiting);
        waiting
    }

    /// Seats first pods whose preferences are met, then those that were placed without.
    fn seat(&mut self, view: &View, waiting: &mut Vec<Meant>) {
        self.seat_as_they_are(waiting);
        let mut relaxed: BTreeMap<usize, usize> = BTreeMap::new();
        for Meant { group, .. } in &*waiting {
            let Some(entry) = self.groups.get(*group) else { continue };
            let (step, last) = (entry.step, entry.variants.len().saturating_sub(1));
            if step < last {
                relaxed.insert(*group, step);
                self.enter_step(view, *group, last);
            }
        }
        self.seat_as_they_are(waiting);
        for (group, step) in relaxed {
            self.enter_step(view, group, step);
        }
    }

    /// Seats pods on nodes that are meant for them. Pods may wait for each other, as when they were
    /// placed.
    fn seat_as_they_are(&mut self, waiting: &mut Vec<Meant>) {
        loop {
            let before = waiting.len();
            waiting.retain(|Meant { group, node, pod }| {
                // Its rules on labels held for all that the node may become when it was planned.
                let taken = self.node_has_room(*group, *node)
                    && self.groups.get_mut(*group).is_some_and(|group| group.take_named(pod));
                if taken {
                    self.book_on_node(*group, *node, vec![pod.clone()]);
                }
                !taken
            });
            if waiting.is_empty() || waiting.len() == before {
                break;
            }
        }
    }
}
