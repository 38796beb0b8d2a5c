//! Notices put into the instances' metadata services by command, and taken back.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `POST /interrupt` | `{"instance", "action": "terminate", "lead_seconds": 120}` | `{"action", "time"}` |
//! | `POST /rebalance` | `{"instance"}` | `{}` |
//! | `POST /maintenance` | `{"instance", "code", "state", "not_before", "not_after", …}` | `{"event_id"}` |
//! | `POST /lifecycle-state` | `{"instance", "state": "Terminated"}` | `{}` |
//! | `DELETE /<the same>/{instance}` | | `{}` |
//! | `DELETE /maintenance/{instance}/{event}` | | `{}`: that one alone |

use axum::extract::{Path, State};
use axum::routing::{delete, post};
use axum::{Json, Router};
use drover_common::id::InstanceId;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::json;

use super::{Answer, One, Told};
use crate::shared::SharedWorld;
use crate::world::World;
use crate::world::cloud::{
    MaintenanceCode, MaintenanceEvent, MaintenanceState, NoticeError, SpotAction,
    TargetLifecycleState,
};

/// What EC2 promises before it terminates or stops.
const TWO_MINUTES: u32 = 120;
/// Hibernation begins with its notice; a machine runs on while its memory is being saved.
const HIBERNATION_LEAD: u32 = 5;

pub(super) fn router() -> Router<SharedWorld> {
    Router::new()
        .route("/interrupt", post(interrupt))
        .route("/interrupt/{instance}", delete(withdraw_interruption))
        .route("/rebalance", post(rebalance))
        .route("/rebalance/{instance}", delete(withdraw_rebalance))
        .route("/maintenance", post(maintenance))
        .route("/maintenance/{instance}", delete(withdraw_all_maintenance))
        .route("/maintenance/{instance}/{event}", delete(withdraw_maintenance))
        .route("/lifecycle-state", post(lifecycle_state))
        .route("/lifecycle-state/{instance}", delete(withdraw_lifecycle_state))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Interrupt {
    instance: InstanceId,
    #[serde(default)]
    action: SpotAction,
    lead_seconds: Option<u32>,
}

impl Interrupt {
    fn lead(&self) -> SignedDuration {
        let usual = match self.action {
            SpotAction::Terminate | SpotAction::Stop => TWO_MINUTES,
            SpotAction::Hibernate => HIBERNATION_LEAD,
        };
        SignedDuration::from_secs(i64::from(self.lead_seconds.unwrap_or(usual)))
    }
}

async fn interrupt(State(world): State<SharedWorld>, told: Told<Interrupt>) -> Answer {
    let Json(told) = told?;
    let notice = world
        .with(|world, now| world.cloud.announce(&told.instance, told.action, now, told.lead()))?;
    Ok(Json(json!(notice)))
}

async fn rebalance(State(world): State<SharedWorld>, told: Told<One>) -> Answer {
    let Json(told) = told?;
    world.with(|world, now| world.cloud.recommend_rebalance(&told.instance, now))?;
    Ok(Json(json!({})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Maintenance {
    instance: InstanceId,
    #[serde(default)]
    code: MaintenanceCode,
    #[serde(default)]
    state: MaintenanceState,
    description: Option<String>,
    event_id: Option<String>,
    not_before: Option<Timestamp>,
    not_after: Option<Timestamp>,
}

async fn maintenance(State(world): State<SharedWorld>, told: Told<Maintenance>) -> Answer {
    let Json(told) = told?;
    let event_id = world.with(|world, now| {
        let digits = told.instance.as_str().trim_start_matches("i-");
        let event_id = told.event_id.unwrap_or_else(|| format!("instance-event-{digits}"));
        let event = MaintenanceEvent {
            event_id: event_id.clone(),
            code: told.code,
            state: told.state,
            description: told.description.unwrap_or_else(|| told.code.description().to_owned()),
            not_before: told.not_before.unwrap_or(now),
            not_after: told.not_after,
        };
        world.cloud.schedule_maintenance(&told.instance, event).map(|()| event_id)
    })?;
    Ok(Json(json!({"event_id": event_id})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LifecycleState {
    instance: InstanceId,
    state: TargetLifecycleState,
}

async fn lifecycle_state(State(world): State<SharedWorld>, told: Told<LifecycleState>) -> Answer {
    let Json(told) = told?;
    change(&world, |world| world.cloud.set_target_lifecycle_state(&told.instance, Some(told.state)))
}

async fn withdraw_interruption(
    State(world): State<SharedWorld>,
    Path(instance): Path<InstanceId>,
) -> Answer {
    change(&world, |world| world.cloud.withdraw_interruption(&instance))
}

async fn withdraw_rebalance(
    State(world): State<SharedWorld>,
    Path(instance): Path<InstanceId>,
) -> Answer {
    change(&world, |world| world.cloud.withdraw_rebalance(&instance))
}

async fn withdraw_all_maintenance(
    State(world): State<SharedWorld>,
    Path(instance): Path<InstanceId>,
) -> Answer {
    change(&world, |world| world.cloud.withdraw_maintenance(&instance, None))
}

async fn withdraw_maintenance(
    State(world): State<SharedWorld>,
    Path((instance, event)): Path<(InstanceId, String)>,
) -> Answer {
    change(&world, |world| world.cloud.withdraw_maintenance(&instance, Some(&event)))
}

async fn withdraw_lifecycle_state(
    State(world): State<SharedWorld>,
    Path(instance): Path<InstanceId>,
) -> Answer {
    change(&world, |world| world.cloud.set_target_lifecycle_state(&instance, None))
}

fn change(world: &SharedWorld, act: impl FnOnce(&mut World) -> Result<(), NoticeError>) -> Answer {
    world.with(|world, _| act(world))?;
    Ok(Json(json!({})))
}
