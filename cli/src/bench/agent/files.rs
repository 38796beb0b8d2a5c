//! A machine's files, with the sizes and forms of a real kernel's.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::node::Running;

/// How often counters grow.
const BEAT: Duration = Duration::from_secs(1);
/// The process of the first pod's sandbox.
const FIRST_PID: u32 = 1_000;
/// The id of each pod's sandbox, which no status has.
pub(super) const SANDBOX: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";

/// A pod's group below where control groups are, as the kubelet's systemd driver names it.
pub(super) fn pod_group(cgroups: &Path, uid: &str) -> PathBuf {
    let uid = uid.replace('-', "_");
    cgroups
        .join("kubepods.slice/kubepods-burstable.slice")
        .join(format!("kubepods-burstable-pod{uid}.slice"))
}

/// A container's group in its pod's, as containerd names it.
pub(super) fn container_group(pod: &Path, id: &str) -> PathBuf {
    pod.join(format!("cri-containerd-{id}.scope"))
}

/// Writes the files of memory and I/O that a group has not, and says which.
pub(super) fn write_missing(group: &Path) -> std::io::Result<Vec<&'static str>> {
    let texts = [
        ("memory.current", "100000000\n".to_owned()),
        ("memory.stat", memory_stat()),
        ("memory.events", "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n".to_owned()),
        ("io.stat", "259:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n".to_owned()),
    ];
    let mut written = Vec::new();
    for (name, text) in texts {
        if !group.join(name).exists() {
            fs::write(group.join(name), text)?;
            written.push(name);
        }
    }
    Ok(written)
}

/// The machine's files, and control groups as plain ones.
pub(super) struct Files {
    /// Groups of pods, each with those of its containers.
    pods: Vec<(PathBuf, Vec<PathBuf>)>,
    host: PathBuf,
}

impl Files {
    /// Lays out the files of the machine, and groups for these pods.
    pub(super) fn lay_out(host: &Path, pods: &[Running]) -> anyhow::Result<Self> {
        for folder in ["proc/pressure", "proc/net", "proc/sys/kernel/random", "proc/1/net"] {
            fs::create_dir_all(host.join(folder))?;
        }
        fs::write(host.join("proc/sys/kernel/random/boot_id"), "bench\n")?;
        fs::write(host.join("proc/meminfo"), "MemTotal: 64000000 kB\nMemAvailable: 32000000 kB\n")?;
        let net = "Inter-|   Receive\n face |bytes\n  eth0: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n";
        for path in ["proc/net/dev", "proc/1/net/dev"] {
            fs::write(host.join(path), net)?;
        }
        fs::write(host.join("proc/diskstats"), " 259 0 nvme0n1 1 0 8 0 1 0 8 0 0 0 0\n")?;
        for name in ["cpu", "memory", "io"] {
            fs::write(host.join("proc/pressure").join(name), pressure(0))?;
        }
        let mut folders = Vec::new();
        for (pid, (uid, ids)) in (FIRST_PID..).zip(pods) {
            let folder = pod_group(&host.join("sys/fs/cgroup"), uid);
            let containers: Vec<PathBuf> =
                ids.iter().map(|id| container_group(&folder, id)).collect();
            let sandbox = container_group(&folder, SANDBOX);
            fs::create_dir_all(&sandbox)?;
            fs::write(sandbox.join("cgroup.procs"), format!("{pid}\n"))?;
            let process = host.join(format!("proc/{pid}/net"));
            fs::create_dir_all(&process)?;
            fs::write(process.join("dev"), net)?;
            for group in containers.iter().chain([&folder]) {
                fs::create_dir_all(group)?;
                write_missing(group)?;
            }
            for name in ["cpu.pressure", "memory.pressure", "io.pressure"] {
                fs::write(folder.join(name), pressure(0))?;
            }
            folders.push((folder, containers));
        }
        let files = Self { pods: folders, host: host.to_owned() };
        files.beat(1)?;
        Ok(files)
    }

    /// Lets the counters grow until the folder is gone, in step with the clock: what is late would drift past the
    /// agent's readings, and each pod's highest second would double now and then.
    pub(super) fn live(&self) {
        let start = Instant::now();
        for beat in 2_u32.. {
            let due = BEAT.saturating_mul(beat.saturating_sub(1));
            std::thread::sleep(due.saturating_sub(start.elapsed()));
            if self.beat(beat.into()).is_err() {
                return;
            }
        }
    }

    fn beat(&self, beat: u64) -> std::io::Result<()> {
        let stat = format!("cpu  {} 0 {} {} 0 0 0 0 0 0\n", beat * 300, beat * 50, beat * 1200);
        fs::write(self.host.join("proc/stat"), stat)?;
        for (index, (folder, containers)) in self.pods.iter().enumerate() {
            let usec = beat * (20_000 + 100 * u64::try_from(index).unwrap_or(0));
            let text = format!(
                "usage_usec {usec:016}\nuser_usec {usec:016}\nsystem_usec 0\ncore_sched.force_idle_usec 0\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\nnr_bursts 0\nburst_usec 0\n"
            );
            let memory = format!("{}\n", 100_000_000 + beat * 4096);
            for group in containers.iter().chain([folder]) {
                fs::write(group.join("cpu.stat"), &text)?;
                fs::write(group.join("memory.current"), &memory)?;
            }
        }
        Ok(())
    }
}

fn pressure(total: u64) -> String {
    let line = format!("avg10=0.00 avg60=0.00 avg300=0.00 total={total}");
    format!("some {line}\nfull {line}\n")
}

/// As long as a real one: about 50 lines.
fn memory_stat() -> String {
    let mut text = String::from("anon 52428800\nfile 20971520\n");
    for index in 0..24 {
        text.push_str(&format!("slab_of_some_kind_{index} 123456\n"));
    }
    text.push_str(
        "inactive_anon 0\nactive_anon 52428800\ninactive_file 10485760\nactive_file 10485760\n",
    );
    for index in 0..24 {
        text.push_str(&format!("workingset_of_kind_{index} 1234\n"));
    }
    text
}
