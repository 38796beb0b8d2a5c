//! The folder in which scripts and people find everything: kubeconfig, endpoints, logs, data.

use std::collections::BTreeMap;
use std::fs::{DirEntry, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use serde::Serialize;

/// Says that a folder is a sandbox's; it is locked while one runs there.
const MARK: &str = "sandbox.lock";

/// What a sandbox writes into its folder, beside what its leaders do.
const ENTRIES: [&str; 9] = [
    "agents",
    "certificates",
    "drover.log",
    "endpoints.json",
    "endpoints.json.new",
    "hosts",
    "kubeconfig",
    "leader.kubeconfig",
    "leader.token",
];

/// An open state folder; a temporary one is removed at the end unless something failed.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    temporary: Mutex<Option<tempfile::TempDir>>,
    /// Whether something of an earlier run was there.
    renewed: bool,
    /// Held for as long as the folder is in use; a temporary one is nobody else's anyway.
    _lock: Option<File>,
}

/// What `endpoints.json` says.
#[derive(Serialize)]
struct EndpointsFile<'a> {
    kubernetes: &'a str,
    leaders: &'a [String],
    ec2: &'a str,
    ssm: &'a str,
    pricing: &'a str,
    sqs: &'a str,
    admin: &'a str,
    kubelet: &'a str,
    imds: &'a BTreeMap<String, String>,
}

impl StateDir {
    /// Opens (and makes) the folder, or a fresh temporary one. What an earlier run left in it is
    /// removed: it speaks of a cloud and a cluster that ended with that run.
    pub(crate) fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        if let Some(path) = path {
            std::fs::create_dir_all(path)
                .with_context(|| format!("cannot make the state folder {}", path.display()))?;
            let path = path.canonicalize().context("cannot resolve the state folder")?;
            let (lock, renewed) = take(&path)?;
            return Ok(Self { path, temporary: Mutex::new(None), renewed, _lock: Some(lock) });
        }
        let folder = tempfile::Builder::new()
            .prefix("drover-sandbox-")
            .tempdir()
            .context("cannot make a temporary folder")?;
        Ok(Self {
            path: folder.path().to_owned(),
            temporary: Mutex::new(Some(folder)),
            renewed: false,
            _lock: None,
        })
    }

    /// Whether an earlier run's things were removed from it.
    pub(crate) fn renewed(&self) -> bool {
        self.renewed
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The kubeconfig's path.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.path.join("kubeconfig")
    }

    /// Where the sandbox keeps the kernel's files of each instance.
    pub(crate) fn hosts(&self) -> PathBuf {
        self.path.join("hosts")
    }

    /// A leader's data folder.
    pub(crate) fn leader_data(&self, id: u8) -> PathBuf {
        self.path.join(format!("leader-{id}"))
    }

    /// A member's log, when it runs as a process.
    pub(crate) fn log_of(&self, member: &str) -> PathBuf {
        self.path.join(format!("{member}.log"))
    }

    pub(crate) fn write_kubeconfig(&self, text: &str) -> anyhow::Result<()> {
        std::fs::write(self.kubeconfig(), text).context("cannot write the kubeconfig")
    }

    /// Writes `endpoints.json`, whole or not at all.
    pub(crate) fn write_endpoints(
        &self,
        endpoints: &drover_sandbox::Endpoints,
        leaders: &[String],
    ) -> anyhow::Result<()> {
        write_endpoints(&self.path, endpoints, leaders, &BTreeMap::new())
    }

    /// Sends this process' tracing to `drover.log`. `DROVER_LOG` sets the filter.
    pub(crate) fn log_to_file(&self) -> anyhow::Result<()> {
        let file = std::fs::File::create(self.log_of("drover")).context("cannot open the log")?;
        let filter = tracing_subscriber::EnvFilter::try_from_env("DROVER_LOG")
            .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,openraft=warn"));
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(false)
            .with_writer(Arc::new(file))
            .try_init()
            .map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))
    }

    /// Removes a temporary folder.
    pub(crate) fn remove_if_temporary(&self) {
        drop(self.temporary.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Keeps a temporary folder for a look at what went wrong.
    pub(crate) fn keep(&self) {
        if let Some(folder) = self.temporary.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = folder.keep();
        }
    }
}

