//! Clocks that are wrong: an agent's, or this leader's own. What an agent counts on its clock is taken by how far off it is,
//! not by what the clock says.

use drover_common::id::{NodeClaimName, NodeName};
use drover_common::protocol::{Notice, NoticeKind, Report};
use jiff::{SignedDuration, Timestamp};

use super::Control;
use super::object::after;
use crate::state::State;

/// Reports are under way for so long at most: of what the clocks differ by, less may be that alone.
const UNDER_WAY: SignedDuration = SignedDuration::from_secs(10);

/// What a notice leaves, by AWS' word, of spot instances and of reservations that are taken back.
const SPOT_LEAD: SignedDuration = SignedDuration::from_secs(120);

/// How far this leader's clock is ahead of the one by which a report was made. What was found before holds on as long as it
/// may be right, so that a notice has the same time in each report; `known` is that of this agent.
pub(super) fn clock_ahead(
    state: &State,
    report: &Report,
    known: Option<SignedDuration>,
    now: Timestamp,
) -> SignedDuration {
    let found = now.duration_since(report.sent_at);
    // An earlier leader, whose clock was as this one's, told from the same notice.
    let logged = report.notices.iter().filter_map(|notice| {
        let record = state.notices.get(&notice.instance)?.get(&notice.kind)?;
        let deadline = record.notice.deadline.filter(|_| is_by_agent(notice))?;
        Some(deadline.duration_since(notice.deadline?))
    });
    let mut before = known.into_iter().chain([SignedDuration::ZERO]).chain(logged);
    let holds = |ahead: &SignedDuration| {
        found.saturating_sub(*ahead).unsigned_abs() <= UNDER_WAY.unsigned_abs()
    };
    before.find(holds).unwrap_or(found)
}

/// Whether the agent counts a notice's time on its own clock. The date of maintenance is AWS' own, weeks ahead.
fn is_by_agent(notice: &Notice) -> bool {
    notice.kind != NoticeKind::Maintenance
}

impl Control {
    /// What a node's agent reads, by this leader's clock.
    pub(super) fn in_own_time(&self, node: &NodeName, notice: &Notice) -> Notice {
        let mut notice = notice.clone();
        if let Some(ahead) = self.agents.clock_ahead(node).filter(|ahead| !ahead.is_zero()) {
            notice.detected_at = after(notice.detected_at, ahead);
            let by_agent = is_by_agent(&notice);
            notice.deadline =
                notice.deadline.map(|at| if by_agent { after(at, ahead) } else { at });
        }
        notice
    }
}

/// Whether a claim's instance may well have the time of a spot notice yet, whatever the notice's date is: it came so lately.
pub(super) fn has_time_left(state: &State, claim: &NodeClaimName, now: Timestamp) -> bool {
    let mut passing = state.hard_notices(claim, now).filter(|it| it.notice.kind.passes_budgets());
    passing.any(|record| now.duration_since(record.recorded_at) < SPOT_LEAD)
}
