mod lasting;
mod network;
mod real;

use std::fs;
use std::path::Path;

use drover_agent_core::usage::{ContainerName, ContainerNames, NodeRest, Sample};
use drover_common::cluster::ContainerId;

use super::*;

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn write_pod(folder: &Path, cpu: u64) {
    write(&folder.join("cpu.stat"), &format!("usage_usec {cpu}\nnr_periods 9\nnr_throttled 5\n"));
    write(&folder.join("memory.current"), "5000\n");
    write(&folder.join("memory.stat"), "anon 1\ninactive_file 1000\n");
}

fn write_machine(root: &Path) {
    write(&root.join("proc/stat"), "cpu  100 0 0 0 0 0 0 0 0 0\n");
    write(&root.join("proc/meminfo"), "MemTotal: 100 kB\nMemAvailable: 40 kB\n");
}

#[test]
fn a_host_with_pods_of_all_classes() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    assert!(Meter::new(root).sample(Some(&ContainerNames::new())).is_err());
    write_machine(root);
    let sample = Meter::new(root).sample(Some(&ContainerNames::new())).unwrap();
    let rest = NodeRest { memory_working_set: 60 * 1024, ..NodeRest::default() };
    assert_eq!((sample.cpu_usec, sample.rest, sample.pods.len()), (1_000_000, Some(rest), 0));

    for (name, total) in [("cpu", 1), ("memory", 2), ("io", 3)] {
        let text = format!("some avg10=0.00 avg60=0.00 avg300=0.00 total={total}\n");
        write(&root.join("proc/pressure").join(name), &text);
    }
    write(&root.join("proc/vmstat"), "nr_free_pages 7\noom_kill 4\n");
    let slice = root.join("sys/fs/cgroup/kubepods.slice");
    write_pod(&slice.join("kubepods-podaaaa_1.slice"), 1);
    write_pod(&slice.join("kubepods-burstable.slice/kubepods-burstable-podbbbb_2.slice"), 2);
    write_pod(&root.join("sys/fs/cgroup/kubepods/besteffort/podcccc-3"), 3);
    // Ending: one of its files is gone already.
    write(&slice.join("kubepods-poddddd_4.slice/cpu.stat"), "usage_usec 4\n");
    let mut meter = Meter::new(root);
    let sample = meter.sample(Some(&ContainerNames::new())).unwrap();
    let rest = sample.rest.unwrap();
    assert_eq!((rest.stalled_usec, rest.oom_kills), (Some([1, 2, 3]), Some(4)));
    let pods = |sample: &Sample| -> Vec<_> {
        sample.pods.iter().map(|pod| (pod.uid.to_string(), pod.cpu_usec)).collect()
    };
    let named = |pods: &[(&str, u64)]| -> Vec<_> {
        pods.iter().map(|(uid, cpu)| ((*uid).to_owned(), *cpu)).collect()
    };
    assert_eq!(pods(&sample), named(&[("aaaa-1", 1), ("bbbb-2", 2), ("cccc-3", 3)]));
    let rest = sample.pods[0].rest.unwrap();
    assert_eq!((rest.memory_working_set, rest.limit.throttled), (4_000, 5));

    // From second to second only what changes is read, and pods are looked for now and then.
    let second = slice.join("kubepods-burstable.slice/kubepods-burstable-podbbbb_2.slice");
    fs::write(second.join("cpu.stat"), "usage_usec 20\n").unwrap();
    write_pod(&slice.join("kubepods-podeeee_5.slice"), 5);
    let sample = meter.sample(None).unwrap();
    assert_eq!(sample.rest, None);
    assert_eq!(pods(&sample), named(&[("aaaa-1", 1), ("bbbb-2", 20), ("cccc-3", 3)]));
    assert_eq!(sample.pods[1].rest, None);
    fs::write(second.join("cpu.stat"), "").unwrap();
    assert_eq!(pods(&meter.sample(None).unwrap()), named(&[("aaaa-1", 1), ("cccc-3", 3)]));
    fs::remove_dir_all(&second).unwrap();
    let expected = named(&[("aaaa-1", 1), ("cccc-3", 3), ("eeee-5", 5)]);
    assert_eq!(pods(&meter.sample(Some(&ContainerNames::new())).unwrap()), expected);
}

