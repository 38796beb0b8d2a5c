//! The cells of built-in kinds.

use jiff::Timestamp;
use serde_json::Value;

use crate::world::object;
use crate::world::resource::Resource;

/// A column: name, priority (0 is always shown, 1 with `-o wide`), cell.
pub(super) type Known = (&'static str, i64, fn(&Value, Timestamp) -> Value);

/// The columns of a built-in resource after its name.
pub(super) fn of(_resource: &Resource) -> Vec<Known> {
    vec![("Age", 0, age)]
}

/// `AGE`.
pub(super) fn age(item: &Value, now: Timestamp) -> Value {
    age_of(object::text(item, "/metadata/creationTimestamp"), now)
}

/// The time since a timestamp, as kubectl shortens it.
pub(super) fn age_of(text: &str, now: Timestamp) -> Value {
    match text.parse::<Timestamp>() {
        Ok(then) => shorten(now.duration_since(then).as_secs()).into(),
        Err(_) => "<unknown>".into(),
    }
}

/// Seconds in kubectl's short form: `5s`, `3m20s`, `2h5m`, `3d4h`, `20d`, `2y10d`.
pub(super) fn shorten(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let pair = |large: i64, unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{large}{unit}") } else { format!("{large}{unit}{small}{small_unit}") }
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => pair(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => pair(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => pair(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        _ => pair(days / 365, "y", days % 365, "d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_shortened_as_kubectl_does() {
        for (seconds, text) in
            [(5, "5s"), (119, "119s"), (200, "3m20s"), (600, "10m"), (10_800, "3h"), (90_000, "25h"), (180_000, "2d2h")]
        {
            assert_eq!(shorten(seconds), text);
        }
    }
}
