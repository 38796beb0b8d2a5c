//! Notices on disk: written beside the loop that decides, which no disk may hold up.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::disk::{Kept, StateDir};

/// A disk that refuses is tried again after so long.
const PAUSE: Duration = Duration::from_secs(1);
/// A disk that does not answer for so long is told of.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the last of it is waited for when the agent ends.
const LAST: Duration = Duration::from_secs(2);

/// What is to be kept, and how much of it is.
#[derive(Debug)]
pub(crate) struct Keeper {
    newest: watch::Sender<Numbered>,
    kept: watch::Receiver<u64>,
}

/// What is to be kept, numbered from 1.
type Numbered = (u64, Option<Arc<Kept>>);

impl Keeper {
    /// A keeper, and the task that does what it is told.
    pub(crate) fn new(disk: StateDir) -> (Self, impl Future<Output = ()>) {
        let (newest, to_keep) = watch::channel((0, None));
        let (done, kept) = watch::channel(0);
        (Self { newest, kept }, keep(disk, to_keep, done))
    }

    /// Keeps this in place of what was kept before.
    pub(crate) fn keep(&self, saved: Kept) {
        self.newest.send_modify(|(number, newest)| {
            *number += 1;
            *newest = Some(Arc::new(saved));
        });
    }

    /// Waits until all is on disk, but not for long.
    pub(crate) async fn finish(&mut self) {
        let number = self.newest.borrow().0;
        let all = self.kept.wait_for(|kept| *kept >= number);
        if !matches!(timeout(LAST, all).await, Ok(Ok(_))) {
            tracing::warn!("Notices may not be on disk: it did not answer in time.");
        }
    }
}

/// Writes the newest for as long as there may be another.
async fn keep(disk: StateDir, mut to_keep: watch::Receiver<Numbered>, done: watch::Sender<u64>) {
    let mut told = false;
    while to_keep.changed().await.is_ok() {
        loop {
            let (number, saved) = to_keep.borrow_and_update().clone();
            let Some(saved) = saved else { break };
            // Never two at once: what hangs keeps its thread, and would write when it wakes.
            let saving = disk.save(&saved);
            tokio::pin!(saving);
            let outcome = match timeout(PATIENCE, &mut saving).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    tracing::warn!("Notices are not on disk: it does not answer.");
                    saving.await
                }
            };
            let Err(error) = outcome else {
                told = false;
                done.send_replace(number);
                break;
            };
            if !std::mem::replace(&mut told, true) {
                tracing::warn!(%error, "Notices can't be kept on disk; retrying.");
            }
            sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use drover_agent_core::Saved;

    use super::*;

    fn saved(boot: &str) -> Kept {
        Kept { saved: Saved { boot: boot.into(), ..Saved::default() }, clock: None }
    }

    #[tokio::test]
    async fn the_newest_is_kept_before_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let disk = StateDir::at(folder.path());
        let (mut keeper, keeping) = Keeper::new(disk.clone());
        tokio::spawn(keeping);
        keeper.keep(saved("first"));
        keeper.keep(saved("second"));
        keeper.finish().await;
        assert_eq!(disk.load().await.unwrap().saved.boot.as_str(), "second");
    }

    #[tokio::test]
    async fn a_disk_that_hangs_holds_up_nobody_for_long() {
        let folder = tempfile::tempdir().unwrap();
        let disk = StateDir::at(folder.path());
        // Who opens it to write waits for a reader.
        let pipe = folder.path().join(format!("{}.new", crate::disk::NOTICES));
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let (mut keeper, keeping) = Keeper::new(disk);
        let keeping = tokio::spawn(keeping);
        keeper.keep(saved("kept"));
        keeper.keep(saved("kept later"));
        let ended = timeout(LAST + Duration::from_secs(5), keeper.finish()).await;
        assert!(ended.is_ok(), "the agent would not end");
        assert_eq!(*keeper.kept.borrow(), 0);
        keeping.abort();
        // Lets the thread go that opens the pipe.
        let _reader = std::fs::File::options().read(true).write(true).open(&pipe).unwrap();
    }
}
