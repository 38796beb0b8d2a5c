//! How connections to leaders are made.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Url};

use super::addresses::Addresses;
use crate::config::Config;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How connections to leaders are made.
#[derive(Clone, Debug)]
pub(super) struct Connecting {
    pub(super) trust: Trust,
    pub(super) addresses: Addresses,
}

/// Who may have signed leaders' certificates.
#[derive(Clone, Debug)]
pub(super) enum Trust {
    /// Whom the system trusts.
    System,
    /// Nobody: there is no TLS.
    Nobody,
    /// Whom a file names, as it was read last.
    File(Authorities),
}

/// A file of certificates. It may come late, or be replaced by another: leaders' authorities are
/// rotated as any are, and a node has to be guarded before it has them.
#[derive(Clone, Debug)]
pub(super) struct Authorities {
    path: PathBuf,
    pem: Vec<u8>,
    certificates: Vec<Certificate>,
}

/// Why a file of certificates can't be used.
#[derive(Debug, thiserror::Error)]
#[error("certificates {}: {reason}", path.display())]
pub(crate) struct CertificatesError {
    path: PathBuf,
    reason: String,
}

impl Authorities {
    /// What a file says now.
    pub(super) async fn read(path: &Path) -> Result<Self, CertificatesError> {
        let failed = |reason: String| CertificatesError { path: path.to_owned(), reason };
        let pem = tokio::fs::read(path).await.map_err(|error| failed(error.to_string()))?;
        let certificates =
            Certificate::from_pem_bundle(&pem).map_err(|error| failed(error.to_string()))?;
        if certificates.is_empty() {
            return Err(failed("it has no certificate".to_owned()));
        }
        Ok(Self { path: path.to_owned(), pem, certificates })
    }
}

impl Connecting {
    /// As a configuration says. What it leaves open to others is logged.
    pub(super) async fn of(config: &Config) -> Self {
        let trust = match &config.leaders_ca {
            Some(path) => Trust::File(Authorities::read(path).await.unwrap_or_else(|error| {
                tracing::warn!(%error, "No leader is trusted until there are certificates.");
                Authorities { path: path.clone(), pem: Vec::new(), certificates: Vec::new() }
            })),
            None if config.leaders.iter().all(|url| is_plain(url)) => Trust::Nobody,
            None => Trust::System,
        };
        for leader in config.leaders.iter().filter(|url| is_plain(url) && !is_loopback(url)) {
            tracing::warn!(
                %leader,
                "Leader is not talked to over TLS; others may read the agent's token and reports."
            );
        }
        Self { trust, addresses: Addresses::of_system() }
    }

    /// Reads the certificates anew. Whether they are others now; of what can't be used the old are kept.
    pub(super) async fn renew(&mut self) -> bool {
        let Trust::File(known) = &mut self.trust else { return false };
        match Authorities::read(&known.path).await {
            Ok(read) if read.pem != known.pem => {
                tracing::info!(path = %read.path.display(), "Leaders' certificates were read anew.");
                *known = read;
                true
            }
            Ok(_) => false,
            Err(error) => {
                tracing::debug!(%error, "Leaders' certificates can't be read.");
                false
            }
        }
    }

    /// How many turns it takes until every address that is known was the first.
    pub(super) fn turns(&self) -> usize {
        self.addresses.turns()
    }

    /// A client without connections yet, whose first choice is the address whose turn it is.
    pub(super) fn client(&self, turn: usize) -> Result<Client, reqwest::Error> {
        // HTTP/2 would make the binary half a MiB larger, to save one connection.
        let mut builder = Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .http1_only()
            .pool_max_idle_per_host(2)
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_keepalive(Duration::from_secs(15))
            .dns_resolver(self.addresses.in_turn(turn));
        match &self.trust {
            Trust::System => {}
            Trust::Nobody => builder = builder.tls_certs_only([]),
            Trust::File(file) => builder = builder.tls_certs_only(file.certificates.clone()),
        }
        builder.build()
    }
}

fn is_plain(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| url.scheme() == "http")
}

/// Whether what is sent there stays on the machine.
fn is_loopback(url: &str) -> bool {
    let url = Url::parse(url).ok();
    let host = url.as_ref().and_then(Url::host_str).unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn certificates_may_come_late_and_change() {
        drover_kubernetes::install_crypto_provider();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.crt");
        assert!(Authorities::read(&path).await.is_err());
        let nothing = Authorities { path: path.clone(), pem: Vec::new(), certificates: Vec::new() };
        let addresses = Addresses::of_system();
        let mut connecting = Connecting { trust: Trust::File(nothing), addresses };
        connecting.client(0).expect("leaders are not trusted, and the node is guarded");
        assert!(!connecting.renew().await, "there is none yet");
        let authorities = [(); 2].map(|()| drover_sandbox::Authority::new().unwrap());
        for authority in &authorities {
            std::fs::write(&path, authority.certificate()).unwrap();
            assert!(connecting.renew().await);
            assert!(!connecting.renew().await, "the same as before");
        }
        for unusable in ["-----BEGIN CERTIFICATE-----\nbroken", ""] {
            std::fs::write(&path, unusable).unwrap();
            assert!(Authorities::read(&path).await.is_err(), "{unusable:?}");
            assert!(!connecting.renew().await, "the old are kept");
        }
        let Trust::File(kept) = &connecting.trust else { panic!() };
        assert_eq!(kept.certificates.len(), 1);
        connecting.client(0).unwrap();
    }

    #[test]
    fn a_token_in_the_clear_is_one_that_leaves_the_machine() {
        let told = |url: &str| is_plain(url) && !is_loopback(url);
        for url in ["http://leaders:7946", "HTTP://10.0.0.1", "http://[fd00::1]:1"] {
            assert!(told(url), "{url}");
        }
        for url in ["https://leaders", "http://127.0.0.9:1", "http://[::1]:1", "http://localhost"] {
            assert!(!told(url), "{url}");
        }
    }
}
