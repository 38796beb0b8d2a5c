//! Genuine control groups for the pods of the simulated node, with processes in them.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;

use super::files::{SANDBOX, container_group, pod_group, write_missing};
use super::node::Running;

/// What the agent reads of a group is theirs; where the machine has them, groups get them.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "io"];
/// How long processes may take to end before what they are in is left behind.
const MOST_TRIES: u32 = 250;
const TRY: Duration = Duration::from_millis(20);

/// Groups below the mount of version 2. They and their processes are gone when this is dropped.
pub(super) struct Groups {
    top: PathBuf,
    processes: Vec<Child>,
    /// Files that no group has here, so that plain ones stand for them.
    plain: BTreeSet<&'static str>,
    /// Of the machine, and those of them that pods' groups have.
    controllers: [String; 2],
    networks: bool,
}

impl Groups {
    /// Makes a group for each pod and each of its containers, with a process that sleeps so long at most, and
    /// shows them below `host`.
    pub(super) fn make(host: &Path, pods: &[Running], life: Duration) -> anyhow::Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("/proc/self/mountinfo")?;
        let mount = mount_of_groups(&mounts).context(
            "--real-cgroups: no control groups of version 2 are mounted on this machine",
        )?;
        let top = mount.join(format!("drover-bench-{}", std::process::id()));
        fs::create_dir(&top).with_context(|| {
            format!("--real-cgroups: no group can be made at {}", top.display())
        })?;
        let mut groups = Self {
            top,
            processes: Vec::new(),
            plain: BTreeSet::new(),
            controllers: [controllers(&mount), String::new()],
            networks: has_network_namespaces(),
        };
        for (uid, ids) in pods {
            let pod = pod_group(&groups.top, uid);
            groups.make_group(&pod)?;
            for id in ids.iter().map(String::as_str).chain([SANDBOX]) {
                let group = container_group(&pod, id);
                groups.make_group(&group)?;
                groups.start(&group, id == SANDBOX, host, life)?;
            }
            groups.controllers[1] = controllers(&pod);
        }
        groups.show_pods(host)?;
        Ok(groups)
    }

    /// Makes a group and those above it, each with what the one above has.
    fn make_group(&self, group: &Path) -> anyhow::Result<()> {
        let below = group.strip_prefix(&self.top).unwrap_or(group);
        let mut folder = self.top.clone();
        for name in below {
            for name in
                controllers(&folder).split_whitespace().filter(|name| CONTROLLERS.contains(name))
            {
                let _plain_files_stand_for_it =
                    fs::write(folder.join("cgroup.subtree_control"), format!("+{name}"));
            }
            folder.push(name);
            if !folder.exists() {
                fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
            }
        }
        Ok(())
    }

    /// Starts a process in a group; that of a sandbox has a network of its own, if that can be had.
    fn start(
        &mut self,
        group: &Path,
        is_sandbox: bool,
        host: &Path,
        life: Duration,
    ) -> anyhow::Result<()> {
        let seconds = life.as_secs().to_string();
        let mut command = if is_sandbox && self.networks {
            let mut command = Command::new("unshare");
            command.args(["-n", "sleep"]);
            command
        } else {
            Command::new("sleep")
        };
        command.arg(seconds).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().context("sleep")?;
        let pid = child.id();
        self.processes.push(child);
        let list = group.join("cgroup.procs");
        fs::write(&list, pid.to_string()).with_context(|| list.display().to_string())?;
        symlink(format!("/proc/{pid}"), host.join(format!("proc/{pid}")))?;
        Ok(())
    }

    /// Shows the groups, and the machine's first process, where the agent looks for them.
    fn show_pods(&mut self, host: &Path) -> anyhow::Result<()> {
        let first = host.join("proc/1");
        fs::remove_dir_all(&first)?;
        symlink("/proc/1", first)?;
        let mut plain = BTreeSet::new();
        show(&self.top, &host.join("sys/fs/cgroup"), &mut plain)?;
        self.plain = plain;
        Ok(())
    }

    /// What of this is real.
    pub(super) fn describe(&self) -> String {
        let list = |names: &str| if names.is_empty() { "none" } else { names }.to_owned();
        let plain: Vec<&str> = self.plain.iter().copied().collect();
        let [machine, pods] = &self.controllers;
        format!(
            "real, {}; controllers: {}, pods have {}; as plain files: {}; a network for each pod: {}",
            self.top.display(),
            list(machine),
            list(pods),
            list(&plain.join(" ")),
            if self.networks { "yes" } else { "no" }
        )
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ended = process.kill();
            let _ended = process.wait();
        }
        for _ in 0..MOST_TRIES {
            remove(&self.top);
            if !self.top.exists() {
                return;
            }
            std::thread::sleep(TRY);
        }
        tracing::warn!(group = %self.top.display(), "Control groups are left behind.");
    }
}

