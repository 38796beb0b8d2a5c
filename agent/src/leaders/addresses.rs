//! One name for several leaders: each of its addresses has its turn.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Semaphore;

/// The most addresses of one name that are looked at.
const MOST: usize = 64;

/// Of the agent's few threads for what blocks.
const MOST_LOOKUPS: usize = 2;
const HANG: &str = "earlier lookups of leaders' names have not ended";

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
        Self::resolved_by(|name| Ok((name, 0).to_socket_addrs()?.collect()))
    }

    /// Each lookup keeps a thread until it ends, also when nobody waits for it any more: where name servers are
    /// silent, that leaves most threads to others.
    fn resolved_by(
        resolve: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Clone + Send + Sync + 'static,
    ) -> Self {
        let free = Arc::new(Semaphore::new(MOST_LOOKUPS));
        Self::new(move |name| {
            let (free, resolve) = (Arc::clone(&free), resolve.clone());
            Box::pin(async move {
                let place = free.try_acquire_owned().map_err(|_| io::Error::other(HANG))?;
                let looking = tokio::task::spawn_blocking(move || {
                    let _place = place;
                    resolve(&name)
                });
                looking.await.map_err(io::Error::other)?
            })
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn lookups_that_hang_leave_threads_to_others() {
        let (release, wait) = mpsc::channel::<()>();
        let wait = Arc::new(std::sync::Mutex::new(wait));
        let addresses = Addresses::resolved_by(move |_| {
            let _ended = wait.lock().unwrap().recv();
            Ok(vec!["127.0.0.1:1".parse().unwrap()])
        });
        let look = || (addresses.lookup)("leader".to_owned());
        // Nobody waits for these any more.
        let hanging: Vec<_> = (0..MOST_LOOKUPS).map(|_| tokio::spawn(look())).collect();
        tokio::task::yield_now().await;
        hanging.iter().for_each(tokio::task::JoinHandle::abort);
        assert_eq!(look().await.unwrap_err().to_string(), HANG);
        drop(release);
        while look().await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}
