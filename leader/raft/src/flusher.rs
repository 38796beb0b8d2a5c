//! The one thread that writes the Raft log's file.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use openraft::storage::IOFlushed;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::oneshot;

use crate::log_store::{Kept, LogContent};
use crate::types::{MemberId, TypeConfig};
use crate::whole_file;

const ENTRIES: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("entries");
const MARKS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("marks");
const VOTE: &str = "vote";
const COMMITTED: &str = "committed";
const PURGED: &str = "purged";
const MEMBER: &str = "member";

/// How long an earlier owner of the file, in this process or another, has to let go of it.
const OPEN_PATIENCE: Duration = Duration::from_secs(5);
/// At most this many writes share a transaction, so that a flood can't starve its first member.
const LARGEST_GROUP: usize = 256;

/// One write, in the order in which openraft asked.
pub(crate) enum Write {
    /// Index and JSON of new entries.
    Append { entries: Vec<(u64, Vec<u8>)>, done: IOFlushed<TypeConfig> },
    /// The vote's JSON.
    Vote { bytes: Vec<u8>, done: oneshot::Sender<io::Result<()>> },
    /// The commit position's JSON; may be lost in a crash.
    Committed { bytes: Vec<u8> },
    /// Removes entries at and after an index.
    Truncate { from: u64, done: oneshot::Sender<io::Result<()>> },
    /// Removes entries up to and including an index, and notes its log id's JSON.
    Purge { up_to: u64, bytes: Vec<u8>, done: oneshot::Sender<io::Result<()>> },
}

impl Write {
    fn may_be_lost(&self) -> bool {
        matches!(self, Write::Committed { .. })
    }

    fn complete(self, result: io::Result<()>) {
        match self {
            Write::Append { done, .. } => done.io_completed(result),
            Write::Vote { done, .. } | Write::Truncate { done, .. } | Write::Purge { done, .. } => {
                // A receiver that is gone belongs to a core that has ended.
                let _ = done.send(result);
            }
            Write::Committed { .. } => {}
        }
    }
}

/// What redb may keep in memory of the file. Readers find all that they need elsewhere; its own default is a
/// gibibyte.
const CACHE_BYTES: usize = 8 << 20;

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder
}

fn failed(path: &Path, error: &dyn std::error::Error) -> io::Error {
    io::Error::other(format!("{}: {error}", path.display()))
}

/// Makes an empty file under another name first: one that redb was killed in the midst of making can never
/// be opened. What an earlier start left there goes: nobody has heard of it.
fn make(path: &Path) -> io::Result<()> {
    let unfinished = path.with_extension("unfinished");
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed(&unfinished, &error));
        }
        _ => {}
    }
    drop(builder().create(&unfinished).map_err(|error| failed(&unfinished, &error))?);
    whole_file::put(&unfinished, path)
}

/// The log's redb file.
pub(crate) struct LogFile {
    database: Database,
}

