//! Connecting: a kubeconfig file, `KUBECONFIG`, `~/.kube/config` or the in-cluster environment.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::eks::{self, EksIdentity};
use crate::sources;

/// How long a TCP or TLS connection may take: a call's own timeout must be able to see a second try.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Why no client could be built. Nothing was sent yet.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The file is missing, unreadable or not a kubeconfig, or lacks the context.
    #[error("kubeconfig {}: {source}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<kube::config::KubeconfigError>,
    },
    /// The file is not complete: it may be half written.
    #[error("kubeconfig {}: it lacks {lacks}", path.display())]
    Unfinished {
        /// The file.
        path: PathBuf,
        /// What is not there.
        lacks: &'static str,
    },
    /// A kubeconfig that `KUBECONFIG` names, or `~/.kube/config` which is there, is missing, unreadable or incomplete. It
    /// may be half written, and is not passed by for the service account.
    #[error("kubeconfig of the environment: {0}")]
    Environment(#[source] Box<kube::config::KubeconfigError>),
    /// `KUBECONFIG` or `~/.kube/config` does not have the context.
    #[error("context {context}: {source}")]
    Context {
        /// The context that was asked for.
        context: String,
        /// Why.
        #[source]
        source: Box<kube::config::KubeconfigError>,
    },
    /// Neither a kubeconfig nor a service account was found.
    #[error("no kubeconfig and no service account: {0}")]
    Infer(#[source] Box<kube::config::InferConfigError>),
    /// A file of certificates is missing or holds none.
    #[error("certificates {}: {reason}", path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Certificates, keys or the server's address are unusable.
    #[error("the client can't be built: {0}")]
    Client(#[source] Box<kube::Error>),
}

/// Makes ring the process's TLS implementation. Later calls change nothing, so that any number of
/// agents and leaders can live in one process.
pub fn install_crypto_provider() {
    // The error only says that a provider is installed already.
    let _already_installed = rustls::crypto::ring::default_provider().install_default();
}

/// A client for the API server that `kubeconfig` (or, without it, the environment) names.
///
/// `http` and `https` servers are taken. No request is made: a server that is down is found by the
/// first call.
///
/// # Errors
/// [`ConnectError`] names the file or context and the reason.
pub async fn connect(
    kubeconfig: Option<&Path>,
    context: Option<&str>,
) -> Result<Client, ConnectError> {
    connect_as(kubeconfig, context, None).await
}

/// As [`connect`], as the instance where `identity` says so.
///
/// # Errors
/// As [`connect`]. That no token can be signed is found by each call.
pub async fn connect_as(
    kubeconfig: Option<&Path>,
    context: Option<&str>,
    identity: Option<&EksIdentity>,
) -> Result<Client, ConnectError> {
    let mut config = config(kubeconfig, context).await?;
    if config.cluster_url.scheme() == Some(&Scheme::HTTP) && config.root_cert.is_none() {
        // Else the system's certificates were read and kept, for nothing.
        config.root_cert = Some(Vec::new());
    }
    eks::client(config, identity)
}

/// What `kubeconfig` or the environment says of the way to the API server.
pub(crate) async fn config(
    kubeconfig: Option<&Path>,
    context: Option<&str>,
) -> Result<Config, ConnectError> {
    install_crypto_provider();
    let options =
        KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    let mut config = match (kubeconfig, context) {
        (Some(path), _) => from_file(path, &options).await?,
        (None, Some(context)) => Config::from_kubeconfig(&options).await.map_err(|source| {
            ConnectError::Context { context: context.to_owned(), source: Box::new(source) }
        })?,
        (None, None) if sources::environment_has_kubeconfig() => Config::from_kubeconfig(&options)
            .await
            .map_err(|source| ConnectError::Environment(Box::new(source)))?,
        (None, None) => {
            Config::infer().await.map_err(|source| ConnectError::Infer(Box::new(source)))?
        }
    };
    // kube takes HTTPS_PROXY for the kubeconfig's own proxy, and nothing of Drover's goes through one.
    if config.proxy_url.as_ref().is_some_and(is_of_environment) {
        config.proxy_url = None;
    }
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    // A 429 or 503 is an answer that decisions are made on; hidden retries would eat a drain's time.
    config.default_retry = false;
    Ok(config)
}

fn is_of_environment(proxy: &Uri) -> bool {
    let told =
        ["HTTPS_PROXY", "https_proxy"].into_iter().filter_map(|name| std::env::var(name).ok());
    told.filter_map(|told| told.parse::<Uri>().ok()).any(|told| told == *proxy)
}

async fn from_file(path: &Path, options: &KubeConfigOptions) -> Result<Config, ConnectError> {
    let failed =
        |source| ConnectError::Kubeconfig { path: path.to_owned(), source: Box::new(source) };
    let kubeconfig = Kubeconfig::read_from(path).map_err(failed)?;
    Config::from_custom_kubeconfig(kubeconfig, options).await.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"{"apiVersion":"v1","kind":"Config","current-context":"a",
        "clusters":[{"name":"c","cluster":{"server":"http://127.0.0.1:1"}}],
        "contexts":[{"name":"a","context":{"cluster":"c","user":"u"}}],
        "users":[{"name":"u","user":{"token":"t"}}]}"#;

    #[tokio::test]
    async fn kubeconfigs_are_read_and_missing_contexts_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        std::fs::write(&path, FILE).unwrap();
        assert!(connect(Some(&path), None).await.is_ok());
        assert!(connect(Some(&path), Some("a")).await.is_ok());
        let error = connect(Some(&path), Some("other")).await.err().unwrap();
        assert!(error.to_string().contains("other"), "{error}");
        let error = connect(Some(&folder.path().join("none")), None).await.err().unwrap();
        assert!(error.to_string().contains("none"), "{error}");
    }
}
