//! EC2's query protocol: a form comes in, XML goes out.
//!
//! Every signature is taken for good. Parameters that the simulated cloud would have to ignore are
//! refused where ignoring them would change the meaning (filters), and ignored where it would not.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use drover_common::ec2::{Ec2Failure, Ec2FailureKind};
use jiff::Timestamp;

use crate::faces::disturb::{Disturbance, disturb, settle};
use crate::shared::SharedWorld;
use crate::world::cloud::{Cloud, refuse};
use crate::world::faults::Face;

mod fleet;
mod image;
mod instance;
mod instance_type;
mod market;
mod network;
mod page;
mod parameters;
mod reservation;
mod template;
mod xml;

use parameters::Parameters;
use xml::Xml;

/// The largest request that is read; EC2's own limit is about this.
const LARGEST_BODY: usize = 1024 * 1024;

/// EC2's router.
pub(crate) fn router(world: SharedWorld) -> Router {
    Router::new().fallback(handle).with_state(world)
}

async fn handle(State(world): State<SharedWorld>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, LARGEST_BODY).await else {
        return refusal(&world, 413, "RequestEntityTooLarge", "the request is too large");
    };
    let query = parts.uri.query().unwrap_or_default();
    let parameters = Parameters::parse(query, &String::from_utf8_lossy(&body));
    let action = parameters.text("Action").unwrap_or_default().to_owned();
    let disturbance = disturb(&world, Face::Ec2, &action).await;
    if let Some(Disturbance::Refuse { status, code, message }) = &disturbance {
        return refusal(&world, *status, code, message);
    }
    let answer = world.with(|world, now| {
        let answered = perform(&mut world.cloud, &action, &parameters, now);
        answered.map(|content| xml::response(&action, &world.cloud.request_id(), &content))
    });
    let answer = match answer {
        Ok(text) => reply(StatusCode::OK, text),
        Err(failed) => refusal(&world, status_of(&failed), &failed.code, &failed.message),
    };
    settle(disturbance, answer).await
}

/// Carries out one action; the content of its response.
fn perform(
    cloud: &mut Cloud,
    action: &str,
    parameters: &Parameters,
    now: Timestamp,
) -> Result<Xml, Ec2Failure> {
    if parameters.flag("DryRun") == Some(true) {
        let message = "Request would have succeeded, but DryRun flag is set.";
        return Err(refuse("DryRunOperation", message));
    }
    match action {
        "CreateFleet" => fleet::create(cloud, parameters, now),
        "DescribeInstances" => instance::describe(cloud, parameters, now),
        "TerminateInstances" => instance::terminate(cloud, parameters, now),
        "StopInstances" => instance::stop(cloud, parameters, now),
        "StartInstances" => instance::start(cloud, parameters, now),
        "CreateTags" => instance::create_tags(cloud, parameters, now),
        "CreateLaunchTemplate" => template::create(cloud, parameters, now),
        "DeleteLaunchTemplate" => template::delete(cloud, parameters, now),
        "DescribeLaunchTemplates" => template::describe(cloud, parameters, now),
        "DescribeInstanceTypes" => instance_type::describe(cloud, parameters, now),
        "DescribeInstanceTypeOfferings" => market::offerings(cloud, parameters, now),
        "DescribeSpotPriceHistory" => market::spot_prices(cloud, parameters, now),
        "DescribeAvailabilityZones" => network::zones(cloud, parameters, now),
        "DescribeSubnets" => network::subnets(cloud, parameters, now),
        "DescribeSecurityGroups" => network::security_groups(cloud, parameters, now),
        "DescribeCapacityReservations" => reservation::describe(cloud, parameters, now),
        "DescribeImages" => image::describe(cloud, parameters, now),
        other => Err(refuse(
            "InvalidAction",
            format!("The action {other} is not valid for this web service."),
        )),
    }
}

/// The status that EC2 sends with a failure: 503 for throttling, 500 for its own errors.
fn status_of(failed: &Ec2Failure) -> u16 {
    match failed.kind {
        Ec2FailureKind::Throttled => 503,
        Ec2FailureKind::Unknown => 500,
        Ec2FailureKind::Unauthorized => 403,
        _ => match failed.code.as_str() {
            "DryRunOperation" => 412,
            _ => 400,
        },
    }
}

fn refusal(world: &SharedWorld, status: u16, code: &str, message: &str) -> Response {
    let request_id = world.with(|world, _| world.cloud.request_id());
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    reply(status, xml::error(code, message, &request_id))
}

fn reply(status: StatusCode, text: String) -> Response {
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static("text/xml;charset=UTF-8"))];
    (status, headers, text).into_response()
}
