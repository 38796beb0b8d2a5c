//! Histories and their file, which holds up neither what is measured nor the agent's end.

use std::time::{Duration, Instant};

use drover_agent_core::usage::{ContainerNames, History};
use drover_common::protocol::UsageDigest;
use jiff::Timestamp;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::disk::{DISK_PATIENCE, StateDir};

/// How often histories are written to disk.
const CHECKPOINT: Duration = Duration::from_secs(600);
/// How long the last of it is waited for when the agent ends.
const LAST: Duration = Duration::from_secs(2);

/// What was measured over days, and the disk that it is kept on.
#[derive(Debug)]
pub(super) struct Histories {
    disk: StateDir,
    /// `None` while there is nothing to keep.
    history: Option<History>,
    due_at: Instant,
    /// Never two at once: what hangs keeps its thread, and would write when it wakes.
    saving: Option<AbortOnDropHandle<()>>,
}

impl Histories {
    /// What was kept; nothing where the disk does not answer in time.
    pub(super) async fn load(disk: StateDir) -> Self {
        let kept = timeout(DISK_PATIENCE, disk.load_history()).await.unwrap_or_else(|_| {
            tracing::warn!("Disk does not answer; histories of use begin anew.");
            None
        });
        let history = kept.map(|kept| History::restore(&kept));
        Self { disk, history, due_at: Instant::now() + CHECKPOINT, saving: None }
    }

    /// Takes in a digest and writes into it what it adds up to.
    pub(super) fn take(
        &mut self,
        digest: &mut UsageDigest,
        names: &ContainerNames,
        now: Timestamp,
    ) {
        self.history.get_or_insert_default().take(digest, names, now);
    }

    /// Begins to write now and then.
    pub(super) fn keep(&mut self) {
        if Instant::now() < self.due_at {
            return;
        }
        self.due_at = Instant::now() + CHECKPOINT;
        if self.saving.as_ref().is_some_and(|saving| !saving.is_finished()) {
            tracing::warn!("Histories are not on disk: it does not answer.");
            return;
        }
        self.save();
    }

    /// Waits until all is on disk, but not for long.
    pub(super) async fn finish(&mut self) {
        let last = async {
            self.saved().await;
            self.save();
            self.saved().await;
        };
        if timeout(LAST, last).await.is_err() {
            tracing::warn!("Histories may not be on disk: it did not answer in time.");
        }
    }

    fn save(&mut self) {
        let Some(history) = &self.history else { return };
        let (disk, kept) = (self.disk.clone(), history.save());
        self.saving = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            if let Err(error) = disk.save_history(&kept).await {
                tracing::warn!(%error, "Histories can't be kept on disk.");
            }
        })));
    }

    async fn saved(&mut self) {
        if let Some(saving) = &mut self.saving {
            // It can't have been stopped, and has said itself what it could not do.
            let _ended = saving.await;
        }
        self.saving = None;
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[tokio::test]
    async fn a_disk_that_hangs_is_left_alone_until_it_answers() {
        let folder = tempfile::tempdir().unwrap();
        let disk = StateDir::at(folder.path());
        // Who opens it to write waits for a reader.
        let pipe = folder.path().join("usage.json.new");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let mut histories = Histories::load(disk.clone()).await;
        histories.keep();
        assert!(histories.saving.is_none(), "it is not time yet");
        histories.take(&mut UsageDigest::default(), &ContainerNames::new(), Timestamp::UNIX_EPOCH);
        histories.due_at = Instant::now();
        histories.keep();
        let first = histories.saving.as_ref().unwrap().abort_handle().id();
        tokio::time::sleep(Duration::from_millis(50)).await;
        histories.due_at = Instant::now();
        histories.keep();
        assert_eq!(histories.saving.as_ref().unwrap().abort_handle().id(), first, "two at once");
        let ended = timeout(LAST + Duration::from_secs(5), histories.finish()).await;
        assert!(ended.is_ok(), "the agent would not end");
        // Lets the thread go that opens the pipe.
        let _reader = std::fs::File::options().read(true).write(true).open(&pipe).unwrap();
    }
}
