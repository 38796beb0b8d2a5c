//! The bodies that the instance metadata service answers with.
//!
//! Every parser takes any text: what isn't exactly a notice is an error, never a notice.

use drover_common::id::InstanceId;
use drover_common::protocol::NoticeKind;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::Deserialize;

#[cfg(test)]
mod tests;

/// Bodies longer than this are not read: the longest real one, a dozen maintenance events, is
/// under 5 kB.
pub const LONGEST_BODY: usize = 64 * 1024;

/// Why a body is no answer to the question.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnreadableBody {
    /// Longer than [`LONGEST_BODY`].
    #[error("the body has {0} bytes")]
    TooLong(usize),
    /// Not JSON of the right shape.
    #[error("not the expected JSON: {0}")]
    Json(String),
    /// A field has a value that isn't known.
    #[error("{field} is {value:?}")]
    Value {
        /// Which field.
        field: &'static str,
        /// Its value, shortened.
        value: String,
    },
}

pub(crate) fn bad_value(field: &'static str, value: &str) -> UnreadableBody {
    UnreadableBody::Value { field, value: value.chars().take(80).collect() }
}

pub(crate) fn read<'a, T: Deserialize<'a>>(body: &'a str) -> Result<T, UnreadableBody> {
    if body.len() > LONGEST_BODY {
        return Err(UnreadableBody::TooLong(body.len()));
    }
    serde_json::from_str(body).map_err(|error| UnreadableBody::Json(error.to_string()))
}

/// What `spot/instance-action` announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpotAction {
    /// One of the spot kinds.
    pub kind: NoticeKind,
    /// When, approximately.
    pub time: Timestamp,
}

/// Reads `spot/instance-action`: `{"action":"terminate","time":"2017-09-18T08:22:00Z"}`.
///
/// # Errors
/// [`UnreadableBody`] names the field.
pub fn spot_action(body: &str) -> Result<SpotAction, UnreadableBody> {
    #[derive(Deserialize)]
    struct Body {
        action: String,
        time: String,
    }
    let body: Body = read(body)?;
    let kind = match body.action.as_str() {
        "terminate" => NoticeKind::SpotTerminate,
        "stop" => NoticeKind::SpotStop,
        "hibernate" => NoticeKind::SpotHibernate,
        other => return Err(bad_value("action", other)),
    };
    let time = body.time.trim().parse().map_err(|_| bad_value("time", &body.time))?;
    Ok(SpotAction { kind, time })
}

/// Reads `events/recommendations/rebalance`: `{"noticeTime":"2020-10-27T08:22:00Z"}`; returns that
/// time.
///
/// # Errors
/// [`UnreadableBody`] names the field.
pub fn rebalance(body: &str) -> Result<Timestamp, UnreadableBody> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Body {
        notice_time: String,
    }
    let body: Body = read(body)?;
    body.notice_time.trim().parse().map_err(|_| bad_value("noticeTime", &body.notice_time))
}

/// A scheduled event that still lies ahead or is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maintenance {
    /// `instance-event-…`
    pub event: String,
    /// `instance-stop`, `system-reboot`, …
    pub code: String,
    /// Its earliest start.
    pub not_before: Timestamp,
}

/// Reads `events/maintenance/scheduled` and returns the events in state `active`, the earliest
/// first. One that can't be read hides no other that is active.
///
/// # Errors
/// [`UnreadableBody`], if none is known to be active, names the field of the first event that can't be read:
/// that one may be.
pub fn maintenance(body: &str) -> Result<Vec<Maintenance>, UnreadableBody> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Event {
        not_before: String,
        code: String,
        event_id: String,
        state: String,
    }
    let events: Vec<serde_json::Value> = read(body)?;
    let active_of = |event: serde_json::Value| -> Result<Option<Maintenance>, UnreadableBody> {
        let event: Event = serde_json::from_value(event)
            .map_err(|error| UnreadableBody::Json(error.to_string()))?;
        match event.state.as_str() {
            "active" => Ok(Some(Maintenance {
                not_before: maintenance_time(&event.not_before)?,
                event: event.event_id,
                code: event.code,
            })),
            "completed" | "canceled" => Ok(None),
            other => Err(bad_value("State", other)),
        }
    };
    let (mut active, mut unreadable) = (Vec::new(), None);
    for event in events {
        match active_of(event) {
            Ok(event) => active.extend(event),
            Err(error) => drop(unreadable.get_or_insert(error)),
        }
    }
    if active.is_empty()
        && let Some(error) = unreadable
    {
        return Err(error);
    }
    active.sort_by(|a, b| (a.not_before, &a.event).cmp(&(b.not_before, &b.event)));
    Ok(active)
}

/// `21 Jan 2019 09:00:43 GMT`, the day without a leading zero.
fn maintenance_time(text: &str) -> Result<Timestamp, UnreadableBody> {
    DateTime::strptime("%d %b %Y %H:%M:%S GMT", text.trim())
        .and_then(|time| time.to_zoned(TimeZone::UTC))
        .map(|zoned| zoned.timestamp())
        .map_err(|_| bad_value("NotBefore", text))
}

/// Reads `autoscaling/target-lifecycle-state`: whether the group is about to terminate the instance.
/// It carries neither time nor identity.
///
/// # Errors
/// [`UnreadableBody`], if the state isn't one that EC2 documents.
pub fn is_target_terminated(body: &str) -> Result<bool, UnreadableBody> {
    match body.trim() {
        "Terminated" | "Warmed:Terminated" => Ok(true),
        "InService" | "Detached" | "Standby" | "Warmed:Hibernated" | "Warmed:Running"
        | "Warmed:Stopped" => Ok(false),
        other => Err(bad_value("target-lifecycle-state", other)),
    }
}

/// Reads `instance-id`.
///
/// # Errors
/// The value, if it isn't `i-` and hexadecimal digits.
pub fn instance_id(body: &str) -> Result<InstanceId, UnreadableBody> {
    let text = body.trim();
    let digits = text.strip_prefix("i-").unwrap_or_default();
    let is_id = (1..=32).contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if is_id { Ok(InstanceId::from(text)) } else { Err(bad_value("instance-id", text)) }
}
