//! Keeps the log small in bytes: Raft's own policy counts entries, and those of a large cluster are large.

use std::time::Duration;

use openraft::async_runtime::WatchReceiver;

use super::Raft;
use super::log_store::LogStore;

/// A log of so many bytes is compacted, however few its entries are.
pub(super) const MOST_BYTES: usize = 32 << 20;
/// How often it is looked at.
pub(super) const LOOK: Duration = Duration::from_secs(5);

/// Takes snapshots of a log that has grown large, and drops what they hold, for ever.
pub(super) async fn keep_small(raft: Raft, log: LogStore, most: usize, look: Duration) {
    loop {
        tokio::time::sleep(look).await;
        if log.bytes() <= most {
            continue;
        }
        let metrics = raft.metrics().borrow_watched().clone();
        // What the last snapshot holds goes, or the next one is made: openraft takes one at a time.
        let held = metrics.snapshot.filter(|held| log.last_purged() < Some(*held));
        let compacted = match held {
            Some(snapshot) => raft.trigger().purge_log(snapshot.index).await,
            None => raft.trigger().snapshot().await,
        };
        if let Err(error) = compacted {
            tracing::debug!(%error, "Raft has stopped; its log is not compacted any more.");
            return;
        }
    }
}
