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
/// not there is none, and so is what may not be looked at, or the folder that a mount makes of a missing file.
///
/// # Errors
/// The file is there, and can't be read or lacks what each kubelet's has: it may be half written.
pub fn is_of_eks(kubeconfig: &Path) -> Result<bool, ConnectError> {
    if !std::fs::metadata(kubeconfig).is_ok_and(|file| file.is_file()) {
        return Ok(false);
    }
    let path = || kubeconfig.to_owned();
    let read = Kubeconfig::read_from(kubeconfig)
        .map_err(|source| ConnectError::Kubeconfig { path: path(), source: Box::new(source) })?;
    match plugin_of_current_user(read) {
        Ok(Some(Plugin::OfEks(_))) => Ok(true),
        Ok(Some(Plugin::Other) | None) => Ok(false),
        Ok(Some(Plugin::Unfinished)) => {
            Err(ConnectError::Unfinished { path: path(), lacks: "all of its plugin's command" })
        }
        Err(lacks) => Err(ConnectError::Unfinished { path: path(), lacks }),
    }
}

/// The plugin of the current user, if that has one; else what the kubeconfig lacks.
fn plugin_of_current_user(read: Kubeconfig) -> Result<Option<Plugin>, &'static str> {
    let named = read.current_context.ok_or("a current context")?;
    let context = read.contexts.into_iter().find(|one| one.name == named);
    let context = context.and_then(|one| one.context).ok_or("its current context")?;
    let cluster = read.clusters.into_iter().find(|one| one.name == context.cluster);
    let server = cluster.and_then(|one| one.cluster).and_then(|cluster| cluster.server);
    server.ok_or("the server of its current context")?;
    let user = read.auth_infos.into_iter().find(|one| Some(&one.name) == context.user.as_ref());
    let user = user.and_then(|one| one.auth_info).ok_or("the user of its current context")?;
    // Who shows nothing is no kubelet.
    let shows = user.exec.is_some()
        || user.auth_provider.is_some()
        || user.token.is_some()
        || user.token_file.is_some()
        || user.client_certificate.is_some()
        || user.client_certificate_data.is_some();
    let user = Some(user).filter(|_| shows).ok_or("what its current user shows")?;
    Ok(user.exec.map(|exec| plugin_of(&exec)))
}

/// Of whom a plugin's tokens are.
#[derive(Debug)]
enum Plugin {
    /// Of the instance, for this cluster.
    OfEks(EksCluster),
    /// Of somebody else.
    Other,
    /// What there is of it may become either.
    Unfinished,
}

/// The cluster of a plugin that would do what a signer does.
fn cluster_of(exec: &ExecConfig) -> Option<EksCluster> {
    match plugin_of(exec) {
        Plugin::OfEks(cluster) => Some(cluster),
        Plugin::Other | Plugin::Unfinished => None,
    }
}

/// Tells `aws-iam-authenticator token -i NAME` and `aws eks get-token --cluster-name NAME` from others. One that takes
/// another role, other credentials or another endpoint is another, too.
fn plugin_of(exec: &ExecConfig) -> Plugin {
    let arguments = exec.args.as_deref().unwrap_or_default();
    // None of a kubelet is called without any.
    let Some((last, _)) = arguments.split_last() else { return Plugin::Unfinished };
    let command = exec.command.as_deref().map(Path::new);
    let command = command.and_then(|path| path.file_name()?.to_str());
    let (verbs, names): (&[&str], &[&str]) = match command {
        Some("aws-iam-authenticator") => (&["token"], &["-i", "--cluster-id"]),
        Some("aws") => (&["eks", "get-token"], &["--cluster-name", "--cluster-id"]),
        _ => return Plugin::Other,
    };
    let flags = || names.iter().copied().chain(["--region", "--output"]);
    let begins = |word: &str| {
        *last == word && flags().chain(verbs.iter().copied()).any(|it| it.starts_with(word))
    };
    let mut cluster = EksCluster { name: String::new(), region: None };
    let mut said = verbs.iter();
    let mut arguments = arguments.iter().map(String::as_str);
    while let Some(argument) = arguments.next() {
        let (flag, value) = match argument.split_once('=') {
            Some((flag, value)) if flag.starts_with('-') => (flag, Some(value)),
            _ => (argument, None),
        };
        if !flags().any(|known| known == flag) {
            match said.next() {
                Some(verb) if *verb == flag => continue,
                _ if begins(argument) => return Plugin::Unfinished,
                _ => return Plugin::Other,
            }
        }
        let Some(value) = value.or_else(|| arguments.next()) else { return Plugin::Unfinished };
        match flag {
            "--region" => cluster.region = Some(value.to_owned()),
            "--output" => {}
            _ => cluster.name = value.to_owned(),
        }
    }
    if !takes_region_alone(exec, &mut cluster.region) {
        return Plugin::Other;
    }
    if said.next().is_some() || cluster.name.is_empty() {
        return Plugin::Unfinished;
    }
    Plugin::OfEks(cluster)
}

/// Whether a plugin's environment says nothing that changes whose tokens it has; takes the region that it says.
fn takes_region_alone(exec: &ExecConfig, region: &mut Option<String>) -> bool {
    for variable in exec.env.iter().flatten() {
        let field = |name| variable.get(name).map(String::as_str).unwrap_or_default();
        match field("name") {
            "AWS_REGION" | "AWS_DEFAULT_REGION" if field("value").is_empty() => {}
            "AWS_REGION" | "AWS_DEFAULT_REGION" => {
                region.get_or_insert_with(|| field("value").to_owned());
            }
            "AWS_STS_REGIONAL_ENDPOINTS" => {}
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests;
