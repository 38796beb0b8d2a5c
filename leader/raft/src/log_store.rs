//! The durable Raft log: entries, vote and commit position in one redb file.
//!
//! Writes are handed to one flusher thread, which puts everything that waits into one transaction
//! and reports each write once that transaction is on the disk. openraft's core never waits for a
//! disk. Entries that are not purged are also kept in memory, where readers find them at once.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use tokio::sync::oneshot;

use crate::flusher::{Flusher, LogFile, Write};
use crate::types::{Entry, LogId, MemberId, ReplicaId, TypeConfig, Vote};

/// An entry, and how many bytes it is in the file.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) entry: Entry,
    pub(crate) bytes: usize,
}

/// What the file holds, plus what is on its way there.
#[derive(Debug, Default)]
pub(crate) struct LogContent {
    pub(crate) entries: BTreeMap<u64, Kept>,
    pub(crate) vote: Option<Vote>,
    pub(crate) committed: Option<LogId>,
    pub(crate) purged: Option<LogId>,
    pub(crate) member: Option<MemberId>,
}

impl LogContent {
    /// Whether neither an entry nor a vote was ever written.
    fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.purged.is_none() && self.vote.is_none()
    }
}

/// The log store; clones share one file and serve as readers.
#[derive(Clone, Debug)]
pub struct LogStore {
    content: Arc<RwLock<LogContent>>,
    member: MemberId,
    flusher: Arc<Flusher>,
}

impl LogStore {
    /// Opens or creates the log at `path`, checks its integrity, and starts its flusher thread.
    ///
    /// A file without a member id gets one: `replica`'s number if it has been written to, for so it was
    /// before there were ids, and otherwise one that nobody has ever had.
    ///
    /// # Errors
    /// The file can't be opened, fails its checksums, or holds something that is not ours.
    pub fn open(path: &Path, replica: ReplicaId) -> io::Result<Self> {
        let file = LogFile::open(path)?;
        let content = file.load()?;
        let member = match content.member {
            Some(member) => member,
            None if content.is_empty() => file.keep_member(MemberId::random())?,
            None => file.keep_member(MemberId::of_replica(replica))?,
        };
        let flusher = Flusher::start(file)?;
        let content = Arc::new(RwLock::new(content));
        Ok(Self { content, member, flusher: Arc::new(flusher) })
    }

    /// Whose log this is.
    pub fn member(&self) -> MemberId {
        self.member
    }

    /// Whether neither an entry nor a vote was ever written.
    pub fn is_empty(&self) -> bool {
        self.read().is_empty()
    }

    /// The last entry that was purged into a snapshot.
    pub fn last_purged(&self) -> Option<LogId> {
        self.read().purged
    }

    /// Bytes of all entries that are not purged.
    pub fn bytes(&self) -> usize {
        self.read().entries.values().map(|kept| kept.bytes).sum()
    }

    /// Milliseconds the slowest write to the disk took since the last call.
    pub(crate) fn slowest_flush_millis(&self) -> u64 {
        self.flusher.slowest_millis()
    }

    fn read(&self) -> RwLockReadGuard<'_, LogContent> {
        self.content.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, LogContent> {
        self.content.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Hands a write to the flusher and waits until it is durable.
    async fn durably(
        &self,
        write: impl FnOnce(oneshot::Sender<io::Result<()>>) -> Write,
    ) -> io::Result<()> {
        let (done, flushed) = oneshot::channel();
        self.flusher.submit(write(done))?;
        flushed.await.map_err(|_| io::Error::other("the log's flusher thread has ended"))?
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        // BTreeMap::range panics on an inverted range, which callers are free to ask for.
        let start = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let content = self.read();
        let entries = content.entries.range(start..);
        Ok(entries
            .take_while(|(index, _)| range.contains(index))
            .map(|(_, kept)| kept.entry.clone())
            .collect())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.read().vote)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let content = self.read();
        let last = content.entries.last_key_value().map(|(_, kept)| kept.entry.log_id());
        Ok(LogState { last_purged_log_id: content.purged, last_log_id: last.or(content.purged) })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let bytes = serde_json::to_vec(vote)?;
        self.durably(|done| Write::Vote { bytes, done }).await?;
        self.write().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        // Not awaited: after a crash an older position is as good, it is only where replay stops
        // until the group tells the true one.
        let bytes = serde_json::to_vec(&committed)?;
        self.write().committed = committed;
        self.flusher.submit(Write::Committed { bytes })
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.read().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut encoded = Vec::new();
        {
            let mut content = self.write();
            for entry in entries {
                let index = entry.index();
                let written = serde_json::to_vec(&entry)?;
                content.entries.insert(index, Kept { entry, bytes: written.len() });
                encoded.push((index, written));
            }
        }
        self.flusher.submit(Write::Append { entries: encoded, done: callback })
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let from = last_log_id.map_or(0, |log_id| log_id.index.saturating_add(1));
        self.write().entries.split_off(&from);
        self.durably(|done| Write::Truncate { from, done }).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        let bytes = serde_json::to_vec(&log_id)?;
        {
            let mut content = self.write();
            let kept = content.entries.split_off(&log_id.index.saturating_add(1));
            content.entries = kept;
            content.purged = content.purged.max(Some(log_id));
        }
        self.durably(|done| Write::Purge { up_to: log_id.index, bytes, done }).await
    }
}
