//! What the command tells the person who typed it: standard output for the story, standard error
//! for complaints. Everything else goes to the logs.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Prints an error with its causes.
pub(crate) fn complain(error: &anyhow::Error) {
    // Nothing can be done where even standard error is closed.
    let _ = writeln!(std::io::stderr().lock(), "error: {error:#}");
}

/// Prints what clap says, help or a complaint. A wrong command line is no unreadable input, which clap's own
/// exit status would say.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Prints a line that is no part of the answer.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Tells a story with times, and keeps one progress line where a terminal shows it.
#[derive(Debug)]
pub(crate) struct Narrator {
    start: Instant,
    terminal: bool,
    progress: Mutex<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    shown: bool,
    printed_at: Option<Instant>,
}

impl Narrator {
    /// The clock of the story starts now.
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            terminal: std::io::stdout().is_terminal(),
            progress: Mutex::new(Progress::default()),
        }
    }

    /// A headline.
    pub(crate) fn headline(&self, text: &str) {
        self.line(&format!("\n{text}"));
    }

    /// Something that happened, with the time since the start.
    pub(crate) fn tell(&self, text: &str) {
        self.line(&format!("  {:>6.1}s  {text}", self.start.elapsed().as_secs_f64()));
    }

    /// Text as it is.
    pub(crate) fn print(&self, text: &str) {
        self.line(text);
    }

    /// Where things stand while something takes time: one line that is overwritten on a terminal,
    /// a line every ten seconds elsewhere.
    pub(crate) fn progress(&self, text: &str) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = std::io::stdout().lock();
        if self.terminal {
            let elapsed = self.start.elapsed().as_secs_f64();
            let _ = write!(out, "\r\x1b[2K  {elapsed:>6.1}s  … {text}");
            let _ = out.flush();
            progress.shown = true;
        } else if progress.printed_at.is_none_or(|at| at.elapsed().as_secs() >= 10) {
            progress.printed_at = Some(Instant::now());
            let elapsed = self.start.elapsed().as_secs_f64();
            let _ = writeln!(out, "  {elapsed:>6.1}s  … {text}");
        }
    }

    fn line(&self, text: &str) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = std::io::stdout().lock();
        if std::mem::take(&mut progress.shown) {
            let _ = write!(out, "\r\x1b[2K");
        }
        progress.printed_at = Some(Instant::now());
        let _ = writeln!(out, "{text}");
        let _ = out.flush();
    }
}
