//! Durations as Karpenter's fields write them.

use jiff::SignedDuration;

/// The word for "no such duration" in `consolidateAfter` and `expireAfter`.
pub const NEVER: &str = "Never";

/// Reads a duration of hours, minutes and seconds: `720h`, `1h30m`, `90s`. Units may come in any
/// order and repeat, as Karpenter's pattern allows; the parts are added. `None` for anything else,
/// `Never` included, and for sums beyond the range of a [`SignedDuration`].
pub fn parse_duration(text: &str) -> Option<SignedDuration> {
    let mut seconds = 0_i64;
    let mut digits = String::new();
    let mut parts = 0;
    for character in text.chars() {
        let unit = match character {
            '0'..='9' => {
                digits.push(character);
                continue;
            }
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        let amount: i64 = digits.parse().ok()?;
        seconds = seconds.checked_add(amount.checked_mul(unit)?)?;
        digits.clear();
        parts += 1;
    }
    (parts > 0 && digits.is_empty()).then(|| SignedDuration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_all_spellings() {
        for (text, seconds) in [
            ("0s", 0),
            ("30s", 30),
            ("720h", 2_592_000),
            ("1h30m", 5_400),
            ("1h30m10s", 5_410),
            ("10m0s", 600),
            ("1m1h", 3_660),
        ] {
            assert_eq!(parse_duration(text), Some(SignedDuration::from_secs(seconds)), "{text}");
        }
        for text in ["", "Never", "1", "h", "1d", "-1h", "1.5h", "1h ", "99999999999999999h"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
