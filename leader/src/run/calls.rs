//! Carries out calls: one request each, a bounded number at once.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use drover_common::call::{
    Call, Kind, KubernetesCall, KubernetesFailure, KubernetesFailureKind, Outcome,
};
use drover_common::ec2::{Ec2Call, Ec2Failure, Ec2FailureKind};
use drover_ec2::Ec2;
use drover_kubernetes::Client;
use tokio::sync::Semaphore;

use super::counters::Counters;
use super::rate::RateLimit;

const KUBERNETES_AT_ONCE: usize = 64;
/// Events only tell: however many there are, what they tell of does not wait for them.
const EVENTS_AT_ONCE: usize = 4;
/// Which share of the allowed requests events may take, one of so many.
const EVENTS_SHARE: u32 = 4;
const EC2_AT_ONCE: usize = 16;
const KUBERNETES_TIMEOUT: Duration = Duration::from_secs(10);
/// Above what the EC2 clients allow themselves for the slowest paginated read.
const EC2_TIMEOUT: Duration = Duration::from_secs(150);

/// Makes requests to Kubernetes and AWS.
#[derive(Clone)]
pub(super) struct Caller {
    kubernetes: Client,
    ec2: Ec2,
    kubernetes_slots: Arc<Semaphore>,
    event_slots: Arc<Semaphore>,
    ec2_slots: Arc<Semaphore>,
    rate: Arc<RateLimit>,
    event_rate: Arc<RateLimit>,
    counters: Arc<Counters>,
}

impl Caller {
    pub(super) fn new(
        kubernetes: Client,
        ec2: Ec2,
        (per_second, burst): (u32, u32),
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            kubernetes,
            ec2,
            kubernetes_slots: Arc::new(Semaphore::new(KUBERNETES_AT_ONCE)),
            event_slots: Arc::new(Semaphore::new(EVENTS_AT_ONCE)),
            ec2_slots: Arc::new(Semaphore::new(EC2_AT_ONCE)),
            rate: Arc::new(RateLimit::new(per_second, burst)),
            event_rate: Arc::new(RateLimit::new(per_second / EVENTS_SHARE, burst / EVENTS_SHARE)),
            counters,
        }
    }

    /// Makes the call when it is its turn, unless `still_wanted` says no by then: then it has failed, and
    /// nothing was done. Whoever decided waits for an answer in any case.
    pub(super) async fn execute(&self, call: &Call, still_wanted: impl Fn() -> bool) -> Outcome {
        let slots = match call {
            Call::Kubernetes(call) if tells(call) => &self.event_slots,
            Call::Kubernetes(_) => &self.kubernetes_slots,
            Call::Ec2(_) => &self.ec2_slots,
        };
        let Ok(_slot) = slots.acquire().await else { return not_made(call) };
        if let Call::Kubernetes(call) = call {
            if tells(call) {
                self.event_rate.turn().await;
            }
            self.rate.turn().await;
        }
        if !still_wanted() {
            return not_made(call);
        }
        let begun = Instant::now();
        let outcome = match call {
            Call::Kubernetes(call) => Outcome::Kubernetes(
                drover_kubernetes::execute(&self.kubernetes, call, KUBERNETES_TIMEOUT).await,
            ),
            Call::Ec2(call) => Outcome::Ec2(self.execute_ec2(call).await),
        };
        self.count(call, &outcome, begun.elapsed());
        outcome
    }

    async fn execute_ec2(
        &self,
        call: &Ec2Call,
    ) -> Result<drover_common::ec2::Ec2Answer, Ec2Failure> {
        tokio::time::timeout(EC2_TIMEOUT, self.ec2.execute(call)).await.unwrap_or_else(|_| {
            Err(Ec2Failure {
                kind: Ec2FailureKind::Unknown,
                code: "NoAnswer".to_owned(),
                message: format!("no answer within {} s", EC2_TIMEOUT.as_secs()),
            })
        })
    }

    fn count(&self, call: &Call, outcome: &Outcome, took: Duration) {
        let labels = match (call, outcome) {
            (Call::Kubernetes(call), Outcome::Kubernetes(result)) => {
                if result.is_ok()
                    && let Some(counter) = self.claim_counter(call)
                {
                    Counters::add_one(counter);
                }
                let result = result
                    .as_ref()
                    .map_or_else(|failure| kubernetes_result(failure.kind), |_| "ok");
                ("kubernetes", kubernetes_name(call), result)
            }
            (Call::Ec2(call), Outcome::Ec2(result)) => {
                let result =
                    result.as_ref().map_or_else(|failure| ec2_result(failure.kind), |_| "ok");
                ("aws", call.name(), result)
            }
            _ => return,
        };
        self.counters.answered(labels, took);
    }

    fn claim_counter(&self, call: &KubernetesCall) -> Option<&AtomicU64> {
        match call {
            KubernetesCall::Create { target, .. } if target.kind == Kind::NodeClaim => {
                Some(&self.counters.claims_created)
            }
            KubernetesCall::Delete { target, .. } if target.kind == Kind::NodeClaim => {
                Some(&self.counters.claims_deleted)
            }
            _ => None,
        }
    }
}

/// The answer to a call that was not made: kinds that are tried again, and of which nothing was done.
fn not_made(call: &Call) -> Outcome {
    let message = "not made: the replica did not lead when it was its turn".to_owned();
    match call {
        Call::Kubernetes(_) => Outcome::Kubernetes(Err(KubernetesFailure {
            kind: KubernetesFailureKind::TooManyRequests,
            message,
            retry_after_seconds: None,
        })),
        Call::Ec2(_) => Outcome::Ec2(Err(Ec2Failure {
            kind: Ec2FailureKind::Throttled,
            code: "NotLeading".to_owned(),
            message,
        })),
    }
}

/// Whether a call makes an event.
fn tells(call: &KubernetesCall) -> bool {
    matches!(call, KubernetesCall::Create { target, .. } if target.kind == Kind::Event)
}

const fn kubernetes_name(call: &KubernetesCall) -> &'static str {
    match call {
        KubernetesCall::Get { .. } => "get",
        KubernetesCall::Create { .. } => "create",
        KubernetesCall::MergePatch { .. } => "patch",
        KubernetesCall::Delete { .. } => "delete",
        KubernetesCall::Evict { .. } => "evict",
    }
}

const fn kubernetes_result(kind: KubernetesFailureKind) -> &'static str {
    match kind {
        KubernetesFailureKind::NotFound => "not-found",
        KubernetesFailureKind::AlreadyExists => "already-exists",
        KubernetesFailureKind::Conflict => "conflict",
        KubernetesFailureKind::DisruptionBudget => "disruption-budget",
        KubernetesFailureKind::TooManyRequests => "too-many-requests",
        KubernetesFailureKind::Forbidden => "forbidden",
        KubernetesFailureKind::NamespaceTerminating => "namespace-terminating",
        KubernetesFailureKind::Invalid => "invalid",
        KubernetesFailureKind::OverlappingBudgets => "overlapping-budgets",
        KubernetesFailureKind::ServerError => "server-error",
        KubernetesFailureKind::Unreachable => "unreachable",
    }
}

const fn ec2_result(kind: Ec2FailureKind) -> &'static str {
    match kind {
        Ec2FailureKind::Throttled => "throttled",
        Ec2FailureKind::Unauthorized => "unauthorized",
        Ec2FailureKind::NotFound => "not-found",
        Ec2FailureKind::TokenMismatch => "token-mismatch",
        Ec2FailureKind::Invalid => "invalid",
        Ec2FailureKind::Unsupported => "unsupported",
        Ec2FailureKind::Unknown => "unknown",
    }
}
