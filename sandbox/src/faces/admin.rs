//! Commands to the sandbox itself, as JSON over HTTP: what a user of a real cloud can't ask for.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `POST` and `DELETE` of `/interrupt`, `/rebalance`, `/maintenance`, `/lifecycle-state` | a notice | |
//! | `POST /fail` | `{"instance"}`: it terminates without notice | `{}` |
//! | `POST /start` | `{"instance"}`: one that is stopped starts again, as EC2 does with its spot instances | `{}` |
//! | `POST /doom` | `{"count", "after_milliseconds"}`: the next launches die | `{}` |
//! | `POST /capacity` | `{"instance_type", "zone", "capacity_type", "available"}` | `{}` |
//! | `GET /capacity` | | the rules in force |
//! | `POST /reservations` | `{"instance_type", "zone", "count", "id", "type", "tags", …}` | `{"id"}` |
//! | `GET /reservations`, `DELETE /reservations/{id}` | | the capacity reservations |
//! | `POST /faults` | a [`Fault`] | `{"id"}` |
//! | `GET /faults`, `DELETE /faults`, `DELETE /faults/{id}` | | the faults in force |
//! | `GET /instances`, `GET /audit`, `GET /cost` | | the cloud's books |

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use drover_common::id::InstanceId;
use jiff::SignedDuration;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::shared::SharedWorld;
use crate::world::cloud::{CapacityRule, NoticeError, ReservationOrder};
use crate::world::faults::Fault;

mod notices;

#[cfg(test)]
mod tests;

/// The admin endpoint's router.
pub(crate) fn router(world: SharedWorld) -> Router {
    Router::new()
        .route("/fail", post(fail))
        .route("/start", post(start))
        .route("/doom", post(doom))
        .route("/capacity", post(limit_capacity).get(capacity))
        .route("/reservations", post(reserve).get(reservations))
        .route("/reservations/{id}", delete(cancel_reservation))
        .route("/faults", post(add_fault).get(faults).delete(clear_faults))
        .route("/faults/{id}", delete(remove_fault))
        .route("/instances", get(instances))
        .route("/audit", get(audit))
        .route("/cost", get(cost))
        .merge(notices::router())
        .with_state(world)
}

/// A refusal: what is wrong, for people.
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(json!({"error": self.1}))).into_response()
    }
}

impl From<JsonRejection> for Refusal {
    fn from(rejection: JsonRejection) -> Self {
        Self(StatusCode::BAD_REQUEST, rejection.body_text())
    }
}

impl From<NoticeError> for Refusal {
    fn from(error: NoticeError) -> Self {
        let status = match error {
            NoticeError::NoSuchInstance(_) | NoticeError::NoSuchNotice { .. } => {
                StatusCode::NOT_FOUND
            }
            NoticeError::NotSpot(_) | NoticeError::NotStopped(_) => StatusCode::CONFLICT,
        };
        Self(status, error.to_string())
    }
}

/// What a command answers.
type Answer = Result<Json<Value>, Refusal>;
/// What a command is told.
type Told<T> = Result<Json<T>, JsonRejection>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct One {
    instance: InstanceId,
}

async fn fail(State(world): State<SharedWorld>, told: Told<One>) -> Answer {
    let Json(told) = told?;
    world.with(|world, now| world.cloud.fail_instance(&told.instance, now))?;
    Ok(Json(json!({})))
}

async fn start(State(world): State<SharedWorld>, told: Told<One>) -> Answer {
    let Json(told) = told?;
    world.with(|world, now| world.cloud.resume(&told.instance, now))?;
    Ok(Json(json!({})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Doom {
    count: u32,
    #[serde(default)]
    after_milliseconds: u32,
}

async fn doom(State(world): State<SharedWorld>, told: Told<Doom>) -> Answer {
    let Json(told) = told?;
    let after = SignedDuration::from_millis(i64::from(told.after_milliseconds));
    world.with(|world, _| world.cloud.doom_launches(told.count, after));
    Ok(Json(json!({})))
}

async fn limit_capacity(State(world): State<SharedWorld>, told: Told<CapacityRule>) -> Answer {
    let Json(rule) = told?;
    world.with(|world, _| world.cloud.limit_capacity(rule));
    Ok(Json(json!({})))
}

async fn capacity(State(world): State<SharedWorld>) -> Json<Value> {
    Json(world.with(|world, _| json!(world.cloud.capacity_rules())))
}

async fn reserve(State(world): State<SharedWorld>, told: Told<ReservationOrder>) -> Answer {
    let Json(order) = told?;
    let id = world.with(|world, _| world.cloud.reserve_capacity(order));
    Ok(Json(json!({"id": id})))
}

async fn reservations(State(world): State<SharedWorld>) -> Json<Value> {
    Json(world.with(|world, _| json!(world.cloud.reservations().collect::<Vec<_>>())))
}

async fn cancel_reservation(State(world): State<SharedWorld>, Path(id): Path<String>) -> Answer {
    if world.with(|world, _| world.cloud.cancel_reservation(&id)) {
        return Ok(Json(json!({})));
    }
    Err(Refusal(StatusCode::NOT_FOUND, format!("capacity reservation {id}: there is none")))
}

async fn add_fault(State(world): State<SharedWorld>, told: Told<Fault>) -> Answer {
    let Json(fault) = told?;
    let id = world.with(|world, _| world.faults.add(fault));
    Ok(Json(json!({"id": id})))
}

async fn faults(State(world): State<SharedWorld>) -> Json<Value> {
    let list: Vec<Value> = world.with(|world, _| {
        let faults = world.faults.iter();
        faults.map(|(id, fault)| json!({"id": id, "fault": fault})).collect()
    });
    Json(Value::Array(list))
}

async fn clear_faults(State(world): State<SharedWorld>) -> Json<Value> {
    world.with(|world, _| world.faults.clear());
    Json(json!({}))
}

async fn remove_fault(State(world): State<SharedWorld>, Path(id): Path<u64>) -> Answer {
    if world.with(|world, _| world.faults.remove(id)) {
        return Ok(Json(json!({})));
    }
    Err(Refusal(StatusCode::NOT_FOUND, format!("fault {id}: there is no such fault")))
}

async fn instances(State(world): State<SharedWorld>) -> Json<Value> {
    let list: Vec<Value> = world.with(|world, _| {
        let instances = world.cloud.instances();
        instances
            .map(|instance| {
                json!({
                    "id": instance.id,
                    "instance_type": instance.instance_type,
                    "zone": instance.zone,
                    "capacity_type": instance.capacity_type,
                    "reservation": instance.reservation,
                    "state": instance.state,
                    "reason": instance.reason,
                    "private_dns_name": instance.private_dns_name(),
                    "private_address": instance.private_address,
                    "image": instance.image,
                    "image_name": world.cloud.image_name(&instance.image),
                    "user_data": instance.user_data,
                    "launched": instance.launched,
                    "client_token": instance.client_token,
                    "dollars_per_hour": dollars(instance.price),
                    "notices": instance.notices,
                    "tags": instance.tags,
                })
            })
            .collect()
    });
    Json(Value::Array(list))
}

async fn audit(State(world): State<SharedWorld>) -> Json<Value> {
    Json(world.with(|world, _| json!(world.cloud.audit())))
}

async fn cost(State(world): State<SharedWorld>) -> Json<Value> {
    Json(world.with(|world, now| {
        json!({
            "dollars_per_hour": dollars(world.cloud.hourly_cost()),
            "dollars_total": dollars(world.cloud.total_cost(now)),
        })
    }))
}

fn dollars(micro_dollars: u64) -> f64 {
    micro_dollars as f64 / 1e6
}
