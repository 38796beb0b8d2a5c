//! What the replicas speak over.

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::peer_clients::PeerClients;
use drover_tls::{Callers, CertificateError, CertificateFiles, Credentials, serve};

/// How a replica's Raft listener is reached.
pub struct Transport(Kind);

enum Kind {
    Alone,
    Clear(TcpListener),
    Mutual(TcpListener, Credentials),
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self.0 {
            Kind::Alone => "Alone",
            Kind::Clear(_) => "Clear",
            Kind::Mutual(..) => "Mutual",
        })
    }
}

impl Transport {
    /// A group of one: nothing listens, so that nobody can speak as a peer.
    pub fn alone() -> Self {
        Self(Kind::Alone)
    }

    /// Without encryption, and without proof of who a peer is.
    pub fn clear(listener: TcpListener) -> Self {
        Self(Kind::Clear(listener))
    }

    /// TLS in which both sides show a certificate of the group's authority.
    ///
    /// # Errors
    /// A file can't be used.
    pub fn mutual(
        listener: TcpListener,
        files: CertificateFiles,
    ) -> Result<Self, CertificateError> {
        Ok(Self(Kind::Mutual(listener, Credentials::load(files, Callers::Peers)?)))
    }

    pub(crate) fn credentials(&self) -> Option<&Credentials> {
        match &self.0 {
            Kind::Mutual(_, credentials) => Some(credentials),
            Kind::Alone | Kind::Clear(_) => None,
        }
    }

    /// Serves `router` and follows the certificate's files until stopped. Open connections are dropped
    /// at once then: a peer's request may be repeated.
    pub(crate) fn serve(
        self,
        router: Router,
        clients: PeerClients,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) {
        let (listener, credentials) = match self.0 {
            Kind::Alone => return,
            Kind::Clear(listener) => (listener, None),
            Kind::Mutual(listener, credentials) => (listener, Some(credentials)),
        };
        let tls = credentials.as_ref().map(Credentials::server);
        let stopped = stop.clone();
        tasks.spawn(async move {
            let serving = stopped.run_until_cancelled(serve(listener, router, tls)).await;
            if let Some(Err(error)) = serving {
                tracing::error!(%error, "The Raft listener ended.");
            }
        });
        if let Some(credentials) = credentials {
            let stopped = stop.clone();
            tasks.spawn(async move { stopped.run_until_cancelled(credentials.follow()).await });
            let stopped = stop.clone();
            tasks.spawn(async move { stopped.run_until_cancelled(clients.follow()).await });
        }
    }
}
