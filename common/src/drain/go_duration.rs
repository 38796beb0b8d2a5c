//! Durations as Go's `time.ParseDuration` reads them: Karpenter takes annotations of pods so.
//!
//! Anybody who may make a pod writes them: `kube`'s own `Duration` panics on what is too long or has a sign inside, and
//! reads nothing as 0.

use jiff::SignedDuration;

/// Reads `1h30m`, `1.5h`, `500ms`, `-2s`, `0`. `None` for what Go would refuse, more than its 292 years included.
pub(super) fn go_duration(text: &str) -> Option<SignedDuration> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(SignedDuration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanoseconds = 0_i64;
    while !rest.is_empty() {
        let (part, after) = part(rest)?;
        nanoseconds = nanoseconds.checked_add(part)?;
        rest = after;
    }
    Some(SignedDuration::from_nanos(if negative { -nanoseconds } else { nanoseconds }))
}

/// One number with its unit, in nanoseconds, and what comes after.
fn part(text: &str) -> Option<(i64, &str)> {
    let (whole, rest) = digits(text);
    let (fraction, rest) = rest.strip_prefix('.').map_or(("", rest), digits);
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let end = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at_checked(end)?;
    let unit: i64 = match unit {
        "ns" => 1,
        // Micro sign and Greek letter.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    let whole = if whole.is_empty() { 0 } else { whole.parse::<i64>().ok()? };
    // No unit has room for more digits above a nanosecond.
    let (mut numerator, mut scale) = (0, 1);
    for digit in fraction.bytes().take(18) {
        numerator = numerator * 10 + i128::from(digit - b'0');
        scale *= 10;
    }
    let fraction = i64::try_from(numerator * i128::from(unit) / scale).ok()?;
    Some((whole.checked_mul(unit)?.checked_add(fraction)?, rest))
}

/// The digits that a text begins with, and the rest.
fn digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_go_reads() {
        for (text, nanoseconds) in [
            ("0", 0),
            ("-0", 0),
            ("1h30m", 5_400_000_000_000),
            ("1.5h", 5_400_000_000_000),
            ("1.h", 3_600_000_000_000),
            (".5s", 500_000_000),
            ("500ms", 500_000_000),
            ("1s1s", 2_000_000_000),
            ("3us", 3_000),
            ("3\u{b5}s", 3_000),
            ("3\u{3bc}s2ns", 3_002),
            ("0.9999999999999999999999s", 999_999_999),
            ("+5s", 5_000_000_000),
            ("-1.5s", -1_500_000_000),
            ("9223372036854775807ns", i64::MAX),
        ] {
            assert_eq!(go_duration(text), Some(SignedDuration::from_nanos(nanoseconds)), "{text}");
        }
    }

    #[test]
    fn what_go_refuses() {
        for text in [
            "",
            "-",
            "+",
            ".",
            "s",
            ".s",
            "3",
            "1 h",
            "1h ",
            " 1h",
            "1d",
            "1H",
            "--1s",
            "1h-1m",
            "1e3s",
            "1,5h",
            "PT1H",
            "true",
            "9223372036854775808ns",
            "3000000h",
            "\u{664}s",
            "1é",
        ] {
            assert_eq!(go_duration(text), None, "{text}");
        }
    }
}
