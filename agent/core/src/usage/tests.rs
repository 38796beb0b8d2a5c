use super::*;

use drover_common::cluster::ContainerId;
use drover_common::protocol::ContainerUsage;
use proptest::prelude::*;

fn at(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(1_700_000_000_000 + milliseconds).unwrap()
}

#[test]
fn kernel_files_are_read() {
    let cpu_stat = "usage_usec 123456\nuser_usec 100000\nsystem_usec 23456\nnr_periods 0\n";
    assert_eq!(cpu_usage(cpu_stat), Ok(123_456));
    assert_eq!(inactive_file("anon 5\ninactive_anon 1\ninactive_file 4096\n"), Ok(4_096));
    assert_eq!(number("1048576\n"), Ok(1_048_576));
    assert!(number("max\n").is_err());
    let pressure = "some avg10=0.00 avg60=0.12 avg300=0.05 total=987654\n\
                    full avg10=0.00 avg60=0.00 avg300=0.00 total=5\n";
    assert_eq!(stalled(pressure), Ok(987_654));
    let stat = "cpu  100 5 50 1000 20 3 2 7 0 0\ncpu0 100 5 50 1000 20 3 2 7 0 0\n";
    assert_eq!(node_cpu_usage(stat), Ok(160 * 10_000));
    let net = "face |bytes\n  lo: 9 1 0 0 0 0 0 0 9 1 0\n ens5: 5 1 0 0 0 0 0 0 7 1 0\neth0:1 1 0 0 0 0 0 0 2 1\n enif3: 8 1 0 0 0 0 0 0 8 1\n";
    assert_eq!(network_bytes(net), Ok([6, 9]));
    let xen =
        "enX0: 5 1 0 0 0 0 0 0 7 1 0\nenP1p0s4: 1 1 0 0 0 0 0 0 2 1\nenX: 8 1 0 0 0 0 0 0 8 1\n";
    assert_eq!(network_bytes(xen), Ok([6, 9]));
    assert_eq!(pod_network_bytes(net), Ok([14, 17]), "all of a pod's count but the loopback");
    assert_eq!(pod_network_bytes(" face |bytes\n  lo: 9 1 0 0 0 0 0 0 9 1 0\n"), Ok([0, 0]));
    assert_eq!(processes("0\n71\nx\n-1\n 5\n72\n7").collect::<Vec<_>>(), [71, 72]);
    let disks = " 259 0 nvme0n1 9 0 4 1 9 0 6 1\n 259 1 nvme0n1p1 9 0 4 1 9 0 6 1\n 8 0 sda 1 0 1 0 1 0 1 0\n 8 1 sda1 1 0 1 0 1 0 1 0\n";
    assert_eq!(disk_bytes(disks), Ok([5 * 512, 7 * 512]));
    let limited = "usage_usec 1\nnr_periods 9\nnr_throttled 4\nthrottled_usec 5\n";
    assert_eq!(limit_periods(limited), LimitPeriods { elapsed: 9, throttled: 4 });
    assert_eq!(limit_periods("usage_usec 1\n"), LimitPeriods::default());
    assert_eq!(oom_kills("oom 3\noom_kill 2\n"), Ok(2));
    let io = "259:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=9 dios=9\n7:0 259:1 rbytes=1 wbytes=2\n7:1 rbytes=5 wbytes=5\n8:0 \n";
    assert_eq!(io_bytes(io), Ok([4_097, 8_194]));
    assert_eq!(io_bytes(""), Ok([0, 0]));
    let meminfo = "MemTotal:       16000 kB\nMemFree:         1000 kB\nMemAvailable:    4000 kB\n";
    assert_eq!(available_memory(meminfo), Ok((16_000 * 1024, 4_000 * 1024)));
}

#[test]
fn what_is_not_there_is_named() {
    assert_eq!(cpu_usage("").unwrap_err().field, "usage_usec");
    assert_eq!(cpu_usage("usage_usec -1").unwrap_err().field, "usage_usec");
    assert_eq!(io_bytes("8:0 rbytes=1 wbytes=-2").unwrap_err().field, "wbytes");
    for text in ["eth0: 1 1 0 0 0 0 0 0", "eth0: x 1 0 0 0 0 0 0 1"] {
        assert_eq!(pod_network_bytes(text).unwrap_err().field, "bytes");
    }
    assert_eq!(pod_network_bytes(" face |bytes\n").unwrap_err().field, "interface");
    let others = "lo: 9 1 0 0 0 0 0 0 9 1 0\neni7: 8 1 0 0 0 0 0 0 8 1\n";
    assert_eq!(
        network_bytes(others).unwrap_err().field,
        "interface",
        "none is known, and not none used"
    );
    assert_eq!(stalled("full total=5").unwrap_err().field, "some total");
    assert_eq!(node_cpu_usage("cpu 1 2 3").unwrap_err().field, "cpu");
    assert_eq!(available_memory("MemTotal: 5 kB").unwrap_err().field, "MemAvailable");
}

