//! How long a watch waits for what does not come.

use std::time::Duration;

use tokio::sync::watch as newest;
use tokio::time::Instant;

/// How long one page, or the headers of a watch, may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the first may take while what it tells is needed now. A dead connection that was kept for the next request
/// is found so. Each further one may take so much more, up to the same: the server may just be slow.
const URGENT_ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// What comes of an answer, unless it comes too late. `tries` before it came too late already. That it becomes urgent
/// counts at once.
pub(super) async fn in_time<T>(
    mut urgent: newest::Receiver<bool>,
    tries: u32,
    answer: impl Future<Output = T>,
) -> Option<T> {
    let since = Instant::now();
    let mut answer = std::pin::pin!(answer);
    loop {
        let patience = patience(*urgent.borrow_and_update(), tries);
        tokio::select! {
            biased;
            answer = &mut answer => return Some(answer),
            () = tokio::time::sleep_until(since + patience) => return None,
            Ok(()) = urgent.changed() => {}
        }
    }
}

fn patience(urgent: bool, tries: u32) -> Duration {
    let hurried = URGENT_ANSWER_TIMEOUT.saturating_mul(tries.saturating_add(1));
    if urgent { hurried.min(ANSWER_TIMEOUT) } else { ANSWER_TIMEOUT }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_try_has_more_time_up_to_what_there_is_without_haste() {
        let seconds = |urgent| [0, 1, 2, 9].map(|tries| patience(urgent, tries).as_secs());
        assert_eq!((seconds(true), seconds(false)), ([5, 10, 15, 30], [30; 4]));
    }
}
