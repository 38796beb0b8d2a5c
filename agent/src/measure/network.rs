//! The network of pods, each as one of the pod's own processes sees it.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use drover_agent_core::usage::{self, ContainerName, PodNetwork};

use super::kept::Buffer;
use super::subfolders;

/// Where no process of a pod shows a network of its own (the pod has the node's, its sandbox is still to
/// come, or processes are out of sight), one is looked for more and more rarely: after so many readings at most.
const LONGEST_PAUSE: u32 = 32;
/// Of one pod no more groups are searched, and in each no more processes tried.
const MOST_GROUPS: usize = 16;
const MOST_PROCESSES: usize = 3;

/// Processes, and which network is the machine's own.
#[derive(Debug)]
pub(super) struct Networks {
    proc: PathBuf,
    machine: Option<u64>,
}

/// A pod's network, once a process shows it.
#[derive(Debug, Default)]
pub(super) struct OwnNetwork {
    shown_by: Option<Process>,
    failures: u32,
    pause: u32,
}

/// A process and its `net/dev`. The file is kept open because to open it costs as much as to read it ten
/// times. It outlives the process, and its network with it, until the next reading.
#[derive(Debug)]
struct Process {
    folder: PathBuf,
    /// The number of the folder: a later process of the same id has another.
    number: u64,
    net_dev: File,
    namespace: u64,
}

impl Networks {
    pub(super) fn new(proc: PathBuf) -> Self {
        Self { proc, machine: None }
    }

    /// Looks which network is that of the machine's first process.
    pub(super) fn look(&mut self) {
        self.machine = number_of(&self.proc.join("1/net/dev"));
    }

    /// A process of the pod that shows a network that is not the machine's. The sandbox is asked first, whose
    /// group's id no status has: it lives as long as the network does.
    fn find(
        &self,
        pod: &Path,
        names: &[ContainerName],
        buffer: &mut Buffer,
    ) -> Option<(Process, PodNetwork)> {
        let machine = self.machine?;
        let mut groups = subfolders(pod);
        groups.sort_by_cached_key(|group| {
            let directory = group.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let id = usage::container_of_directory(directory);
            (id.is_none(), names.iter().any(|named| named.id == id))
        });
        groups.truncate(MOST_GROUPS);
        groups.iter().find_map(|group| {
            let file = File::open(group.join("cgroup.procs")).ok()?;
            let begun = buffer.read_beginning(&file).ok()?;
            let pids: Vec<u32> = usage::processes(begun).take(MOST_PROCESSES).collect();
            pids.into_iter().find_map(|pid| {
                let process = Process::open(self.proc.join(pid.to_string()))?;
                let network = process.read(buffer).filter(|_| process.namespace != machine)?;
                Some((process, network))
            })
        })
    }
}

impl OwnNetwork {
    /// What the pod received and sent so far; `None` where it has no network of its own, or nobody shows it.
    pub(super) fn read(
        &mut self,
        networks: &Networks,
        pod: &Path,
        names: &[ContainerName],
        buffer: &mut Buffer,
    ) -> Option<PodNetwork> {
        if let Some(process) = &self.shown_by {
            let network = if process.lives() { process.read(buffer) } else { None };
            if network.is_some() {
                return network;
            }
            self.shown_by = None;
        }
        if let Some(left) = self.pause.checked_sub(1) {
            self.pause = left;
            return None;
        }
        let Some((process, network)) = networks.find(pod, names, buffer) else {
            self.pause = (1 << self.failures.min(8)).min(LONGEST_PAUSE) - 1;
            self.failures = self.failures.saturating_add(1);
            return None;
        };
        *self = Self { shown_by: Some(process), failures: 0, pause: 0 };
        Some(network)
    }
}

impl Process {
    fn open(folder: PathBuf) -> Option<Self> {
        let number = number_of(&folder)?;
        let net_dev = File::open(folder.join("net/dev")).ok()?;
        // Each network has files of its own, whose numbers anyone may see; `ns/net` takes a privilege.
        let namespace = net_dev.metadata().ok()?.ino();
        Some(Self { folder, number, net_dev, namespace })
    }

    /// Whether it's still there: the file would go on telling of a network that the pod has no more.
    fn lives(&self) -> bool {
        number_of(&self.folder) == Some(self.number)
    }

    fn read(&self, buffer: &mut Buffer) -> Option<PodNetwork> {
        let bytes = usage::pod_network_bytes(buffer.read(&self.net_dev).ok()?).ok()?;
        Some(PodNetwork { namespace: self.namespace, bytes })
    }
}

fn number_of(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|data| data.ino())
}
