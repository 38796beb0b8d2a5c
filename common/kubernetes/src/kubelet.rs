//! Asking a kubelet for its metrics, as whoever the API server is talked to as.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::client::{ConnectError, config};
use crate::eks::{self, EksIdentity};
use crate::execute::with_sources;

/// How a kubelet's certificate is checked, before anything is sent to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KubeletTrust {
    /// By the authority that the API server's is checked by.
    Cluster,
    /// By the certificates in this file (PEM).
    Authority(PathBuf),
    /// Not at all: whoever answers at the address gets the token. An `http` address needs this.
    Unverified,
}

/// Why a kubelet was not understood.
#[derive(Debug, thiserror::Error)]
pub enum KubeletError {
    /// No connection, no trust, no answer in time, or it broke off.
    #[error("no answer: {0}")]
    Unreachable(String),
    /// It refused.
    #[error("status {status}: {message}")]
    Refused {
        /// With this status.
        status: StatusCode,
        /// And these words.
        message: String,
    },
    /// The answer has no end.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
}

/// The most of a refusal that is shown.
const LONGEST_REFUSAL: usize = 200;

/// A client for the kubelet at `url` that shows what is shown to the API server: the credentials of the kubeconfig or
/// the service account (a token, read anew, a client certificate, or what a plugin gives), or `identity`'s token. No
/// request is made.
///
/// # Errors
/// As [`crate::connect_as`], and for certificates that can't be read.
pub async fn connect_kubelet(
    kubeconfig: Option<&Path>,
    context: Option<&str>,
    url: &http::Uri,
    trust: &KubeletTrust,
    identity: Option<&EksIdentity>,
) -> Result<Client, ConnectError> {
    let mut config = config(kubeconfig, context).await?;
    config.cluster_url = url.clone();
    // What a kubeconfig says of the way to the API server says nothing of the way to a kubelet.
    config.accept_invalid_certs = *trust == KubeletTrust::Unverified;
    config.tls_server_name = None;
    config.proxy_url = None;
    config.headers.clear();
    match trust {
        KubeletTrust::Cluster => {}
        KubeletTrust::Authority(path) => {
            config.root_cert_file = None;
            config.root_cert = Some(certificates(path).await?);
        }
        KubeletTrust::Unverified => {
            // Else the system's certificates were read and kept, for nothing.
            config.root_cert_file = None;
            config.root_cert = Some(Vec::new());
        }
    }
    eks::client(config, identity)
}

async fn certificates(path: &Path) -> Result<Vec<Vec<u8>>, ConnectError> {
    let failed = |reason: String| ConnectError::Certificates { path: path.to_owned(), reason };
    let pem = tokio::fs::read(path).await.map_err(|error| failed(error.to_string()))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem)
        .map(|certificate| certificate.map(|certificate| certificate.as_ref().to_vec()))
        .collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(failed("there is none in it".to_owned())),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// Reads `path` of a kubelet and hands its body on piece by piece, none of which is kept.
///
/// # Errors
/// [`KubeletError`]; some pieces may have been handed on by then.
pub async fn read_kubelet(
    client: &Client,
    path: &str,
    timeout: Duration,
    longest: usize,
    take: impl FnMut(&[u8]),
) -> Result<(), KubeletError> {
    match tokio::time::timeout(timeout, read(client, path, longest, take)).await {
        Ok(outcome) => outcome,
        Err(_elapsed) => {
            Err(KubeletError::Unreachable(format!("not within {} ms", timeout.as_millis())))
        }
    }
}

async fn read(
    client: &Client,
    path: &str,
    longest: usize,
    mut take: impl FnMut(&[u8]),
) -> Result<(), KubeletError> {
    let unreachable =
        |error: &dyn std::error::Error| KubeletError::Unreachable(with_sources(error));
    let request = Request::builder()
        .method(Method::GET)
        .uri(path)
        .header(header::ACCEPT, "text/plain;version=0.0.4")
        .body(Body::empty())
        .map_err(|error| unreachable(&error))?;
    let response = client.send(request).await.map_err(|error| unreachable(&error))?;
    let status = response.status();
    let mut body = response.into_body();
    let mut refusal = Vec::new();
    let mut length = 0_usize;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| unreachable(&error))?;
        let Some(piece) = frame.data_ref() else { continue };
        length = length.saturating_add(piece.len());
        if status.is_success() {
            if length > longest {
                return Err(KubeletError::TooLong(longest));
            }
            take(piece);
        } else {
            refusal.extend(piece.iter().take(LONGEST_REFUSAL.saturating_sub(refusal.len())));
            if length > LONGEST_REFUSAL {
                break;
            }
        }
    }
    if status.is_success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&refusal).trim().to_owned();
    Err(KubeletError::Refused { status, message })
}
