//! Planned nodes that pods which keep apart by host may still join.
//!
//! A host that spread or anti-affinity has closed to some pods stays closed to all that take part in the
//! same terms. Remembered, it need not be found out anew for every shape.

use std::collections::BTreeMap;

use drover_common::labels;

use super::board::Board;
use super::topology::Part;

/// By terms: planned nodes that are open, and how many have been looked at.
#[derive(Clone, Debug, Default)]
pub(super) struct OpenHosts {
    by_part: BTreeMap<Part, (Vec<usize>, usize)>,
}

impl OpenHosts {
    /// Planned nodes were renumbered, or hosts opened again.
    pub(super) fn forget(&mut self) {
        self.by_part.clear();
    }
}

impl Board<'_> {
    /// Planned nodes that a group's host terms do not forbid for good.
    pub(super) fn open_bins(&mut self, group: usize) -> Vec<usize> {
        let all = || (0..self.bins.len()).collect();
        let Some(part) = self.groups.get(group).map(|group| &group.part) else { return all() };
        let closes = |term: &usize| {
            self.topology.terms.get(*term).is_some_and(|t| t.term.key == labels::HOSTNAME)
        };
        let joins = part.own.iter().any(|term| self.topology.is_affinity(*term));
        // A host without company may have it later.
        if joins || !part.own.iter().chain(&part.matched).any(closes) {
            return all();
        }
        let (mut open, seen) = self.hosts.by_part.get(part).cloned().unwrap_or_default();
        open.extend(seen..self.bins.len());
        open.retain(|bin| {
            let host = self.bins.get(*bin).map(|bin| bin.host.as_str());
            self.topology.allows(part, labels::HOSTNAME, host)
        });
        let part = part.clone();
        self.hosts.by_part.insert(part, (open.clone(), self.bins.len()));
        open
    }
}
