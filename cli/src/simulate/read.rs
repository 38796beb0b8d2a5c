//! From files to a dump.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::{Path, PathBuf};

use drover_core::offline::Dump;

use super::document::{Piece, Place};
use super::error::{InputError, Unreadable};
use super::json::{Broken, JsonSplitter};
use super::object::Read;
use super::source;
use super::workers::Workers;
use super::yaml::YamlSplitter;

/// What was read.
#[derive(Debug, Default)]
pub(crate) struct Input {
    pub(crate) dump: Dump,
    pub(crate) ignored: Ignored,
    /// Bytes, unpacked.
    pub(crate) bytes: u64,
}

/// Objects of kinds that say nothing to a plan, counted.
#[derive(Debug, Default)]
pub(crate) struct Ignored(BTreeMap<String, usize>);

impl Ignored {
    /// One sentence, if there are any.
    pub(crate) fn warning(&self) -> Option<String> {
        let total: usize = self.0.values().sum();
        let each: Vec<String> =
            self.0.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        let each = each.join(", ");
        (total > 0).then(|| format!("{total} objects of other kinds were ignored: {each}"))
    }
}

/// Reads everything that the paths stand for.
///
/// # Errors
/// Everything that can't be read.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Input, Unreadable> {
    let mut input = Input::default();
    let mut errors = Vec::new();
    for path in paths {
        match source::files_of(path) {
            Ok(files) => files.iter().for_each(|file| read_file(file, &mut input, &mut errors)),
            Err(error) => errors.push(file_error(path, &error)),
        }
    }
    if errors.is_empty() { Ok(input) } else { Err(Unreadable { errors }) }
}

fn file_error(path: &Path, error: &std::io::Error) -> InputError {
    InputError { file: path.display().to_string(), document: None, reason: error.to_string() }
}

fn read_file(path: &Path, input: &mut Input, errors: &mut Vec<InputError>) {
    let opened = source::open(path).and_then(|mut stream| {
        read_stream(&mut stream, &path.display().to_string(), input, errors)
    });
    if let Err(error) = opened {
        errors.push(file_error(path, &error));
    }
}

/// Reads a stream of JSON or YAML: JSON if its first sign is a brace or bracket, and anew after each `---` between
/// JSON documents.
///
/// # Errors
/// The stream's own. What can't be read is put to the errors.
pub(crate) fn read_stream(
    stream: &mut dyn BufRead,
    file: &str,
    input: &mut Input,
    errors: &mut Vec<InputError>,
) -> std::io::Result<()> {
    let Input { dump, ignored, bytes } = input;
    let mut take = |reads: Vec<Read>| {
        for read in reads {
            match read {
                Read::Object(object) => dump.add(*object),
                Read::Ignored(kind) => *ignored.0.entry(kind).or_default() += 1,
                Read::Unreadable(place, reason) => errors.push(error_at(file, place, reason)),
            }
        }
    };
    let outcome = Workers::run(&mut take, |workers| split(stream, workers));
    let (length, broken) = outcome?;
    *bytes += length;
    errors.extend(broken.map(|(place, reason)| error_at(file, place, reason)));
    Ok(())
}

/// Bytes read, and what ended the reading early.
type Split = (u64, Option<Broken>);

fn split(stream: &mut dyn BufRead, workers: &mut Workers<'_>) -> std::io::Result<Split> {
    let mut json = JsonSplitter::default();
    let mut total = 0;
    loop {
        let (first, skipped) = skip_blank(stream)?;
        total += skipped;
        if !matches!(first, Some(b'{' | b'[')) {
            let yaml = YamlSplitter::after(json.documents());
            let (length, broken) = split_yaml(stream, workers, yaml)?;
            return Ok((total + length, broken));
        }
        let (length, end) = split_json(stream, workers, &mut json)?;
        total += length;
        match end {
            JsonEnd::Stream => return Ok((total, None)),
            JsonEnd::Broken(broken) => return Ok((total, Some(broken))),
            JsonEnd::Marker => {}
        }
    }
}

/// What JSON ended in.
enum JsonEnd {
    Stream,
    /// The line that separates documents, which is taken.
    Marker,
    Broken(Broken),
}

fn split_json(
    stream: &mut dyn BufRead,
    workers: &mut Workers<'_>,
    splitter: &mut JsonSplitter,
) -> std::io::Result<(u64, JsonEnd)> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut total = 0;
    loop {
        let chunk = stream.fill_buf()?;
        let length = chunk.len();
        let fed = match length {
            0 => splitter.finish().map(|()| 0),
            _ => splitter.feed(chunk, &mut pieces),
        };
        let taken = *fed.as_ref().unwrap_or(&length);
        stream.consume(taken);
        total += taken as u64;
        workers.hand_out(&mut pieces, length == 0 || taken < length || fed.is_err());
        match fed {
            Err(broken) => return Ok((total, JsonEnd::Broken(broken))),
            Ok(_) if length == 0 => return Ok((total, JsonEnd::Stream)),
            Ok(taken) if taken < length => break,
            Ok(_) => {}
        }
    }
    let mut line = Vec::new();
    total += stream.read_until(b'\n', &mut line)? as u64;
    let line = String::from_utf8_lossy(&line);
    let end = match line.trim_end() {
        "---" => JsonEnd::Marker,
        other => JsonEnd::Broken(splitter.no_document(other)),
    };
    Ok((total, end))
}

fn split_yaml(
    stream: &mut dyn BufRead,
    workers: &mut Workers<'_>,
    mut splitter: YamlSplitter,
) -> std::io::Result<Split> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut total = 0;
    let mut line = Vec::new();
    let mut number = 0_u64;
    loop {
        line.clear();
        let length = stream.read_until(b'\n', &mut line)?;
        if length == 0 {
            splitter.finish(&mut pieces);
            workers.hand_out(&mut pieces, true);
            return Ok((total, None));
        }
        total += length as u64;
        number += 1;
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        match std::str::from_utf8(text.strip_suffix(b"\r").unwrap_or(text)) {
            Ok(text) => splitter.feed(text, &mut pieces),
            Err(_not_utf8) => {
                workers.hand_out(&mut pieces, true);
                let reason = format!("neither JSON nor YAML: line {number} is not UTF-8");
                return Ok((total, Some((splitter.here(), reason))));
            }
        }
        workers.hand_out(&mut pieces, false);
    }
}

fn error_at(file: &str, place: Place, reason: String) -> InputError {
    InputError { file: file.to_owned(), document: Some(place), reason }
}

/// Skips space and a byte order mark; returns the byte that follows, which is not taken. Space at
/// the beginning of a YAML line means something, and stays.
fn skip_blank(stream: &mut dyn BufRead) -> std::io::Result<(Option<u8>, u64)> {
    let mut total = 0;
    loop {
        let chunk = stream.fill_buf()?;
        let blank = |byte: &&u8| matches!(byte, b'\n' | b'\r' | b'\t' | b' ' | 0xef | 0xbb | 0xbf);
        let skipped = chunk.iter().take_while(blank).count();
        let next = chunk.get(skipped).copied();
        let is_json = matches!(next, Some(b'{' | b'['));
        let kept = if is_json || next.is_none() {
            skipped
        } else {
            let before = chunk.get(..skipped).unwrap_or_default();
            before.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1)
        };
        let ended = chunk.is_empty();
        stream.consume(kept);
        total += kept as u64;
        if ended || next.is_some() {
            return Ok((next, total));
        }
    }
}