#[test]
fn containers_are_those_that_the_pod_names() {
    // No file stays open, some do, or all: an `io.stat`, and up to four a container. One of seven is of a container that ends.
    for (most_kept, kept) in [(0, 0), (7, 6), (usize::MAX, 8)] {
        measure_named_containers(most_kept, kept);
    }
}

fn measure_named_containers(most_kept: usize, kept: usize) {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    write_machine(root);
    let id = |digit: &str| digit.repeat(64);
    let pods = root.join("sys/fs/cgroup");
    let sliced = pods.join("kubepods.slice/kubepods-podaaaa_1.slice");
    write_pod(&sliced, 9);
    write(&sliced.join("io.stat"), "259:0 rbytes=5 wbytes=7 rios=1 wios=1\n");
    let scope = |digit| sliced.join(format!("cri-containerd-{}.scope", id(digit)));
    write_pod(&scope("1"), 4);
    write(&scope("1").join("memory.events"), "oom 1\noom_kill 3\n");
    // The pause container, one whose name is not known yet, and one that ends.
    write_pod(&scope("2"), 2);
    write_pod(&scope("3"), 3);
    write(&scope("4").join("cpu.stat"), "usage_usec 4\n");
    let plain = pods.join("kubepods/podbbbb-2");
    write_pod(&plain, 8);
    write_pod(&plain.join(id("5")), 5);
    let name = |name: &str, digit: &str| ContainerName {
        name: name.into(),
        id: ContainerId::of_hex(&id(digit)),
        lasts: true,
    };
    let names = ContainerNames::from([
        ("aaaa-1".into(), vec![name("web", "1"), name("ends", "4"), name("comes", "")]),
        ("bbbb-2".into(), vec![name("db", "5")]),
    ]);
    let mut meter = Meter::keeping(root, most_kept);
    let mut containers = |names| -> Vec<_> {
        let pods = meter.sample(names).unwrap().pods;
        let disks = pods[0].rest.and_then(|rest| rest.disk_bytes);
        let all = pods.into_iter().flat_map(|pod| pod.containers);
        let one = all
            .map(|one| (one.name.to_string(), one.cpu_usec, one.memory_working_set, one.oom_kills));
        one.map(|one| (one, disks)).collect()
    };
    let disks = Some([5, 7]);
    let [web, db] = [("web".to_owned(), 4, 4_000, 3), ("db".to_owned(), 5, 4_000, 0)];
    assert_eq!(containers(Some(&names)), [(web.clone(), disks), (db.clone(), disks)]);
    write(&scope("1").join("cpu.stat"), "usage_usec 40\n");
    let web = ("web".to_owned(), 40, 4_000, 3);
    assert_eq!(containers(Some(&names)), [(web, disks), (db, disks)]);
    assert_eq!(containers(None), [], "not each second");
    assert_eq!(containers(Some(&ContainerNames::new())), [], "no name, no measurement");
    assert_eq!(meter.kept(), kept);
    // What went gives its room to what comes.
    fs::remove_dir_all(&plain).unwrap();
    assert!(meter.sample(Some(&names)).is_ok());
    let next = pods.join("kubepods/podcccc-3");
    write_pod(&next, 7);
    write(&next.join("io.stat"), "259:0 rbytes=1 wbytes=1 rios=1 wios=1\n");
    assert!(meter.sample(Some(&names)).is_ok());
    assert_eq!(meter.kept(), kept.min(6));
}

