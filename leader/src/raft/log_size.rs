//! Keeps the log small in bytes: Raft's own policy counts entries, and those of a large cluster are large.

use std::time::Duration;

use openraft::async_runtime::WatchReceiver;

use super::Raft;
use super::log_store::LogStore;

/// A log of so many bytes is compacted, however few its entries are.
pub(super) const MOST_BYTES: usize = 32 << 20;
/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Takes snapshots of a log that has grown large, and drops what they hold, for ever.
pub(super) async fn keep_small(raft: Raft, log: LogStore, most: usize) {
    loop {
        tokio::time::sleep(LOOK).await;
        if log.bytes() <= most {
            continue;
        }
        let metrics = raft.metrics().borrow_watched().clone();
        let compacted = async {
            // What the last snapshot holds goes, and the next one is made: a look later it can do the same.
            if let Some(snapshot) = metrics.snapshot.filter(|held| log.last_purged() < Some(*held))
            {
                raft.trigger().purge_log(snapshot.index).await?;
            }
            raft.trigger().snapshot().await
        };
        if let Err(error) = compacted.await {
            tracing::debug!(%error, "Raft has stopped; its log is not compacted any more.");
            return;
        }
    }
}
