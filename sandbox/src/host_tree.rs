//! The kernel's files of simulated machines, for agents that measure: `/proc` and cgroup v2.
//!
//! Below the root each instance has a folder that stands for its `/`. The files hold what an agent
//! reads: counters that grow with simulated use, in the kernel's formats. Each is overwritten by a
//! single write of the same or a greater length, so that no reader ever sees half of one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use drover_common::id::InstanceId;
use jiff::Timestamp;

use crate::world::cluster::{self, MachineUse};

mod cgroups;

use cgroups::PodCounters;

/// The share of a machine's memory, in percent, from which on reclaim makes tasks wait.
const MEMORY_PRESSURE_FROM: i64 = 85;

/// Writes and keeps the files of every machine.
#[derive(Debug)]
pub struct HostTrees {
    root: PathBuf,
    machines: BTreeMap<InstanceId, Counters>,
    written: Option<Timestamp>,
}

/// What grows on a machine.
#[derive(Debug, Default)]
struct Counters {
    /// The boot that they count from.
    boots: u32,
    busy_usec: u64,
    idle_usec: u64,
    stalled_usec: [u64; 3],
    pods: BTreeMap<String, PodCounters>,
}

impl HostTrees {
    /// Trees below `root`, one folder an instance id.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), machines: BTreeMap::new(), written: None }
    }

    /// How many files a round writes.
    pub fn files(&self) -> usize {
        let pods =
            |machine: &Counters| machine.pods.values().map(PodCounters::files).sum::<usize>();
        self.machines.values().map(|machine| 6 + pods(machine)).sum()
    }

    /// Moves every counter on to `now` and writes all files; the folders of machines that are gone
    /// are removed.
    ///
    /// # Errors
    /// The first file that cannot be written; the others are.
    pub fn write(&mut self, usage: &[MachineUse], now: Timestamp) -> io::Result<()> {
        let elapsed =
            self.written.map_or(0, |before| now.duration_since(before).as_micros().max(0));
        let elapsed = u64::try_from(elapsed).unwrap_or(0);
        self.written = Some(now);
        let mut result = Ok(());
        let there: BTreeSet<&InstanceId> = usage.iter().map(|machine| &machine.instance).collect();
        let gone: Vec<InstanceId> =
            self.machines.keys().filter(|id| !there.contains(id)).cloned().collect();
        for id in gone {
            self.machines.remove(&id);
            result = result.and(remove_folder(&self.root.join(id.as_str())));
        }
        for machine in usage {
            let folder = self.root.join(machine.instance.as_str());
            // One that stopped and started since the last round was never seen to be gone.
            let known = self.machines.get(&machine.instance);
            if known.is_none_or(|known| known.boots != machine.boots) {
                result = result.and(remove_folder(&folder)).and(lay_out(&folder, machine));
                let counters = Counters { boots: machine.boots, ..Counters::default() };
                self.machines.insert(machine.instance.clone(), counters);
            }
            let Some(counters) = self.machines.get_mut(&machine.instance) else { continue };
            counters.advance(machine, elapsed);
            result = result.and(counters.write(&folder, machine));
        }
        result
    }
}

/// Makes the folders, and the files that never change.
fn lay_out(folder: &Path, machine: &MachineUse) -> io::Result<()> {
    for path in ["proc/pressure", "proc/sys/kernel/random"] {
        fs::create_dir_all(folder.join(path))?;
    }
    fs::create_dir_all(folder.join("sys/fs/cgroup").join(cgroups::ROOT))?;
    let boot = folder.join("proc/sys/kernel/random/boot_id");
    fs::write(boot, format!("{}\n", cluster::boot_id(&machine.instance, machine.boots)))
}

