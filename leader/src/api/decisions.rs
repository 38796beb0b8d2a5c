//! The decision journal.

use axum::extract::{Query, State};
use axum::response::Json;
use drover_core::journal::Decision;
use serde::{Deserialize, Serialize};

use super::{ApiError, Shared};

const USUAL_LIMIT: usize = 50;
const LARGEST_LIMIT: usize = 2_000;

#[derive(Debug, Deserialize)]
pub(super) struct Limit {
    limit: Option<usize>,
}

/// The journal's newest entries.
#[derive(Debug, Serialize)]
pub(super) struct Decisions {
    /// How many decisions were ever made.
    written: u64,
    /// The newest first.
    decisions: Vec<Told>,
}

/// A decision with one sentence for people.
#[derive(Debug, Serialize)]
pub(super) struct Told {
    summary: String,
    hourly_price_change_dollars: f64,
    #[serde(flatten)]
    decision: Decision,
}

/// `/v1/decisions?limit=N`: what was decided, from what, why, and for how many dollars.
pub(super) async fn decisions(
    State(shared): State<Shared>,
    limit: Result<Query<Limit>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Decisions>, ApiError> {
    let Query(Limit { limit }) =
        limit.map_err(|error| ApiError::BadRequest(format!("limit: {}", error.body_text())))?;
    let limit = limit.unwrap_or(USUAL_LIMIT).min(LARGEST_LIMIT);
    let state = shared.group.state();
    let newest = state.journal.decisions().rev().take(limit);
    Ok(Json(Decisions {
        written: state.journal.written(),
        decisions: newest.cloned().map(tell).collect(),
    }))
}

fn tell(decision: Decision) -> Told {
    let change = decision.hourly_price_change_micro;
    let dollars = change as f64 / 1e6;
    let mut summary = format!("{} {}", decision.verb, decision.subjects.join(", "));
    if !decision.why.is_empty() {
        summary.push_str(": ");
        summary.push_str(&decision.why);
    }
    if change != 0 {
        let sign = if change > 0 { '+' } else { '-' };
        summary.push_str(&format!(" ({sign}${:.4}/h)", dollars.abs()));
    }
    Told { summary, hourly_price_change_dollars: dollars, decision }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_are_told_in_one_sentence() {
        let decision = Decision {
            verb: "create-intent".to_owned(),
            subjects: vec!["general".to_owned(), "general-1".to_owned()],
            why: "60 pods wait".to_owned(),
            hourly_price_change_micro: -31_200,
            ..Decision::default()
        };
        let told = tell(decision);
        assert_eq!(told.summary, "create-intent general, general-1: 60 pods wait (-$0.0312/h)");
        assert!((told.hourly_price_change_dollars + 0.0312).abs() < 1e-9);
        let bare = tell(Decision { verb: "pause".to_owned(), ..Decision::default() });
        assert_eq!(bare.summary, "pause ");
    }
}
