//! What the API server said of whom, and what it is being asked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use drover_kubernetes::ReviewError;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::Refusal;

/// How long a yes counts.
pub(super) const YES_COUNTS: Duration = Duration::from_secs(60);
/// How long a no counts, so that a flood of bad tokens does not become one of reviews.
pub(super) const NO_COUNTS: Duration = Duration::from_secs(5);
/// How long a yes counts while the API server does not answer.
pub(super) const YES_COUNTS_ALONE: Duration = Duration::from_secs(10 * 60);
/// Answers kept: an agent each, at the largest clusters there are. So many questions may wait.
const MOST_KEPT: usize = 20_000;
/// Reviews under way at once, of each lane. The API server takes some ten milliseconds for each: all
/// at once they would only wait for each other, until nobody wants their answer any more.
const MOST_UNDER_WAY: usize = 32;

/// What a question stands for.
pub(super) type AnswerKey = [u8; 32];

/// Who waits for whom.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lane {
    /// Notices and operators: few.
    Urgent,
    /// What agents say and ask all the time.
    Routine,
}

/// The API server's answers, for as long as they count, and the questions under way.
pub(super) struct Kept<T>(Arc<Inner<T>>);

struct Inner<T> {
    answers: Mutex<HashMap<AnswerKey, Answer<T>>>,
    /// Whoever asks the same waits for the same answer.
    asked: Mutex<HashMap<AnswerKey, Asked<T>>>,
    urgent: Semaphore,
    routine: Semaphore,
}

type Asked<T> = Shared<BoxFuture<'static, Result<T, Refusal>>>;

#[derive(Clone)]
struct Answer<T> {
    said: Result<T, Refusal>,
    at: Instant,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(Arc::new(Inner {
            answers: Mutex::default(),
            asked: Mutex::default(),
            urgent: Semaphore::new(MOST_UNDER_WAY),
            routine: Semaphore::new(MOST_UNDER_WAY),
        }))
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
        match self.ask(asked, now, lane, review).await {
            Err(Refusal::Unreviewed(error)) => match before {
                Some(Answer { said: Ok(yes), at }) if now.duration_since(at) < YES_COUNTS_ALONE => {
                    Ok(yes)
                }
                _ => Err(Refusal::Unreviewed(error)),
            },
            said => said,
        }
    }

    /// Asks in its turn, or waits for the answer to the same question. An urgent one that is found waiting
    /// among the routine is asked beside it.
    async fn ask(
        &self,
        key: AnswerKey,
        now: Instant,
        lane: Lane,
        review: impl Future<Output = Result<T, Refusal>> + Send + 'static,
    ) -> Result<T, Refusal> {
        if let Lane::Urgent = lane {
            let _turn = self.0.urgent.acquire().await;
            let said = review.await;
            self.0.keep(key, now, &said);
            return said;
        }
        let asked = {
            let mut all = lock(&self.0.asked);
            if let Some(asked) = all.get(&key) {
                asked.clone()
            } else if all.len() >= MOST_KEPT {
                let reason = "too many wait for an answer".to_owned();
                return Err(Refusal::Unreviewed(ReviewError { reason }));
            } else {
                let inner = Arc::clone(&self.0);
                let asked = async move {
                    let _turn = inner.routine.acquire().await;
                    let said = review.await;
                    inner.keep(key, now, &said);
                    lock(&inner.asked).remove(&key);
                    said
                };
                let asked = asked.boxed().shared();
                all.insert(key, asked.clone());
                drop(tokio::spawn(asked.clone()));
                asked
            }
        };
        asked.await
    }
}

impl<T: Clone> Inner<T> {
    fn keep(&self, key: AnswerKey, now: Instant, said: &Result<T, Refusal>) {
        if let Err(Refusal::Unreviewed(_)) = said {
            return;
        }
        let mut kept = lock(&self.answers);
        if kept.len() >= MOST_KEPT {
            kept.retain(|_, answer| {
                let counts = if answer.said.is_ok() { YES_COUNTS_ALONE } else { NO_COUNTS };
                now.duration_since(answer.at) < counts
            });
        }
        if kept.len() < MOST_KEPT || said.is_ok() {
            kept.insert(key, Answer { said: said.clone(), at: now });
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
