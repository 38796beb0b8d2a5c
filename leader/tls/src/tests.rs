use std::path::Path;

use axum::Router;
use axum::routing::get;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use tokio::net::TcpListener;

use super::*;

/// An authority and the files of certificates it issues.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn write(&self, folder: &Path) -> CertificateFiles {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let files = CertificateFiles {
            certificate: folder.join("tls.crt"),
            key: folder.join("tls.key"),
            authority: folder.join("ca.crt"),
        };
        std::fs::write(&files.certificate, certificate.pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        std::fs::write(&files.authority, self.0.pem()).unwrap();
        files
    }
}

fn client(credentials: Option<&ClientCredentials>) -> reqwest::Client {
    let builder = reqwest::Client::builder()
        .no_proxy()
        .pool_max_idle_per_host(0)
        .timeout(std::time::Duration::from_secs(10));
    match credentials {
        None => builder.tls_danger_accept_invalid_certs(true),
        Some(known) => {
            builder.identity(known.identity.clone()).tls_certs_only(known.authorities.clone())
        }
    }
    .build()
    .unwrap()
}

async fn ask(client: &reqwest::Client, url: &str) -> bool {
    client.get(url).send().await.is_ok_and(|answer| answer.status() == 200)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_peers_of_the_authority_are_let_in_and_renewal_changes_it() {
    let folder = tempfile::tempdir().unwrap();
    let files = Authority::new().write(folder.path());
    let mut credentials = Credentials::load(files, Callers::Peers).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let router = Router::new().route("/", get(async || "ok"));
    let serving = tokio::spawn(serve(listener, router, Some(credentials.server())));

    let known = credentials.clients().borrow().clone();
    assert!(ask(&client(Some(&known)), &url).await);
    assert!(!ask(&client(None), &url).await, "a client without a certificate was let in");
    assert!(!ask(&client(None), &url.replace("https", "http")).await);
    let elsewhere = tempfile::tempdir().unwrap();
    let foreign = Authority::new().write(elsewhere.path());
    let foreign = Credentials::load(foreign, Callers::Peers).unwrap();
    let foreign = foreign.clients().borrow().clone();
    let stranger =
        ClientCredentials { authorities: known.authorities.clone(), ..(*foreign).clone() };
    assert!(!ask(&client(Some(&stranger)), &url).await, "a stranger was let in");

    assert!(!credentials.renew().unwrap());
    // Half a renewal is none.
    let next = Authority::new();
    let key = std::fs::read(folder.path().join("tls.key")).unwrap();
    next.write(folder.path());
    std::fs::write(folder.path().join("tls.key"), key).unwrap();
    credentials.renew().unwrap_err();
    assert!(ask(&client(Some(&known)), &url).await);
    next.write(folder.path());
    assert!(credentials.renew().unwrap());
    let renewed = credentials.clients().borrow().clone();
    assert!(ask(&client(Some(&renewed)), &url).await);
    assert!(!ask(&client(Some(&known)), &url).await, "the old authority still counts");
    serving.abort();
}

#[test]
fn unusable_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let files = Authority::new().write(folder.path());
    let load = || Credentials::load(files.clone(), Callers::Peers).err().unwrap().to_string();
    std::fs::write(&files.authority, "no certificate").unwrap();
    assert!(load().contains("ca.crt"), "{}", load());
    std::fs::remove_file(&files.key).unwrap();
    assert!(load().contains("tls.key"), "{}", load());
}
