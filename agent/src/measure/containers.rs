//! The control groups of a pod's containers.

use std::path::Path;

use drover_agent_core::usage::{self, ContainerName, ContainerSample};
use drover_common::cluster::ContainerId;

use super::kept::{Buffer, Kept};
use super::readable_subfolders;

/// A container that is named and not there has ended mostly; after so many readings it's looked for again.
const PAUSE: u32 = 30;

/// The containers of one pod. Its folder is searched when there are others, for that costs as much as to read them.
#[derive(Debug, Default)]
pub(super) struct Containers {
    found: Vec<Container>,
    /// Those that were not there when the folder was searched, and how many readings that is believed for.
    missing: Vec<ContainerId>,
    pause: u32,
}

#[derive(Debug)]
struct Container {
    id: ContainerId,
    cpu: Kept,
    memory: Kept,
    memory_stat: Kept,
    memory_events: Kept,
}

impl Containers {
    /// Reads the containers in a pod's folder whose names are known. What ends meanwhile is left out. Of those that
    /// came files stay open, as many as there is `room` for.
    pub(super) fn sample(
        &mut self,
        pod: &Path,
        names: &[ContainerName],
        room: &mut usize,
        buffer: &mut Buffer,
    ) -> Vec<ContainerSample> {
        self.search(pod, names, room);
        let mut samples = Vec::with_capacity(self.found.len());
        self.found.retain(|container| {
            let named = names.iter().find(|named| named.id == Some(container.id));
            let sample = named.and_then(|named| container.read(named, buffer));
            let lives = sample.is_some();
            samples.extend(sample);
            lives
        });
        samples
    }

    /// How many files stay open.
    pub(super) fn kept(&self) -> usize {
        let files = self
            .found
            .iter()
            .flat_map(|one| [&one.cpu, &one.memory, &one.memory_stat, &one.memory_events]);
        files.filter(|file| file.is_open()).count()
    }

    fn search(&mut self, pod: &Path, names: &[ContainerName], room: &mut usize) {
        let now = self.missing_of(names);
        if now.is_empty() {
            return;
        }
        if now == self.missing && self.pause > 0 {
            self.pause = self.pause.saturating_sub(1);
            return;
        }
        // A process that may open no more files sees no folder, which says nothing about containers.
        let Ok(folders) = readable_subfolders(pod) else { return };
        for folder in folders {
            let directory = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let id = usage::container_of_directory(directory).filter(|id| now.contains(id));
            self.found.extend(id.map(|id| Container::new(id, &folder, room)));
        }
        self.missing = self.missing_of(names);
        self.pause = PAUSE;
    }

    fn missing_of(&self, names: &[ContainerName]) -> Vec<ContainerId> {
        let ids = names.iter().filter_map(|named| named.id);
        ids.filter(|id| self.found.iter().all(|one| one.id != *id)).collect()
    }
}

impl Container {
    fn new(id: ContainerId, folder: &Path, room: &mut usize) -> Self {
        let mut kept = |name: &str| Kept::new(folder.join(name), room);
        Self {
            id,
            cpu: kept("cpu.stat"),
            memory: kept("memory.current"),
            memory_stat: kept("memory.stat"),
            memory_events: kept("memory.events"),
        }
    }

    fn read(&self, named: &ContainerName, buffer: &mut Buffer) -> Option<ContainerSample> {
        let cpu = buffer.read_kept(&self.cpu).ok()?;
        let (cpu_usec, limit) = (usage::cpu_usage(cpu).ok()?, usage::limit_periods(cpu));
        let current = usage::number(buffer.read_kept(&self.memory).ok()?).ok()?;
        let cache = usage::inactive_file(buffer.read_kept(&self.memory_stat).ok()?).ok()?;
        let events = buffer.read_kept(&self.memory_events).ok();
        Some(ContainerSample {
            name: named.name.clone(),
            id: self.id,
            cpu_usec,
            limit,
            memory_working_set: current.saturating_sub(cache),
            oom_kills: events.and_then(|text| usage::oom_kills(text).ok()).unwrap_or(0),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_folder_that_could_not_be_read_is_looked_into_again() {
        let root = tempfile::tempdir().unwrap();
        let pod = root.path().join("pod");
        let hex = "1".repeat(64);
        let id = ContainerId::of_hex(&hex);
        let names = [ContainerName { name: "web".into(), id, lasts: true }];
        let (mut containers, mut room) = (Containers::default(), 8);
        let mut cpu = || -> Vec<u64> {
            let samples = containers.sample(&pod, &names, &mut room, &mut Buffer::new());
            samples.iter().map(|one| one.cpu_usec).collect()
        };
        assert_eq!(cpu(), [0; 0]);
        let folder = pod.join(&hex);
        fs::create_dir_all(&folder).unwrap();
        for (file, text) in [
            ("cpu.stat", "usage_usec 4\n"),
            ("memory.current", "5000\n"),
            ("memory.stat", "inactive_file 1000\n"),
        ] {
            fs::write(folder.join(file), text).unwrap();
        }
        assert_eq!(cpu(), [4]);
    }
}
