//! Certificates from files: who a listener is, whom it lets in, and what its peers are known by. The
//! files are read anew while the replica runs, so that a renewed certificate needs no restart.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::sync::watch;

mod listener;
#[cfg(test)]
mod tests;

pub use listener::serve;

/// How often the files are looked at. A mounted Secret changes within about a minute.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Where a certificate is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate and those between it and the authority, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// The authority that peers' certificates must come from, PEM.
    pub authority: PathBuf,
}

/// A certificate that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct CertificateError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

/// What the files say at one time.
#[derive(Clone, PartialEq, Eq)]
struct Content {
    certificate: Vec<u8>,
    key: Vec<u8>,
    authority: Vec<u8>,
}

/// What a client needs to know peers by and to be known by them.
#[derive(Clone, Debug)]
pub struct ClientCredentials {
    /// The certificate and its key.
    pub identity: reqwest::Identity,
    /// Who peers' certificates must come from.
    pub authorities: Vec<reqwest::Certificate>,
}

/// Whom a listener lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callers {
    /// Whoever shows a certificate of the authority.
    Peers,
    /// Everybody: callers are known by their tokens.
    Anybody,
}

/// A certificate in use.
pub struct Credentials {
    files: CertificateFiles,
    callers: Callers,
    server: watch::Sender<Arc<ServerConfig>>,
    clients: watch::Sender<Arc<ClientCredentials>>,
    content: Content,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key is nobody's to print.
        formatter.debug_struct("Credentials").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads the files.
    ///
    /// # Errors
    /// [`CertificateError`] names the file and the reason.
    pub fn load(files: CertificateFiles, callers: Callers) -> Result<Self, CertificateError> {
        let content = Content::read(&files)?;
        let (server, _) = watch::channel(content.server(&files, callers)?);
        let (clients, _) = watch::channel(Arc::new(content.client(&files)?));
        Ok(Self { files, callers, server, clients, content })
    }

    /// What the listener serves with; follows the files.
    pub fn server(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.server.subscribe()
    }

    /// What clients connect with; follows the files.
    pub fn clients(&self) -> watch::Receiver<Arc<ClientCredentials>> {
        self.clients.subscribe()
    }

    /// Takes renewed files over as they come; never returns. Files that can't be used are told once
    /// and what was there stays in use.
    pub async fn follow(mut self) {
        let mut failing = false;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let path = self.files.certificate.clone();
            match self.renew() {
                Ok(false) => {}
                Ok(true) => {
                    tracing::info!(path = %path.display(), "A renewed certificate is in use.")
                }
                Err(error) if !failing => {
                    tracing::warn!(%error, "A renewed certificate can't be used; the old one stays.");
                    failing = true;
                    continue;
                }
                Err(_) => continue,
            }
            failing = false;
        }
    }

    /// Looks at the files once; whether they had changed.
    fn renew(&mut self) -> Result<bool, CertificateError> {
        let content = Content::read(&self.files)?;
        if content == self.content {
            return Ok(false);
        }
        // Both are made before either is used: certificate and key may be written one after the other.
        let server = content.server(&self.files, self.callers)?;
        let client = content.client(&self.files)?;
        self.server.send_replace(server);
        self.clients.send_replace(Arc::new(client));
        self.content = content;
        Ok(true)
    }
}

impl Content {
    fn read(files: &CertificateFiles) -> Result<Self, CertificateError> {
        let read =
            |path: &Path| std::fs::read(path).map_err(|error| failed(path, &error.to_string()));
        Ok(Self {
            certificate: read(&files.certificate)?,
            key: read(&files.key)?,
            authority: read(&files.authority)?,
        })
    }

    fn server(
        &self,
        files: &CertificateFiles,
        callers: Callers,
    ) -> Result<Arc<ServerConfig>, CertificateError> {
        let chain = certificates(&files.certificate, &self.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|error| failed(&files.key, &error.to_string()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let refused = |error: &dyn std::fmt::Display| failed(&files.authority, &error.to_string());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| refused(&error))?;
        let builder = match callers {
            Callers::Anybody => builder.with_no_client_auth(),
            Callers::Peers => {
                let mut roots = RootCertStore::empty();
                for authority in certificates(&files.authority, &self.authority)? {
                    roots.add(authority).map_err(|error| refused(&error))?;
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                        .build()
                        .map_err(|error| refused(&error))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|error| failed(&files.certificate, &error.to_string()))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    fn client(&self, files: &CertificateFiles) -> Result<ClientCredentials, CertificateError> {
        let both = [self.certificate.as_slice(), b"\n", &self.key].concat();
        Ok(ClientCredentials {
            identity: reqwest::Identity::from_pem(&both)
                .map_err(|error| failed(&files.key, &error.to_string()))?,
            authorities: reqwest::Certificate::from_pem_bundle(&self.authority)
                .map_err(|error| failed(&files.authority, &error.to_string()))?,
        })
    }
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let found = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| failed(path, &error.to_string()))?;
    if found.is_empty() { Err(failed(path, "it holds no certificate")) } else { Ok(found) }
}

fn failed(path: &Path, reason: &str) -> CertificateError {
    CertificateError { path: path.to_owned(), reason: reason.to_owned() }
}