#[test]
fn pod_directories_of_both_drivers() {
    let uid = "0f3c5a0e-1111-2222-3333-444455556666";
    let sliced = uid.replace('-', "_");
    for name in [
        format!("kubepods-burstable-pod{sliced}.slice"),
        format!("kubepods-besteffort-pod{sliced}.slice"),
        format!("kubepods-pod{sliced}.slice"),
        format!("pod{uid}"),
    ] {
        assert_eq!(pod_uid_of_directory(&name).as_deref(), Some(uid), "{name}");
    }
    for name in ["kubepods-burstable.slice", "burstable", "pod", "podé", "pod../x", "cpu.stat"] {
        assert_eq!(pod_uid_of_directory(name), None, "{name}");
    }
}

#[test]
fn container_directories_of_both_drivers() {
    let id = "0123456789abcdef".repeat(4);
    let known = ContainerId::of_hex(&id);
    assert!(known.is_some());
    for name in [format!("cri-containerd-{id}.scope"), format!("crio-{id}.scope"), id.clone()] {
        assert_eq!(container_of_directory(&name), known, "{name}");
    }
    for name in [format!("crio-conmon-{id}.scope"), format!("{id}.slice"), "web".to_owned()] {
        assert_eq!(container_of_directory(&name), None, "{name}");
    }
}

/// A container of the name, the one that runs by now, that uses CPU.
fn container(name: &str, id: &str, cpu_usec: u64) -> ContainerSample {
    ContainerSample {
        name: name.into(),
        id: ContainerId::of_hex(&id.repeat(64)).unwrap(),
        cpu_usec,
        limit: LimitPeriods { elapsed: cpu_usec / 10, throttled: cpu_usec / 20 },
        memory_working_set: 5,
        oom_kills: cpu_usec / 400_000,
    }
}

#[test]
fn containers_fold_to_means_of_those_that_ran_all_the_time() {
    let mut window = UsageWindow::default();
    let mut read = |seconds: i64, containers: Option<Vec<ContainerSample>>| {
        let mut sample = sample(0, &[("a", 0)]);
        match containers {
            Some(containers) => sample.pods[0].containers = containers,
            None => sample.pods[0].rest = None,
        }
        window.add(at(seconds * 1_000), sample);
        let told = window.digest().map(|digest| digest.pods[0].containers.clone());
        let name = |one: &ContainerUsage| (one.name.to_string(), one.cpu_milli_mean);
        (told.iter().flatten().map(name).collect::<Vec<_>>(), told)
    };
    let told = |name: &str, milli| (name.to_owned(), milli);
    assert_eq!(read(0, Some(vec![container("web", "1", 0)])).0, []);
    let (names, full) =
        read(10, Some(vec![container("web", "1", 500_000), container("log", "2", 5)]));
    assert_eq!(names, [told("web", 50)], "the other came just now");
    let web = &full.unwrap()[0];
    assert_eq!((web.throttled_permille, web.oom_kills, web.memory_working_set), (500, 1, 5));
    // What is read each second says nothing of containers: it stays as it was.
    assert_eq!(read(11, None).0, [told("web", 50)]);
    // Restarted: the counter of another one began anew.
    let restarted = vec![container("web", "3", 900_000), container("log", "2", 100_005)];
    assert_eq!(read(20, Some(restarted)).0, [told("log", 10)]);
    assert_eq!(read(30, Some(vec![container("web", "3", 1_900_000)])).0, [told("web", 100)]);
    assert_eq!(read(40, Some(Vec::new())).0, []);
}

