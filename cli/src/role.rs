//! Running one leader or one agent as this process: what `drover sandbox --processes` starts.

use std::process::ExitCode;

use anyhow::Context;
use tokio_util::sync::CancellationToken;

/// Runs a leader replica until it is asked to stop.
pub(crate) fn run_leader(args: drover_leader::Args) -> anyhow::Result<ExitCode> {
    drover_leader::main_with(args)
}

/// Runs an agent until it is asked to stop.
pub(crate) fn run_agent(args: drover_agent::Args) -> anyhow::Result<ExitCode> {
    drover_agent::main_with(args)
}

/// A token that is cancelled by SIGINT or SIGTERM.
pub(crate) fn shutdown_on_signals() -> anyhow::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        cancelled.cancel();
    });
    Ok(token)
}
