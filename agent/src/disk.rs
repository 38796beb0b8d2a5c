//! What is kept over restarts.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use drover_agent_core::Saved;
use drover_agent_core::usage::SavedHistory;
use drover_common::id::BootId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::clock::KeptClock;

pub(crate) const NOTICES: &str = "notices.json";
const HISTORY: &str = "usage.json";
/// A disk that says nothing for so long is started without.
pub(crate) const DISK_PATIENCE: Duration = Duration::from_secs(5);

/// Notices as they are kept, and the clock that their times are told by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Kept {
    #[serde(flatten)]
    pub(crate) saved: Saved,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) clock: Option<KeptClock>,
}

/// The agent's own folder.
#[derive(Clone, Debug)]
pub(crate) struct StateDir(PathBuf);

impl StateDir {
    pub(crate) fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Makes the folder if needed. Where it can't be made or written the agent guards its node all the
    /// same, and says that it remembers nothing over a restart; each write tries again.
    pub(crate) async fn open(&self) {
        if let Err(error) = probe(&self.0).await {
            tracing::warn!(
                path = %self.0.display(),
                %error,
                "State folder can't be written; notices are kept in memory alone."
            );
        }
    }

    /// The notices that were kept; `None` if nothing was, or if it's damaged, which is logged: the
    /// agent then learns everything anew.
    pub(crate) async fn load(&self) -> Option<Kept> {
        self.read(NOTICES).await
    }

    /// Replaces what was kept of notices, as a whole or not at all.
    pub(crate) async fn save(&self, kept: &Kept) -> io::Result<()> {
        self.write(NOTICES, kept).await
    }

    /// The histories that were kept.
    pub(crate) async fn load_history(&self) -> Option<SavedHistory> {
        self.read(HISTORY).await
    }

    /// Replaces what was kept of histories.
    pub(crate) async fn save_history(&self, saved: &SavedHistory) -> io::Result<()> {
        self.write(HISTORY, saved).await
    }

    async fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let path = self.0.join(name);
        let bytes = match tokio::fs::read(&path).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "Kept state can't be read.");
                return None;
            }
        };
        serde_json::from_slice(&bytes)
            .inspect_err(|error| {
                tracing::warn!(path = %path.display(), %error, "Kept state is damaged.");
            })
            .ok()
    }

    async fn write<T: Serialize>(&self, name: &str, state: &T) -> io::Result<()> {
        let bytes = serde_json::to_vec(state)?;
        tokio::fs::create_dir_all(&self.0).await?;
        let fresh = self.0.join(format!("{name}.new"));
        let mut file = tokio::fs::File::create(&fresh).await?;
        tokio::io::AsyncWriteExt::write_all(&mut file, &bytes).await?;
        file.sync_all().await?;
        tokio::fs::rename(&fresh, self.0.join(name)).await
    }
}

/// Makes the folder if needed, and a file in it, which goes again.
pub(crate) async fn probe(folder: &Path) -> io::Result<()> {
    tokio::fs::create_dir_all(folder).await?;
    // An agent may start while another is only validated.
    let probe = folder.join(format!("probe-{}.new", std::process::id()));
    tokio::fs::write(&probe, b"").await?;
    tokio::fs::remove_file(&probe).await
}

/// The kernel's boot id. Where it can't be read the boot gets a name of its own, so that nothing
/// kept on disk is taken for this boot's.
pub(crate) async fn boot_id(host_root: &Path) -> BootId {
    let path = host_root.join("proc/sys/kernel/random/boot_id");
    match tokio::fs::read_to_string(&path).await {
        Ok(text) if !text.trim().is_empty() => BootId::from(text.trim()),
        _ => {
            tracing::warn!(path = %path.display(), "Boot id can't be read; kept notices are ignored.");
            BootId::from(format!("unknown-{:016x}", fastrand::u64(..)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_saved_is_loaded_and_damage_is_survived() {
        let folder = tempfile::tempdir().unwrap();
        let disk = StateDir::at(&folder.path().join("a/b"));
        disk.open().await;
        assert_eq!(disk.load().await, None);
        let saved = Saved { instance: Some("i-1".into()), boot: "b".into(), notices: Vec::new() };
        let saved = Kept { saved, clock: None };
        disk.save(&saved).await.unwrap();
        assert_eq!(disk.load().await, Some(saved));
        std::fs::write(folder.path().join("a/b").join(NOTICES), "{\"inst").unwrap();
        assert_eq!(disk.load().await, None);
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_made_is_one_without_memory_until_it_can() {
        let folder = tempfile::tempdir().unwrap();
        let blocked = folder.path().join("a");
        std::fs::write(&blocked, "a file").unwrap();
        let disk = StateDir::at(&blocked.join("b"));
        disk.open().await;
        let saved = Saved { instance: Some("i-1".into()), boot: "b".into(), notices: Vec::new() };
        let saved = Kept { saved, clock: None };
        assert!(disk.save(&saved).await.is_err());
        assert_eq!(disk.load().await, None);
        assert!(probe(&blocked.join("b")).await.is_err());
        std::fs::remove_file(&blocked).unwrap();
        probe(&blocked.join("b")).await.unwrap();
        assert_eq!(std::fs::read_dir(blocked.join("b")).unwrap().count(), 0, "nothing is left");
        disk.save(&saved).await.unwrap();
        assert_eq!(disk.load().await, Some(saved));
    }

    #[tokio::test]
    async fn an_unknown_boot_is_never_the_same() {
        let folder = tempfile::tempdir().unwrap();
        assert_ne!(boot_id(folder.path()).await, boot_id(folder.path()).await);
    }
}
