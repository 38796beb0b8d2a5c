//! Whatever an API server answers to a call: nothing panics, only what says so is a success, and what is kept of a
//! refusal is short.
//!
//! A long run: `PROPTEST_CASES=1000000 cargo test -p drover-kubernetes fuzz`.

use std::sync::LazyLock;

use drover_common::call::{Kind, Target};
use http::{HeaderMap, HeaderValue, StatusCode};
use proptest::prelude::*;

use super::*;
use crate::watch::fuzz::inputs;

const BUDGET: &str = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure",
    "message":"Cannot evict pod as it would violate the pod's disruption budget.","reason":"TooManyRequests",
    "details":{"causes":[{"reason":"DisruptionBudget","message":"needs 3 healthy pods"}],"retryAfterSeconds":10},
    "code":429}"#;
const SEVERAL: &str = r#"{"kind":"Status","status":"Failure","reason":"InternalError","code":500,
    "message":"This pod has more than one PodDisruptionBudget","details":null}"#;
const EXISTS: &str = r#"{"kind":"Status","status":"Failure","reason":"AlreadyExists","code":409}"#;
const SUCCESS: &str = r#"{"kind":"Status","status":"Success","metadata":{}}"#;
const POD: &str = r#"{"kind":"Pod","metadata":{"name":"a","namespace":"d","uid":"u"},"spec":{}}"#;
const AT_ONCE: &str = r#"{"kind":"Status","status":"Failure","reason":"TooManyRequests","code":429,
    "details":{"retryAfterSeconds":0}}"#;
/// A refusal with a message as a broken API server's.
static LONG: LazyLock<String> = LazyLock::new(|| {
    EXISTS
        .replace("AlreadyExists", "é")
        .replace("\"code\"", &format!("\"message\":\"{}\",\"code\"", "no, ".repeat(2_000)))
});
const PAGE: &str = "<html><body><h1>502 Bad Gateway</h1></body></html>";

fn evict() -> KubernetesCall {
    let target = Target::namespaced(Kind::Pod, "d", "a");
    KubernetesCall::Evict { target, uid: "u".into(), grace_seconds: None }
}

/// An answer, and whether it names a pause.
fn classify(status: u16, bytes: &[u8], pause: Option<&[u8]>) -> Result<Value, KubernetesFailure> {
    let mut headers = HeaderMap::new();
    if let Some(pause) = pause.and_then(|pause| HeaderValue::from_bytes(pause).ok()) {
        headers.insert(header::RETRY_AFTER, pause);
    }
    Answer { status: StatusCode::from_u16(status).unwrap(), headers, bytes }.classify(&evict())
}

proptest! {
    #[test]
    fn answers(
        bytes in inputs(vec![BUDGET, SEVERAL, EXISTS, SUCCESS, AT_ONCE, LONG.as_str(), POD, PAGE]),
        status in prop::sample::select(vec![200_u16, 201, 400, 401, 403, 404, 409, 410, 422, 429, 500, 503]),
        pause in prop::option::of(prop_oneof![
            Just(b"0".to_vec()),
            Just(b"7".to_vec()),
            prop::collection::vec(any::<u8>(), 0..8),
        ]),
    ) {
        let json = serde_json::from_slice::<Value>(&bytes).ok();
        let answer = classify(status, &bytes, pause.as_deref());
        if (200..300).contains(&status) {
            // An eviction that was not understood is not known to have been taken.
            prop_assert_eq!(answer.is_ok(), json.is_some() || bytes.is_empty());
            return Ok(());
        }
        let failure = answer.expect_err("a refusal");
        prop_assert!((1..=2_048).contains(&failure.message.chars().count()), "{}", failure.message);
        prop_assert_ne!(failure.retry_after_seconds, Some(0));
        // Only these lead past a budget when a notice ends. Older API servers say so in words alone.
        let says = |words: &str| {
            let text = String::from_utf8_lossy(&bytes).to_lowercase();
            text.contains(words) || json.as_ref().is_some_and(|body| body.to_string().to_lowercase().contains(words))
        };
        let names_budget = match failure.kind {
            KubernetesFailureKind::DisruptionBudget => {
                matches!(status, 403 | 429) && says("budget")
            }
            KubernetesFailureKind::OverlappingBudgets => status == 500 && says("budget"),
            _ => true,
        };
        prop_assert!(names_budget, "{failure:?} of {}", String::from_utf8_lossy(&bytes));
    }
}