impl LogFile {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        if !path.try_exists()? {
            make(path)?;
        }
        let give_up = Instant::now() + OPEN_PATIENCE;
        loop {
            match builder().open(path) {
                Ok(database) => return Ok(Self { database }),
                Err(redb::DatabaseError::DatabaseAlreadyOpen) if Instant::now() < give_up => {
                    thread::sleep(Duration::from_millis(20));
                }
                Err(error) => return Err(failed(path, &error)),
            }
        }
    }

    pub(crate) fn load(&self) -> io::Result<LogContent> {
        let write = self.database.begin_write().map_err(io::Error::other)?;
        write.open_table(ENTRIES).map_err(io::Error::other)?;
        write.open_table(MARKS).map_err(io::Error::other)?;
        write.commit().map_err(io::Error::other)?;

        let read = self.database.begin_read().map_err(io::Error::other)?;
        let marks = read.open_table(MARKS).map_err(io::Error::other)?;
        let mut content = LogContent::default();
        if let Some(bytes) = marks.get(VOTE).map_err(io::Error::other)? {
            content.vote = serde_json::from_slice(bytes.value())?;
        }
        if let Some(bytes) = marks.get(COMMITTED).map_err(io::Error::other)? {
            content.committed = serde_json::from_slice(bytes.value())?;
        }
        if let Some(bytes) = marks.get(PURGED).map_err(io::Error::other)? {
            content.purged = serde_json::from_slice(bytes.value())?;
        }
        if let Some(bytes) = marks.get(MEMBER).map_err(io::Error::other)? {
            content.member = Some(serde_json::from_slice(bytes.value())?);
        }
        let entries = read.open_table(ENTRIES).map_err(io::Error::other)?;
        for item in entries.iter().map_err(io::Error::other)? {
            let (index, bytes) = item.map_err(io::Error::other)?;
            let bytes = bytes.value();
            let entry = serde_json::from_slice(bytes).map_err(|error| {
                io::Error::other(format!("log entry {} is unreadable: {error}", index.value()))
            })?;
            content.entries.insert(index.value(), Kept { entry, bytes: bytes.len() });
        }
        check_consecutive(&content)?;
        Ok(content)
    }

    /// Notes durably whose log this is.
    pub(crate) fn keep_member(&self, member: MemberId) -> io::Result<MemberId> {
        let bytes = serde_json::to_vec(&member)?;
        let kept = || -> Result<(), redb::Error> {
            let write = self.database.begin_write()?;
            {
                let mut marks = write.open_table(MARKS)?;
                marks.insert(MEMBER, bytes.as_slice())?;
            }
            write.commit()?;
            Ok(())
        };
        kept().map_err(io::Error::other)?;
        Ok(member)
    }

    fn write(&self, group: &[Write]) -> Result<(), redb::Error> {
        let mut transaction = self.database.begin_write()?;
        let lazy = group.iter().all(Write::may_be_lost);
        transaction.set_durability(if lazy { Durability::None } else { Durability::Immediate })?;
        {
            let mut entries = transaction.open_table(ENTRIES)?;
            let mut marks = transaction.open_table(MARKS)?;
            for write in group {
                match write {
                    Write::Append { entries: new, .. } => {
                        for (index, bytes) in new {
                            entries.insert(index, bytes.as_slice())?;
                        }
                    }
                    Write::Vote { bytes, .. } => {
                        marks.insert(VOTE, bytes.as_slice())?;
                    }
                    Write::Committed { bytes } => {
                        marks.insert(COMMITTED, bytes.as_slice())?;
                    }
                    Write::Truncate { from, .. } => entries.retain_in(*from.., |_, _| false)?,
                    Write::Purge { up_to, bytes, .. } => {
                        entries.retain_in(..=*up_to, |_, _| false)?;
                        marks.insert(PURGED, bytes.as_slice())?;
                    }
                }
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

fn check_consecutive(content: &LogContent) -> io::Result<()> {
    let mut expected = content.purged.map(|log_id| log_id.index.saturating_add(1));
    for index in content.entries.keys() {
        if expected.is_some_and(|expected| expected != *index) {
            return Err(io::Error::other(format!("the log has a hole before entry {index}")));
        }
        expected = Some(index.saturating_add(1));
    }
    Ok(())
}

/// Owns the thread; the thread ends when this is dropped and the last write is done.
#[derive(Debug)]
pub(crate) struct Flusher {
    writes: mpsc::Sender<Write>,
    slowest_micros: Arc<AtomicU64>,
}

impl Flusher {
    pub(crate) fn start(file: LogFile) -> io::Result<Self> {
        let (writes, waiting) = mpsc::channel();
        let slowest_micros = Arc::new(AtomicU64::new(0));
        let slowest = Arc::clone(&slowest_micros);
        thread::Builder::new()
            .name("raft-log".to_owned())
            .spawn(move || flush_until_closed(&file, &waiting, &slowest))?;
        Ok(Self { writes, slowest_micros })
    }

    pub(crate) fn submit(&self, write: Write) -> io::Result<()> {
        self.writes.send(write).map_err(|_| io::Error::other("the log's flusher thread has ended"))
    }

    pub(crate) fn slowest_millis(&self) -> u64 {
        self.slowest_micros.swap(0, Ordering::Relaxed) / 1000
    }
}

fn flush_until_closed(file: &LogFile, waiting: &mpsc::Receiver<Write>, slowest: &AtomicU64) {
    // After one failed write the file's content is unknown: nothing is written or retried any more.
    let mut broken: Option<String> = None;
    while let Ok(first) = waiting.recv() {
        let mut group = vec![first];
        while group.len() < LARGEST_GROUP
            && let Ok(next) = waiting.try_recv()
        {
            group.push(next);
        }
        if broken.is_none() {
            let begun = Instant::now();
            if let Err(error) = file.write(&group) {
                tracing::error!(%error, "The Raft log could not be written.");
                broken = Some(error.to_string());
            }
            let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
            slowest.fetch_max(micros, Ordering::Relaxed);
        }
        for write in group {
            write.complete(match &broken {
                None => Ok(()),
                Some(reason) => Err(io::Error::other(reason.clone())),
            });
        }
    }
}
