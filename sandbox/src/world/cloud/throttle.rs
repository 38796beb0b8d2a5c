//! Token buckets, one per class of calls, as EC2 throttles an account.
//!
//! Rates and sizes are those of Karpenter's AWS KWOK provider, which modelled them on EC2.

use std::collections::BTreeMap;

use jiff::Timestamp;

/// Buckets with their level in thousandths of a token and the time it was last filled.
#[derive(Clone, Debug, Default)]
pub(super) struct Throttle {
    buckets: BTreeMap<&'static str, (u64, Timestamp)>,
}

/// The bucket a call draws on: its name, tokens a second, and size.
fn bucket_of(call: &str) -> (&'static str, u64, u64) {
    match call {
        "CreateFleet" => ("RunInstances", 2, 5),
        "TerminateInstances" => ("TerminateInstances", 5, 100),
        "CreateTags" => ("CreateTags", 10, 100),
        "CreateLaunchTemplate" | "DeleteLaunchTemplate" => ("mutating", 5, 50),
        "GetParameter" => ("SSM", 40, 100),
        "GetProducts" => ("Pricing", 10, 50),
        _ => ("non-mutating", 20, 100),
    }
}

impl Throttle {
    /// Takes a token for the call; `false` means that it is throttled.
    pub(super) fn admit(&mut self, call: &str, now: Timestamp) -> bool {
        let (name, rate, size) = bucket_of(call);
        let full = size * 1000;
        let (level, filled) = self.buckets.entry(name).or_insert((full, now));
        let passed = now.as_millisecond().saturating_sub(filled.as_millisecond());
        let gained = u64::try_from(passed).unwrap_or_default().saturating_mul(rate);
        *level = level.saturating_add(gained).min(full);
        *filled = now.max(*filled);
        if *level < 1000 {
            return false;
        }
        *level -= 1000;
        true
    }
}
