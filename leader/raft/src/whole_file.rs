//! Files that are whole or not there, whenever the process ends.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Gives a file that was written under another name its own, durably. Both are in one folder.
pub(crate) fn put(unfinished: &Path, path: &Path) -> io::Result<()> {
    File::open(unfinished)?.sync_all()?;
    fs::rename(unfinished, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}
