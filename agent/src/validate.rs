//! Checks a configuration without acting on it: what a unit does before it starts.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use drover_agent_core::permission;
use drover_common::id::NodeName;
use drover_kubernetes::{Client, KubeletTrust};

use crate::imds::Imds;
use crate::kubeconfig::Way;
use crate::leaders::{Leaders, check_certificates};
use crate::{Args, Config, disk, eks, permissions};

/// How long the API server may take to say what it allows: a unit starts no sooner.
const PATIENCE: Duration = Duration::from_secs(1);

/// Checks settings, files and the state folder; says on standard output what an agent would do. What
/// may still appear after the start, such as the kubelet's kubeconfig, is only warned about, and so is
/// a state folder that can't be written.
///
/// # Errors
/// A setting or a file that an agent could not start with.
pub fn validate(args: Args) -> anyhow::Result<ExitCode> {
    let config = Config::try_from(args)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let (connected, denied, writable, trusted) = runtime.block_on(async {
        drover_kubernetes::install_crypto_provider();
        Leaders::new(&config, tokio::sync::watch::channel(None).1).await?;
        let context = config.context.as_deref();
        let imds = Arc::new(Imds::new(&config.imds)?);
        let identity = eks::identity(&config, imds);
        let connected = match Way::of(&config).kubeconfig() {
            Ok(path) => {
                drover_kubernetes::connect_as(path.as_deref(), context, Some(&identity)).await
            }
            Err(error) => Err(error),
        };
        let writable = disk::probe(&config.state_dir).await;
        let trusted = match &config.leaders_ca {
            Some(path) => check_certificates(path).await,
            None => Ok(()),
        };
        let denied = match &connected {
            Ok(client) => said_of_permissions(client, &config.node).await,
            Err(_untold) => None,
        };
        Ok::<_, anyhow::Error>((connected.map(|_client| ()), denied, writable, trusted))
    })?;
    let state = &config.state_dir;
    let mut out = std::io::stdout().lock();
    if let Err(error) = connected {
        writeln!(out, "warning: {error} (tried again until it works)")?;
    }
    if let Some(said) = denied {
        writeln!(out, "{said}")?;
    }
    if let Err(error) = writable {
        let path = state.display();
        writeln!(out, "warning: {path}: {error} (without it a restart forgets notices and usage)")?;
    }
    if let Err(error) = trusted {
        writeln!(out, "warning: {error} (until it works the node is guarded alone)")?;
    }
    if let KubeletTrust::Authority(path) = &config.kubelet_trust
        && let Err(error) = std::fs::File::open(path)
    {
        let path = path.display();
        writeln!(out, "warning: {path}: {error} (needed once the kubelet is asked)")?;
    }
    writeln!(
        out,
        "valid: guards node {} by IMDS at {}, with {} leaders, state in {}",
        config.node,
        config.imds,
        config.leaders.len(),
        state.display()
    )?;
    Ok(ExitCode::SUCCESS)
}

/// What there is to say of what the API server allows, if anything. What it denies, it may grant later.
async fn said_of_permissions(client: &Client, node: &NodeName) -> Option<String> {
    let asked = tokio::time::timeout(PATIENCE, permissions::denied(client, node));
    match asked.await {
        Ok(Ok(denied)) if denied.is_empty() => None,
        Ok(Ok(denied)) => {
            let missing = permission::names(&denied);
            Some(format!("warning: the API server does not allow: {missing} (asked again)"))
        }
        Ok(Err(error)) => Some(format!("unknown: what the API server allows: {error}")),
        Err(_elapsed) => Some("unknown: what the API server allows: it does not answer".to_owned()),
    }
}
