use super::*;

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
    let meminfo = "MemTotal:       16000 kB\nMemFree:         1000 kB\nMemAvailable:    4000 kB\n";
    assert_eq!(available_memory(meminfo), Ok((16_000 * 1024, 4_000 * 1024)));
}

#[test]
fn what_is_not_there_is_named() {
    assert_eq!(cpu_usage("").unwrap_err().field, "usage_usec");
    assert_eq!(cpu_usage("usage_usec -1").unwrap_err().field, "usage_usec");
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

fn sample(cpu_usec: u64, pods: &[(&str, u64)]) -> Sample {
    let pod = |&(uid, cpu_usec): &(&str, u64)| {
        (uid.to_owned(), PodSample { cpu_usec, memory_working_set: 7 })
    };
    Sample {
        cpu_usec,
        memory_working_set: 99,
        stalled_usec: Some([cpu_usec / 10, 0, 0]),
        pods: pods.iter().map(pod).collect(),
    }
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
    assert_eq!(pods, [("a", 50)]);
    window.add(at(12_000), sample(5_000_000, &[("late", 200_009)]));
    let digest = window.digest().unwrap();
    assert_eq!((digest.cpu_milli_mean, digest.cpu_milli_max), (1_000, 1_000));
    assert_eq!(digest.pods[0].cpu_milli_mean, 100);
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
            (node_cpu_usage(&text), available_memory(&text).is_ok(), pod_uid_of_directory(&text));
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
