//! Times as flags take them: `500ms`, `8s`, `1.5m`, `1h`.

use std::time::Duration;

/// Longer than anything waits in a sandbox.
const LONGEST: Duration = Duration::from_secs(86_400);

/// Why a text is no time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a time up to 24h such as 500ms, 8s or 1m")]
pub struct DurationError;

/// A time in milliseconds, seconds, minutes or hours, to the millisecond; a bare number is seconds.
///
/// # Errors
/// No number of a known unit, negative, or above a day.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let (number, scale) = [("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)]
        .into_iter()
        .find_map(|(unit, scale)| text.strip_suffix(unit).map(|number| (number, scale)))
        .unwrap_or((text, 1.0));
    let number: f64 = number.trim().parse().map_err(|_| DurationError)?;
    let milliseconds = (number * scale * 1e3).round();
    Duration::try_from_secs_f64(milliseconds / 1e3)
        .ok()
        .filter(|time| *time <= LONGEST)
        .ok_or(DurationError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_take_units() {
        for (text, milliseconds) in [
            ("500ms", 500),
            ("8s", 8_000),
            ("1.5s", 1_500),
            ("0.4ms", 0),
            ("1m", 60_000),
            ("24h", 86_400_000),
            ("2", 2_000),
            ("0", 0),
            (" 3 s", 3_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for bad in ["", "s", "-1s", "fast", "1e400s", "NaNs", "inf", "24.1h", "8d"] {
            assert_eq!(parse(bad), Err(DurationError), "{bad}");
        }
    }
}
