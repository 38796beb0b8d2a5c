//! The control groups of pods, of either driver, with their files kept open, and those of their containers.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use drover_agent_core::usage::{self, ContainerNames, LimitPeriods, PodRest, PodSample};

use super::containers::Containers;
use super::kept::{Buffer, Kept};
use super::network::{Networks, OwnNetwork};
use super::subfolders;

/// Every pod's files.
#[derive(Debug)]
pub(crate) struct Pods {
    cgroups: PathBuf,
    groups: BTreeMap<Arc<str>, Group>,
    networks: Networks,
    /// How many files may stay open of those that are read a tenth as often and are more, `io.stat` and containers',
    /// and how many more those are for now.
    most_kept: usize,
    room: usize,
}

/// The files of one pod. Those of pressure are missing on kernels without PSI.
#[derive(Debug)]
struct Group {
    folder: PathBuf,
    cpu: File,
    cpu_pressure: Option<File>,
    memory: File,
    memory_stat: File,
    memory_events: Option<File>,
    memory_pressure: Option<File>,
    io_pressure: Option<File>,
    io_stat: Kept,
    network: OwnNetwork,
    containers: Containers,
    /// CPU time when it was read last, and what it had stalled by then.
    stalled: Option<(u64, Option<u64>)>,
}

impl Pods {
    pub(crate) fn new(cgroups: PathBuf, proc: PathBuf, most_kept: usize) -> Self {
        let networks = Networks::new(proc);
        Self { cgroups, groups: BTreeMap::new(), networks, most_kept, room: most_kept }
    }

    /// How many files stay open that need not.
    pub(super) fn kept(&self) -> usize {
        self.groups.values().map(Group::kept).sum()
    }

    /// Looks for pods that came, and drops those that went.
    pub(crate) fn find(&mut self) {
        self.networks.look();
        self.room = self.most_kept.saturating_sub(self.kept());
        let mut found = BTreeMap::new();
        let mut look = |folder: &Path| {
            let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some(uid) = usage::pod_uid_of_directory(name) else { return };
            // A group of the same name may be another one by now; its files then read as gone.
            let known = self.groups.remove_entry(uid.as_str());
            let entry = known
                .or_else(|| Some((Arc::from(uid.as_str()), Group::open(folder, &mut self.room)?)));
            found.extend(entry);
        };
        for root in ["kubepods.slice", "kubepods"] {
            for folder in subfolders(&self.cgroups.join(root)) {
                look(&folder);
                let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                let is_class = usage::pod_uid_of_directory(name).is_none()
                    && (name.contains("burstable") || name.contains("besteffort"));
                if is_class {
                    subfolders(&folder).iter().for_each(|folder| look(folder));
                }
            }
        }
        self.groups = found;
    }

    /// Reads every pod; `all` of what there is, of containers those of these names, or only what changes from
    /// second to second. A pod that ends while it's read is left out, and looked for anew.
    pub(crate) fn sample(
        &mut self,
        all: Option<&ContainerNames>,
        buffer: &mut Buffer,
    ) -> Vec<PodSample> {
        let mut samples = Vec::with_capacity(self.groups.len());
        let (networks, room) = (&self.networks, &mut self.room);
        self.groups.retain(|uid, group| match group.sample(uid, all, networks, room, buffer) {
            Some(sample) => {
                samples.push(sample);
                true
            }
            None => false,
        });
        samples
    }
}

impl Group {
    fn open(folder: &Path, room: &mut usize) -> Option<Self> {
        let open = |name: &str| File::open(folder.join(name)).ok();
        Some(Self {
            folder: folder.to_owned(),
            cpu: open("cpu.stat")?,
            cpu_pressure: open("cpu.pressure"),
            memory: open("memory.current")?,
            memory_stat: open("memory.stat")?,
            memory_events: open("memory.events"),
            memory_pressure: open("memory.pressure"),
            io_pressure: open("io.pressure"),
            io_stat: Kept::new(folder.join("io.stat"), room),
            network: OwnNetwork::default(),
            containers: Containers::default(),
            stalled: None,
        })
    }

    /// How many files stay open of those that need not.
    fn kept(&self) -> usize {
        usize::from(self.io_stat.is_open()).saturating_add(self.containers.kept())
    }

    fn sample(
        &mut self,
        uid: &Arc<str>,
        all: Option<&ContainerNames>,
        networks: &Networks,
        room: &mut usize,
        buffer: &mut Buffer,
    ) -> Option<PodSample> {
        let cpu = buffer.read_piece(&self.cpu).ok()?;
        let cpu_usec = usage::cpu_usage(cpu).ok()?;
        let limit = if all.is_some() { usage::limit_periods(cpu) } else { LimitPeriods::default() };
        let stalled_usec = self.stalled(cpu_usec, all.is_some(), buffer);
        let (mut rest, mut measured) = (None, Vec::new());
        if let Some(all) = all {
            let names = all.get(uid).map(Vec::as_slice).unwrap_or_default();
            let network = self.network.read(networks, &self.folder, names, buffer);
            rest = Some(PodRest { network, ..self.rest(limit, buffer)? });
            if !names.is_empty() {
                measured = self.containers.sample(&self.folder, names, room, buffer);
            }
        }
        Some(PodSample { uid: Arc::clone(uid), cpu_usec, stalled_usec, rest, containers: measured })
    }

    /// How long some task stalled on CPU. Who has not run since has stalled no longer, but for a machine that
    /// runs nothing of it for a second; that is seen when all is read.
    fn stalled(&mut self, cpu_usec: u64, all: bool, buffer: &mut Buffer) -> Option<u64> {
        match self.stalled {
            Some((before, stalled)) if before == cpu_usec && !all => stalled,
            _ => {
                let stalled = stalled(self.cpu_pressure.as_ref(), buffer);
                self.stalled = Some((cpu_usec, stalled));
                stalled
            }
        }
    }

    /// All but the network.
    fn rest(&self, limit: LimitPeriods, buffer: &mut Buffer) -> Option<PodRest> {
        let current = usage::number(buffer.read_piece(&self.memory).ok()?).ok()?;
        let cache = usage::inactive_file(buffer.read_piece(&self.memory_stat).ok()?).ok()?;
        let disk_bytes =
            buffer.read_kept(&self.io_stat).ok().and_then(|text| usage::io_bytes(text).ok());
        let memory = stalled(self.memory_pressure.as_ref(), buffer);
        let io = stalled(self.io_pressure.as_ref(), buffer);
        let events = self.memory_events.as_ref();
        let kills = events.and_then(|file| usage::oom_kills(buffer.read_piece(file).ok()?).ok());
        Some(PodRest {
            limit,
            memory_working_set: current.saturating_sub(cache),
            stalled_usec: memory.zip(io).map(|(memory, io)| [memory, io]),
            oom_kills: kills.unwrap_or(0),
            disk_bytes,
            network: None,
        })
    }
}

fn stalled(file: Option<&File>, buffer: &mut Buffer) -> Option<u64> {
    usage::stalled(buffer.read_piece(file?).ok()?).ok()
}
