//! What was said in the log of each peer, so that what goes on is said once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The last failure that was told of each peer. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Told<K>(Arc<Mutex<BTreeMap<K, String>>>);

impl<K: Ord> Told<K> {
    pub(crate) fn nothing() -> Self {
        Self(Arc::new(Mutex::new(BTreeMap::new())))
    }

    /// Whether a failure is to be told: the last of this peer was of other words, or there was none.
    pub(crate) fn is_news(&self, peer: K, failure: &str) -> bool {
        let mut told = self.lock();
        let news = told.get(&peer).is_none_or(|last| last != failure);
        if news {
            told.insert(peer, failure.to_owned());
        }
        news
    }

    /// Notes that a peer does well; whether a failure had been told of it.
    pub(crate) fn is_over(&self, peer: &K) -> bool {
        self.lock().remove(peer).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<K, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
