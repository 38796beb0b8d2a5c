//! Which kinds are known completely, and what a restarted list has not shown again.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::call::Kind;
use drover_common::cluster::ObjectKey;

#[derive(Clone, Debug, Default)]
struct KindSync {
    listed: bool,
    stale: bool,
    /// Objects from before a restarted list that it has not shown yet.
    unseen: BTreeSet<ObjectKey>,
    restarting: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct SyncTable {
    kinds: BTreeMap<Kind, KindSync>,
}

/// Kinds that decisions can't do without.
fn matters(kind: Kind) -> bool {
    kind.is_watched() && !kind.is_optional()
}

impl SyncTable {
    pub(super) fn restart(&mut self, kind: Kind, present: BTreeSet<ObjectKey>) {
        let state = self.kinds.entry(kind).or_default();
        state.unseen = present;
        state.restarting = true;
    }

    pub(super) fn seen(&mut self, kind: Kind, key: &ObjectKey) {
        if let Some(state) = self.kinds.get_mut(&kind)
            && state.restarting
        {
            state.unseen.remove(key);
        }
    }

    /// The list is complete: what it did not show is gone.
    pub(super) fn finish(&mut self, kind: Kind) -> BTreeSet<ObjectKey> {
        let state = self.kinds.entry(kind).or_default();
        *state = KindSync {
            listed: true,
            unseen: std::mem::take(&mut state.unseen),
            ..KindSync::default()
        };
        std::mem::take(&mut state.unseen)
    }

    pub(super) fn mark_stale(&mut self, kind: Kind) {
        self.kinds.entry(kind).or_default().stale = true;
    }

    pub(super) fn is_synced(&self) -> bool {
        Kind::ALL
            .into_iter()
            .filter(|kind| matters(*kind))
            .all(|kind| self.kinds.get(&kind).is_some_and(|state| state.listed))
    }

    pub(super) fn is_stale(&self) -> bool {
        self.kinds.iter().any(|(kind, state)| matters(*kind) && state.stale)
    }

    pub(super) fn behind(&self) -> Vec<Kind> {
        Kind::ALL
            .into_iter()
            .filter(|kind| matters(*kind))
            .filter(|kind| self.kinds.get(kind).is_none_or(|state| !state.listed || state.stale))
            .collect()
    }
}
