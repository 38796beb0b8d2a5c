//! Measures use from the kernel's files.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use drover_agent_core::Input;
use drover_agent_core::usage::{self, PodSample, Sample, UnreadableFile, UsageWindow};
use sysinfo::System;
use tokio::sync::mpsc;

use crate::clock::Clock;

#[cfg(test)]
mod tests;

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

/// Reads samples below a host's root.
#[derive(Debug)]
pub(crate) struct Meter {
    root: PathBuf,
    /// The machine's own totals, where its root is ours.
    system: Option<Totals>,
}

/// `sysinfo` gives CPU use as a share since the last read; it's summed up to a counter here.
#[derive(Debug)]
struct Totals {
    system: System,
    read_at: Instant,
    cpu_usec: u64,
}

impl Totals {
    /// `None` where `sysinfo` does not know the system; its files are read then.
    fn new() -> Option<Self> {
        let mut system = System::new().ok()?;
        system.refresh_cpu_usage();
        Some(Self { system, read_at: Instant::now(), cpu_usec: 0 })
    }

    fn read(&mut self) -> (u64, u64) {
        self.system.refresh_cpu_usage();
        self.system.refresh_memory();
        let elapsed = self.read_at.elapsed();
        self.read_at = Instant::now();
        let cores = self.system.cpus().len();
        let share = f64::from(self.system.global_cpu_usage()).clamp(0.0, 100.0) / 100.0;
        let used = elapsed.mul_f64(share).saturating_mul(u32::try_from(cores).unwrap_or(1));
        let usec = u64::try_from(used.as_micros()).unwrap_or(0);
        self.cpu_usec = self.cpu_usec.saturating_add(usec);
        let memory = self.system.total_memory().saturating_sub(self.system.available_memory());
        (self.cpu_usec, memory)
    }
}

impl Meter {
    pub(crate) fn new(root: &Path) -> Self {
        let system = if root == Path::new("/") { Totals::new() } else { None };
        Self { root: root.to_owned(), system }
    }

    /// Reads everything once.
    pub(crate) fn sample(&mut self) -> Result<Sample, MeasureError> {
        let (cpu_usec, memory_working_set) = match &mut self.system {
            Some(system) => system.read(),
            None => {
                let proc = self.root.join("proc");
                let cpu_usec = parse(&proc.join("stat"), usage::node_cpu_usage)?;
                let (total, available) = parse(&proc.join("meminfo"), usage::available_memory)?;
                (cpu_usec, total.saturating_sub(available))
            }
        };
        let cgroups = self.root.join("sys/fs/cgroup");
        Ok(Sample {
            cpu_usec,
            memory_working_set,
            stalled_usec: self.stalled(),
            pods: pods(&cgroups),
        })
    }

    /// The node's stall times; `None` on kernels without PSI.
    fn stalled(&self) -> Option<[u64; 3]> {
        let folder = self.root.join("proc/pressure");
        let read = |name: &str| parse(&folder.join(name), usage::stalled).ok();
        Some([read("cpu")?, read("memory")?, read("io")?])
    }
}

fn parse<T>(
    path: &Path,
    parser: impl FnOnce(&str) -> Result<T, UnreadableFile>,
) -> Result<T, MeasureError> {
    let text = fs::read_to_string(path)
        .map_err(|error| MeasureError::Read { path: path.to_owned(), error })?;
    parser(&text).map_err(|error| MeasureError::Parse { path: path.to_owned(), error })
}

/// The pods below `kubepods`, of either driver. A pod that ends while it's read is left out.
fn pods(cgroups: &Path) -> BTreeMap<String, PodSample> {
    let mut pods = BTreeMap::new();
    for root in ["kubepods.slice", "kubepods"] {
        let root = cgroups.join(root);
        for folder in subfolders(&root) {
            add_pod(&folder, &mut pods);
            let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.contains("burstable") || name.contains("besteffort") {
                for folder in subfolders(&folder) {
                    add_pod(&folder, &mut pods);
                }
            }
        }
    }
    pods
}

fn add_pod(folder: &Path, pods: &mut BTreeMap<String, PodSample>) {
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Some(uid) = usage::pod_uid_of_directory(name) else { return };
    let sample = || -> Result<PodSample, MeasureError> {
        let current = parse(&folder.join("memory.current"), usage::number)?;
        let cache = parse(&folder.join("memory.stat"), usage::inactive_file)?;
        Ok(PodSample {
            cpu_usec: parse(&folder.join("cpu.stat"), usage::cpu_usage)?,
            memory_working_set: current.saturating_sub(cache),
        })
    };
    if let Ok(sample) = sample() {
        pods.insert(uid, sample);
    }
}

fn subfolders(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let is_folder = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    entries.flatten().filter(is_folder).map(|entry| entry.path()).collect()
}

/// Samples each `interval` and sends a digest each `digest_interval` until the receiver is dropped.
pub(crate) async fn measure(
    root: PathBuf,
    interval: Duration,
    digest_interval: Duration,
    inputs: mpsc::Sender<Input>,
) {
    let clock = Clock::new();
    let mut meter = Meter::new(&root);
    let mut window = UsageWindow::default();
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut failing = false;
    let mut digest_at = Instant::now() + digest_interval;
    loop {
        ticks.tick().await;
        // The files are made by the kernel on the spot and may be slow on a loaded node.
        let sampled = tokio::task::spawn_blocking(move || {
            let sample = meter.sample();
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
        if Instant::now() >= digest_at {
            digest_at = Instant::now() + digest_interval;
            if let Some(digest) = window.digest()
                && inputs.send(Input::Usage(digest)).await.is_err()
            {
                return;
            }
        }
        if inputs.is_closed() {
            return;
        }
    }
}
