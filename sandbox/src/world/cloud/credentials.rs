//! What an instance's role signs with. Invented, and never remembered: they follow from the seed, the instance and the time.

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::SimulatedInstance;

/// New ones come so often, seconds; each counts twice as long.
const PERIOD: i64 = 3 * 3600;

/// Credentials as the metadata service gives them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceCredentials {
    /// `ASIA…`
    pub access_key_id: String,
    /// What is signed with.
    pub secret_access_key: String,
    /// The session's.
    pub token: String,
    /// When they came.
    pub updated: Timestamp,
    /// When they end.
    pub expires: Timestamp,
}

impl SimulatedInstance {
    /// The role's name, where the launch template has an instance profile.
    pub fn role(&self) -> Option<&str> {
        self.instance_profile.as_deref()
    }

    /// All that count at a time, the newest first; none without a role.
    pub fn credentials_in_force(&self, seed: u64, now: Timestamp) -> Vec<InstanceCredentials> {
        let period = now.as_second().div_euclid(PERIOD);
        let periods =
            if self.role().is_some() { [period, period - 1].to_vec() } else { Vec::new() };
        periods.into_iter().filter_map(|period| self.credentials_of(seed, period)).collect()
    }

    fn credentials_of(&self, seed: u64, period: i64) -> Option<InstanceCredentials> {
        let hash = |what: &str| -> String {
            let digest = Sha256::digest(format!("{seed}/{}/{period}/{what}", self.id));
            digest.iter().map(|byte| format!("{byte:02X}")).collect()
        };
        Some(InstanceCredentials {
            access_key_id: format!("ASIA{}", hash("key").get(..16)?),
            secret_access_key: hash("secret").get(..40)?.to_owned(),
            // With what has to be encoded, as real ones have.
            token: format!("{}/+{}==", hash("session"), hash("more")),
            updated: Timestamp::from_second(period.checked_mul(PERIOD)?).ok()?,
            expires: Timestamp::from_second((period + 2).checked_mul(PERIOD)?).ok()?,
        })
    }
}
