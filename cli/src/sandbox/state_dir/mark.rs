//! The file that says what in a folder is a sandbox's: it lists what one wrote there, and is locked while one
//! runs there.

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::Context;

/// The file's name.
pub(super) const NAME: &str = "sandbox.lock";
/// Its first line: a file of this name that does not begin so is not ours.
const FIRST_LINE: &str =
    "# What drover sandbox wrote here. The next run in this folder removes it.";

/// What a sandbox writes into its folder, beside what its leaders do.
const NAMES: [&str; 9] = [
    "agents",
    "certificates",
    "drover.log",
    "endpoints.json",
    "endpoints.json.new",
    "hosts",
    "kubeconfig",
    "leader.kubeconfig",
    "leader.token",
];
/// As many as there may be (`--leaders`).
const MOST_LEADERS: u8 = 5;

/// A folder that is this run's own for as long as this is kept.
#[derive(Debug)]
pub(super) struct Mark {
    folder: PathBuf,
    list: Mutex<List>,
}

/// The open and locked file, and what it lists.
#[derive(Debug)]
struct List {
    file: File,
    names: BTreeSet<String>,
}

impl Mark {
    /// Locks the folder and removes what an earlier run is known to have written there; whether that was
    /// anything. Nothing is touched where something else has a name that this run will use.
    pub(super) fn take(folder: &Path, leaders: u8) -> anyhow::Result<(Self, bool)> {
        let shown = folder.display();
        let path = folder.join(NAME);
        if !path.exists() {
            refuse_foreign(folder, leaders, &BTreeSet::new())?;
        }
        let file = File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let mut file = file.with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                anyhow::bail!("another sandbox runs in the state folder {shown}")
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        let mut text = Vec::new();
        file.read_to_end(&mut text).with_context(|| format!("cannot read {}", path.display()))?;
        let listed = listed(&String::from_utf8_lossy(&text));
        let listed = listed.ok_or_else(|| foreign(folder, NAME))?;
        refuse_foreign(folder, leaders, &listed)?;
        let mut renewed = false;
        for name in &listed {
            let old = folder.join(name);
            renewed |= remove(&old).with_context(|| format!("cannot remove {}", old.display()))?;
        }
        begin(&mut file).with_context(|| format!("cannot write {}", path.display()))?;
        let list = Mutex::new(List { file, names: BTreeSet::new() });
        Ok((Self { folder: folder.to_owned(), list }, renewed))
    }

    /// Lists a name under which this run is about to write.
    pub(super) fn claim(&self, name: &str) -> anyhow::Result<()> {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        if list.names.contains(name) {
            return Ok(());
        }
        anyhow::ensure!(is_ours(name), "{name} is no name of what a sandbox writes");
        if is_there(&self.folder.join(name)) {
            return Err(foreign(&self.folder, name));
        }
        list.file.write_all(format!("{name}\n").as_bytes()).context("cannot write the list")?;
        list.names.insert(name.to_owned());
        Ok(())
    }
}

/// The names that a mark lists, if it is one; other lines than ours name nothing. A new one is empty.
fn listed(text: &str) -> Option<BTreeSet<String>> {
    let mut lines = text.lines();
    match lines.next() {
        None => Some(BTreeSet::new()),
        Some(FIRST_LINE) => Some(lines.filter(|name| is_ours(name)).map(str::to_owned).collect()),
        Some(_) => None,
    }
}

/// Whether some sandbox writes under this name.
fn is_ours(name: &str) -> bool {
    NAMES.contains(&name) || of_leaders(MOST_LEADERS).any(|ours| ours == name)
}

/// The folders and logs of so many leaders.
fn of_leaders(leaders: u8) -> impl Iterator<Item = String> {
    (1..=leaders).flat_map(|id| [format!("leader-{id}"), format!("leader-{id}.log")])
}

fn refuse_foreign(folder: &Path, leaders: u8, listed: &BTreeSet<String>) -> anyhow::Result<()> {
    let names = NAMES.into_iter().map(str::to_owned).chain(of_leaders(leaders));
    let mut others = names.filter(|name| !listed.contains(name));
    match others.find(|name| is_there(&folder.join(name))) {
        Some(name) => Err(foreign(folder, &name)),
        None => Ok(()),
    }
}

fn foreign(folder: &Path, name: &str) -> anyhow::Error {
    anyhow::anyhow!(
        "the state folder {} has a {name} that is not known to be a sandbox's: name a new or an empty \
         folder, or move it away",
        folder.display()
    )
}

/// Also of a link that leads nowhere.
fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Removes a file, or a folder with what is in it; what a link leads to stays. Whether it was there.
fn remove(path: &Path) -> std::io::Result<bool> {
    let kind = match path.symlink_metadata() {
        Ok(kind) => kind,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    if kind.is_dir() {
        std::fs::remove_dir_all(path)?;
    } else {
        std::fs::remove_file(path)?;
    }
    Ok(true)
}

/// A list of nothing.
fn begin(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(format!("{FIRST_LINE}\n").as_bytes())
}
