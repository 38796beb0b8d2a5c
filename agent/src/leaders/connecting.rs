//! How connections to leaders are made.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use reqwest::{Certificate, Client, Url};

use super::LeadersError;
use super::addresses::Addresses;
use crate::config::Config;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How connections to leaders are made.
#[derive(Clone, Debug)]
pub(super) struct Connecting {
    /// In place of the system's.
    pub(super) certificates: Option<Vec<Certificate>>,
    pub(super) addresses: Addresses,
}

impl Connecting {
    /// As a configuration says. What it leaves open to others is logged.
    pub(super) async fn of(config: &Config) -> Result<Self, LeadersError> {
        let certificates = match &config.leaders_ca {
            Some(path) => Some(certificates(path).await?),
            None if config.leaders.iter().all(|url| is_plain(url)) => Some(Vec::new()),
            None => None,
        };
        for leader in config.leaders.iter().filter(|url| is_plain(url) && !is_loopback(url)) {
            tracing::warn!(
                %leader,
                "Leader is not talked to over TLS; others may read the agent's token and reports."
            );
        }
        Ok(Self { certificates, addresses: Addresses::of_system() })
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
            .http1_only()
            .pool_max_idle_per_host(2)
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_keepalive(Duration::from_secs(15))
            .dns_resolver(self.addresses.in_turn(turn));
        if let Some(certificates) = &self.certificates {
            builder = builder.tls_certs_only(certificates.clone());
        }
        builder.build()
    }
}

async fn certificates(path: &Path) -> Result<Vec<Certificate>, LeadersError> {
    let failed = |reason: String| LeadersError::Certificates { path: path.to_owned(), reason };
    let pem = tokio::fs::read(path).await.map_err(|error| failed(error.to_string()))?;
    Certificate::from_pem_bundle(&pem).map_err(|error| failed(error.to_string()))
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
