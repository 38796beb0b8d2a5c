//! Planned nodes that pods which keep apart by host may still join.
//!
//! A host that spread or anti-affinity has closed to some pods stays closed to all that take part in the
//! same terms. Remembered, it need not be found out anew for every shape.

use std::collections::BTreeMap;

use drover_common::labels;

use super::board::Board;
use super::topology::Part;

/// What leaving out the nodes that have closed costs, a look at each, is shared by so many shapes that each pays for
/// so many looks.
const LOOKS_EACH: usize = 64;

/// By terms.
#[derive(Clone, Debug, Default)]
pub(super) struct OpenHosts {
    by_part: BTreeMap<Part, Known>,
}

/// What is known of the planned nodes for some terms.
#[derive(Clone, Debug, Default)]
struct Known {
    /// Those that are open, and some that have closed since.
    open: Vec<usize>,
    /// How many have been looked at.
    seen: usize,
    /// How many shapes go by before those that have closed are left out again.
    wait: usize,
}

impl OpenHosts {
    /// Planned nodes were renumbered, or hosts opened again.
    pub(super) fn forget(&mut self) {
        self.by_part.clear();
    }
}

impl Board<'_> {
    /// Planned nodes, without most of those that a group's host terms forbid for good.
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
        let part = part.clone();
        let mut known = self.hosts.by_part.remove(&part).unwrap_or_default();
        known.open.extend(known.seen..self.bins.len());
        known.seen = self.bins.len();
        if known.wait == 0 {
            known.open.retain(|bin| {
                let host = self.bins.get(*bin).map(|bin| bin.host.as_str());
                self.topology.allows(&part, labels::HOSTNAME, host)
            });
            known.wait = 1 + known.open.len() / LOOKS_EACH;
        }
        known.wait -= 1;
        let open = known.open.clone();
        self.hosts.by_part.insert(part, known);
        open
    }
}
