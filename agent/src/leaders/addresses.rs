//! One name for several leaders: each of its addresses has its turn.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// The most addresses of one name that are looked at.
const MOST: usize = 64;

type Lookup = dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync;

/// The addresses that names of leaders stand for.
#[derive(Clone)]
pub(super) struct Addresses {
    lookup: Arc<Lookup>,
    /// The most that any name was found to have.
    most: Arc<AtomicUsize>,
}

impl Addresses {
    /// As the system resolves names.
    pub(super) fn of_system() -> Self {
        Self::new(|name| {
            Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) })
        })
    }

    pub(super) fn new(
        lookup: impl Fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self { lookup: Arc::new(lookup), most: Arc::new(AtomicUsize::new(1)) }
    }

    /// How many turns it takes until every address that is known was the first.
    pub(super) fn turns(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }

    /// A resolver for one turn.
    pub(super) fn in_turn(&self, turn: usize) -> Arc<InTurn> {
        Arc::new(InTurn { addresses: self.clone(), turn })
    }
}

impl std::fmt::Debug for Addresses {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Addresses").field("most", &self.turns()).finish_non_exhaustive()
    }
}

/// Hands on all addresses of a name, another one first in each turn. Connections are tried in that
/// order; an address that takes a connection and then fails is what turns are for.
pub(super) struct InTurn {
    addresses: Addresses,
    turn: usize,
}

impl Resolve for InTurn {
    fn resolve(&self, name: Name) -> Resolving {
        let found = (self.addresses.lookup)(name.as_str().to_owned());
        let (most, turn) = (self.addresses.most.clone(), self.turn);
        Box::pin(async move {
            let mut found = found.await?;
            // Name servers shuffle; turns need an order that stays.
            found.sort_unstable();
            found.dedup();
            found.truncate(MOST);
            most.fetch_max(found.len(), Ordering::Relaxed);
            let first = turn.checked_rem(found.len()).unwrap_or(0);
            found.rotate_left(first);
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}
