//! Checks a configuration without acting on it: what a unit does before it starts.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;

use crate::{Args, Config};

/// Checks settings, the kubeconfig and the data folder; says on standard output what a replica would
/// do. Nothing is asked of the network.
///
/// # Errors
/// A setting, a file or a folder that a replica could not start with.
pub fn validate(args: Args) -> anyhow::Result<ExitCode> {
    let config = Config::try_from(args)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(drover_kubernetes::connect(config.kubeconfig.as_deref(), None))?;
    let folder = &config.group.folder;
    std::fs::create_dir_all(folder).with_context(|| format!("data folder {}", folder.display()))?;
    writeln!(
        std::io::stdout().lock(),
        "valid: replica {}, Raft on {}, API on {}, data in {}",
        config.group.replica,
        config.raft_listen,
        config.api_listen,
        folder.display()
    )?;
    Ok(ExitCode::SUCCESS)
}
