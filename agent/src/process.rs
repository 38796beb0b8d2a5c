//! Running an agent as a process of its own.

use std::process::ExitCode;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::pulse::Pulse;
use crate::run::run_with;
use crate::{Args, Config, systemd};

/// Runs an agent until SIGINT or SIGTERM; a second signal ends it at once. Logs go to standard error;
/// `RUST_LOG` filters them.
///
/// # Errors
/// A setting that can't be used.
pub fn main_with(args: Args) -> anyhow::Result<ExitCode> {
    let config = Config::try_from(args)?;
    // kube logs every failed request by itself, which would tell each outage many times over.
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,kube_client::client::builder=off"));
    // An embedding process may have set up its own logging.
    let _already_set = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .try_init();
    // One thread does: an agent waits nearly always, and each thread costs memory.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        let cancelled = shutdown.clone();
        let hurry = CancellationToken::new();
        let hurried = hurry.clone();
        tokio::spawn(async move {
            let mut signalled = async || {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
            };
            signalled().await;
            cancelled.cancel();
            signalled().await;
            hurried.cancel();
        });
        let pulse = Pulse::default();
        tokio::spawn(systemd::follow(pulse.clone()));
        tokio::select! {
            ended = run_with(config, shutdown, pulse) => ended?,
            () = hurry.cancelled() => {}
        }
        Ok(ExitCode::SUCCESS)
    })
}
