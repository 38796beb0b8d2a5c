//! Running an agent as a process of its own.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::pulse::Pulse;
use crate::run::run_with;
use crate::{Args, Config, systemd};

/// How long a thread waits for work: a little over a second, so that one is enough for what is read each second. With
/// tokio's ten seconds those of a busy moment would take turns for ever, each with memory of its own.
const THREAD_KEEP_ALIVE: Duration = Duration::from_millis(1_500);

/// Runs an agent until SIGINT or SIGTERM; a second signal ends it at once. Logs go to standard error;
/// `RUST_LOG` filters them by target and level.
///
/// # Errors
/// A setting that can't be used.
pub fn main_with(args: Args) -> anyhow::Result<ExitCode> {
    let config = Config::try_from(args)?;
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    let wanted = filter(std::env::var("RUST_LOG").ok().as_deref());
    // An embedding process may have set up its own logging.
    let _already_set = tracing_subscriber::registry().with(lines).with(wanted).try_init();
    raise_open_files();
    // One thread does: an agent waits nearly always, and each thread costs memory. Names are looked up
    // on others, and files are read: one that hangs must not take the last of them.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(6)
        .thread_keep_alive(THREAD_KEEP_ALIVE)
        .build()
        .context("cannot start the runtime")?;
    let ended = runtime.block_on(async {
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
    });
    // A file that hangs keeps nobody from ending.
    runtime.shutdown_background();
    ended
}

/// Lets the process open as many files as it may ask for: those of pods' control groups stay open, and must not leave
/// too few for connections. Where even that is refused it goes on with what it has.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let _refused = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// What is logged. Filters by span and field would bring a compiler of regular expressions into a
/// process that is on every node.
fn filter(wanted: Option<&str>) -> Targets {
    let wanted = wanted.filter(|text| !text.trim().is_empty()).and_then(|text| text.parse().ok());
    wanted.unwrap_or_else(|| {
        // kube logs every failed request by itself, which would tell each outage many times over.
        Targets::new()
            .with_default(LevelFilter::INFO)
            .with_target("kube_client::client::builder", LevelFilter::OFF)
    })
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn files_may_be_open_as_many_as_the_machine_lets() {
        let before = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(256), ..before }).unwrap();
        raise_open_files();
        let after = getrlimit(Resource::Nofile);
        assert_eq!(after.current, before.maximum);
    }

    #[test]
    fn what_is_logged_can_be_said_by_target_and_level() {
        for unsaid in [None, Some(""), Some("a=b=c")] {
            let usual = filter(unsaid);
            assert!(usual.would_enable("drover_agent::run", &Level::INFO), "{unsaid:?}");
            assert!(!usual.would_enable("drover_agent::run", &Level::DEBUG), "{unsaid:?}");
            assert!(!usual.would_enable("kube_client::client::builder", &Level::ERROR));
        }
        let said = filter(Some("warn,drover_agent=debug"));
        assert!(said.would_enable("drover_agent::run", &Level::DEBUG));
        assert!(!said.would_enable("kube_client", &Level::INFO));
    }
}
