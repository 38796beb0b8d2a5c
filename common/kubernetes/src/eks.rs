//! Tokens for EKS, in place of the plugin that its kubeconfigs name.

use std::fmt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use http::{HeaderValue, Request, header};
use kube::Config;
use kube::client::{Body, ClientBuilder};
use kube::config::{AuthInfo, ExecConfig, Kubeconfig};
use tower::BoxError;
use tower::buffer::BufferLayer;
use tower::filter::AsyncFilterLayer;

use crate::Client;
use crate::client::ConnectError;

/// How many requests may wait for a connection before others wait for them; as many as in `kube`.
const WAITING: usize = 1_024;

/// For which cluster a token has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EksCluster {
    /// Its name, or on an Outpost its id.
    pub name: String,
    /// Its region; the instance's, if `None`.
    pub region: Option<String>,
}

/// A token, or in words why there is none.
pub type TokenFuture<'a> = Pin<Box<dyn Future<Output = Result<String, String>> + Send + 'a>>;

/// What signs tokens with an instance's role. It is asked before each request, and keeps what it signed.
pub trait SignEksToken: fmt::Debug + Send + Sync {
    /// A token that counts.
    fn token<'a>(&'a self, cluster: &'a EksCluster) -> TokenFuture<'a>;
}

/// A signer, and which cluster's tokens are to be shown.
#[derive(Clone, Debug)]
pub struct EksIdentity {
    /// What signs.
    pub signer: Arc<dyn SignEksToken>,
    /// A cluster whose token is shown whoever the kubeconfig's user is. If `None`, one is shown where that user is
    /// a plugin for EKS which would sign as the instance.
    pub cluster: Option<EksCluster>,
}

impl EksIdentity {
    /// Whose token is to be shown to the API server of `config`, if any.
    fn cluster(&self, config: &Config) -> Option<EksCluster> {
        self.cluster.clone().or_else(|| cluster_of(config.auth_info.exec.as_ref()?))
    }
}

/// A client that shows tokens of `identity` where they are due, and else what `config` says.
pub(crate) fn client(
    mut config: Config,
    identity: Option<&EksIdentity>,
) -> Result<Client, ConnectError> {
    let failed = |source| ConnectError::Client(Box::new(source));
    let due = identity.and_then(|identity| Some((identity.cluster(&config)?, &identity.signer)));
    let Some((cluster, signer)) = due else {
        return Client::try_from(config).map_err(failed);
    };
    match identity.and_then(|identity| identity.cluster.as_ref()) {
        Some(_) => config.auth_info = AuthInfo::default(),
        // Whom the user wants to act as stays with the user.
        None => config.auth_info.exec = None,
    }
    let (cluster, signer) = (Arc::new(cluster), Arc::clone(signer));
    let layer = AsyncFilterLayer::new(move |request: Request<Body>| {
        let (cluster, signer) = (Arc::clone(&cluster), Arc::clone(&signer));
        async move { authorize(request, &*signer, &cluster).await }
    });
    let plain = ClientBuilder::try_from(config).map_err(failed)?;
    // What waits for a token holds its own handle to the connections.
    Ok(plain.with_layer(&BufferLayer::new(WAITING)).with_layer(&layer).build())
}

async fn authorize(
    mut request: Request<Body>,
    signer: &dyn SignEksToken,
    cluster: &EksCluster,
) -> Result<Request<Body>, BoxError> {
    let token = signer.token(cluster).await?;
    let mut value = HeaderValue::try_from(format!("Bearer {token}"))?;
    value.set_sensitive(true);
    request.headers_mut().insert(header::AUTHORIZATION, value);
    Ok(request)
}

/// Whether the current user of a kubeconfig is a plugin by which EKS' nodes sign as their instance. A file that is
/// not there or can't be read is none.
pub fn is_of_eks(kubeconfig: &Path) -> bool {
    let exec = || {
        let kubeconfig = Kubeconfig::read_from(kubeconfig).ok()?;
        let named = kubeconfig.current_context?;
        let mut contexts = kubeconfig.contexts.into_iter();
        let user = contexts.find(|one| one.name == named)?.context?.user?;
        kubeconfig.auth_infos.into_iter().find(|one| one.name == user)?.auth_info?.exec
    };
    exec().is_some_and(|exec| cluster_of(&exec).is_some())
}

/// The cluster of a plugin that would do what a signer does: `aws-iam-authenticator token -i NAME` or `aws eks
/// get-token --cluster-name NAME`. One that takes another role, other credentials or another endpoint is no such plugin.
fn cluster_of(exec: &ExecConfig) -> Option<EksCluster> {
    let command = Path::new(exec.command.as_deref()?).file_name()?.to_str()?;
    let (verbs, names): (&[&str], &[&str]) = match command {
        "aws-iam-authenticator" => (&["token"], &["-i", "--cluster-id"]),
        "aws" => (&["eks", "get-token"], &["--cluster-name", "--cluster-id"]),
        _ => return None,
    };
    let mut cluster = EksCluster { name: String::new(), region: None };
    let mut said = Vec::new();
    let mut arguments = exec.args.iter().flatten().map(String::as_str);
    while let Some(argument) = arguments.next() {
        let (flag, value) = match argument.split_once('=') {
            Some((flag, value)) if flag.starts_with('-') => (flag, Some(value)),
            _ => (argument, None),
        };
        let mut value = || value.or_else(|| arguments.next()).map(str::to_owned);
        match flag {
            flag if names.contains(&flag) => cluster.name = value()?,
            "--region" => cluster.region = Some(value()?),
            "--output" => drop(value()?),
            flag if flag.starts_with('-') => return None,
            verb => said.push(verb),
        }
    }
    for variable in exec.env.iter().flatten() {
        let field = |name| variable.get(name).map(String::as_str).unwrap_or_default();
        match field("name") {
            "AWS_REGION" | "AWS_DEFAULT_REGION" if field("value").is_empty() => {}
            "AWS_REGION" | "AWS_DEFAULT_REGION" => {
                cluster.region.get_or_insert_with(|| field("value").to_owned());
            }
            "AWS_STS_REGIONAL_ENDPOINTS" => {}
            _ => return None,
        }
    }
    (said == verbs && !cluster.name.is_empty()).then_some(cluster)
}

#[cfg(test)]
mod tests;
