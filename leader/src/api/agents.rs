//! What agents say and ask.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Method, Uri};
use axum::response::{IntoResponse, Json, Response};
use drover_common::id::{InstanceId, NodeName};
use drover_common::protocol::{
    Directive, Directives, NoticeKind, PROTOCOL_VERSION, Report, ReportAnswer,
};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout_at};

use super::{ApiError, Shared, proxy};
use crate::run::{Board, Counters, Reported};

/// How long a report waits for its notices to enter the log.
const COMMIT_PATIENCE: Duration = Duration::from_secs(5);
/// How long a question for directives is kept open.
const LONGEST_POLL: Duration = Duration::from_secs(25);
/// How long a question for directives is kept open without a leader: longer than it takes to find one,
/// where one is to be found from here.
const LONGEST_LEADERLESS: Duration = Duration::from_secs(10);
/// How long after the leader did not answer it is asked again, where no other is heard of.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// `POST /agent/v1/reports`. Answered once the report's notices are in the log, or, with
/// `committed: false`, after five seconds.
pub(super) async fn reports(
    State(shared): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    if !shared.is_leading() {
        return proxy::pass_on(&shared, &headers, Method::POST, &uri, body, COMMIT_PATIENCE).await;
    }
    let report: Report = serde_json::from_slice(&body)
        .map_err(|error| ApiError::BadRequest(format!("the report is unreadable: {error}")))?;
    if report.version != PROTOCOL_VERSION {
        return Err(ApiError::BadRequest(format!(
            "version {} is not spoken here, {PROTOCOL_VERSION} is",
            report.version
        )));
    }
    if report.node.0.is_empty() {
        return Err(ApiError::BadRequest("node: it is empty".to_owned()));
    }
    let urgent = report.notices.iter().any(|notice| is_urgent(notice.kind));
    admit(&shared, &headers, &report.node, urgent).await?;
    let (node, instance) = (report.node.clone(), report.instance.clone());
    let reported = take_report(&shared, Arc::new(report)).await?;
    let directives = directives_for(&shared.brain.board().borrow(), &node, instance.as_ref());
    let Reported { committed, lacks_usage: usage_unknown, untold, .. } = reported;
    Ok(Json(ReportAnswer { committed, directives, usage_unknown, untold }).into_response())
}

/// What a node ends by in minutes. Other notices may be in force for weeks.
fn is_urgent(kind: NoticeKind) -> bool {
    use NoticeKind::{AutoScaling, Maintenance, Problem, Rebalance, Shutdown};
    use NoticeKind::{ReservationReclaim, SpotHibernate, SpotStop, SpotTerminate};
    match kind {
        SpotTerminate | SpotStop | SpotHibernate | ReservationReclaim | AutoScaling | Shutdown => {
            true
        }
        Maintenance | Problem | Rebalance => false,
    }
}

async fn admit(
    shared: &Shared,
    headers: &HeaderMap,
    node: &NodeName,
    urgent: bool,
) -> Result<(), ApiError> {
    shared.gate.admit_agent(headers, node, urgent).await.map_err(|refusal| {
        Counters::add_one(&shared.counters.agents_refused);
        refusal.into()
    })
}

/// What it led to once its notices are in the log, or that they are not yet.
async fn take_report(shared: &Shared, report: Arc<Report>) -> Result<Reported, ApiError> {
    let deadline = Instant::now() + COMMIT_PATIENCE;
    let mut applied = shared.group.applied();
    applied.mark_unchanged();
    let mut reported = shared.brain.report(Arc::clone(&report), true).await?;
    while reported.leading && !reported.committed {
        if timeout_at(deadline, applied.changed()).await.is_err() {
            return Ok(reported);
        }
        reported = shared.brain.report(Arc::clone(&report), false).await?;
    }
    if reported.leading { Ok(reported) } else { Err(ApiError::NoLeader) }
}

#[derive(Debug, Deserialize)]
pub(super) struct NonceQuery {
    node: NodeName,
}

/// `POST /agent/v1/nonces?node=N`: what an agent without a token needs to be let in. Anybody may ask:
/// the answer is of no use without the power to write on that Node.
pub(super) async fn nonces(
    State(shared): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    query: Result<Query<NonceQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(NonceQuery { node }) =
        query.map_err(|error| ApiError::BadRequest(error.body_text()))?;
    if !shared.is_leading() {
        let within = Duration::ZERO;
        return proxy::pass_on(&shared, &headers, Method::POST, &uri, Bytes::new(), within).await;
    }
    Ok(Json(shared.gate.nonce_for(&node)?).into_response())
}

#[derive(Debug, Deserialize)]
pub(super) struct Poll {
    node: NodeName,
    instance: Option<InstanceId>,
    #[serde(default)]
    after: u64,
}

