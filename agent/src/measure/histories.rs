//! Histories and their file, which holds up neither what is measured nor the agent's end.

use std::time::{Duration, Instant};

use drover_agent_core::usage::{ContainerNames, History, SavedHistory};
use drover_common::protocol::UsageDigest;
use futures::FutureExt;
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
    /// What was kept, while the disk owes it. Nothing is written over it before.
    loading: Option<AbortOnDropHandle<Option<SavedHistory>>>,
    /// `None` while there is nothing to keep.
    history: Option<History>,
    due_at: Instant,
    /// Never two at once: what hangs keeps its thread, and would write when it wakes.
    saving: Option<AbortOnDropHandle<()>>,
}

impl Histories {
    /// What was kept; where the disk does not answer in time it is taken over once it does.
    pub(super) async fn load(disk: StateDir) -> Self {
        let from = disk.clone();
        let mut loading =
            AbortOnDropHandle::new(tokio::spawn(async move { from.load_history().await }));
        let due_at = Instant::now() + CHECKPOINT;
        let mut histories = Self { disk, loading: None, history: None, due_at, saving: None };
        match timeout(DISK_PATIENCE, &mut loading).await {
            Ok(kept) => histories.take_over(kept.ok().flatten()),
            Err(_) => {
                tracing::warn!("Disk does not answer; histories of use are waited for.");
                histories.loading = Some(loading);
            }
        }
        histories
    }

    /// What was measured since the start is little beside what was kept over days.
    fn take_over(&mut self, kept: Option<SavedHistory>) {
        self.loading = None;
        if let Some(kept) = kept {
            self.history = Some(History::restore(&kept));
        }
    }

    /// Takes in a digest and writes into it what it adds up to.
    pub(super) fn take(
        &mut self,
        digest: &mut UsageDigest,
        names: &ContainerNames,
        now: Timestamp,
    ) {
        let loaded = self.loading.as_mut().and_then(FutureExt::now_or_never);
        if let Some(kept) = loaded {
            self.take_over(kept.ok().flatten());
        }
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
        let Some(history) = self.history.as_ref().filter(|_| self.loading.is_none()) else {
            return;
        };
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
    use std::io::Write as _;
    use std::process::Command;

    use super::*;

    #[tokio::test]
    async fn what_a_slow_disk_owes_is_taken_over_and_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let disk = StateDir::at(folder.path());
        disk.save_history(&History::default().save()).await.unwrap();
        let file = folder.path().join("usage.json");
        let kept = std::fs::read(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        // Who reads it waits for what is written, and for whom it is open to write.
        assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
        let mut slow = std::fs::File::options().read(true).write(true).open(&file).unwrap();
        let mut histories = Histories::load(disk).await;
        let take = |histories: &mut Histories| {
            let (mut digest, names) = (UsageDigest::default(), ContainerNames::new());
            histories.take(&mut digest, &names, Timestamp::UNIX_EPOCH);
            histories.due_at = Instant::now();
            histories.keep();
        };
        take(&mut histories);
        assert!(histories.saving.is_none(), "it would be lost");
        slow.write_all(&kept).unwrap();
        drop(slow);
        while histories.loading.is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
            take(&mut histories);
        }
        histories.saved().await;
        assert!(file.is_file(), "it is kept from then on");
    }

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
