//! Files, folders and standard input; gzip is told by its first bytes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

/// The endings of files that are read from a folder.
const ENDINGS: [&str; 6] = [".json", ".yaml", ".yml", ".json.gz", ".yaml.gz", ".yml.gz"];
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const BUFFER: usize = 1 << 18;

/// The files that a path stands for: itself, or those of the folder in the order of their names.
///
/// # Errors
/// The folder can't be listed, or holds no such file.
pub(crate) fn files_of(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let file = entry?.path();
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if ENDINGS.iter().any(|ending| name.ends_with(ending)) && file.is_file() {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the folder has no .json, .yaml or .yml file",
        ));
    }
    Ok(files)
}

/// Opens a file, or standard input for `-`.
///
/// # Errors
/// It can't be opened, or its first bytes can't be read.
pub(crate) fn open(path: &Path) -> io::Result<Box<dyn BufRead>> {
    let plain: Box<dyn Read> = if path == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(path)?)
    };
    unpacked(plain)
}

fn unpacked(mut plain: Box<dyn Read>) -> io::Result<Box<dyn BufRead>> {
    let mut first = Vec::new();
    plain.by_ref().take(2).read_to_end(&mut first)?;
    let packed = first == GZIP_MAGIC;
    let whole = Cursor::new(first).chain(plain);
    Ok(if packed {
        Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(whole)))
    } else {
        Box::new(BufReader::with_capacity(BUFFER, whole))
    })
}

/// A whole file.
///
/// # Errors
/// It can't be read.
pub(crate) fn read_all(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}
