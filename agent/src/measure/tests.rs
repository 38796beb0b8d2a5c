use super::*;

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn write_pod(folder: &Path, cpu: u64) {
    write(&folder.join("cpu.stat"), &format!("usage_usec {cpu}\n"));
    write(&folder.join("memory.current"), "5000\n");
    write(&folder.join("memory.stat"), "anon 1\ninactive_file 1000\n");
}

#[test]
fn a_host_with_pods_of_all_classes() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    assert!(Meter::new(root).sample().is_err());
    write(&root.join("proc/stat"), "cpu  100 0 0 0 0 0 0 0 0 0\n");
    write(&root.join("proc/meminfo"), "MemTotal: 100 kB\nMemAvailable: 40 kB\n");
    let sample = Meter::new(root).sample().unwrap();
    assert_eq!((sample.cpu_usec, sample.memory_working_set), (1_000_000, 60 * 1024));
    assert_eq!((sample.stalled_usec, sample.pods.len()), (None, 0));

    for (name, total) in [("cpu", 1), ("memory", 2), ("io", 3)] {
        let text = format!("some avg10=0.00 avg60=0.00 avg300=0.00 total={total}\n");
        write(&root.join("proc/pressure").join(name), &text);
    }
    let slice = root.join("sys/fs/cgroup/kubepods.slice");
    write_pod(&slice.join("kubepods-podaaaa_1.slice"), 1);
    write_pod(&slice.join("kubepods-burstable.slice/kubepods-burstable-podbbbb_2.slice"), 2);
    write_pod(&root.join("sys/fs/cgroup/kubepods/besteffort/podcccc-3"), 3);
    // Ending: one of its files is gone already.
    write(&slice.join("kubepods-poddddd_4.slice/cpu.stat"), "usage_usec 4\n");
    let sample = Meter::new(root).sample().unwrap();
    assert_eq!(sample.stalled_usec, Some([1, 2, 3]));
    let pods: Vec<_> = sample.pods.iter().map(|(uid, pod)| (uid.as_str(), pod.cpu_usec)).collect();
    assert_eq!(pods, [("aaaa-1", 1), ("bbbb-2", 2), ("cccc-3", 3)]);
    assert_eq!(sample.pods["aaaa-1"].memory_working_set, 4_000);
}

#[test]
fn this_machine_has_totals() {
    let mut meter = Meter::new(Path::new("/"));
    std::thread::sleep(Duration::from_millis(250));
    let sample = meter.sample().unwrap();
    assert!(sample.memory_working_set > 1 << 20, "{sample:?}");
}
