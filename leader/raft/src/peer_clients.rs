//! HTTP clients for peers: in TLS, with a certificate of their own, where the group has one.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::watch;

use drover_tls::ClientCredentials;

/// A peer on the same network accepts within this or is taken for unreachable.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(200);

/// What a connection is for: each purpose has its own, so that a large snapshot never delays a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    Replication,
    Heartbeat,
    Snapshot,
}

/// The clients, made anew when the certificate is renewed.
#[derive(Clone, Debug)]
pub(crate) struct PeerClients {
    current: Arc<RwLock<Set>>,
    credentials: Option<watch::Receiver<Arc<ClientCredentials>>>,
}

#[derive(Clone, Debug)]
struct Set {
    replication: reqwest::Client,
    heartbeat: reqwest::Client,
    snapshot: reqwest::Client,
}

impl PeerClients {
    /// Clients that show the given credentials; without any they speak in the clear.
    pub(crate) fn new(
        credentials: Option<watch::Receiver<Arc<ClientCredentials>>>,
    ) -> Result<Self, reqwest::Error> {
        let shown = credentials.as_ref().map(|watch| Arc::clone(&watch.borrow()));
        let current = Arc::new(RwLock::new(Set::new(shown.as_deref())?));
        Ok(Self { current, credentials })
    }

    /// The client for a purpose.
    pub(crate) fn get(&self, purpose: Purpose) -> reqwest::Client {
        let set = self.current.read().unwrap_or_else(PoisonError::into_inner);
        match purpose {
            Purpose::Replication => set.replication.clone(),
            Purpose::Heartbeat => set.heartbeat.clone(),
            Purpose::Snapshot => set.snapshot.clone(),
        }
    }

    /// The base URL of a peer at `host:port`.
    pub(crate) fn url(&self, address: &str) -> String {
        let scheme = if self.credentials.is_some() { "https" } else { "http" };
        format!("{scheme}://{address}")
    }

    /// Makes the clients anew at each renewal; returns when there will be none.
    pub(crate) async fn follow(self) {
        let Some(mut credentials) = self.credentials.clone() else { return };
        while credentials.changed().await.is_ok() {
            let shown = Arc::clone(&credentials.borrow_and_update());
            match Set::new(Some(&shown)) {
                Ok(set) => *self.current.write().unwrap_or_else(PoisonError::into_inner) = set,
                Err(error) => tracing::error!(%error, "Peers are called with the old certificate."),
            }
        }
    }
}

impl Set {
    fn new(shown: Option<&ClientCredentials>) -> Result<Self, reqwest::Error> {
        let client = || {
            let builder = reqwest::Client::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .tcp_nodelay(true)
                .no_proxy();
            match shown {
                None => builder.build(),
                Some(shown) => builder
                    .https_only(true)
                    .identity(shown.identity.clone())
                    .tls_certs_only(shown.authorities.clone())
                    .build(),
            }
        };
        Ok(Self { replication: client()?, heartbeat: client()?, snapshot: client()? })
    }
}
