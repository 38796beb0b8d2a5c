//! One leader or agent: a task of this process, or a process of its own.

use std::ffi::OsString;
use std::future::Future;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use tokio::process::{Child, Command};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long a member may take to stop when asked.
const PATIENCE: Duration = Duration::from_secs(3);

/// Something that runs and can be stopped or killed.
#[derive(Debug)]
pub(crate) enum Member {
    /// On a runtime of its own, so that killing it leaves no task of it behind.
    Task { runtime: Runtime, work: JoinHandle<()>, shutdown: CancellationToken },
    /// This binary again, under another role.
    Process(Child),
}

impl Member {
    /// Runs `work` on a runtime of its own.
    pub(crate) fn task<F, W>(name: &str, threads: usize, work: W) -> anyhow::Result<Self>
    where
        W: FnOnce(CancellationToken) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name(name)
            .enable_all()
            .build()
            .context("cannot start a runtime")?;
        let shutdown = CancellationToken::new();
        let work = runtime.spawn(work(shutdown.clone()));
        Ok(Self::Task { runtime, work, shutdown })
    }

    /// Runs this binary with `arguments`; its output goes to `log`.
    pub(crate) fn process(
        arguments: &[OsString],
        environment: &[(&str, String)],
        log: &Path,
    ) -> anyhow::Result<Self> {
        let binary = std::env::current_exe().context("cannot find this binary")?;
        let file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot open {}", log.display()))?;
        let errors = file.try_clone().context("cannot share the log")?;
        let child = Command::new(binary)
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start a process")?;
        Ok(Self::Process(child))
    }

    /// The process id, where it is a process of its own.
    pub(crate) fn pid(&self) -> Option<u32> {
        match self {
            Member::Task { .. } => None,
            Member::Process(child) => child.id(),
        }
    }

    /// Whether a process has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        match self {
            Member::Task { .. } => false,
            Member::Process(child) => !matches!(child.try_wait(), Ok(None)),
        }
    }

    /// Ends it at once: no goodbye, no flush (SIGKILL, or a runtime dropped with all its tasks).
    pub(crate) async fn kill(self) {
        match self {
            Member::Task { runtime, .. } => runtime.shutdown_background(),
            Member::Process(mut child) => {
                if let Err(error) = child.kill().await {
                    tracing::warn!(%error, "A process could not be killed.");
                }
            }
        }
    }

    /// Asks it to stop, and ends it where it does not.
    pub(crate) async fn stop(self) {
        match self {
            Member::Task { runtime, work, shutdown } => {
                shutdown.cancel();
                match tokio::time::timeout(PATIENCE, work).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::warn!(%error, "A member did not stop cleanly."),
                    Err(_elapsed) => tracing::warn!("A member did not stop in time."),
                }
                // What is left of it: a runtime's end waits for no task.
                let stopped =
                    tokio::task::spawn_blocking(move || runtime.shutdown_timeout(PATIENCE));
                if let Err(error) = stopped.await {
                    tracing::warn!(%error, "A runtime did not stop cleanly.");
                }
            }
            Member::Process(mut child) => {
                terminate(&child).await;
                if tokio::time::timeout(PATIENCE, child.wait()).await.is_err() {
                    Member::Process(child).kill_boxed().await;
                }
            }
        }
    }

    async fn kill_boxed(self) {
        Box::pin(self.kill()).await;
    }
}

/// Sends SIGTERM. The standard library has no call for it, and unsafe code is forbidden here.
async fn terminate(child: &Child) {
    let Some(pid) = child.id() else { return };
    let sent = Command::new("kill").arg("-TERM").arg(pid.to_string()).status().await;
    if let Err(error) = sent {
        tracing::warn!(%error, pid, "SIGTERM could not be sent.");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test]
    async fn who_is_asked_to_stop_may_finish() {
        let finished = Arc::new(AtomicBool::new(false));
        let done = Arc::clone(&finished);
        let member = Member::task("slow", 1, |shutdown| async move {
            shutdown.cancelled().await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            done.store(true, Ordering::Relaxed);
        });
        member.unwrap().stop().await;
        assert!(finished.load(Ordering::Relaxed));
    }
}
