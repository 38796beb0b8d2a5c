//! A running `drover sandbox`, and the real kubectl.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long nodes and pods may take in all; nothing here waits for less.
const PATIENCE: Duration = Duration::from_secs(150);

/// Whether kubectl is missing, which is said.
pub(crate) fn kubectl_is_missing() -> bool {
    let missing = Command::new("kubectl").args(["version", "--client"]).output().is_err();
    if missing {
        let mut uncaptured = std::io::stderr();
        writeln!(uncaptured, "SKIPPED: kubectl is missing").unwrap();
    }
    missing
}

/// A running sandbox, ended when dropped.
pub(crate) struct Sandbox {
    child: Child,
    pub(crate) state: tempfile::TempDir,
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        let asked = Command::new("kill").args(["-TERM", &pid]).status().is_ok_and(|s| s.success());
        let end = Instant::now() + Duration::from_secs(20);
        while asked && Instant::now() < end {
            if self.child.try_wait().is_ok_and(|ended| ended.is_some()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
    }
}

impl Sandbox {
    /// With one leader, these flags, and these manifests applied.
    pub(crate) fn start(flags: &[&str], manifests: &Path) -> Self {
        let state = tempfile::tempdir().unwrap();
        let output = std::fs::File::create(state.path().join("output")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_drover"))
            .args(["sandbox", "--leaders", "1", "--state-dir"])
            .arg(state.path())
            .args(flags)
            .arg("-f")
            .arg(manifests)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        let mut sandbox = Self { child, state };
        let end = Instant::now() + PATIENCE;
        while !sandbox.state.path().join("endpoints.json").exists() {
            let ended = sandbox.child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < end, "{ended:?}: {}", sandbox.told());
            std::thread::sleep(Duration::from_millis(100));
        }
        sandbox
    }

    fn told(&self) -> String {
        std::fs::read_to_string(self.state.path().join("output")).unwrap_or_default()
    }

    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new("kubectl")
            .env("KUBECONFIG", self.state.path().join("kubeconfig"))
            .env("HOME", self.state.path())
            .args(arguments)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// The items of `kubectl get … -o json`.
    pub(crate) fn get(&self, arguments: &[&str]) -> Vec<Value> {
        let all = [&["get"], arguments, &["-o", "json"]].concat();
        let text = self.kubectl(&all).unwrap_or_else(|error| panic!("{arguments:?}: {error}"));
        let list: Value = serde_json::from_str(&text).unwrap();
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// Waits until something holds.
    pub(crate) fn wait(&self, what: &str, holds: impl Fn() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !holds() {
            if Instant::now() > end {
                let look = |kind: &str| self.kubectl(&["get", kind, "-A"]).unwrap_or_default();
                let events = self.kubectl(&["get", "events", "-A"]).unwrap_or_default();
                let seen = ["ec2nodeclasses", "nodepools", "nodeclaims", "nodes", "pods"].map(look);
                panic!("{what}:\n{}\n{}\n{events}", self.told(), seen.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    }
}
