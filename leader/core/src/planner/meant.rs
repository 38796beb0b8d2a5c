//! Pods that nodes in flight were launched for.
//!
//! They have their places before anybody else, or a batch that comes meanwhile takes the room and they
//! are bought another. A pod may need others to be placed first that no node in flight is meant for (an
//! affinity to pods that fit nodes which are there): its room is held until all else has a place.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::cluster::ObjectKey;

use super::board::Board;
use super::dimension::add_times;
use crate::view::View;

/// A pod, its group, and the place that was made for it.
#[derive(Debug)]
pub(super) struct Meant {
    pub group: usize,
    pub node: usize,
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
            let mut may: BTreeMap<usize, bool> = BTreeMap::new();
            waiting.extend(pods.filter_map(|pod| {
                let group = *owners.get(pod)?;
                let entry = self.groups.get(group)?;
                let may = may.entry(group).or_insert_with(|| place.still_admits(entry));
                may.then(|| Meant { group, node, pod: pod.clone() })
            }));
        }
        self.seat(view, &mut waiting);
        waiting
    }

    /// Sets pods aside that can't have their place yet, and holds the room.
    pub(super) fn hold(&mut self, waiting: Vec<Meant>) {
        for meant in waiting {
            let has_room = self.node_is_open(meant.group, meant.node);
            let group = self.groups.get_mut(meant.group).filter(|_| has_room);
            if group.is_some_and(|group| group.take_named(&meant.pod)) {
                self.reserve_on_node(&meant);
                self.held.push(meant);
            }
        }
    }

    fn reserve_on_node(&mut self, meant: &Meant) {
        let group = self.groups.get(meant.group);
        let Some((group, node)) = group.zip(self.existing.get_mut(meant.node)) else { return };
        add_times(&mut node.used, &group.request, 1);
        node.ports.extend(group.shape.ports.iter().cloned());
    }

    fn free_on_node(&mut self, meant: &Meant) {
        let group = self.groups.get(meant.group);
        let Some((group, node)) = group.zip(self.existing.get_mut(meant.node)) else { return };
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
    /// goes on holding the rest.
    pub(super) fn seat_held(&mut self) {
        loop {
            let before = self.held.len();
            // Equal pods on one node get one answer, as long as nobody else is seated.
            let mut refused: BTreeSet<(usize, usize)> = BTreeSet::new();
            for meant in std::mem::take(&mut self.held) {
                let Meant { group, node, .. } = meant;
                if refused.contains(&(group, node)) || !self.node_is_allowed(group, node) {
                    refused.insert((group, node));
                    self.held.push(meant);
                } else {
                    self.free_on_node(&meant);
                    self.book_on_node(group, node, vec![meant.pod]);
                }
            }
            if self.held.is_empty() || self.held.len() == before {
                break;
            }
        }
    }

    /// Seats whom it can of those held before another pod of a group looks for a place: each pod may let one have the
    /// place that was held for it, which an equal must not take. The others wait for someone to come to an emptier
    /// domain, so that the next goes there first.
    pub(super) fn seat_before(&mut self, group: usize, nodes: &mut [usize]) {
        if self.held.is_empty() {
            return;
        }
        self.steps.take(self.held.len() as u64);
        self.seat_held();
        let waits = self.held.iter().any(|meant| meant.group == group);
        let Some(entry) = self.groups.get(group).filter(|_| waits) else { return };
        self.steps.take(nodes.len() as u64);
        let keys = self.topology.keys(&entry.part);
        nodes.sort_by_cached_key(|node| {
            let place = self.existing.get(*node);
            let weights = keys.iter().map(|key| {
                let domain = place.and_then(|place| place.domain(key))?;
                Some(self.topology.weight(&entry.part, key, &domain))
            });
            weights.collect::<Vec<_>>()
        });
    }

    /// Gives back all that is held, to the pods that it was held for as far as they may have it now,
    /// without their preferences where need be. Returns those that may not.
    pub(super) fn let_go(&mut self, view: &View) -> Vec<Meant> {
        let mut waiting = std::mem::take(&mut self.held);
        let mut returned: BTreeMap<usize, Vec<ObjectKey>> = BTreeMap::new();
        for meant in &waiting {
            self.free_on_node(meant);
            returned.entry(meant.group).or_default().push(meant.pod.clone());
        }
        for (group, pods) in returned {
            if let Some(group) = self.groups.get_mut(group) {
                group.give_back(pods);
            }
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
                // Rules on labels and taints were looked at before.
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
