//! The folder in which scripts and people find everything: kubeconfig, endpoints, logs, data.

mod mark;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use serde::Serialize;

use mark::Mark;

/// An open state folder; a temporary one is removed at the end unless something failed.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    temporary: Mutex<Option<tempfile::TempDir>>,
    /// Whether something of an earlier run was there.
    renewed: bool,
    /// A temporary one is nobody else's anyway.
    mark: Option<Mark>,
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
    /// Opens (and makes) the folder for so many leaders, or a fresh temporary one. What an earlier run left in
    /// it is removed: it speaks of a cloud and a cluster that ended with that run.
    pub(crate) fn open(path: Option<&Path>, leaders: u8) -> anyhow::Result<Self> {
        if let Some(path) = path {
            std::fs::create_dir_all(path)
                .with_context(|| format!("cannot make the state folder {}", path.display()))?;
            let path = path.canonicalize().context("cannot resolve the state folder")?;
            let (mark, renewed) = Mark::take(&path, leaders)?;
            return Ok(Self { path, temporary: Mutex::new(None), renewed, mark: Some(mark) });
        }
        let folder = tempfile::Builder::new()
            .prefix("drover-sandbox-")
            .tempdir()
            .context("cannot make a temporary folder")?;
        Ok(Self {
            path: folder.path().to_owned(),
            temporary: Mutex::new(Some(folder)),
            renewed: false,
            mark: None,
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

    /// Where this run is about to write something of that name, which the next run will remove.
    pub(crate) fn claim(&self, name: &str) -> anyhow::Result<PathBuf> {
        if let Some(mark) = &self.mark {
            mark.claim(name)?;
        }
        Ok(self.path.join(name))
    }

    /// A leader's data folder.
    pub(crate) fn leader_data(&self, id: u8) -> anyhow::Result<PathBuf> {
        self.claim(&format!("leader-{id}"))
    }

    /// A member's log, when it runs as a process.
    pub(crate) fn log_of(&self, member: &str) -> anyhow::Result<PathBuf> {
        self.claim(&format!("{member}.log"))
    }

    pub(crate) fn write_kubeconfig(&self, text: &str) -> anyhow::Result<()> {
        std::fs::write(self.claim("kubeconfig")?, text).context("cannot write the kubeconfig")
    }

    /// Writes `endpoints.json`, whole or not at all.
    pub(crate) fn write_endpoints(
        &self,
        endpoints: &drover_sandbox::Endpoints,
        leaders: &[String],
    ) -> anyhow::Result<()> {
        for name in ["endpoints.json.new", "endpoints.json"] {
            self.claim(name)?;
        }
        write_endpoints(&self.path, endpoints, leaders, &BTreeMap::new())
    }

    /// Sends this process' tracing to `drover.log`. `DROVER_LOG` sets the filter.
    pub(crate) fn log_to_file(&self) -> anyhow::Result<()> {
        let file = std::fs::File::create(self.log_of("drover")?).context("cannot open the log")?;
        let filter = tracing_subscriber::EnvFilter::try_from_env("DROVER_LOG")
            .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,openraft=error"));
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
mod tests;