/// Pods are read in full.
fn sample(cpu_usec: u64, pods: &[(&str, u64)]) -> Sample {
    let pod = |&(uid, cpu_usec): &(&str, u64)| PodSample {
        uid: uid.into(),
        cpu_usec,
        stalled_usec: Some(cpu_usec / 10),
        rest: Some(PodRest {
            limit: LimitPeriods { elapsed: cpu_usec / 10, throttled: cpu_usec / 100 },
            memory_working_set: 7,
            stalled_usec: Some([cpu_usec / 100, 0]),
            oom_kills: cpu_usec / 400_000,
            disk_bytes: Some([cpu_usec, 0]),
            network: Some(PodNetwork { namespace: 1, bytes: [cpu_usec, cpu_usec / 2] }),
        }),
        containers: Vec::new(),
    };
    Sample {
        cpu_usec,
        rest: Some(NodeRest {
            memory_working_set: 99,
            stalled_usec: Some([cpu_usec / 10, 0, 0]),
            traffic: Some([cpu_usec, 0, 0, cpu_usec.saturating_mul(2)]),
            oom_kills: Some(cpu_usec / 1_000_000),
        }),
        pods: pods.iter().map(pod).collect(),
    }
}

#[test]
fn a_pod_is_held_back_as_much_as_the_container_that_is_most() {
    // Its own group has a limit only where all its containers have one.
    let mut window = UsageWindow::default();
    for (seconds, periods, throttled) in [(0, 0, 0), (10, 100, 12)] {
        let mut sample = sample(0, &[("a", 0)]);
        let limit = LimitPeriods { elapsed: periods, throttled };
        sample.pods[0].containers =
            vec![ContainerSample { limit, ..container("web", "1", 0) }, container("log", "2", 0)];
        window.add(at(seconds * 1_000), sample);
    }
    let pod = &window.digest().unwrap().pods[0];
    assert_eq!(pod.throttled_permille, 120);
    assert_eq!(
        pod.containers.iter().map(|one| one.throttled_permille).collect::<Vec<_>>(),
        [120, 0]
    );
}

#[test]
fn samples_fold_to_means_and_peaks() {
    let mut window = UsageWindow::default();
    assert_eq!(window.digest(), None);
    window.add(at(0), sample(0, &[("a", 0)]));
    assert_eq!(window.digest(), None, "one sample is no measurement");
    window.add(at(1_000), sample(2_000_000, &[("a", 100_000), ("late", 5)]));
    window.add(at(1_000), sample(9_000_000, &[]));
    window.add(at(10_000), sample(3_000_000, &[("a", 500_000), ("late", 9)]));
    let digest = window.digest().unwrap();
    assert_eq!(digest.interval_seconds, 10);
    assert_eq!((digest.cpu_milli_mean, digest.cpu_milli_max), (300, 2_000));
    assert_eq!(digest.memory_working_set, 99);
    assert_eq!(digest.pressure_permille, Some([30, 0, 0]));
    let pods: Vec<_> =
        digest.pods.iter().map(|pod| (pod.uid.as_str(), pod.cpu_milli_mean)).collect();
    assert_eq!(pods, [("a", 50), ("late", 0)]);
    let pod = &digest.pods[0];
    assert_eq!((pod.cpu_milli_max, pod.throttled_permille, pod.oom_kills), (100, 100, 1));
    assert_eq!(pod.pressure_permille, Some([5, 0, 0]));
    assert_eq!(pod.cpu_pressure_permille_max, Some(10), "of its worst second");
    // All was read in the second sample, too.
    assert_eq!(pod.disk_bytes_per_second, Some([40_000, 0]));
    assert_eq!(pod.network_bytes_per_second, Some([40_000, 20_000]));
    assert_eq!(digest.network_bytes_per_second, Some([300_000, 0]));
    assert_eq!((digest.disk_bytes_per_second, digest.oom_kills), (Some([0, 600_000]), 3));
    let mut quick = sample(5_000_000, &[("late", 200_009)]);
    quick.rest = None;
    quick.pods[0].rest = None;
    window.add(at(12_000), quick);
    let digest = window.digest().unwrap();
    assert_eq!((digest.cpu_milli_mean, digest.cpu_milli_max), (1_000, 1_000));
    let pods: Vec<_> = digest.pods.iter().map(|pod| pod.uid.as_str()).collect();
    assert_eq!(pods, ["late"], "a is gone");
    assert_eq!((digest.pods[0].cpu_milli_mean, digest.pods[0].memory_working_set), (100, 7));
    let unknown = (digest.network_bytes_per_second, digest.pressure_permille);
    assert_eq!(unknown, (None, None), "not looked at is not zero");
    assert_eq!((digest.memory_working_set, digest.oom_kills), (99, 0));
    window.add(at(13_000), sample(5_000_000, &[("late", 200_009)]));
    let digest = window.digest().unwrap();
    assert_eq!(digest.pods[0].cpu_pressure_permille_max, Some(0), "of this window alone");
    // Since it was looked at last, three seconds ago.
    assert_eq!((digest.pressure_permille, digest.oom_kills), (Some([66, 0, 0]), 2));
}

