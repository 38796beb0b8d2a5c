//! What a unit does before it starts a replica.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;

/// Whether a unit would start after it, and what was said.
fn validate(folder: &Path, more: &[(&str, &str)]) -> (bool, String) {
    let kubeconfig = folder.join("kubeconfig");
    let text = r#"{"apiVersion":"v1","kind":"Config","current-context":"c",
        "clusters":[{"name":"c","cluster":{"server":"http://127.0.0.1:9"}}],
        "contexts":[{"name":"c","context":{"cluster":"c","user":"u"}}],
        "users":[{"name":"u","user":{"token":"t"}}]}"#;
    std::fs::write(&kubeconfig, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_drover-leader"))
        .arg("validate")
        .env_clear()
        .env("KUBECONFIG", &kubeconfig)
        .env("DROVER_DATA_DIR", folder.join("data"))
        .env("DROVER_API_INSECURE", "true")
        .env("CLUSTER_NAME", "c")
        .env("AWS_REGION", "eu-west-1")
        .envs(more.iter().copied())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[test]
fn a_unit_is_started_by_settings_that_can_be_used_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (good, said) = validate(folder.path(), &[]);
    assert!(good && said.contains("valid: replica 1"), "{said}");
    let file = folder.path().join("kubeconfig");
    let missing = folder.path().join("none");
    let below_a_file = file.join("data");
    for (variable, value) in [
        ("KUBECONFIG", missing.to_str().unwrap()),
        ("DROVER_DATA_DIR", below_a_file.to_str().unwrap()),
        ("DROVER_RAFT_LISTEN", "nowhere"),
        ("AWS_REGION", ""),
        ("BATCH_MAX_DURATION", "soon"),
    ] {
        let (good, said) = validate(folder.path(), &[(variable, value)]);
        assert!(!good && !said.contains("valid: replica"), "{variable}={value}: {said}");
    }
}
