//! Files that are read again and again without opening them anew.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The kernel makes these texts on the spot; the longest, `memory.stat`, is under 3 kB. A file that
/// goes on for longer is not one of them.
const LONGEST: usize = 64 * 1024;
const FIRST_ROOM: usize = 4 * 1024;

/// A file that stays open, if there is room for one more.
#[derive(Debug)]
pub(crate) enum Kept {
    Open(File),
    At(PathBuf),
}

impl Kept {
    /// Takes one of `room` while there is any. A file that can't be opened is tried again at each reading.
    pub(crate) fn new(path: PathBuf, room: &mut usize) -> Self {
        match room.checked_sub(1).and_then(|left| Some((left, File::open(&path).ok()?))) {
            Some((left, file)) => {
                *room = left;
                Kept::Open(file)
            }
            None => Kept::At(path),
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Kept::Open(_))
    }
}

/// Where files are read into, one after the other.
#[derive(Debug)]
pub(crate) struct Buffer(Vec<u8>);

impl Buffer {
    pub(crate) fn new() -> Self {
        Self(vec![0; FIRST_ROOM])
    }

    /// Reads a kept-open file from its start; what isn't UTF-8 is no text of the kernel's.
    pub(crate) fn read<'a>(&'a mut self, file: &File) -> io::Result<&'a str> {
        self.read_until(file, |_| false)
    }

    /// The same of a file whose text the kernel makes in one piece, as most of a group's are: a read that leaves
    /// room has it all. To ask for the end besides would double the questions of each second.
    pub(crate) fn read_piece<'a>(&'a mut self, file: &File) -> io::Result<&'a str> {
        self.read_until(file, |left| left > 0)
    }

    /// Reads to the end, or until it's known by how much room is left.
    fn read_until<'a>(
        &'a mut self,
        file: &File,
        is_whole: impl Fn(usize) -> bool,
    ) -> io::Result<&'a str> {
        let mut length = 0;
        loop {
            let room = self.0.get_mut(length..).unwrap_or_default();
            if room.is_empty() {
                if self.0.len() >= LONGEST {
                    return Err(io::Error::other("the file has no end"));
                }
                self.0.resize(self.0.len().saturating_mul(2), 0);
                continue;
            }
            let most = room.len();
            match file.read_at(room, u64::try_from(length).unwrap_or(u64::MAX)) {
                Ok(0) => break,
                Ok(count) => {
                    length = length.saturating_add(count);
                    if is_whole(most.saturating_sub(count)) {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        std::str::from_utf8(self.0.get(..length).unwrap_or_default()).map_err(io::Error::other)
    }

    /// Reads a file's beginning, of which there is as much as one read gives.
    pub(crate) fn read_beginning<'a>(&'a mut self, file: &File) -> io::Result<&'a str> {
        let length = file.read_at(&mut self.0, 0)?;
        std::str::from_utf8(self.0.get(..length).unwrap_or_default()).map_err(io::Error::other)
    }

    /// The same of one that is kept open.
    pub(crate) fn read_beginning_of<'a>(&'a mut self, file: &Kept) -> io::Result<&'a str> {
        match file {
            Kept::Open(file) => self.read_beginning(file),
            Kept::At(path) => {
                let file = File::open(path)?;
                self.read_beginning(&file)
            }
        }
    }

    /// Opens and reads a file once.
    pub(crate) fn read_path<'a>(&'a mut self, path: &Path) -> io::Result<&'a str> {
        let file = File::open(path)?;
        self.read(&file)
    }

    /// Reads a text that the kernel makes in one piece.
    pub(crate) fn read_kept<'a>(&'a mut self, file: &Kept) -> io::Result<&'a str> {
        match file {
            Kept::Open(file) => self.read_piece(file),
            Kept::At(path) => {
                let file = File::open(path)?;
                self.read_piece(&file)
            }
        }
    }
}