/// Links to all files of a group and of those in it, and plain files for what it has not.
fn show(group: &Path, at: &Path, plain: &mut BTreeSet<&'static str>) -> anyhow::Result<()> {
    fs::create_dir_all(at)?;
    for entry in fs::read_dir(group).with_context(|| group.display().to_string())? {
        let entry = entry?;
        let to = at.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            show(&entry.path(), &to, plain)?;
        } else {
            symlink(entry.path(), to)?;
        }
    }
    plain.extend(write_missing(at)?);
    Ok(())
}

/// A group's files go with its folder, which can be removed once nothing lives in it.
fn remove(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let _still_lives = fs::remove_dir(group);
}

/// What can be counted in a group.
fn controllers(group: &Path) -> String {
    let list = fs::read_to_string(group.join("cgroup.controllers")).unwrap_or_default();
    list.trim().to_owned()
}

fn has_network_namespaces() -> bool {
    let mut command = Command::new("unshare");
    command.args(["-n", "true"]).stdin(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Where control groups of version 2 are mounted, by a text of `/proc/<pid>/mountinfo`.
fn mount_of_groups(mountinfo: &str) -> Option<PathBuf> {
    let mount = mountinfo.lines().find_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        let is_second = kind.split(' ').next() == Some("cgroup2");
        place.split(' ').nth(4).filter(|_| is_second)
    })?;
    // What separates fields is written in octal digits.
    Some(PathBuf::from(mount.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_of_version_2_is_found_on_hybrid_machines_too() {
        let hybrid = "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
            41 31 0:38 / /sys/fs/cgroup/uni\\040fied rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(mount_of_groups(hybrid), Some(PathBuf::from("/sys/fs/cgroup/uni fied")));
        let unified = "30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(mount_of_groups(unified), Some(PathBuf::from("/sys/fs/cgroup")));
        assert_eq!(
            mount_of_groups("36 31 0:33 / /cgroup2 rw - tmpfs cgroup2 rw\n\nx - cgroup2\n"),
            None
        );
    }

    #[test]
    fn groups_and_their_processes_go_also_where_nobody_gets_to_the_end() {
        const TEST: &str = "groups_and_their_processes_go_also_where_nobody_gets_to_the_end";
        let host = tempfile::tempdir().unwrap();
        fs::create_dir_all(host.path().join("proc/1")).unwrap();
        let pods = vec![("a-b".to_owned(), vec!["1".repeat(64)])];
        let groups = match Groups::make(host.path(), &pods, Duration::from_secs(60)) {
            Ok(groups) => groups,
            Err(missing) => {
                use std::io::Write as _;
                return writeln!(std::io::stderr(), "SKIPPED {TEST}: {missing:#}").unwrap();
            }
        };
        let (top, pids): (_, Vec<u32>) =
            (groups.top.clone(), groups.processes.iter().map(Child::id).collect());
        let pod = pod_group(&host.path().join("sys/fs/cgroup"), "a-b");
        for file in ["cpu.stat", "memory.current", "memory.stat", "memory.events", "io.stat"] {
            assert!(!fs::read_to_string(pod.join(file)).unwrap().is_empty() || file == "io.stat");
        }
        let web = container_group(&pod, &"1".repeat(64)).join("cgroup.procs");
        assert_eq!(fs::read_to_string(web).unwrap(), format!("{}\n", pids[0]));
        // A second one of the same name can't be made, and must not take the first along.
        assert!(Groups::make(host.path(), &pods, Duration::from_secs(60)).is_err());
        assert!(top.exists());
        drop(groups);
        assert!(!top.exists());
        assert!(pids.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()), "{pids:?}");
    }
}
