//! `drover sandbox` as a user runs it: the built binary, from outside.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

fn sandbox(state: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_drover"));
    command.args(["sandbox", "--exit", "--state-dir"]).arg(state);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The last lines of each log, which end with the folder.
fn ends_of_logs(state: &Path) -> String {
    let files = std::fs::read_dir(state).into_iter().flatten().flatten().map(|file| file.path());
    let logs = files.filter(|path| path.extension().is_some_and(|kind| kind == "log"));
    let end = |path: std::path::PathBuf| {
        let text = std::fs::read(&path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        format!("\n{}:\n{}\n", path.display(), lines[lines.len().saturating_sub(15)..].join("\n"))
    };
    logs.map(end).collect()
}

/// Process ids of `parent`'s children that run as `role` (`leader` or `agent`).
fn children(parent: u32, role: &str) -> BTreeSet<u32> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    // Children are listed by the thread that started them, so every thread is asked.
    let threads = std::fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
    let lists = threads.map(|thread| thread.path().join("children").display().to_string());
    lists
        .chain([path])
        .filter_map(|list| std::fs::read_to_string(list).ok())
        .flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|pid| pid.parse().ok())
        .filter(|pid: &u32| {
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            command.split(|byte| *byte == 0).nth(1) == Some(role.as_bytes())
        })
        .collect()
}

fn kill_one(parent: u32, role: &str, choice: usize) -> bool {
    let pids = children(parent, role);
    let Some(pid) = pids.iter().nth(choice % pids.len().max(1)) else { return false };
    Command::new("kill").args(["-KILL", &pid.to_string()]).status().is_ok_and(|s| s.success())
}

/// Waits for the end; a run that hangs is ended and fails.
fn wait(mut child: Child, limit: Duration, mut meanwhile: impl FnMut(u32, Duration)) -> Output {
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > limit {
            child.kill().unwrap();
            let output = child.wait_with_output().unwrap();
            panic!("still running after {limit:?}:\n{}", text(&output));
        }
        meanwhile(child.id(), start.elapsed());
        std::thread::sleep(Duration::from_millis(100));
    }
    child.wait_with_output().unwrap()
}

#[test]
fn the_tour_survives_kills_of_any_leader_and_agent_process() {
    let state = tempfile::tempdir().unwrap();
    let child = sandbox(state.path()).arg("--processes").spawn().unwrap();
    let mut killed = Vec::new();
    let mut next = Duration::from_secs(4);
    let output = wait(child, Duration::from_secs(280), |parent, elapsed| {
        if elapsed < next {
            return;
        }
        let role = if killed.len() % 2 == 0 { "leader" } else { "agent" };
        if kill_one(parent, role, killed.len() / 2) {
            killed.push(format!("{role} after {:.0} s", elapsed.as_secs_f64()));
            next = elapsed + Duration::from_secs(7);
        }
    });
    let told = text(&output) + &ends_of_logs(state.path());
    assert!(killed.len() >= 4, "only {killed:?} were killed:\n{told}");
    assert!(output.status.success(), "killed {killed:?}:\n{told}");
}

#[test]
fn bad_manifests_are_named_and_the_rest_is_applied() {
    let state = tempfile::tempdir().unwrap();
    let manifests = state.path().join("manifests.yaml");
    let text_of = "\
kind: [broken
---
apiVersion: example.com/v9
kind: Unheard
metadata: {name: a}
---
apiVersion: karpenter.sh/v1
kind: NodePool
metadata: {name: bad}
spec:
  weight: 1000
  template:
    spec:
      nodeClassRef: {group: karpenter.k8s.aws, kind: EC2NodeClass, name: default}
      requirements: []
---
apiVersion: v1
kind: Namespace
metadata: {name: good}
";
    std::fs::write(&manifests, text_of).unwrap();
    let mut command = sandbox(state.path());
    command.args(["--leaders", "1"]).arg("-f").arg(&manifests);
    let child = command.spawn().unwrap();
    let output = wait(child, Duration::from_secs(200), |_, _| {});
    let told = text(&output);
    assert!(told.contains("1 objects applied"), "{told}");
    assert!(!output.status.success(), "what was not applied is a failure:\n{told}");
    for expected in [
        "manifests.yaml, document 1: not YAML",
        "document 2: unheard a: the cluster has no kind Unheard in example.com/v9",
        "document 3: nodepool bad:",
        "spec.weight",
    ] {
        assert!(told.contains(expected), "{expected} is missing in:\n{told}");
    }
}

#[test]
fn a_second_run_in_the_same_folder_begins_anew() {
    let state = tempfile::tempdir().unwrap();
    let manifests = state.path().join("manifests.yaml");
    std::fs::write(&manifests, "apiVersion: v1\nkind: Namespace\nmetadata: {name: good}\n")
        .unwrap();
    for run in 1..=2 {
        let mut command = sandbox(state.path());
        command.args(["--leaders", "1"]).arg("-f").arg(&manifests);
        let output = wait(command.spawn().unwrap(), Duration::from_secs(100), |_, _| {});
        let told = text(&output);
        assert!(output.status.success(), "run {run}:\n{told}");
        assert_eq!(told.contains("an earlier run's are removed"), run == 2, "run {run}:\n{told}");
        assert!(state.path().join("leader-1").is_dir(), "run {run} keeps its data");
    }
    std::fs::remove_file(state.path().join("sandbox.lock")).unwrap();
    let refused = sandbox(state.path()).output().unwrap();
    assert!(!refused.status.success());
    assert!(text(&refused).contains("is not known to be a sandbox's"), "{}", text(&refused));
}
