//! Kubelets over real sockets: who gets the token, and what an endless answer costs.

use std::path::Path;
use std::sync::{Arc, Mutex};

use drover_agent_core::usage::PodNames;
use drover_common::cluster::ObjectKey;
use drover_sandbox::Authority;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

const METRICS: &str = "node_cpu_usage_seconds_total 5\nnode_memory_working_set_bytes 7\n\
    pod_cpu_usage_seconds_total{namespace=\"d\",pod=\"web\"} 1\n";

/// A kubelet that writes down what it was sent.
struct FakeKubelet {
    port: u16,
    heard: Arc<Mutex<String>>,
}

impl FakeKubelet {
    /// Answers each connection once; in TLS if there is a certificate.
    async fn start(tls: Option<TlsAcceptor>, answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = Arc::new(Mutex::new(String::new()));
        let said = Arc::clone(&heard);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, said) = (tls.clone(), Arc::clone(&said));
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, answer, said).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, answer, said).await;
                            }
                        }
                    }
                });
            }
        });
        Self { port, heard }
    }

    fn heard(&self) -> String {
        self.heard.lock().unwrap().clone()
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: &str,
    said: Arc<Mutex<String>>,
) {
    let mut bytes = vec![0; 16 * 1024];
    let count = stream.read(&mut bytes).await.unwrap_or(0);
    said.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..count]));
    let head = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";
    let _gone = stream.write_all(head.as_bytes()).await;
    if answer == ENDLESS {
        while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
    }
    let _gone = stream.write_all(answer.as_bytes()).await;
    let _gone = stream.shutdown().await;
}

const ENDLESS: &str = "endless";

fn acceptor(authority: &Authority) -> TlsAcceptor {
    drover_kubernetes::install_crypto_provider();
    let issued = authority.issue("kubelet", &["127.0.0.1"]).unwrap();
    let certificate = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    let config = ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![certificate], key).unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// Settings of an agent whose cluster trusts `authority`.
fn settings(
    folder: &Path,
    authority: &Authority,
    url: &str,
    trust: KubeletTrust,
) -> KubeletSettings {
    let (ca, kubeconfig) = (folder.join("ca.crt"), folder.join("kubeconfig"));
    std::fs::write(&ca, authority.certificate()).unwrap();
    let ca = ca.display();
    let text = format!(
        r#"{{"apiVersion":"v1","kind":"Config","current-context":"a",
        "clusters":[{{"name":"c","cluster":{{"server":"https://127.0.0.1:1","certificate-authority":"{ca}"}}}}],
        "contexts":[{{"name":"a","context":{{"cluster":"c","user":"u"}}}}],
        "users":[{{"name":"u","user":{{"token":"secret"}}}}]}}"#
    );
    std::fs::write(&kubeconfig, text).unwrap();
    KubeletSettings {
        way: crate::kubeconfig::Way::by(&kubeconfig),
        context: None,
        identity: None,
        node: "n".into(),
        url: Some(url.parse().unwrap()),
        trust,
        interval: Duration::from_secs(15),
        clients: watch::channel(None).1,
    }
}

fn pod_names() -> PodNamesQuestion {
    let (question, mut asked) = PodNamesQuestion::channel();
    tokio::spawn(async move {
        while let Some(answer) = asked.recv().await {
            let web = (ObjectKey::new("d", "web"), Arc::from("u-web"));
            answer.send(PodNames::from([web])).unwrap();
        }
    });
    question
}

#[tokio::test]
async fn only_a_kubelet_that_is_verified_gets_the_token() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, stranger) = (Authority::new().unwrap(), Authority::new().unwrap());
    let strangers = folder.path().join("stranger.crt");
    std::fs::write(&strangers, stranger.certificate()).unwrap();
    let names = pod_names();
    for (whose, trust, let_in) in [
        (&cluster, KubeletTrust::Cluster, true),
        (&stranger, KubeletTrust::Cluster, false),
        (&stranger, KubeletTrust::Authority(strangers.clone()), true),
        (&cluster, KubeletTrust::Authority(strangers.clone()), false),
        (&stranger, KubeletTrust::Unverified, true),
    ] {
        let kubelet = FakeKubelet::start(Some(acceptor(whose)), METRICS).await;
        let url = format!("https://127.0.0.1:{}", kubelet.port);
        let settings = settings(folder.path(), &cluster, &url, trust.clone());
        let answer = ask(&settings, &mut None, &names).await;
        assert_eq!(answer.is_ok(), let_in, "{trust:?}: {answer:?}");
        let heard = kubelet.heard();
        assert_eq!(heard.contains("Bearer secret"), let_in, "{trust:?}: {heard}");
        assert!(let_in || heard.is_empty(), "{heard}");
    }
}

#[tokio::test]
async fn answers_without_an_end_or_a_sense_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new().unwrap();
    let names = pod_names();
    let answer_to = async |answer: &'static str| {
        let kubelet = FakeKubelet::start(None, answer).await;
        let url = format!("http://127.0.0.1:{}", kubelet.port);
        let settings = settings(folder.path(), &authority, &url, KubeletTrust::Unverified);
        ask(&settings, &mut None, &names).await
    };
    assert!(answer_to(METRICS).await.is_ok());
    let endless = answer_to(ENDLESS).await;
    assert!(matches!(endless, Err(AskError::Kubelet(KubeletError::TooLong(_)))), "{endless:?}");
    let nonsense = answer_to("<html>\n{}\n").await;
    assert!(matches!(nonsense, Err(AskError::Nothing)), "{nonsense:?}");
}
