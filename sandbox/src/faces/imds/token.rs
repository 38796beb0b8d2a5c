//! Session tokens that carry their own end, so that none has to be remembered.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use jiff::Timestamp;
use sha2::{Digest, Sha256};

/// A token for an instance, good for some seconds.
pub(super) fn issue(seed: u64, instance: &str, now: Timestamp, seconds: u32) -> String {
    let end = now.as_second().saturating_add(i64::from(seconds));
    URL_SAFE.encode(format!("{end}.{}", mark(seed, instance, end)))
}

/// Whether a token was issued for this instance and has not ended.
pub(super) fn holds(token: &str, seed: u64, instance: &str, now: Timestamp) -> bool {
    let parsed = || {
        let text = String::from_utf8(URL_SAFE.decode(token).ok()?).ok()?;
        let (end, have) = text.split_once('.')?;
        let end: i64 = end.parse().ok()?;
        Some(have == mark(seed, instance, end) && now.as_second() < end)
    };
    parsed().unwrap_or_default()
}

/// What only the world that issued a token can compute. It keeps mistakes apart, not attackers.
fn mark(seed: u64, instance: &str, end: i64) -> String {
    let digest = Sha256::digest(format!("{seed}/{instance}/{end}"));
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_on_its_instance_until_its_end() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let token = issue(1, "i-1", at(100), 60);
        assert!(holds(&token, 1, "i-1", at(159)));
        assert!(!holds(&token, 1, "i-1", at(160)));
        assert!(!holds(&token, 1, "i-2", at(100)));
        assert!(!holds(&token, 2, "i-1", at(100)));
        assert!(!holds("nonsense", 1, "i-1", at(100)));
    }
}
