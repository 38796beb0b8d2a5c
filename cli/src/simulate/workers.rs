//! Objects are parsed by several threads, and come back in the order of the input.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use super::document::Piece;
use super::object::{self, Read};

/// Pieces that are handed out at a time.
const BATCH: usize = 128;
/// Batches that wait for a thread: what bounds the memory of text that is not parsed yet.
const WAITING: usize = 8;
const MOST_THREADS: usize = 8;

type Numbered<T> = (usize, Vec<T>);

/// Threads that parse pieces, and the way back to one consumer.
pub(crate) struct Workers<'c> {
    jobs: Option<SyncSender<Numbered<Piece>>>,
    results: Receiver<Numbered<Read>>,
    handed_out: usize,
    /// Results that others before them are waited for.
    early: BTreeMap<usize, Vec<Read>>,
    taken: usize,
    take: &'c mut dyn FnMut(Vec<Read>),
}

impl<'c> Workers<'c> {
    /// Runs `produce`, and gives what its pieces are read as to `take`, in order.
    pub(crate) fn run<T>(
        take: &'c mut dyn FnMut(Vec<Read>),
        produce: impl FnOnce(&mut Workers<'c>) -> T,
    ) -> T {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            let (jobs, waiting) = sync_channel(WAITING);
            let (done, results) = channel();
            let waiting = Arc::new(Mutex::new(waiting));
            for _ in 0..threads.min(MOST_THREADS) {
                let (waiting, done) = (Arc::clone(&waiting), done.clone());
                scope.spawn(move || work(&waiting, &done));
            }
            drop(done);
            let early = BTreeMap::new();
            let mut workers =
                Workers { jobs: Some(jobs), results, handed_out: 0, early, taken: 0, take };
            let outcome = produce(&mut workers);
            workers.finish();
            outcome
        })
    }

    /// Hands pieces out once there are enough of them, or whatever there is with `all`.
    pub(crate) fn hand_out(&mut self, pieces: &mut Vec<Piece>, all: bool) {
        while pieces.len() >= BATCH || (all && !pieces.is_empty()) {
            let rest = pieces.split_off(pieces.len().min(BATCH));
            let batch = std::mem::replace(pieces, rest);
            let number = self.handed_out;
            self.handed_out += 1;
            // The threads live as long as this sender.
            let _ = self.jobs.as_ref().map(|jobs| jobs.send((number, batch)));
            while let Ok((number, reads)) = self.results.try_recv() {
                self.accept(number, reads);
            }
        }
    }

    fn accept(&mut self, number: usize, reads: Vec<Read>) {
        self.early.insert(number, reads);
        while let Some(reads) = self.early.remove(&self.taken) {
            self.taken += 1;
            (self.take)(reads);
        }
    }

    fn finish(&mut self) {
        self.jobs = None;
        while let Ok((number, reads)) = self.results.recv() {
            self.accept(number, reads);
        }
    }
}

fn work(waiting: &Mutex<Receiver<Numbered<Piece>>>, done: &Sender<Numbered<Read>>) {
    loop {
        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((number, pieces)) = next else { return };
        let reads = pieces.iter().flat_map(object::read).collect();
        if done.send((number, reads)).is_err() {
            return;
        }
    }
}