/// `GET /agent/v1/directives?node=N&instance=I&after=S`: answered as soon as what the node should
/// do differs from what `after` stands for, and after 25 s in any case. Kept open while leaders change:
/// if all agents had to ask anew at once, the next leader would have little else to do.
pub(super) async fn directives(
    State(shared): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    poll: Result<Query<Poll>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(poll) = poll.map_err(|error| ApiError::BadRequest(error.body_text()))?;
    let within = proxy::wanted_within(&headers).unwrap_or(LONGEST_POLL).min(LONGEST_POLL);
    let deadline = Instant::now() + within;
    let mut leadership = shared.group.leadership();
    let mut leaderless = Leaderless::default();
    loop {
        leadership.mark_unchanged();
        let asked_at = Instant::now();
        let answer = if shared.is_leading() {
            Some(wait_for_directives(&shared, &headers, &poll, deadline).await)
        } else {
            let within = deadline.duration_since(asked_at);
            let asked = proxy::pass_on(&shared, &headers, Method::GET, &uri, Bytes::new(), within);
            tokio::select! {
                answer = asked => Some(answer),
                // The one that was asked may be gone without a word.
                changed = leadership.changed() => match changed {
                    Ok(()) => None,
                    // This replica stops.
                    Err(_) => return Err(ApiError::NoLeader),
                },
            }
        };
        let now = Instant::now();
        let hopes = leaderless.hopes(asked_at, now);
        let Some(answer) = answer else { continue };
        let waits = matches!(answer, Err(ApiError::NoLeader | ApiError::LeaderSilent(_)))
            && hopes
            && now < deadline
            && !proxy::was_passed_on(&headers);
        if !waits {
            return answer;
        }
        if let Ok(Err(_)) = timeout_at(now + ASK_AGAIN_AFTER, leadership.changed()).await {
            return answer;
        }
    }
}

/// Since when nobody has led, as far as a question that is kept open can tell.
#[derive(Debug, Default)]
struct Leaderless {
    since: Option<Instant>,
}

impl Leaderless {
    /// Whether it is worth while to ask again, after one was asked that does not lead any more. Whoever
    /// kept the question for a while led until then.
    fn hopes(&mut self, asked_at: Instant, now: Instant) -> bool {
        if now.duration_since(asked_at) > ASK_AGAIN_AFTER {
            self.since = None;
        }
        now.duration_since(*self.since.get_or_insert(now)) < LONGEST_LEADERLESS
    }
}

async fn wait_for_directives(
    shared: &Shared,
    headers: &HeaderMap,
    poll: &Poll,
    deadline: Instant,
) -> Result<Response, ApiError> {
    admit(shared, headers, &poll.node, false).await?;
    let mut board = shared.brain.board();
    let mut leadership = shared.group.leadership();
    loop {
        let directives =
            directives_for(&board.borrow_and_update(), &poll.node, poll.instance.as_ref());
        let sequence = sequence_of(&directives);
        if sequence != poll.after {
            return Ok(Json(Directives { sequence, directives }).into_response());
        }
        let over = async {
            tokio::select! {
                changed = board.changed() => changed.is_err(),
                _ = leadership.wait_for(|now| now.term().is_none()) => true,
            }
        };
        match timeout_at(deadline, over).await {
            Ok(false) => {}
            Ok(true) => return Err(ApiError::NoLeader),
            Err(_) => return Ok(Json(Directives { sequence, directives }).into_response()),
        }
    }
}

/// What the board says to a node. An agent of another instance under the same name is told nothing.
fn directives_for(board: &Board, node: &NodeName, instance: Option<&InstanceId>) -> Vec<Directive> {
    match board.get(node) {
        Some((theirs, directives))
            if instance.is_none() || theirs.is_none() || theirs.as_ref() == instance =>
        {
            directives.clone()
        }
        _ => Vec::new(),
    }
}

/// A number that stands for exactly these directives, the same on every replica; 0 for none.
/// 53 bits, which every JSON reader keeps.
fn sequence_of(directives: &[Directive]) -> u64 {
    if directives.is_empty() {
        return 0;
    }
    let mut digest = Sha256::new();
    for directive in directives {
        digest.update(directive.disruption.0.as_bytes());
        digest.update([0]);
        digest.update(directive.deadline.map(|at| at.to_string()).unwrap_or_default());
        digest.update([0]);
    }
    let word =
        digest.finalize().iter().take(8).fold(0_u64, |word, byte| (word << 8) | u64::from(*byte));
    (word >> 11).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_told_what_is_meant_for_its_instance() {
        let directive = Directive { disruption: "d-1".into(), deadline: None };
        let told = vec![directive.clone()];
        let board = Board::from([("n".into(), (Some("i-1".into()), told.clone()))]);
        let node = NodeName::from("n");
        assert_eq!(directives_for(&board, &node, None), told);
        assert_eq!(directives_for(&board, &node, Some(&"i-1".into())), told);
        assert_eq!(directives_for(&board, &node, Some(&"i-2".into())), []);
        assert_eq!(directives_for(&board, &"m".into(), None), []);
    }

    #[test]
    fn a_poll_is_given_up_after_ten_seconds_in_which_nobody_led() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut leaderless = Leaderless::default();
        assert!(leaderless.hopes(at(0), at(3)), "the first leader ends");
        assert!(leaderless.hopes(at(4), at(4)));
        assert!(leaderless.hopes(at(5), at(15)), "the second one ends");
        assert!(leaderless.hopes(at(24), at(24)));
        assert!(!leaderless.hopes(at(25), at(25)));
    }

    #[test]
    fn a_sequence_stands_for_its_directives() {
        let at = |second| jiff::Timestamp::from_second(second).ok();
        let of = |id: &str, deadline| sequence_of(&[Directive { disruption: id.into(), deadline }]);
        assert_eq!(sequence_of(&[]), 0);
        assert_eq!(of("d-1", at(1)), of("d-1", at(1)));
        assert_ne!(of("d-1", at(1)), of("d-1", at(2)));
        assert_ne!(of("d-1", None), of("d-2", None));
        assert!(of("d-1", None) < 1 << 53);
    }
}
