//! When the leader was last heard. Raft goes on naming the last one as long as no other is elected, and without a
//! majority none is.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// When the leader was last heard. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard(Arc<Mutex<Option<Instant>>>);

impl Heard {
    /// The leader is heard now.
    pub(crate) fn again(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    pub(crate) fn is_within(&self, span: Duration) -> bool {
        let heard = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.is_some_and(|at| at.elapsed() <= span)
    }
}