fn remove_folder(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Overwrites from the start and does not shorten.
fn overwrite(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    file.write_all(text.as_bytes())
}

/// The share of a time, for a part of a whole.
fn share(usec: u64, part: i64, whole: i64) -> u64 {
    let part = u128::try_from(part).unwrap_or(0);
    let whole = u128::try_from(whole).unwrap_or(0);
    let share = u128::from(usec).saturating_mul(part).checked_div(whole).unwrap_or(0);
    u64::try_from(share).unwrap_or(u64::MAX)
}

impl Counters {
    fn advance(&mut self, machine: &MachineUse, elapsed: u64) {
        let whole = share(elapsed, machine.cpu_capacity, 1000);
        let busy = share(elapsed, machine.cpu, 1000);
        self.busy_usec = self.busy_usec.saturating_add(busy);
        self.idle_usec = self.idle_usec.saturating_add(whole.saturating_sub(busy));
        // Tasks wait for as much of the time as a share of the wish is unmet.
        let wanted = machine.cpu.saturating_add(machine.cpu_unmet);
        let cpu_stall = share(elapsed, machine.cpu_unmet, wanted);
        let from = machine.memory_capacity / 100 * MEMORY_PRESSURE_FROM;
        let over = machine.memory.saturating_sub(from).max(0);
        let memory_stall = share(elapsed, over, machine.memory_capacity.saturating_sub(from));
        for (total, stalled) in self.stalled_usec.iter_mut().zip([cpu_stall, memory_stall, 0]) {
            *total = total.saturating_add(stalled);
        }
        for pod in &machine.pods {
            let new = || PodCounters::new(pod);
            self.pods.entry(pod.uid.clone()).or_insert_with(new).advance(pod, elapsed);
        }
    }

    fn write(&mut self, folder: &Path, machine: &MachineUse) -> io::Result<()> {
        // USER_HZ is 100: a tick is 10,000 microseconds.
        let (busy, idle) = (self.busy_usec / 10_000, self.idle_usec / 10_000);
        let stat = format!("cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\n");
        overwrite(&folder.join("proc/stat"), &stat)?;
        let (total, used) = (machine.memory_capacity / 1024, machine.memory / 1024);
        let free = total.saturating_sub(used);
        let meminfo = format!(
            "MemTotal:     {total:>12} kB\nMemFree:      {free:>12} kB\nMemAvailable: {free:>12} kB\n"
        );
        overwrite(&folder.join("proc/meminfo"), &meminfo)?;
        for (name, total) in ["cpu", "memory", "io"].iter().zip(self.stalled_usec) {
            let averages = "avg10=0.00 avg60=0.00 avg300=0.00";
            let text = format!("some {averages} total={total:<20}\nfull {averages} total=0\n");
            overwrite(&folder.join("proc/pressure").join(name), &text)?;
        }
        let cgroups = folder.join("sys/fs/cgroup").join(cgroups::ROOT);
        self.forget_gone(&cgroups, machine)?;
        for pod in &machine.pods {
            if let Some(counters) = self.pods.get(&pod.uid) {
                counters.write(&cgroups, pod)?;
            }
        }
        Ok(())
    }

    fn forget_gone(&mut self, cgroups: &Path, machine: &MachineUse) -> io::Result<()> {
        let there: BTreeSet<&str> = machine.pods.iter().map(|pod| pod.uid.as_str()).collect();
        let gone: Vec<String> =
            self.pods.keys().filter(|uid| !there.contains(uid.as_str())).cloned().collect();
        for uid in gone {
            if let Some(counters) = self.pods.remove(&uid) {
                remove_folder(&cgroups.join(counters.place))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use drover_common::cluster::ObjectKey;

    use super::*;
    use crate::world::cluster::{ContainerUse, PodUse};

    fn machine(cpu: i64, unmet: i64) -> MachineUse {
        MachineUse {
            instance: InstanceId::from("i-1"),
            boots: 1,
            cpu_capacity: 2000,
            memory_capacity: 8 << 30,
            cpu,
            cpu_unmet: unmet,
            memory: 4 << 30,
            pods: vec![PodUse {
                key: ObjectKey::new("default", "web"),
                uid: "aaaa-bbbb".to_owned(),
                quality: "Burstable",
                cpu: 500,
                memory: 1 << 30,
                containers: [("c1", 800), ("c2", 200)]
                    .map(|(id, cpu_share)| ContainerUse {
                        id: id.to_owned(),
                        cpu_share,
                        memory_share: 500,
                    })
                    .to_vec(),
            }],
        }
    }

    /// It may have been off for less than a round.
    #[test]
    fn a_machine_that_boots_again_has_another_boot_and_counts_anew() {
        let root = tempfile::tempdir().unwrap();
        let mut trees = HostTrees::new(root.path());
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut read_after = |boots: u32, seconds: i64| {
            let on = MachineUse { boots, ..machine(1000, 0) };
            trees.write(&[on], start + jiff::SignedDuration::from_secs(seconds)).unwrap();
            let read = |path: &str| fs::read_to_string(root.path().join("i-1").join(path)).unwrap();
            (read("proc/sys/kernel/random/boot_id"), read("proc/stat"))
        };
        read_after(1, 0);
        let (boot, stat) = read_after(1, 10);
        let (next_boot, next_stat) = read_after(2, 11);
        assert_eq!(
            (stat.as_str(), next_stat.as_str()),
            ("cpu  1000 0 0 1000 0 0 0 0 0 0\n", "cpu  100 0 0 100 0 0 0 0 0 0\n")
        );
        assert_ne!(boot, next_boot);
    }

    #[test]
    fn counters_grow_with_use_and_folders_go_with_their_pods_and_machines() {
        let root = tempfile::tempdir().unwrap();
        let mut trees = HostTrees::new(root.path());
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let later = start + jiff::SignedDuration::from_secs(10);
        trees.write(&[machine(1000, 0)], start).unwrap();
        let folder = root.path().join("i-1");
        let read = |path: &str| fs::read_to_string(folder.join(path)).unwrap();
        assert_eq!(read("proc/stat"), "cpu  0 0 0 0 0 0 0 0 0 0\n");
        assert_eq!(read("proc/sys/kernel/random/boot_id").trim().len(), 36);
        trees.write(&[machine(1500, 500)], later).unwrap();
        // 10 s at 1.5 of 2 cores, in hundredths of a second.
        assert_eq!(read("proc/stat"), "cpu  1500 0 0 500 0 0 0 0 0 0\n");
        assert!(read("proc/meminfo").contains("MemAvailable:      4194304 kB"));
        let pressure = read("proc/pressure/cpu");
        assert!(pressure.starts_with("some ") && pressure.contains("total=2500000"), "{pressure}");
        let pod = "sys/fs/cgroup/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podaaaa_bbbb.slice";
        assert_eq!(read(&format!("{pod}/cpu.stat")), "usage_usec 5000000\n");
        assert_eq!(read(&format!("{pod}/memory.current")).trim(), "1073741824");
        let io = read(&format!("{pod}/io.stat"));
        assert!(io.starts_with("259:0 rbytes=5000000 wbytes=10000000 "), "{io}");
        let container = |id: &str| read(&format!("{pod}/cri-containerd-{id}.scope/cpu.stat"));
        assert_eq!(container("c1"), "usage_usec 4000000\n");
        assert_eq!(container("c2"), "usage_usec 1000000\n");
        let mut empty = machine(0, 0);
        empty.pods.clear();
        trees.write(&[empty], later).unwrap();
        assert!(!folder.join(pod).exists());
        trees.write(&[], later).unwrap();
        assert!(!folder.exists());
    }

    #[test]
    fn a_guaranteed_pods_group_has_no_class_and_containers_have_their_parts() {
        let root = tempfile::tempdir().unwrap();
        let mut trees = HostTrees::new(root.path());
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut guaranteed = machine(1000, 0);
        guaranteed.pods[0].quality = "Guaranteed";
        trees.write(&[guaranteed], start).unwrap();
        let pods = root.path().join("i-1/sys/fs/cgroup/kubepods.slice");
        let container = pods.join("kubepods-podaaaa_bbbb.slice/cri-containerd-c2.scope");
        let memory = fs::read_to_string(container.join("memory.current")).unwrap();
        assert_eq!(memory.trim(), (((1_i64 << 30) / 1000) * 500).to_string());
        assert!(container.join("memory.stat").exists());
    }
}