#[test]
fn containers_that_come_later_are_found() {
    let root = tempfile::tempdir().unwrap();
    write_machine(root.path());
    let id = |digit: &str| digit.repeat(64);
    let pod = root.path().join("sys/fs/cgroup/kubepods/podaaaa-1");
    let start = |digit: &str, cpu| write_pod(&pod.join(id(digit)), cpu);
    write_pod(&pod, 9);
    start("1", 1);
    let mut meter = Meter::new(root.path());
    let mut measured = |digits: &[&str]| -> Vec<u64> {
        let named = |digit: &&str| ContainerName {
            name: "web".into(),
            id: ContainerId::of_hex(&id(digit)),
            lasts: true,
        };
        let names = [("aaaa-1".into(), digits.iter().map(named).collect())];
        let sample = meter.sample(Some(&ContainerNames::from(names))).unwrap();
        sample.pods[0].containers.iter().map(|one| one.cpu_usec).collect()
    };
    // The second has ended, as init containers do.
    assert_eq!(measured(&["1", "2"]), [1]);
    start("3", 3);
    let mut both = measured(&["1", "2", "3"]);
    both.sort_unstable();
    assert_eq!(both, [1, 3]);
    // It ends, upon which the kernel's files say nothing, and another takes its place.
    write(&pod.join(id("1")).join("cpu.stat"), "");
    fs::remove_dir_all(pod.join(id("1"))).unwrap();
    assert_eq!(measured(&["1", "2", "3"]), [3]);
    start("4", 4);
    let mut others = measured(&["4", "2", "3"]);
    others.sort_unstable();
    assert_eq!(others, [3, 4]);
    // One that could not be seen at first is, before long.
    start("2", 2);
    let seen = (0..40).find(|_| measured(&["4", "2", "3"]).len() == 3);
    assert!(seen.is_some_and(|looks| looks > 10), "{seen:?}: it is not searched for each time");
}

#[test]
fn stall_times_are_read_of_pods_that_ran() {
    let root = tempfile::tempdir().unwrap();
    write_machine(root.path());
    let pod = root.path().join("sys/fs/cgroup/kubepods/podaaaa-1");
    let stall = |total| {
        let text = format!("some avg10=0.00 avg60=0.00 avg300=0.00 total={total}\n");
        write(&pod.join("cpu.pressure"), &text);
    };
    write_pod(&pod, 9);
    stall(5);
    let mut meter = Meter::new(root.path());
    let names = ContainerNames::new();
    let mut stalled =
        |all: bool| meter.sample(all.then_some(&names)).unwrap().pods[0].stalled_usec.unwrap();
    assert_eq!(stalled(true), 5);
    stall(6);
    assert_eq!(stalled(false), 5, "it has not run since");
    assert_eq!(stalled(true), 6, "a digest is of all there is");
    stall(7);
    write(&pod.join("cpu.stat"), "usage_usec 10\n");
    assert_eq!(stalled(false), 7);
}

#[test]
fn a_file_without_end_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long");
    fs::write(&path, "x".repeat(200_000)).unwrap();
    let mut buffer = kept::Buffer::new();
    assert!(buffer.read_path(&path).is_err());
    fs::write(&path, "y".repeat(10_000)).unwrap();
    assert_eq!(buffer.read_path(&path).unwrap().len(), 10_000);
    let file = fs::File::open(&path).unwrap();
    let mut small = kept::Buffer::new();
    assert_eq!(small.read_piece(&file).unwrap().len(), 10_000, "it is longer than there is room");
    fs::write(&path, "x".repeat(200_000)).unwrap();
    assert!(small.read_piece(&file).is_err());
}

#[test]
fn this_machine_has_totals_by_the_kernels_own_count() {
    let busy =
        || drover_agent_core::usage::node_cpu_usage(&fs::read_to_string("/proc/stat").unwrap());
    let mut meter = Meter::new(Path::new("/"));
    let before = busy().unwrap();
    let sample = meter.sample(Some(&ContainerNames::new())).unwrap();
    // As where the machine's root is another: nothing that was stolen.
    assert!((before..=busy().unwrap()).contains(&sample.cpu_usec), "{before} {sample:?}");
    assert!(sample.rest.unwrap().memory_working_set > 1 << 20, "{sample:?}");
}

#[test]
fn the_first_line_of_long_counts_is_enough() {
    let root = tempfile::tempdir().unwrap();
    write_machine(root.path());
    let line = "cpu  5 0 0 9 9 0 0 70 0 0\n";
    write(&root.path().join("proc/stat"), &(line.to_owned() + &"intr 0".repeat(40_000)));
    let sample = Meter::new(root.path()).sample(None).unwrap();
    assert_eq!(sample.cpu_usec, 50_000, "waiting and stolen time are no use");
}
