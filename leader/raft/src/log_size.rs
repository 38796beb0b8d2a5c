//! Keeps the log small in bytes: Raft's own policy counts entries, and those of a large cluster are large.

use std::time::Duration;

use openraft::async_runtime::WatchReceiver;

use crate::Raft;
use crate::log_store::LogStore;

/// How often the log is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Takes snapshots of a log that has grown beyond `most` bytes, and drops what they hold, for ever.
pub(crate) async fn keep_small(raft: Raft, log: LogStore, most: usize) {
    loop {
        tokio::time::sleep(LOOK).await;
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
