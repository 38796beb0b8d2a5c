//! Reads samples below a host's root.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use drover_agent_core::usage::{self, ContainerNames, Sample, UnreadableFile};
use rustix::process::{Resource, getrlimit};
use sysinfo::System;

use super::MeasureError;
use super::kept::Buffer;
use super::pods::Pods;

/// Everything that is measured, with its files.
#[derive(Debug)]
pub(crate) struct Meter {
    root: PathBuf,
    /// The machine's own totals, where its root is ours.
    system: Option<Totals>,
    pressure: Option<[File; 3]>,
    pods: Pods,
    buffer: Buffer,
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

/// Half of what the process may open beyond this is for files that are read now and then. The rest is for the others,
/// eight a pod, and for connections: where a process may have 1,024 none is left.
const RESERVED: u64 = 2_048;
/// No more of them: the kernel holds a page for each that was read, which counts against the agent's memory limit.
const MOST_KEPT: u64 = 1_000;

fn most_kept(open_files: Option<u64>) -> usize {
    let beyond = open_files.unwrap_or(u64::MAX).saturating_sub(RESERVED);
    usize::try_from((beyond / 2).min(MOST_KEPT)).unwrap_or(0)
}

impl Meter {
    pub(crate) fn new(root: &Path) -> Self {
        Self::keeping(root, most_kept(getrlimit(Resource::Nofile).current))
    }

    /// With so many files kept open besides those that are read each second.
    pub(super) fn keeping(root: &Path, most_kept: usize) -> Self {
        let system = if root == Path::new("/") { Totals::new() } else { None };
        let open = |name: &str| File::open(root.join("proc/pressure").join(name)).ok();
        let pressure = || Some([open("cpu")?, open("memory")?, open("io")?]);
        Self {
            root: root.to_owned(),
            system,
            pressure: pressure(),
            pods: Pods::new(root.join("sys/fs/cgroup"), root.join("proc"), most_kept),
            buffer: Buffer::new(),
        }
    }

    /// Reads everything once, with the containers of these names, or only what changes from second to second.
    pub(crate) fn sample(&mut self, all: Option<&ContainerNames>) -> Result<Sample, MeasureError> {
        let (cpu_usec, memory_working_set) = match &mut self.system {
            Some(system) => system.read(),
            None => {
                let cpu_usec = self.parse("proc/stat", usage::node_cpu_usage)?;
                let (total, available) = self.parse("proc/meminfo", usage::available_memory)?;
                (cpu_usec, total.saturating_sub(available))
            }
        };
        if all.is_some() {
            self.pods.find();
        }
        Ok(Sample {
            cpu_usec,
            memory_working_set,
            stalled_usec: self.stalled(),
            traffic: all.and_then(|_| self.traffic()),
            pods: self.pods.sample(all, &mut self.buffer),
        })
    }

    /// The node's stall times; `None` on kernels without PSI.
    fn stalled(&mut self) -> Option<[u64; 3]> {
        let [cpu, memory, io] = self.pressure.as_ref()?;
        let buffer = &mut self.buffer;
        let mut read = |file| usage::stalled(buffer.read(file).ok()?).ok();
        Some([read(cpu)?, read(memory)?, read(io)?])
    }

    fn traffic(&mut self) -> Option<[u64; 4]> {
        let [received, sent] = self.parse("proc/net/dev", usage::network_bytes).ok()?;
        let [read, written] = self.parse("proc/diskstats", usage::disk_bytes).ok()?;
        Some([received, sent, read, written])
    }

    fn parse<T>(
        &mut self,
        name: &str,
        parser: impl FnOnce(&str) -> Result<T, UnreadableFile>,
    ) -> Result<T, MeasureError> {
        let path = self.root.join(name);
        match self.buffer.read_path(&path) {
            Ok(text) => parser(text).map_err(|error| MeasureError::Parse { path, error }),
            Err(error) => Err(MeasureError::Read { path, error }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Meter {
        /// How many files stay open that need not.
        pub(in crate::measure) fn kept(&self) -> usize {
            self.pods.kept()
        }
    }

    #[test]
    fn files_stay_open_where_there_are_enough_and_no_more_than_memory_is_for() {
        let limits = [Some(0), Some(1_024), Some(2_048), Some(4_048), Some(1 << 20), None];
        assert_eq!(limits.map(most_kept), [0, 0, 0, 1_000, 1_000, 1_000]);
        assert_eq!(most_kept(Some(2_148)), 50);
    }
}
