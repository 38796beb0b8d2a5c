//! `moto_server` from PyPI in a virtual environment of its own, kept below the target folder.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The release that the contract was written against.
const PACKAGE: &str = "moto[server,ec2,ssm]==5.2.5";

/// A running server; it ends when dropped.
pub(crate) struct Moto {
    pub(crate) url: String,
    process: Child,
}

impl Drop for Moto {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing else to clean up.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Starts a server, after installing it where it is not.
///
/// # Errors
/// What is missing on this machine.
pub(crate) async fn start() -> Result<Moto, String> {
    let server =
        tokio::task::spawn_blocking(install).await.map_err(|error| error.to_string())??;
    let port = free_port().map_err(|error| format!("no free port: {error}"))?;
    let process = Command::new(&server)
        .args(["-H", "127.0.0.1", "-p", &port.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("{} does not start: {error}", server.display()))?;
    let mut moto = Moto { url: format!("http://127.0.0.1:{port}"), process };
    for _ in 0..300 {
        if tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok() {
            return Ok(moto);
        }
        if let Ok(Some(status)) = moto.process.try_wait() {
            return Err(format!("moto_server ended with {status}"));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err("moto_server does not listen after 30 s".to_owned())
}

fn install() -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("moto-5.2.5");
    let server = folder.join("bin/moto_server");
    if server.exists() {
        return Ok(server);
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
    run(Command::new(folder.join("bin/pip")).args(["install", "--quiet", PACKAGE]))?;
    Ok(server)
}

fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(format!("{name} failed: {}", words.lines().last().unwrap_or_default()))
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