/// Makes a folder this run's own: the lock, and whether anything of an earlier run had to go.
fn take(folder: &Path) -> anyhow::Result<(File, bool)> {
    let shown = folder.display();
    let mark = folder.join(MARK);
    // Only what a sandbox has written is removed.
    if !mark.exists()
        && let Some(foreign) = entries(folder)?.first()
    {
        anyhow::bail!(
            "the state folder {shown} has a {} that is not known to be a sandbox's: name a new or \
             an empty folder, or move it away",
            foreign.file_name().display()
        );
    }
    let lock = File::options().create(true).truncate(false).write(true).open(&mark);
    let lock = lock.with_context(|| format!("cannot open {}", mark.display()))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            anyhow::bail!("another sandbox runs in the state folder {shown}")
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("cannot lock {}", mark.display()));
        }
    }
    let left = entries(folder)?;
    for entry in &left {
        remove(entry).with_context(|| format!("cannot remove {}", entry.path().display()))?;
    }
    Ok((lock, !left.is_empty()))
}

/// What is in a folder under the names that a sandbox uses.
fn entries(folder: &Path) -> anyhow::Result<Vec<DirEntry>> {
    let unreadable = || format!("cannot read the state folder {}", folder.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(unreadable)? {
        let entry = entry.with_context(unreadable)?;
        if entry.file_name().to_str().is_some_and(is_ours) {
            found.push(entry);
        }
    }
    Ok(found)
}

/// Whether a sandbox writes under this name: `leader-1` and `leader-1.log`, too.
fn is_ours(name: &str) -> bool {
    let number = name.strip_prefix("leader-").map(|rest| rest.strip_suffix(".log").unwrap_or(rest));
    let is_leader = number.is_some_and(|number| number.parse::<u8>().is_ok());
    is_leader || ENTRIES.contains(&name)
}

/// Removes a file, or a folder with what is in it; what a link leads to stays.
fn remove(entry: &DirEntry) -> std::io::Result<()> {
    if entry.file_type()?.is_dir() {
        std::fs::remove_dir_all(entry.path())
    } else {
        std::fs::remove_file(entry.path())
    }
}

/// Writes `endpoints.json` into a state folder; readers never see half of it.
pub(crate) fn write_endpoints(
    folder: &Path,
    endpoints: &drover_sandbox::Endpoints,
    leaders: &[String],
    imds: &BTreeMap<String, String>,
) -> anyhow::Result<()> {
    let file = EndpointsFile {
        kubernetes: &endpoints.kubernetes,
        leaders,
        ec2: &endpoints.ec2,
        ssm: &endpoints.ssm,
        pricing: &endpoints.pricing,
        sqs: &endpoints.sqs,
        admin: &endpoints.admin,
        kubelet: &endpoints.kubelet,
        imds,
    };
    let draft = folder.join("endpoints.json.new");
    std::fs::write(&draft, serde_json::to_vec_pretty(&file)?)
        .and_then(|()| std::fs::rename(&draft, folder.join("endpoints.json")))
        .context("cannot write endpoints.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_run_begins_anew_and_leaves_the_users_files() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("pods.yaml"), "").unwrap();
        let first = StateDir::open(Some(folder.path())).unwrap();
        assert!(!first.renewed());
        for path in [first.leader_data(1), first.hosts(), first.path().join("agents/i-1")] {
            std::fs::create_dir_all(path.join("inner")).unwrap();
        }
        std::fs::write(first.log_of("leader-1"), "").unwrap();
        first.write_kubeconfig("").unwrap();
        drop(first);
        let second = StateDir::open(Some(folder.path())).unwrap();
        assert!(second.renewed());
        let mut names: Vec<String> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["pods.yaml", MARK]);
    }

    #[test]
    fn a_folder_in_use_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let first = StateDir::open(Some(folder.path())).unwrap();
        first.write_kubeconfig("mine").unwrap();
        let refused = StateDir::open(Some(folder.path())).unwrap_err().to_string();
        assert!(refused.starts_with("another sandbox runs in the state folder"), "{refused}");
        assert_eq!(std::fs::read_to_string(first.kubeconfig()).unwrap(), "mine");
    }

    #[test]
    fn what_no_sandbox_wrote_is_named_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = folder.path().join("kubeconfig");
        std::fs::write(&kubeconfig, "precious").unwrap();
        for _ in 0..2 {
            let refused = StateDir::open(Some(folder.path())).unwrap_err().to_string();
            assert!(refused.contains("has a kubeconfig that is not known"), "{refused}");
        }
        assert_eq!(std::fs::read_to_string(&kubeconfig).unwrap(), "precious");
    }

    #[test]
    fn only_a_sandboxs_names_are_its_own() {
        for name in ["agents", "kubeconfig", "leader-1", "leader-5.log"] {
            assert!(is_ours(name), "{name}");
        }
        for name in ["leader-", "leader-one", "leaders", "drover", MARK, "leader-1.log.gz"] {
            assert!(!is_ours(name), "{name}");
        }
    }
}
