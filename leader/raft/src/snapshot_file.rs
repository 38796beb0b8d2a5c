//! Snapshots as files: a header line of JSON with a checksum, then the state as JSON.
//!
//! A snapshot is written beside its final name, synced and renamed, so that a file under the final
//! name is whole unless the disk lost it; the checksum finds that too. Two are kept.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::types::SnapshotMeta;
use crate::whole_file;

const FORMAT: u32 = 1;
const KEPT: usize = 2;
const SUFFIX: &str = "snapshot";

#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    length: usize,
    sha256: String,
    meta: SnapshotMeta,
}

/// A snapshot as read back.
#[derive(Clone, Debug)]
pub struct StoredSnapshot {
    /// The log position and the membership it holds.
    pub meta: SnapshotMeta,
    /// The state as JSON.
    pub state: Bytes,
}

/// Why a file is not a snapshot.
#[derive(Debug, thiserror::Error)]
enum BadSnapshot {
    #[error("it has no header line")]
    NoHeader,
    #[error("its header is unreadable: {0}")]
    Header(#[from] serde_json::Error),
    #[error("its format {0} is newer than this program")]
    Format(u32),
    #[error("it should hold {expected} bytes and holds {found}")]
    Length { expected: usize, found: usize },
    #[error("its checksum does not match")]
    Checksum,
}

/// The folder of a replica's snapshots.
#[derive(Clone, Debug)]
pub struct SnapshotFolder {
    path: PathBuf,
}

impl SnapshotFolder {
    /// Opens or creates the folder.
    ///
    /// # Errors
    /// It can't be made.
    pub fn open(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        Ok(Self { path: path.to_owned() })
    }

    /// Writes a snapshot durably and removes all but the newest two.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn save(&self, meta: &SnapshotMeta, state: &[u8]) -> io::Result<()> {
        let header = Header {
            format: FORMAT,
            length: state.len(),
            sha256: checksum(state),
            meta: meta.clone(),
        };
        let index = meta.last_log_id.map_or(0, |log_id| log_id.index);
        let term = meta.last_log_id.map_or(0, |log_id| log_id.leader_id.term);
        // Zero padding makes the order of names that of log positions.
        let path = self.path.join(format!("{index:020}-{term:010}.{SUFFIX}"));
        let unfinished = path.with_extension("unfinished");
        let mut file = File::create(&unfinished)?;
        serde_json::to_writer(&mut file, &header)?;
        file.write_all(b"\n")?;
        file.write_all(state)?;
        whole_file::put(&unfinished, &path)?;
        self.remove_old()
    }

    /// The newest snapshot that is whole. One that is not is reported and passed over.
    ///
    /// # Errors
    /// A file can't be read.
    pub fn newest(&self) -> io::Result<Option<StoredSnapshot>> {
        for path in self.newest_first()? {
            match read_snapshot(&fs::read(&path)?) {
                Ok(snapshot) => return Ok(Some(snapshot)),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "A snapshot was passed over.");
                }
            }
        }
        Ok(None)
    }

    fn newest_first(&self) -> io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == SUFFIX) {
                paths.push(path);
            }
        }
        paths.sort_unstable_by(|left, right| right.cmp(left));
        Ok(paths)
    }

    fn remove_old(&self) -> io::Result<()> {
        for path in self.newest_first()?.into_iter().skip(KEPT) {
            fs::remove_file(path)?;
        }
        Ok(())
    }
}

fn read_snapshot(content: &[u8]) -> Result<StoredSnapshot, BadSnapshot> {
    let end = content.iter().position(|byte| *byte == b'\n').ok_or(BadSnapshot::NoHeader)?;
    let (header, state) = content.split_at(end);
    let state = state.get(1..).unwrap_or_default();
    let header: Header = serde_json::from_slice(header)?;
    if header.format > FORMAT {
        return Err(BadSnapshot::Format(header.format));
    }
    if header.length != state.len() {
        return Err(BadSnapshot::Length { expected: header.length, found: state.len() });
    }
    if header.sha256 != checksum(state) {
        return Err(BadSnapshot::Checksum);
    }
    Ok(StoredSnapshot { meta: header.meta, state: Bytes::copy_from_slice(state) })
}

fn checksum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
