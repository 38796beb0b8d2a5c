//! What the replicas of this process log, as an operator would see it.

use std::io::{self, Write};
use std::sync::{Mutex, Once, PoisonError};

static LOGGED: Mutex<String> = Mutex::new(String::new());

struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut logged = LOGGED.lock().unwrap_or_else(PoisonError::into_inner);
        logged.push_str(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Keeps what is logged from now on, by all tests of this process.
pub(crate) fn keep() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let log = tracing_subscriber::fmt().with_ansi(false).with_writer(|| Log);
        log.with_env_filter("info,openraft=error").init();
    });
}

/// How many lines hold all of these words.
pub(crate) fn count(words: &[&str]) -> usize {
    let logged = LOGGED.lock().unwrap_or_else(PoisonError::into_inner);
    logged.lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
}
