//! What the leaders are told and what is kept on disk.

use drover_common::drain::DrainState;
use drover_common::protocol::{DrainReport, PROTOCOL_VERSION, Report, UsageDigest};
use jiff::SignedDuration;

use super::{Agent, Effect, Saved};
use crate::moment::Moment;

/// A notice that no leader has committed yet is reported again so soon.
const REPEAT_REPORT: SignedDuration = SignedDuration::from_secs(1);
/// A digest is due with each report. So many intervals after the last, and at least so long, something hangs,
/// and use is unknown: a single one may be late on a loaded node.
const USE_LASTS_INTERVALS: i32 = 3;
const USE_LASTS: SignedDuration = SignedDuration::from_secs(30);

impl Agent {
    /// The report of now.
    fn report(&mut self, now: Moment) -> Report {
        self.sequence = self.sequence.saturating_add(1);
        let mut usage = self.current_use(now).cloned();
        self.told_use |= usage.is_some();
        let (usage_since, usage_gone) = self.usage_told.tell(self.sequence, usage.as_mut());
        Report {
            version: PROTOCOL_VERSION,
            node: self.identity.node.clone(),
            instance: self.instance.clone(),
            boot: self.identity.boot.clone(),
            sequence: self.sequence,
            sent_at: now.wall,
            notices: self.notices.list(),
            cordoned_at: self.cordoned_at,
            imds_silent_since: self.hearing.silent_since(),
            usage,
            usage_since,
            usage_gone,
            drain: self.drain.as_ref().map(DrainState::report),
        }
    }

    /// What was measured last, unless that is long ago: leaders would take it for what is.
    fn current_use(&self, now: Moment) -> Option<&UsageDigest> {
        let lasts = self.report_interval.saturating_mul(USE_LASTS_INTERVALS).max(USE_LASTS);
        let (at, digest) = self.usage.as_ref()?;
        (!now.is_past(*at, lasts)).then_some(digest)
    }

    /// Reports when something changed, when a notice isn't committed yet, and now and then; also as soon
    /// as use is known, for until then the leaders go by what was before the agent started, and before it tells
    /// what leaders would tell, if there are any.
    pub(super) fn decide_report(&mut self, now: Moment) {
        let present = (
            self.notices.list(),
            self.drain.as_ref().map(DrainState::report),
            self.hearing.silent_since(),
        );
        let notices_changed = present.0 != self.reported.0;
        let changed = notices_changed
            || significant(&present.1) != significant(&self.reported.1)
            || present.2 != self.reported.2;
        let pause =
            if self.uncommitted_since.is_some() { REPEAT_REPORT } else { self.report_interval };
        let due = self.reported_at.is_none_or(|at| now.is_past(at, pause));
        let first_use = self.current_use(now).is_some() && !self.told_use;
        if !changed && !due && !first_use && !self.teller.awaits_report(now) {
            return;
        }
        let report = self.report(now);
        if notices_changed {
            let pending = !present.0.is_empty();
            self.uncommitted_since = pending.then_some(report.sequence);
        }
        self.reported = present;
        self.reported_at = Some(now.steady);
        self.teller.reported(report.sequence, now);
        self.effects.push(Effect::Report(Box::new(report)));
    }

    pub(super) fn decide_save(&mut self) {
        let saved = Saved {
            instance: self.instance.clone(),
            boot: self.identity.boot.clone(),
            notices: self.notices.list(),
        };
        if saved != self.saved && saved.instance.is_some() {
            self.saved = saved.clone();
            self.effects.push(Effect::Save(saved));
        }
    }
}

/// The part of a drain's report that is news; seconds left of graces are not.
fn significant(drain: &Option<DrainReport>) -> Option<DrainReport> {
    let mut drain = drain.clone()?;
    for (_, reason) in &mut drain.remaining {
        reason.clear();
    }
    Some(drain)
}
