//! Faults as a face meets them.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_LENGTH;
use axum::response::Response;
use futures::StreamExt;

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
    /// The request is done, but half of the answer's body is missing.
    CutBody,
    /// The request is done and answered, but the body takes so long to come.
    SlowBody(Duration),
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
        FaultEffect::CutBody => Some(Disturbance::CutBody),
        FaultEffect::SlowBody { milliseconds } => {
            Some(Disturbance::SlowBody(Duration::from_millis(milliseconds)))
        }
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
        Some(Disturbance::CutBody) => with_body(answer, |body| cut(&body)).await,
        Some(Disturbance::SlowBody(time)) => with_body(answer, |body| slow(&body, time)).await,
        Some(Disturbance::Refuse { .. }) | None => answer,
    }
}

/// The answer with another body in place of its own.
async fn with_body(answer: Response, change: impl FnOnce(Bytes) -> Body) -> Response {
    let (mut head, body) = answer.into_parts();
    let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else { return lost_answer() };
    head.headers.remove(CONTENT_LENGTH);
    Response::from_parts(head, change(body))
}

fn cut(body: &Bytes) -> Body {
    Body::from(body.slice(..body.len() / 2))
}

fn slow(body: &Bytes, time: Duration) -> Body {
    const BITS: u8 = 8;
    let size = body.len().div_ceil(BITS.into()).max(1);
    let bits: Vec<Bytes> = body.chunks(size).map(Bytes::copy_from_slice).collect();
    let bits = futures::stream::iter(bits).then(move |bit| async move {
        tokio::time::sleep(time / u32::from(BITS)).await;
        Ok::<_, std::io::Error>(bit)
    });
    Body::from_stream(bits)
}

/// An answer that breaks off before its first byte, as a connection does that is cut.
fn lost_answer() -> Response {
    let cut = futures::stream::once(async {
        Err::<Bytes, _>(std::io::Error::from(std::io::ErrorKind::ConnectionReset))
    });
    Response::new(Body::from_stream(cut))
}