#[test]
fn what_is_read_only_for_digests_needs_two_readings() {
    let mut window = UsageWindow::default();
    let quick = |cpu_usec| Sample { cpu_usec, ..Sample::default() };
    // As after an error, when the window begins between two digests.
    window.add(at(0), quick(0));
    window.add(at(1_000), quick(1_000_000));
    assert_eq!(window.digest(), None, "of memory nothing is known");
    window.add(at(2_000), sample(2_000_000, &[]));
    let digest = window.digest().unwrap();
    assert_eq!((digest.cpu_milli_mean, digest.memory_working_set), (1_000, 99));
    assert_eq!((digest.pressure_permille, digest.disk_bytes_per_second), (None, None));
    window.add(at(7_000), quick(3_000_000));
    window.add(at(12_000), sample(7_000_000, &[]));
    let digest = window.digest().unwrap();
    assert_eq!((digest.cpu_milli_mean, digest.cpu_milli_max), (500, 800));
    assert_eq!((digest.pressure_permille, digest.oom_kills), (Some([50, 0, 0]), 5));
}

#[test]
fn what_a_pods_network_did_is_known_of_one_network_between_two_readings() {
    let mut window = UsageWindow::default();
    let mut read = |seconds: i64, network: Option<(u64, [u64; 2])>| {
        let mut sample = sample(0, &[("a", 0)]);
        let network = network.map(|(namespace, bytes)| PodNetwork { namespace, bytes });
        sample.pods[0].rest.as_mut().unwrap().network = network;
        window.add(at(seconds * 1_000), sample);
        window.digest().map(|digest| digest.pods[0].network_bytes_per_second)
    };
    assert_eq!(read(0, Some((1, [500, 500]))), None);
    assert_eq!(read(10, Some((1, [1_500, 500]))), Some(Some([100, 0])));
    assert_eq!(read(20, Some((2, [9_000, 9_000]))), Some(None), "a sandbox made anew");
    assert_eq!(read(30, Some((2, [9_000, 9_010]))), Some(Some([0, 1])));
    assert_eq!(read(40, Some((2, [9_500, 10]))), Some(None), "an interface went");
    assert_eq!(read(50, None), Some(None));
    assert_eq!(read(60, Some((2, [10_000, 100]))), Some(None), "it was unknown in between");
    assert_eq!(read(70, Some((2, [10_000, 100]))), Some(Some([0, 0])));
}

#[test]
fn counters_that_go_back_are_no_use_and_no_panic() {
    let mut window = UsageWindow::default();
    window.add(at(1_000), sample(5_000_000, &[("a", u64::MAX)]));
    window.add(at(500), sample(1, &[]));
    window.add(at(2_000), sample(0, &[("a", 0)]));
    let digest = window.digest().unwrap();
    assert_eq!((digest.cpu_milli_mean, digest.pods[0].cpu_milli_mean), (0, 0));
}

proptest! {
    #[test]
    fn no_text_makes_a_parser_panic(text in "\\PC{0,80}(\n\\PC{0,80}){0,4}") {
        let _outcomes = (cpu_usage(&text), inactive_file(&text), number(&text), stalled(&text));
        let _more =
            (io_bytes(&text), container_of_directory(&text), node_cpu_usage(&text), available_memory(&text).is_ok(), pod_uid_of_directory(&text));
        let _rest = (network_bytes(&text), pod_network_bytes(&text), processes(&text).count(), disk_bytes(&text), limit_periods(&text), oom_kills(&text));
    }

    #[test]
    fn no_number_makes_the_fold_panic(values in prop::collection::vec(any::<(i32, u64)>(), 0..20)) {
        let mut window = UsageWindow::default();
        for (time, value) in values {
            window.add(at(i64::from(time)), sample(value, &[("a", value)]));
            let _digest = window.digest();
        }
    }
}
