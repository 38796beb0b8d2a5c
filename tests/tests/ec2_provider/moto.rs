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

/// Why there is no server.
#[derive(Debug)]
pub(crate) enum NoMoto {
    /// This machine lacks something.
    Missing(String),
    /// It should be there, and is not.
    Broken(String),
}

/// Starts a server, after installing it where it is not.
///
/// # Errors
/// What is missing on this machine, or does not work.
pub(crate) async fn start() -> Result<Moto, NoMoto> {
    let installed = tokio::task::spawn_blocking(install).await;
    let server = installed.map_err(|error| NoMoto::Broken(error.to_string()))??;
    let port = free_port().map_err(|error| NoMoto::Broken(format!("no free port: {error}")))?;
    let process = Command::new(&server)
        .args(["-H", "127.0.0.1", "-p", &port.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| NoMoto::Broken(format!("{}: {error}", server.display())))?;
    let mut moto = Moto { url: format!("http://127.0.0.1:{port}"), process };
    for _ in 0..300 {
        if tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok() {
            return Ok(moto);
        }
        if let Ok(Some(status)) = moto.process.try_wait() {
            return Err(NoMoto::Broken(format!("moto_server ended with {status}")));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(NoMoto::Broken("moto_server does not listen after 30 s".to_owned()))
}

fn install() -> Result<PathBuf, NoMoto> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("moto-5.2.5");
    let server = folder.join("bin/moto_server");
    if server.exists() {
        return Ok(server);
    }
    let python = || Command::new("python3");
    let can_install = python().args(["-c", "import ensurepip, venv"]).output();
    if !can_install.is_ok_and(|output| output.status.success()) {
        return Err(NoMoto::Missing("python3 with venv is missing".to_owned()));
    }
    run(python().args(["-m", "venv", "--clear"]).arg(&folder))?;
    run(Command::new(folder.join("bin/pip")).args(["install", "--quiet", PACKAGE]))?;
    Ok(server)
}

/// Only an index that can't be reached is something that is missing.
fn run(command: &mut Command) -> Result<(), NoMoto> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| NoMoto::Broken(format!("{name}: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    if words.contains("(from versions: none)") {
        return Err(NoMoto::Missing("no package index can be reached".to_owned()));
    }
    Err(NoMoto::Broken(format!("{name} failed: {words}")))
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
