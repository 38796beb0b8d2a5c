//! Faults as a face meets them.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::Response;

use crate::shared::SharedWorld;
use crate::world::faults::{Face, FaultEffect};

/// What is left of a fault after its wait is over.
#[derive(Clone, Debug, PartialEq)]
pub enum Disturbance {
    /// The request is refused, in the protocol's own words.
    Refuse {
        /// HTTP status.
        status: u16,
        /// The protocol's code or reason.
        code: String,
        /// For people.
        message: String,
    },
    /// The request is done, but its answer waits.
    DelayAnswer(Duration),
    /// The request is done, but a broken connection is all the client gets.
    LoseAnswer,
}

/// Lets a fault strike this operation. Waits for a delay; never returns from a hang (the client's
/// leaving ends it).
pub async fn disturb(world: &SharedWorld, face: Face, operation: &str) -> Option<Disturbance> {
    match world.with(|world, _| world.faults.strike(face, operation))? {
        FaultEffect::Error { status, code, message } => {
            Some(Disturbance::Refuse { status, code, message })
        }
        FaultEffect::Delay { milliseconds } => {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            None
        }
        FaultEffect::DelayAnswer { milliseconds } => {
            Some(Disturbance::DelayAnswer(Duration::from_millis(milliseconds)))
        }
        FaultEffect::LostAnswer => Some(Disturbance::LoseAnswer),
        FaultEffect::Hang => std::future::pending().await,
    }
}

/// What becomes of the answer to a request that was done.
pub async fn settle(disturbance: Option<Disturbance>, answer: Response) -> Response {
    match disturbance {
        Some(Disturbance::DelayAnswer(wait)) => {
            tokio::time::sleep(wait).await;
            answer
        }
        Some(Disturbance::LoseAnswer) => lost_answer(),
        Some(Disturbance::Refuse { .. }) | None => answer,
    }
}

/// An answer that breaks off before its first byte, as a connection does that is cut.
fn lost_answer() -> Response {
    let cut = futures::stream::once(async {
        Err::<Bytes, _>(std::io::Error::from(std::io::ErrorKind::ConnectionReset))
    });
    Response::new(Body::from_stream(cut))
}
