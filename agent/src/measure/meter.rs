//! Reads samples below a host's root.

use std::fs::File;
use std::path::{Path, PathBuf};

use drover_agent_core::usage::{self, ContainerNames, NodeRest, Sample, UnreadableFile};
use rustix::process::{Resource, getrlimit};
use sysinfo::System;

use super::MeasureError;
use super::kept::{Buffer, Kept};
use super::pods::Pods;

/// Everything that is measured, with its files.
#[derive(Debug)]
pub(crate) struct Meter {
    root: PathBuf,
    /// The machine's own memory, where its root is ours. Its CPU is read everywhere alike: `sysinfo` counts
    /// time that the hypervisor stole as use, so that a throttled machine would look busy.
    system: Option<System>,
    stat: Kept,
    pressure: Option<[File; 3]>,
    pods: Pods,
    buffer: Buffer,
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
        // Where `sysinfo` does not know the system its files are read.
        let system = if root == Path::new("/") { System::new().ok() } else { None };
        let open = |name: &str| File::open(root.join("proc/pressure").join(name)).ok();
        let pressure = || Some([open("cpu")?, open("memory")?, open("io")?]);
        Self {
            root: root.to_owned(),
            system,
            stat: Kept::new(root.join("proc/stat"), &mut 1),
            pressure: pressure(),
            pods: Pods::new(root.join("sys/fs/cgroup"), root.join("proc"), most_kept),
            buffer: Buffer::new(),
        }
    }

    /// Reads everything once, with the containers of these names, or only what changes from second to second.
    pub(crate) fn sample(&mut self, all: Option<&ContainerNames>) -> Result<Sample, MeasureError> {
        let cpu_usec = self.cpu()?;
        let rest = if all.is_some() { Some(self.rest()?) } else { None };
        if all.is_some() {
            self.pods.find();
        }
        Ok(Sample { cpu_usec, rest, pods: self.pods.sample(all, &mut self.buffer) })
    }

    fn rest(&mut self) -> Result<NodeRest, MeasureError> {
        Ok(NodeRest {
            memory_working_set: self.memory()?,
            stalled_usec: self.stalled(),
            traffic: self.traffic(),
            oom_kills: self.parse("proc/vmstat", usage::oom_kills).ok(),
        })
    }

    /// The first line says it all. The rest, of each core and each interrupt, is long on large machines.
    fn cpu(&mut self) -> Result<u64, MeasureError> {
        let path = || self.root.join("proc/stat");
        match self.buffer.read_beginning_of(&self.stat) {
            Ok(text) => usage::node_cpu_usage(text)
                .map_err(|error| MeasureError::Parse { path: path(), error }),
            Err(error) => Err(MeasureError::Read { path: path(), error }),
        }
    }

    fn memory(&mut self) -> Result<u64, MeasureError> {
        let (total, available) = match &mut self.system {
            Some(system) => {
                system.refresh_memory();
                (system.total_memory(), system.available_memory())
            }
            None => self.parse("proc/meminfo", usage::available_memory)?,
        };
        Ok(total.saturating_sub(available))
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
