//! The control groups of a pod's containers.

use std::path::{Path, PathBuf};

use drover_agent_core::usage::{self, ContainerName, ContainerSample};
use drover_common::cluster::ContainerId;

use super::kept::Buffer;
use super::subfolders;

/// A container that is named and not there has ended mostly; after so many readings it's looked for again.
const PAUSE: u32 = 30;

/// Where the containers of one pod are. Its folder is searched when there are others, for that costs as much as to
/// read them.
#[derive(Debug, Default)]
pub(super) struct Containers {
    found: Vec<(ContainerId, PathBuf)>,
    /// Those that were not there when the folder was searched, and how many readings that is believed for.
    missing: Vec<ContainerId>,
    pause: u32,
}

impl Containers {
    /// Reads the containers in a pod's folder whose names are known. What ends meanwhile is left out.
    pub(super) fn sample(
        &mut self,
        pod: &Path,
        names: &[ContainerName],
        buffer: &mut Buffer,
    ) -> Vec<ContainerSample> {
        self.search(pod, names);
        let mut samples = Vec::with_capacity(self.found.len());
        self.found.retain(|(id, folder)| {
            let named = names.iter().find(|named| named.id == Some(*id));
            let sample = named.and_then(|named| read(folder, named, *id, buffer));
            let lives = sample.is_some();
            samples.extend(sample);
            lives
        });
        samples
    }

    fn search(&mut self, pod: &Path, names: &[ContainerName]) {
        let missing = |found: &[(ContainerId, PathBuf)]| -> Vec<ContainerId> {
            let ids = names.iter().filter_map(|named| named.id);
            ids.filter(|id| found.iter().all(|(one, _)| one != id)).collect()
        };
        let now = missing(&self.found);
        if now.is_empty() {
            return;
        }
        if now == self.missing && self.pause > 0 {
            self.pause = self.pause.saturating_sub(1);
            return;
        }
        self.found = find(pod);
        self.missing = missing(&self.found);
        self.pause = PAUSE;
    }
}

fn find(pod: &Path) -> Vec<(ContainerId, PathBuf)> {
    let named = |folder: PathBuf| {
        let directory = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        Some((usage::container_of_directory(directory)?, folder))
    };
    subfolders(pod).into_iter().filter_map(named).collect()
}

fn read(
    folder: &Path,
    named: &ContainerName,
    id: ContainerId,
    buffer: &mut Buffer,
) -> Option<ContainerSample> {
    let cpu = buffer.read_path_piece(&folder.join("cpu.stat")).ok()?;
    let (cpu_usec, throttled_usec) = (usage::cpu_usage(cpu).ok()?, usage::cpu_throttled(cpu));
    let memory = buffer.read_path_piece(&folder.join("memory.current")).ok()?;
    let current = usage::number(memory).ok()?;
    let memory_stat = buffer.read_path_piece(&folder.join("memory.stat")).ok()?;
    let cache = usage::inactive_file(memory_stat).ok()?;
    let events = buffer.read_path_piece(&folder.join("memory.events")).ok();
    Some(ContainerSample {
        name: named.name.clone(),
        id,
        cpu_usec,
        throttled_usec,
        memory_working_set: current.saturating_sub(cache),
        oom_kills: events.and_then(|text| usage::oom_kills(text).ok()).unwrap_or(0),
    })
}
