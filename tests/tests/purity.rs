//! The pure crates stay pure by what they can reach: a decision that can't name a socket, a file or
//! a clock's runtime can't use one. `clippy.toml` in each of their folders bans the rest.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// Crates whose presence means I/O, threads of control, or a clock.
const IMPURE: [&str; 14] = [
    "axum",
    "aws-sdk-ec2",
    "hyper",
    "kube-client",
    "kube-runtime",
    "mio",
    "openraft",
    "rand",
    "redb",
    "reqwest",
    "rustls",
    "sysinfo",
    "tokio",
    "tracing",
];

/// Everything `package` is built from, itself excluded.
fn dependencies(package: &str) -> BTreeSet<String> {
    tree(package, &[])
}

/// What `package` itself can name.
fn direct_dependencies(package: &str) -> BTreeSet<String> {
    tree(package, &["--depth", "1"])
}

fn tree(package: &str, more: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--package", package, "--edges", "normal,no-proc-macro"])
        .args(["--prefix", "none", "--format", "{p}"])
        .args(more)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let names = text.lines().filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != package).map(str::to_owned).collect()
}

fn assert_reaches_nothing_of(package: &str, banned: &[&str]) {
    let reached = dependencies(package);
    assert!(!reached.is_empty(), "{package} has no dependencies at all: is the question right?");
    let found: Vec<&&str> = banned.iter().filter(|name| reached.contains(**name)).collect();
    assert!(found.is_empty(), "{package} depends on {found:?}");
}

#[test]
fn pure_crates_reach_no_io() {
    for package in ["drover-common", "drover-core", "drover-agent-core"] {
        assert_reaches_nothing_of(package, &IMPURE);
    }
}

#[test]
fn the_question_finds_what_is_there() {
    assert!(dependencies("drover-leader").contains("openraft"));
}

#[test]
fn agents_know_no_leader_and_the_sandbox_knows_neither() {
    assert_reaches_nothing_of("drover-agent", &["drover-leader", "drover-core", "aws-sdk-ec2"]);
    assert_reaches_nothing_of(
        "drover-sandbox",
        &["drover-leader", "drover-core", "drover-agent", "drover-kubernetes", "drover-ec2"],
    );
}

#[test]
fn only_one_crate_knows_the_aws_sdks() {
    for package in ["drover-core", "drover-kubernetes", "drover-agent", "drover-sandbox"] {
        assert_reaches_nothing_of(
            package,
            &["aws-sdk-ec2", "aws-sdk-sqs", "aws-sdk-ssm", "aws-config"],
        );
    }
}

#[test]
fn only_one_crate_knows_openraft_and_the_logs_file() {
    for package in ["drover-leader", "drover-tls", "drover-core", "drover-ec2", "drover-sandbox"] {
        let known = direct_dependencies(package);
        for banned in ["openraft", "redb"] {
            assert!(!known.contains(banned), "{package} knows {banned}");
        }
    }
    assert!(direct_dependencies("drover-raft").contains("openraft"));
}

/// Code in the docs below a folder that `cargo test` would have to try.
fn examples(folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            examples(&path, found);
        } else if name.ends_with(".rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let docs = text.lines().map(str::trim_start);
            let docs = docs.filter_map(|l| l.strip_prefix("///").or(l.strip_prefix("//!")));
            let fences = docs.filter_map(|line| line.trim().strip_prefix("```"));
            // Every other fence ends what one began.
            let begun = fences.step_by(2).filter(|language| *language != "text");
            found.extend(begun.map(|language| format!("{}: {language:?}", path.display())));
        }
    }
}

/// Looking for examples in twelve crates takes as long as a tenth of the tests, so that is left out
/// (`doctest = false`), and there must be none.
#[test]
fn no_example_in_docs_goes_untried() {
    let mut found = Vec::new();
    examples(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")), &mut found);
    assert!(found.is_empty(), "in need of `doctest = true`: {found:#?}");
}
