//! The leader: one of three or five replicas that agree, through Raft, on which nodes there should
//! be, and bring that about.
//!
//! This crate is the shell. What to do is decided by `drover_core::control`; here its inputs are
//! gathered (watches, agents' reports, answers, leadership) and its effects carried out (proposals to
//! the log, calls to Kubernetes and EC2). [`run`] is one replica; any number may live in one process.

mod api;
pub mod config;
mod run;
mod validate;

use std::io::IsTerminal;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

pub use config::{Args, Config, ConfigError};
pub use run::{RunError, run};
pub use validate::validate;

/// Runs one replica as this process: logging, a runtime, signals. Returns what the process ends
/// with: success after SIGTERM or SIGINT, failure where the replica can't go on.
///
/// # Errors
/// A setting can't be used, or the runtime or signal handlers could not be set up.
pub fn main_with(args: Args) -> anyhow::Result<ExitCode> {
    let config = Config::try_from(args)?;
    start_logging(&config.logging)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let stop = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            stop.cancel();
        });
        Ok(match run(config, shutdown).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!(%error, "The leader replica can't go on.");
                ExitCode::FAILURE
            }
        })
    })
}

fn start_logging(logging: &config::Logging) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&logging.filter)
        .map_err(|error| anyhow::anyhow!("--log-level (LOG_LEVEL): {error}"))?;
    let format = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = if logging.json { format.json().try_init() } else { format.try_init() };
    // Whoever set up logging before, such as a program that runs more than this, decides.
    if let Err(error) = started {
        tracing::debug!(%error, "Logging was set up already.");
    }
    Ok(())
}
