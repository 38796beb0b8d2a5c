//! What the API server said of whom, and what it is being asked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use drover_kubernetes::ReviewError;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::sync::Semaphore;
use tokio::task::JoinError;
use tokio::time::{Instant, timeout};

use super::Refusal;

/// How long a yes counts.
pub(super) const YES_COUNTS: Duration = Duration::from_secs(60);
/// How long a no counts, so that a flood of bad tokens does not become one of reviews.
pub(super) const NO_COUNTS: Duration = Duration::from_secs(5);
/// How long a yes counts while the API server does not answer.
pub(super) const YES_COUNTS_ALONE: Duration = Duration::from_secs(10 * 60);
/// How long whoever has such a yes waits for a newer one.
pub(super) const PATIENCE_WITH_YES: Duration = Duration::from_secs(1);
/// Answers kept: an agent each, at the largest clusters there are. So many questions may wait.
pub(super) const MOST_KEPT: usize = 20_000;
/// Reviews under way at once, of each lane. The API server takes some ten milliseconds for each: all
/// at once they would only wait for each other, until nobody wants their answer any more.
const MOST_UNDER_WAY: usize = 32;

/// What a question stands for.
pub(super) type AnswerKey = [u8; 32];

/// Who waits for whom.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lane {
    /// Operators, and notices of what ends a node: few.
    Urgent,
    /// What agents say and ask all the time.
    Routine,
}

/// The API server's answers, for as long as they count, and the questions under way.
pub(super) struct Kept<T>(Arc<Inner<T>>);

struct Inner<T> {
    answers: Mutex<HashMap<AnswerKey, Answer<T>>>,
    urgent: Queue<T>,
    routine: Queue<T>,
}

/// The questions of one lane, and whose turn it is. Whoever asks the same waits for the same answer.
struct Queue<T> {
    asked: Mutex<HashMap<AnswerKey, Asked<T>>>,
    turns: Semaphore,
}

type Asked<T> = Shared<BoxFuture<'static, Result<T, Refusal>>>;

#[derive(Clone)]
struct Answer<T> {
    said: Result<T, Refusal>,
    at: Instant,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { asked: Mutex::default(), turns: Semaphore::new(MOST_UNDER_WAY) }
    }
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        let (urgent, routine) = (Queue::default(), Queue::default());
        Self(Arc::new(Inner { answers: Mutex::default(), urgent, routine }))
    }
}

impl<T: Clone + Send + Sync + 'static> Kept<T> {
    /// What was answered to `asked`, or else what `review` answers `now`. A review goes on when nobody waits
    /// for it any more: whoever comes again finds its answer.
    pub(super) async fn get(
        &self,
        asked: AnswerKey,
        now: Instant,
        lane: Lane,
        review: impl Future<Output = Result<T, Refusal>> + Send + 'static,
    ) -> Result<T, Refusal> {
        let before = lock(&self.0.answers).get(&asked).cloned();
        if let Some(answer) = &before {
            let counts = if answer.said.is_ok() { YES_COUNTS } else { NO_COUNTS };
            if now.duration_since(answer.at) < counts {
                return answer.said.clone();
            }
        }
        let asked = self.ask(asked, now, lane, review);
        let answer = async move { asked?.await };
        match before {
            Some(Answer { said: Ok(yes), at }) if now.duration_since(at) < YES_COUNTS_ALONE => {
                // An API server that hangs must not keep those out that it said yes to.
                match timeout(PATIENCE_WITH_YES, answer).await {
                    Err(_) | Ok(Err(Refusal::Unreviewed(_) | Refusal::Busy)) => Ok(yes),
                    Ok(said) => said,
                }
            }
            _ => answer.await,
        }
    }

    /// The answer that is waited for already, or will come in its turn.
    fn ask(
        &self,
        key: AnswerKey,
        now: Instant,
        lane: Lane,
        review: impl Future<Output = Result<T, Refusal>> + Send + 'static,
    ) -> Result<Asked<T>, Refusal> {
        let mut all = lock(&self.0.queue(lane).asked);
        if let Some(asked) = all.get(&key) {
            return Ok(asked.clone());
        }
        if all.len() >= MOST_KEPT {
            return Err(Refusal::Busy);
        }
        let (inner, began) = (Arc::clone(&self.0), Instant::now());
        let task = tokio::spawn(async move {
            let _entry = Entry { inner: &inner, lane, key };
            let _turn = inner.queue(lane).turns.acquire().await;
            let at = now + began.elapsed();
            let said = review.await;
            inner.keep(key, at, &said);
            said
        });
        let failed = |error: JoinError| Refusal::from(ReviewError { reason: error.to_string() });
        let asked = task.map(move |ended| ended.map_err(failed).flatten()).boxed().shared();
        all.insert(key, asked.clone());
        Ok(asked)
    }
}

/// A question's place among those asked, which it leaves however it ends.
struct Entry<'a, T> {
    inner: &'a Inner<T>,
    lane: Lane,
    key: AnswerKey,
}

impl<T> Drop for Entry<'_, T> {
    fn drop(&mut self) {
        lock(&self.inner.queue(self.lane).asked).remove(&self.key);
    }
}

impl<T> Inner<T> {
    fn queue(&self, lane: Lane) -> &Queue<T> {
        match lane {
            Lane::Urgent => &self.urgent,
            Lane::Routine => &self.routine,
        }
    }
}

impl<T: Clone> Inner<T> {
    /// Keeps what was said in a review that began `at`.
    fn keep(&self, key: AnswerKey, at: Instant, said: &Result<T, Refusal>) {
        if let Err(Refusal::Unreviewed(_)) = said {
            return;
        }
        let mut kept = lock(&self.answers);
        if kept.len() >= MOST_KEPT {
            kept.retain(|_, answer| {
                let counts = if answer.said.is_ok() { YES_COUNTS_ALONE } else { NO_COUNTS };
                at.duration_since(answer.at) < counts
            });
        }
        let is_newest = kept.get(&key).is_none_or(|answer| answer.at <= at);
        if is_newest && (kept.len() < MOST_KEPT || said.is_ok()) {
            kept.insert(key, Answer { said: said.clone(), at });
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
