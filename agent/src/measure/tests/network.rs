//! Pods' networks, by processes that are plain files.

use std::path::PathBuf;

use super::*;

struct Host {
    root: tempfile::TempDir,
    meter: Meter,
}

impl Host {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        write_machine(root.path());
        let meter = Meter::new(root.path());
        let host = Self { root, meter };
        host.process(1, 7, 7);
        host
    }

    fn net_dev(&self, pid: u32) -> PathBuf {
        self.root.path().join(format!("proc/{pid}/net/dev"))
    }

    /// Overwrites what is there, as the kernel would.
    fn process(&self, pid: u32, received: u64, sent: u64) {
        let lo = "    lo: 99999 1 0 0 0 0 0 0 99999 1 0 0 0 0 0 0\n";
        let eth = format!("  eth0: {received} 1 0 0 0 0 0 0 {sent} 1 0 0 0 0 0 0\n");
        write(&self.net_dev(pid), &format!("Inter-|  Receive\n face |bytes\n{lo}{eth}"));
    }

    fn ends(&self, pid: u32) {
        fs::remove_dir_all(self.root.path().join(format!("proc/{pid}"))).unwrap();
    }

    fn pod(&self, name: &str, groups: &[(&str, &str)]) {
        let pod = self.root.path().join(format!("sys/fs/cgroup/kubepods/pod{name}"));
        write_pod(&pod, 1);
        for (digit, processes) in groups {
            write(&pod.join(digit.repeat(64)).join("cgroup.procs"), processes);
        }
    }

    fn read(&mut self) -> Vec<(String, Option<[u64; 2]>)> {
        // Of each pod the container 1 is known.
        let web = ContainerName {
            name: "web".into(),
            id: ContainerId::of_hex(&"1".repeat(64)),
            lasts: true,
        };
        let names: ContainerNames =
            ["a", "b", "c", "d"].map(|uid| (uid.into(), vec![web.clone()])).into();
        let pods = self.meter.sample(Some(&names)).unwrap().pods;
        let network = |pod: &drover_agent_core::usage::PodSample| {
            (pod.uid.to_string(), pod.rest.unwrap().network.map(|network| network.bytes))
        };
        pods.iter().map(network).collect()
    }
}

fn told(pods: &[(&str, Option<[u64; 2]>)]) -> Vec<(String, Option<[u64; 2]>)> {
    pods.iter().map(|(uid, bytes)| ((*uid).to_owned(), *bytes)).collect()
}

#[test]
fn a_pods_network_is_what_a_process_of_its_own_sees() {
    let mut host = Host::new();
    // The sandbox's process is asked before the container's.
    host.pod("a", &[("1", "72\n"), ("2", "71\n")]);
    host.process(71, 10, 20);
    host.process(72, 1, 2);
    // The node's network; its runtime's helper sees that, too.
    host.pod("b", &[("1", "73\n")]);
    write(&host.net_dev(73), "");
    fs::remove_file(host.net_dev(73)).unwrap();
    fs::hard_link(host.net_dev(1), host.net_dev(73)).unwrap();
    host.pod("c", &[("2", "73\n"), ("1", "74\n")]);
    host.process(74, 5, 6);
    assert_eq!(host.read(), told(&[("a", Some([10, 20])), ("b", None), ("c", Some([5, 6]))]));
    host.process(71, 30, 40);
    assert_eq!(host.read()[0].1, Some([30, 40]));
    host.ends(71);
    assert_eq!(host.read()[0].1, Some([1, 2]), "another of its processes");
    // Another process of the same id, in another network.
    let moved = host.root.path().join("proc/moved");
    fs::rename(host.root.path().join("proc/72"), moved).unwrap();
    host.process(72, 100, 200);
    assert_eq!(host.read()[0].1, Some([100, 200]));
    host.ends(72);
    assert_eq!(host.read()[0].1, None, "none is left, and the kept file is not believed");
}

#[test]
fn what_nobody_shows_is_unknown_and_looked_for_ever_more_rarely() {
    let mut host = Host::new();
    // Processes of another pid namespace; none there; no end; no numbers.
    host.pod("a", &[("1", "0\n0\n")]);
    host.pod("b", &[("1", "71\n")]);
    host.pod("c", &[("1", "72\n")]);
    write(&host.net_dev(72), &"eth0: 1 1 0 0 0 0 0 0 1 1\n".repeat(10_000));
    host.pod("d", &[("1", "73\n")]);
    write(&host.net_dev(73), "eth0: -1\n");
    let nothing = told(&[("a", None), ("b", None), ("c", None), ("d", None)]);
    for _ in 0..3 {
        assert_eq!(host.read(), nothing);
    }
    host.process(71, 3, 4);
    // Looked for at the readings 1, 2, 4, 8, 16, 32, and at each 32nd from then on.
    assert_eq!(host.read()[1].1, Some([3, 4]));
    for reading in 5..=32 {
        assert_eq!(host.read()[0].1, None, "{reading}");
    }
    host.pod("a", &[("1", "71\n")]);
    let found = (33..200).find(|_| host.read()[0].1.is_some());
    assert_eq!(found, Some(64));
}

#[test]
fn without_the_machines_first_process_nothing_is_known() {
    let mut host = Host::new();
    host.ends(1);
    host.pod("a", &[("1", "71\n")]);
    host.process(71, 3, 4);
    assert_eq!(host.read(), told(&[("a", None)]), "it may be the node's");
}
