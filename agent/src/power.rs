//! The machine's power, by systemd: whether it shuts down, and the last resort of an agent that is cut
//! off, which is to begin that.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// A command that does not end in this time has failed.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Runs the command that powers the machine off; a shell is not involved.
///
/// # Errors
/// It can't be run, fails or hangs; in words.
pub(crate) async fn power_off(command: &str) -> Result<(), String> {
    let mut words = command.split_whitespace();
    let program = words.next().ok_or("there is no command to power the machine off by")?;
    let output = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .output();
    match tokio::time::timeout(TIMEOUT, output).await {
        Err(_elapsed) => Err(format!("{command} does not end")),
        Ok(Err(error)) => Err(format!("{command}: {error}")),
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => {
            let words = String::from_utf8_lossy(&output.stderr);
            let words: String = words.trim().chars().take(200).collect();
            Err(format!("{command}: {}: {words}", output.status))
        }
    }
}

/// Whether systemd is shutting this machine down: only then is a request to stop more than a restart
/// of the agent. A root that isn't ours is another machine's, simulated perhaps.
pub(crate) async fn is_shutting_down(root: &Path) -> bool {
    if root != Path::new("/") || !sd_notify::booted().unwrap_or(false) {
        return false;
    }
    let asked = Command::new("systemctl")
        .arg("is-system-running")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    match tokio::time::timeout(TIMEOUT, asked).await {
        Ok(Ok(output)) => output.stdout.trim_ascii() == b"stopping",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn refusals_are_told_in_the_commands_words() {
        assert_eq!(power_off("true").await, Ok(()));
        assert!(power_off("").await.is_err());
        assert!(power_off("/no/such/command now").await.unwrap_err().contains("/no/such/command"));
        let refused = power_off("ls /no/such/folder").await.unwrap_err();
        assert!(refused.contains("/no/such/folder"), "{refused}");
    }

    #[tokio::test]
    async fn another_machines_root_never_shuts_down() {
        assert!(!is_shutting_down(Path::new("/hosts/i-1")).await);
    }
}
