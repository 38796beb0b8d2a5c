//! An API server that knows nodes by certificates, as those of kubeadm's clusters do, and a kubelet that puts a
//! new one in the old one's place.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::serve::{IncomingStream, Listener};
use drover_sandbox::Authority;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::world::World;

/// Lets in whoever shows a certificate of the authority.
struct TlsListener {
    plain: TcpListener,
    tls: TlsAcceptor,
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.plain.accept().await.unwrap();
            if let Ok(stream) = self.tls.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.plain.local_addr()
    }
}

/// The certificate that a connection was let in with.
#[derive(Clone, Debug, PartialEq)]
struct Shown(CertificateDer<'static>);

impl Connected<IncomingStream<'_, TlsListener>> for Shown {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Self {
        let (_, session) = stream.io().get_ref();
        Self(session.peer_certificates().unwrap()[0].clone())
    }
}

/// The one certificate that counts.
type Door = Arc<Mutex<Option<CertificateDer<'static>>>>;

/// Each request is looked at, as API servers do it: that a connection stands is worth nothing.
async fn look(
    State(door): State<Door>,
    ConnectInfo(shown): ConnectInfo<Shown>,
    request: Request,
    next: Next,
) -> Response {
    let counts = door.lock().unwrap().as_ref() == Some(&shown.0);
    if counts { next.run(request).await } else { StatusCode::UNAUTHORIZED.into_response() }
}

struct ApiServer {
    authority: Authority,
    door: Door,
    url: String,
}

impl ApiServer {
    async fn start(world: &World) -> Self {
        drover_kubernetes::install_crypto_provider();
        let authority = Authority::new().unwrap();
        let mut roots = RootCertStore::empty();
        let own = CertificateDer::from_pem_slice(authority.certificate().as_bytes()).unwrap();
        roots.add(own).unwrap();
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
        let issued = authority.issue("api", &["127.0.0.1"]).unwrap();
        let certificate = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
        let config = ServerConfig::builder().with_client_cert_verifier(verifier);
        let config = config.with_single_cert(vec![certificate], key).unwrap();
        let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", plain.local_addr().unwrap());
        let listener = TlsListener { plain, tls: TlsAcceptor::from(Arc::new(config)) };
        let door = Door::default();
        let router = world.router().layer(from_fn_with_state(Arc::clone(&door), look));
        let service = router.into_make_service_with_connect_info::<Shown>();
        tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
        Self { authority, door, url }
    }

    /// Puts a new certificate where the kubelet keeps its own, and takes no other from now on.
    fn rotate(&self, current: &Path) {
        let issued = self.authority.issue("system:node:n", &[]).unwrap();
        let certificate = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap();
        let new = current.with_extension("new");
        std::fs::write(&new, issued.certificate + &issued.key).unwrap();
        std::fs::rename(&new, current).unwrap();
        *self.door.lock().unwrap() = Some(certificate);
    }

    fn kubeconfig(&self, authority: &Path, current: &Path) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": self.url, "certificate-authority": authority}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "users": [{"name": "u", "user": {"client-certificate": current, "client-key": current}}],
        })
    }
}

#[tokio::test]
async fn the_kubelets_next_certificate_is_taken_without_a_restart() {
    let world = World::new(&["web-0"]).await;
    let api = ApiServer::start(&world).await;
    let config = world.config("");
    let kubeconfig = config.kubeconfig.clone().unwrap();
    let (authority, current) =
        (kubeconfig.with_file_name("ca.crt"), kubeconfig.with_file_name("current.pem"));
    std::fs::write(&authority, api.authority.certificate()).unwrap();
    std::fs::write(&kubeconfig, api.kubeconfig(&authority, &current).to_string()).unwrap();
    api.rotate(&current);
    let agent = world.start_agent_with(config);
    world.until("the agent watches", |state| state.watches >= 2).await;

    api.rotate(&current);
    // Both watches move over, though nothing ended them.
    world.until("the agent watches by the new one", |state| state.watches >= 4).await;
    world.announce("terminate", 110);
    let cordoned = world
        .until("the node is cordoned", |state| state.node["spec"]["unschedulable"] == true)
        .await;
    assert!(cordoned < Duration::from_secs(2), "cordoned after {cordoned:?}");
    world.until("the pod is evicted", |state| !state.evicted.is_empty()).await;
    agent.stop().await;
}
