//! A listener whose connections are in TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::task::AbortOnDropHandle;

/// How long a caller may take to say who it is.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(5);
/// Handshakes under way at once; more callers wait in the kernel's queue.
const MOST_HANDSHAKES: usize = 256;
/// What accepting waits after the system refused a connection (too many open files, say).
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until dropped, in TLS where there is a configuration. Each connection is made with the one
/// that is current when it comes.
///
/// # Errors
/// The listener failed.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    tls: Option<watch::Receiver<Arc<ServerConfig>>>,
) -> std::io::Result<()> {
    match tls {
        None => axum::serve(listener, router).await,
        Some(config) => axum::serve(TlsListener::new(listener, config)?, router).await,
    }
}

/// Shakes hands beside accepting: a caller that is slow to speak holds nobody up.
struct TlsListener {
    address: SocketAddr,
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    _accepting: AbortOnDropHandle<()>,
}

impl TlsListener {
    fn new(
        listener: TcpListener,
        config: watch::Receiver<Arc<ServerConfig>>,
    ) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let (sender, ready) = mpsc::channel(MOST_HANDSHAKES);
        let accepting = tokio::spawn(accept_all(listener, config, sender));
        Ok(Self { address, ready, _accepting: AbortOnDropHandle::new(accepting) })
    }
}

async fn accept_all(
    listener: TcpListener,
    config: watch::Receiver<Arc<ServerConfig>>,
    ready: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
) {
    let free = Arc::new(Semaphore::new(MOST_HANDSHAKES));
    loop {
        let Ok(place) = Arc::clone(&free).acquire_owned().await else { return };
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "A connection could not be accepted.");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let acceptor = TlsAcceptor::from(Arc::clone(&config.borrow()));
        let ready = ready.clone();
        tokio::spawn(async move {
            let _place = place;
            let shaken = tokio::time::timeout(HANDSHAKE_PATIENCE, acceptor.accept(stream)).await;
            match shaken {
                // Without a receiver the listener is gone.
                Ok(Ok(stream)) => drop(ready.send((stream, address)).await),
                Ok(Err(error)) => tracing::debug!(%address, %error, "A caller was not let in."),
                Err(_elapsed) => tracing::debug!(%address, "A caller was too slow."),
            }
        });
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(accepted) => accepted,
            // The accepting task ends only with this listener.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        Ok(self.address)
    }
}
