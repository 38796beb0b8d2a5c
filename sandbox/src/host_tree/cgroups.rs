//! The control groups of a simulated machine's pods and their containers, named as kubelet and containerd do.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{overwrite, share};
use crate::world::cluster::PodUse;

/// The folder of all pods, below the mount of control groups: what the systemd driver makes, which EKS'
/// images use.
pub(super) const ROOT: &str = "kubepods.slice";

fn pod_folder(pod: &PodUse) -> PathBuf {
    let uid = pod.uid.replace('-', "_");
    match pod.quality {
        "Guaranteed" => PathBuf::from(format!("kubepods-pod{uid}.slice")),
        quality => {
            let class = quality.to_lowercase();
            PathBuf::from(format!("kubepods-{class}.slice/kubepods-{class}-pod{uid}.slice"))
        }
    }
}

/// What grows in a pod's group and in those below it.
#[derive(Debug)]
pub(super) struct PodCounters {
    /// Below the folder of all pods.
    pub(super) place: PathBuf,
    cpu_usec: u64,
    containers: BTreeMap<String, u64>,
}

impl PodCounters {
    pub(super) fn new(pod: &PodUse) -> Self {
        Self { place: pod_folder(pod), cpu_usec: 0, containers: BTreeMap::new() }
    }

    /// How many files a round writes.
    pub(super) fn files(&self) -> usize {
        3 + 2 * self.containers.len()
    }

    pub(super) fn advance(&mut self, pod: &PodUse, elapsed: u64) {
        let used = share(elapsed, pod.cpu, 1000);
        self.cpu_usec = self.cpu_usec.saturating_add(used);
        for container in &pod.containers {
            let total = self.containers.entry(container.id.clone()).or_default();
            *total = total.saturating_add(share(used, container.cpu_share, 1000));
        }
    }

    /// Writes the groups. A pod reads a byte from disk for each microsecond that it computes, and writes two.
    pub(super) fn write(&self, pods: &Path, pod: &PodUse) -> io::Result<()> {
        let folder = pods.join(&self.place);
        write_group(&folder, self.cpu_usec, pod.memory)?;
        let (read, written) = (self.cpu_usec, self.cpu_usec.saturating_mul(2));
        let (reads, writes) = (read / 4096, written / 4096);
        let io = format!(
            "259:0 rbytes={read} wbytes={written} rios={reads} wios={writes} dbytes=0 dios=0\n"
        );
        overwrite(&folder.join("io.stat"), &io)?;
        for container in &pod.containers {
            let used = self.containers.get(&container.id).copied().unwrap_or(0);
            let memory = pod.memory / 1000 * container.memory_share;
            let scope = format!("cri-containerd-{}.scope", container.id);
            write_group(&folder.join(scope), used, memory)?;
        }
        Ok(())
    }
}

/// Files that every group has. What never changes is there before what tells that the group is.
fn write_group(folder: &Path, cpu_usec: u64, memory: i64) -> io::Result<()> {
    if !folder.exists() {
        fs::create_dir_all(folder)?;
        overwrite(&folder.join("memory.stat"), "inactive_file 0\n")?;
    }
    overwrite(&folder.join("memory.current"), &format!("{memory:<20}\n"))?;
    overwrite(&folder.join("cpu.stat"), &format!("usage_usec {cpu_usec}\n"))
}
