//! Measures use from the kernel's files.

mod kept;
mod meter;
mod pods;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use drover_agent_core::Input;
use drover_agent_core::usage::{History, UnreadableFile, UsageWindow};
use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::disk::StateDir;
use meter::Meter;

/// How often histories are written to disk.
const CHECKPOINT: Duration = Duration::from_secs(600);

/// Why nothing could be measured. Unknown use stays unknown; it's never taken for idleness.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MeasureError {
    /// A file can't be read.
    #[error("{}: {error}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file has an unknown form.
    #[error("{}: {error}", path.display())]
    Parse {
        /// Which.
        path: PathBuf,
        /// Why.
        error: UnreadableFile,
    },
}

/// Samples each `interval`, reads the rest and sends a digest each `digest_interval`, until the
/// receiver is dropped.
pub(crate) async fn measure(
    root: PathBuf,
    interval: Duration,
    digest_interval: Duration,
    disk: StateDir,
    inputs: mpsc::Sender<Input>,
) {
    let clock = Clock::new();
    let mut meter = Meter::new(&root);
    let mut window = UsageWindow::default();
    let mut history = disk.load_history().await.map(|kept| History::restore(&kept));
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut failing = false;
    let mut digest_at = Instant::now();
    let mut checkpoint_at = Instant::now() + CHECKPOINT;
    loop {
        ticks.tick().await;
        let due = Instant::now() >= digest_at;
        // The files are made by the kernel on the spot and may be slow on a loaded node.
        let sampled = tokio::task::spawn_blocking(move || {
            let sample = meter.sample(due);
            (meter, sample)
        });
        let Ok((returned, sample)) = sampled.await else { return };
        meter = returned;
        match sample {
            Ok(sample) => {
                failing = false;
                window.add(clock.now(), sample);
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "Use can't be measured and is unknown.");
                }
                window = UsageWindow::default();
            }
        }
        if due {
            digest_at = Instant::now() + digest_interval;
            if let Some(mut digest) = window.digest() {
                history.get_or_insert_default().take(&mut digest, clock.now());
                if inputs.send(Input::Usage(digest)).await.is_err() {
                    return;
                }
            }
        }
        if Instant::now() >= checkpoint_at
            && let Some(history) = &history
        {
            checkpoint_at = Instant::now() + CHECKPOINT;
            if let Err(error) = disk.save_history(&history.save()).await {
                tracing::warn!(%error, "Histories can't be kept on disk.");
            }
        }
        if inputs.is_closed() {
            return;
        }
    }
}
