//! Measures use from the kernel's files, or has the kubelet tell it.

mod containers;
mod fallback;
mod gpu;
mod histories;
mod kept;
mod kubelet;
mod meter;
mod network;
mod pace;
mod pods;
#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use drover_agent_core::Input;
use drover_agent_core::usage::{ContainerNames, UnreadableFile, UsageWindow};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, Reading};
use crate::config::{GpuChoice, SourceChoice};
use crate::disk::StateDir;
use crate::question::{ContainersQuestion, PodNamesQuestion};
use fallback::{Fallback, Sight};
use gpu::Gpus;
use histories::Histories;
use meter::Meter;

pub(crate) use kubelet::KubeletSettings;

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

/// What is measured, how often, and who is asked.
pub(crate) struct Settings {
    /// Below which the kernel's files are.
    pub(crate) root: PathBuf,
    /// Between two samples.
    pub(crate) interval: Duration,
    /// Between two digests, for which everything is read.
    pub(crate) digest_interval: Duration,
    pub(crate) source: SourceChoice,
    pub(crate) kubelet: KubeletSettings,
    pub(crate) gpus: GpuChoice,
    /// Whether the Node has any.
    pub(crate) has_gpus: watch::Receiver<bool>,
    pub(crate) pod_names: PodNamesQuestion,
    pub(crate) containers: ContainersQuestion,
}

/// Measuring under way, whose histories are to be on disk at the end.
#[derive(Debug)]
pub(crate) struct Measuring {
    stop: CancellationToken,
    ended: CancellationToken,
}

impl Measuring {
    /// And the task that measures and sends digests, until it's told to finish or the receiver is dropped.
    pub(crate) fn new(
        settings: Settings,
        disk: StateDir,
        inputs: mpsc::Sender<Input>,
    ) -> (Self, impl Future<Output = ()>) {
        let (stop, ended) = (CancellationToken::new(), CancellationToken::new());
        let (stopped, end) = (stop.clone(), ended.clone().drop_guard());
        let task = async move {
            // However it ends, nobody waits for it any more.
            let _end = end;
            measure(settings, disk, inputs, stopped).await;
        };
        (Self { stop, ended }, task)
    }

    /// Waits until histories are on disk, but not for long.
    pub(crate) async fn finish(&self) {
        self.stop.cancel();
        self.ended.cancelled().await;
    }
}

async fn measure(
    settings: Settings,
    disk: StateDir,
    inputs: mpsc::Sender<Input>,
    stop: CancellationToken,
) {
    let mut histories = tokio::select! {
        () = stop.cancelled() => return,
        histories = Histories::load(disk) => histories,
    };
    // Whatever is waited for: a sample that hangs, too, loses nothing but itself.
    tokio::select! {
        () = stop.cancelled() => {}
        () = sample(settings, &mut histories, inputs) => {}
    }
    histories.finish().await;
}

/// Samples, and sends digests, until the receiver is dropped.
async fn sample(settings: Settings, histories: &mut Histories, inputs: mpsc::Sender<Input>) {
    let clock = Clock::new(Reading::now());
    let mut kernel = match settings.source {
        SourceChoice::Kubelet => None,
        SourceChoice::Auto | SourceChoice::Cgroup => Some(Kernel::new(&settings.root)),
    };
    let gpus = Gpus::start(settings.gpus, settings.has_gpus, settings.pod_names.clone());
    let mut fallback = Fallback::new(settings.source, settings.kubelet, settings.pod_names);
    let pace = if kernel.is_some() { settings.interval } else { settings.digest_interval };
    let mut ticks = tokio::time::interval(pace);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut digest_at = Instant::now();
    loop {
        ticks.tick().await;
        // Half a sample early rather than one late: ticks come when they come.
        let due = Instant::now() + pace / 2 >= digest_at;
        let mut sight = Sight::Nothing;
        let mut names = None;
        if let Some(reading) = kernel.take() {
            if due {
                names = Some(Arc::new(settings.containers.ask().await));
            }
            let sampled = reading.sample(names.clone(), &clock).await;
            let Some((returned, seen)) = sampled else { return };
            kernel = Some(returned);
            sight = seen;
        }
        if due {
            digest_at = Instant::now() + settings.digest_interval;
            fallback.look(sight).await;
            let own = kernel.as_mut().and_then(|kernel| kernel.window.digest());
            let mut digest = fallback.complete(own);
            if let Some(digest) = &mut digest {
                if let Some(gpus) = &gpus {
                    gpus.write(digest);
                }
                let names = names.unwrap_or_default();
                histories.take(digest, &names, clock.carried());
            }
            if inputs.send(Input::Usage(digest)).await.is_err() {
                return;
            }
        }
        histories.keep();
        if inputs.is_closed() {
            return;
        }
    }
}

/// The kernel's files, and what they said since the last digest.
struct Kernel {
    meter: Meter,
    window: UsageWindow,
    failing: bool,
}

impl Kernel {
    fn new(root: &Path) -> Self {
        Self { meter: Meter::new(root), window: UsageWindow::default(), failing: false }
    }

    /// Reads everything, with the containers of these names, or what changes from second to second; says
    /// what was seen. `None` only when the runtime ends.
    async fn sample(
        self,
        all: Option<Arc<ContainerNames>>,
        clock: &Clock,
    ) -> Option<(Self, Sight)> {
        let Self { mut meter, mut window, mut failing } = self;
        // The files are made by the kernel on the spot and may be slow on a loaded node.
        let sampled = tokio::task::spawn_blocking(move || {
            let sample = meter.sample(all.as_deref());
            (meter, sample)
        });
        let (meter, sample) = sampled.await.ok()?;
        let sight = match sample {
            Ok(sample) => {
                failing = false;
                let sight = if sample.pods.is_empty() { Sight::Node } else { Sight::Pods };
                window.add(clock.carried(), sample);
                sight
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "The kernel's files can't be read.");
                }
                window = UsageWindow::default();
                Sight::Nothing
            }
        };
        Some((Self { meter, window, failing }, sight))
    }
}

/// Empty if the folder can't be read.
fn subfolders(folder: &Path) -> Vec<PathBuf> {
    readable_subfolders(folder).unwrap_or_default()
}

fn readable_subfolders(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let is_folder = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    let entries = fs::read_dir(folder)?.flatten();
    Ok(entries.filter(is_folder).map(|entry| entry.path()).collect())
}
