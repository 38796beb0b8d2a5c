//! Small readings of NodeClaims that several concerns share.

use std::collections::BTreeMap;

use drover_common::crd::{Condition, ConditionStatus, NodeClaim, NodeClaimStatus};
use jiff::Timestamp;

/// A NodeClaim's labels.
pub(super) fn labels_of(claim: &NodeClaim) -> BTreeMap<String, String> {
    claim.metadata.labels.clone().unwrap_or_default()
}

/// When its deletion was asked for.
pub(super) fn deleted_at(claim: &NodeClaim) -> Option<Timestamp> {
    claim.metadata.deletion_timestamp.as_ref().map(|time| time.0)
}

/// When it was created.
pub(super) fn created_at(claim: &NodeClaim) -> Option<Timestamp> {
    claim.metadata.creation_timestamp.as_ref().map(|time| time.0)
}

/// Its finalizers.
pub(super) fn finalizers(claim: &NodeClaim) -> &[String] {
    claim.metadata.finalizers.as_deref().unwrap_or_default()
}

/// Its status, empty if it has none yet.
pub(super) fn status_of(claim: &NodeClaim) -> NodeClaimStatus {
    claim.status.clone().unwrap_or_default()
}

/// A condition as Karpenter writes it: a true one's reason is its own name.
pub(super) fn condition(
    kind: &str,
    status: ConditionStatus,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    let reason = if reason.is_empty() { kind } else { reason };
    Condition {
        type_: kind.to_owned(),
        status,
        observed_generation: generation,
        last_transition_time: Some(now),
        reason: reason.to_owned(),
        message: message.to_owned(),
    }
}

/// The condition that sums others up: true if all are, false if one is, else unknown.
pub(super) fn ready(
    conditions: &[Condition],
    dependencies: &[&str],
    generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    let status_of = |kind: &str| {
        Condition::find(conditions, kind).map_or(ConditionStatus::Unknown, |c| c.status)
    };
    let not_true: Vec<&str> = dependencies
        .iter()
        .copied()
        .filter(|kind| status_of(kind) != ConditionStatus::True)
        .collect();
    let failed = not_true.iter().any(|kind| status_of(kind) == ConditionStatus::False);
    let message: Vec<String> =
        not_true.iter().map(|kind| format!("{kind}={:?}", status_of(kind))).collect();
    let message = message.join(", ");
    match (not_true.is_empty(), failed) {
        (true, _) => condition("Ready", ConditionStatus::True, "", "", generation, now),
        (false, true) => condition(
            "Ready",
            ConditionStatus::False,
            "UnhealthyDependents",
            &message,
            generation,
            now,
        ),
        (false, false) => condition(
            "Ready",
            ConditionStatus::Unknown,
            "ReconcilingDependents",
            &message,
            generation,
            now,
        ),
    }
}

/// `time` plus `duration`, at most the end of time.
pub(super) fn after(time: Timestamp, duration: jiff::SignedDuration) -> Timestamp {
    time.checked_add(duration).unwrap_or(Timestamp::MAX)
}
