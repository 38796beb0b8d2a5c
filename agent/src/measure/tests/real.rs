//! The kernel itself: a control group with PSI, and a network namespace. Made by the tests and removed after.

use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use super::*;

/// Says aloud why a test can't be made on this machine.
fn skip(test: &str, missing: &str) {
    writeln!(std::io::stderr(), "SKIPPED {test}: {missing}").unwrap();
}

/// Processes that end with the test.
struct Processes(Vec<Child>);

impl Drop for Processes {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _gone = child.kill();
            let _gone = child.wait();
        }
    }
}

/// A group of version 2, removed with all that is in it.
struct Group(PathBuf);

impl Group {
    fn make(name: &str) -> Result<Self, String> {
        let mounts =
            fs::read_to_string("/proc/self/mountinfo").map_err(|error| error.to_string())?;
        let mount = mounts
            .lines()
            .filter(|line| line.contains(" - cgroup2 "))
            .find_map(|line| line.split(' ').nth(4))
            .ok_or("no control groups of version 2 are mounted")?;
        let folder = Path::new(mount).join(format!("drover-test-{name}-{}", std::process::id()));
        fs::create_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _old_kernel = fs::write(self.0.join("cgroup.kill"), "1");
        for _ in 0..100 {
            remove_groups(&self.0);
            if !self.0.exists() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A group can be removed as a folder once nothing lives in it; its files go with it.
fn remove_groups(folder: &Path) {
    subfolders(folder).iter().for_each(|below| remove_groups(below));
    let _still_lives = fs::remove_dir(folder);
}

/// Shows a group's own files at another place, with plain ones for memory where no controller counts it.
fn show(group: &Path, at: &Path) {
    fs::create_dir_all(at).unwrap();
    for entry in fs::read_dir(group).unwrap() {
        let entry = entry.unwrap();
        let to = at.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            show(&entry.path(), &to);
        } else {
            symlink(entry.path(), to).unwrap();
        }
    }
    for (name, text) in [("memory.current", "5000\n"), ("memory.stat", "inactive_file 1000\n")] {
        if !at.join(name).exists() {
            fs::write(at.join(name), text).unwrap();
        }
    }
}

/// Two loops that share a processor, if that can be asked for, so that one always waits.
fn busy(group: &Path) -> (Processes, bool) {
    let spin = "i=0; while [ $i -lt 100000000 ]; do i=$((i+1)); done";
    let start = |command: &mut Command| {
        let children = (0..2).filter_map(|_| command.stdin(Stdio::null()).spawn().ok());
        let mut processes = Processes(children.collect());
        std::thread::sleep(Duration::from_millis(50));
        let live = processes.0.iter_mut().all(|child| matches!(child.try_wait(), Ok(None)));
        (live && processes.0.len() == 2).then_some(processes)
    };
    let mut together = Command::new("taskset");
    together.args(["-c", "0", "sh", "-c", spin]).stderr(Stdio::null());
    let (processes, is_shared) = match start(&mut together) {
        Some(processes) => (processes, true),
        None => (start(Command::new("sh").args(["-c", spin])).expect("a shell runs"), false),
    };
    for child in &processes.0 {
        fs::write(group.join("cgroup.procs"), child.id().to_string()).unwrap();
    }
    (processes, is_shared)
}

#[test]
fn a_genuine_control_group_is_measured() {
    const TEST: &str = "a_genuine_control_group_is_measured";
    let top = match Group::make("psi") {
        Ok(top) => top,
        Err(missing) => return skip(TEST, &missing),
    };
    if fs::read_to_string(top.0.join("cpu.pressure")).is_err() {
        return skip(TEST, "the kernel tells no pressure of groups");
    }
    let id = "1".repeat(64);
    let pod = top.0.join("kubepods.slice/kubepods-podaaaa_1.slice");
    let container = pod.join(format!("cri-containerd-{id}.scope"));
    fs::create_dir_all(&container).unwrap();
    let (processes, is_shared) = busy(&container);
    let root = tempfile::tempdir().unwrap();
    symlink("/proc", root.path().join("proc")).unwrap();
    show(&top.0, &root.path().join("sys/fs/cgroup"));

    let web = ContainerName { name: "web".into(), id: ContainerId::of_hex(&id), lasts: true };
    let names = ContainerNames::from([("aaaa-1".into(), vec![web])]);
    let (mut meter, mut window) = (Meter::new(root.path()), UsageWindow::default());
    let mut read = |second| {
        let sample = meter.sample(Some(&names)).unwrap();
        let at = jiff::Timestamp::from_second(second).unwrap();
        window.add(at, sample.clone());
        sample
    };
    let before = read(0);
    std::thread::sleep(Duration::from_millis(600));
    let after = read(1);
    let own = fs::read_to_string(pod.join("cpu.stat")).unwrap();
    drop(processes);
    let digest = window.digest().unwrap();
    let pod = &digest.pods[0];
    assert_eq!((pod.uid.as_str(), digest.pods.len()), ("aaaa-1", 1));
    let total = drover_agent_core::usage::cpu_usage(&own).unwrap();
    assert!((1..=total).contains(&after.pods[0].cpu_usec), "{own}");
    assert!(pod.cpu_milli_mean >= 20 && pod.containers[0].cpu_milli_mean >= 20, "{pod:?}");
    let [cpu, ..] = pod.pressure_permille.expect("pressure is told of CPU, memory and I/O");
    assert!(cpu > 0 || !is_shared, "one of them always waits: {before:?} {after:?}");
    let group = top.0.clone();
    drop(top);
    assert!(!group.exists(), "it is left behind");
}

/// A shell in a network of its own, which does what it is told.
struct Shell {
    processes: Processes,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Shell {
    fn start() -> Result<Self, String> {
        let mut child = Command::new("unshare")
            .args(["-n", "bash"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("unshare: {error}"))?;
        let (to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut shell = Self { processes: Processes(vec![child]), to, from: BufReader::new(from) };
        // What goes into one end of the pair comes out of the other, for a machine that is not there.
        let pair = "ip link set lo up && ip link add v0 type veth peer name v1 && \
            ip addr add 10.99.0.1/24 dev v0 && ip link set v0 up && ip link set v1 up && \
            ip neigh add 10.99.0.2 lladdr 02:00:00:00:00:02 dev v0";
        if !shell.does(pair) {
            return Err("no network namespace with a veth pair can be made".to_owned());
        }
        Ok(shell)
    }

    fn does(&mut self, command: &str) -> bool {
        let mut line = String::new();
        writeln!(self.to, "if {command}; then echo yes; else echo no; fi").is_ok()
            && self.from.read_line(&mut line).is_ok()
            && line == "yes\n"
    }

    /// Sends datagrams of a thousand bytes; whether they arrive does not matter.
    fn sends(&mut self, count: u32, address: &str) {
        let send = format!("head -c 1000 /dev/zero > /dev/udp/{address}/9");
        assert!(
            self.does(&format!("for i in $(seq {count}); do {send} || true; done 2>/dev/null"))
        );
    }
}

#[test]
fn a_genuine_network_namespace_is_measured() {
    const TEST: &str = "a_genuine_network_namespace_is_measured";
    let mut shell = match Shell::start() {
        Ok(shell) => shell,
        Err(missing) => return skip(TEST, &missing),
    };
    let root = tempfile::tempdir().unwrap();
    symlink("/proc", root.path().join("proc")).unwrap();
    let pods = root.path().join("sys/fs/cgroup/kubepods");
    for (name, pid) in [("own", shell.processes.0[0].id()), ("shared", 1)] {
        let pod = pods.join(format!("pod{name}"));
        write_pod(&pod, 1);
        write(&pod.join("f".repeat(64)).join("cgroup.procs"), &format!("{pid}\n"));
    }
    let mut meter = Meter::new(root.path());
    let mut read = || {
        let sample = meter.sample(Some(&ContainerNames::new())).unwrap();
        let network = |index: usize| sample.pods[index].rest.unwrap().network;
        assert_eq!(network(1), None, "that of the machine's first process is the node's");
        network(0)
    };
    let before = read().expect("a process shows it");
    shell.sends(20, "127.0.0.1");
    shell.sends(50, "10.99.0.2");
    std::thread::sleep(Duration::from_millis(50));
    let after = read().unwrap();
    assert_eq!(after.namespace, before.namespace);
    let since = [0, 1].map(|way| after.bytes[way] - before.bytes[way]);
    // With the headers of Ethernet, IPv4 and UDP; beside them the interfaces announce themselves.
    let least = 50 * (1000 + 14 + 20 + 8);
    assert!(since.iter().all(|bytes| (least..least + 5_000).contains(bytes)), "{since:?}");
    drop(shell);
    assert_eq!(read(), None, "nobody is left who shows it");
}
