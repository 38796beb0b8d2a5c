//! Faults in one word, as flags take them: `FACE[/OPERATION]:EFFECT[:SHARE]`.

use std::str::FromStr;

use super::{CONTENDED_BUDGET, Face, Fault, FaultEffect, always};
use crate::duration;

/// Why a text is no fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// It does not have two or three parts.
    #[error("expected FACE[/OPERATION]:EFFECT[:SHARE], such as ec2/CreateFleet:error:10%")]
    Form,
    /// There is no such face.
    #[error("face {0:?}: expected one of {faces}", faces = Face::ALL.map(Face::as_str).join(", "))]
    Face(String),
    /// There is no such effect.
    #[error(
        "effect {0:?}: expected error[=STATUS], contended-budget (kubernetes alone), delay=TIME, delay-answer=TIME, lost-answer, cut-body, slow-body=TIME or hang"
    )]
    Effect(String),
    /// An error has an HTTP status that says no error.
    #[error("status {0:?}: expected a number from 400 to 599")]
    Status(String),
    /// A delay is no time.
    #[error("time {0:?}: expected a time such as 500ms, 3s or 1m")]
    Time(String),
    /// The share of requests is none.
    #[error("share {0:?}: expected a percentage up to 100% or a number up to 1, above 0")]
    Share(String),
}

impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let parts: Vec<&str> = text.split(':').collect();
        let (place, effect, share) = match parts.as_slice() {
            [place, effect] => (*place, *effect, None),
            [place, effect, share] => (*place, *effect, Some(*share)),
            _ => return Err(FaultError::Form),
        };
        let (face, operation) = place.split_once('/').unwrap_or((place, ""));
        let face = Face::ALL.into_iter().find(|known| known.as_str() == face);
        let face = face.ok_or_else(|| FaultError::Face(place.to_owned()))?;
        Ok(Self {
            face,
            operation: operation.to_owned(),
            effect: read_effect(face, effect)?,
            probability: share.map_or(Ok(always()), read_share)?,
            remaining: None,
        })
    }
}

fn read_effect(face: Face, text: &str) -> Result<FaultEffect, FaultError> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (text, None),
    };
    match (name, value) {
        ("error", None) => Ok(error(face, 503)),
        ("error", Some(status)) => {
            let number = status.parse().ok().filter(|status| (400..600).contains(status));
            let number = number.ok_or_else(|| FaultError::Status(status.to_owned()))?;
            Ok(error(face, number))
        }
        ("contended-budget", None) if face == Face::Kubernetes => Ok(FaultEffect::Error {
            status: 409,
            code: CONTENDED_BUDGET.to_owned(),
            message: String::new(),
        }),
        ("delay", Some(time)) => Ok(FaultEffect::Delay { milliseconds: read_time(time)? }),
        ("delay-answer", Some(time)) => {
            Ok(FaultEffect::DelayAnswer { milliseconds: read_time(time)? })
        }
        ("lost-answer", None) => Ok(FaultEffect::LostAnswer),
        ("cut-body", None) => Ok(FaultEffect::CutBody),
        ("slow-body", Some(time)) => Ok(FaultEffect::SlowBody { milliseconds: read_time(time)? }),
        ("hang", None) => Ok(FaultEffect::Hang),
        _ => Err(FaultError::Effect(text.to_owned())),
    }
}

/// An error as the face itself would call it.
fn error(face: Face, status: u16) -> FaultEffect {
    let code = match (face, status) {
        (Face::Kubernetes, 401) => "Unauthorized",
        (Face::Kubernetes, 403) => "Forbidden",
        (Face::Kubernetes, 404) => "NotFound",
        (Face::Kubernetes, 409) => "Conflict",
        (Face::Kubernetes, 410) => "Expired",
        (Face::Kubernetes, 429) => "TooManyRequests",
        (Face::Kubernetes, 503) => "ServiceUnavailable",
        (Face::Kubernetes, 504) => "Timeout",
        (Face::Kubernetes, _) => "InternalError",
        (Face::Ec2, 401 | 403) => "UnauthorizedOperation",
        (Face::Ec2, 429) => "RequestLimitExceeded",
        (Face::Ec2, 503) => "Unavailable",
        (Face::Ec2, _) => "InternalError",
        (Face::Ssm | Face::Pricing | Face::Sqs, 401 | 403) => "AccessDeniedException",
        (Face::Ssm | Face::Pricing | Face::Sqs, 429) => "ThrottlingException",
        (Face::Ssm, _) => "InternalServerError",
        (Face::Pricing, _) => "InternalErrorException",
        (Face::Sqs, _) => "InternalError",
        // They answer in words alone.
        (Face::Imds | Face::Kubelet, _) => "",
    };
    let message = "A fault of the sandbox.".to_owned();
    FaultEffect::Error { status, code: code.to_owned(), message }
}

/// A time in whole milliseconds.
fn read_time(text: &str) -> Result<u64, FaultError> {
    let time = duration::parse(text).ok().and_then(|time| u64::try_from(time.as_millis()).ok());
    time.ok_or_else(|| FaultError::Time(text.to_owned()))
}

fn read_share(text: &str) -> Result<f64, FaultError> {
    let number = match text.strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().map(|percent| percent / 100.0),
        None => text.trim().parse(),
    };
    number
        .ok()
        .filter(|share| *share > 0.0 && *share <= 1.0)
        .ok_or_else(|| FaultError::Share(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Fault {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn every_effect_can_be_had_on_every_face() {
        let error = |status, code: &str| FaultEffect::Error {
            status,
            code: code.to_owned(),
            message: "A fault of the sandbox.".to_owned(),
        };
        for (face, code, throttled) in [
            (Face::Kubernetes, "ServiceUnavailable", "TooManyRequests"),
            (Face::Ec2, "Unavailable", "RequestLimitExceeded"),
            (Face::Ssm, "InternalServerError", "ThrottlingException"),
            (Face::Pricing, "InternalErrorException", "ThrottlingException"),
            (Face::Sqs, "InternalError", "ThrottlingException"),
            (Face::Imds, "", ""),
            (Face::Kubelet, "", ""),
        ] {
            for (text, effect) in [
                ("error", error(503, code)),
                ("error=429", error(429, throttled)),
                ("delay=1.5s", FaultEffect::Delay { milliseconds: 1500 }),
                ("delay-answer=250ms", FaultEffect::DelayAnswer { milliseconds: 250 }),
                ("lost-answer", FaultEffect::LostAnswer),
                ("cut-body", FaultEffect::CutBody),
                ("slow-body=3s", FaultEffect::SlowBody { milliseconds: 3_000 }),
                ("hang", FaultEffect::Hang),
            ] {
                let fault = read(&format!("{}:{text}", face.as_str()));
                let expected = Fault {
                    face,
                    operation: String::new(),
                    effect,
                    probability: 1.0,
                    remaining: None,
                };
                assert_eq!(fault, expected, "{text}");
            }
        }
    }

    #[test]
    fn an_operation_and_a_share_may_be_named() {
        let fault = read("ec2/CreateFleet:hang:10%");
        assert_eq!((fault.operation.as_str(), fault.probability), ("CreateFleet", 0.1));
        let fault = read("imds/GET latest/meta-data/*:lost-answer:0.5");
        assert_eq!((fault.operation.as_str(), fault.probability), ("GET latest/meta-data/*", 0.5));
        assert_eq!(read("kubernetes/patch nodes/status:hang").operation, "patch nodes/status");
    }

    #[test]
    fn bad_values_are_named() {
        for (text, expected) in [
            ("ec2", FaultError::Form),
            ("ec2:error:1:2", FaultError::Form),
            ("s3:error", FaultError::Face("s3".to_owned())),
            (":error", FaultError::Face(String::new())),
            ("ec2:explode", FaultError::Effect("explode".to_owned())),
            ("ec2:contended-budget", FaultError::Effect("contended-budget".to_owned())),
            ("ec2:delay", FaultError::Effect("delay".to_owned())),
            ("ec2:hang=3s", FaultError::Effect("hang=3s".to_owned())),
            ("ec2:error=200", FaultError::Status("200".to_owned())),
            ("ec2:error=many", FaultError::Status("many".to_owned())),
            ("ec2:delay=soon", FaultError::Time("soon".to_owned())),
            ("ec2:delay=-1s", FaultError::Time("-1s".to_owned())),
            ("ec2:delay=NaNs", FaultError::Time("NaNs".to_owned())),
            ("ec2:delay-answer=1e9h", FaultError::Time("1e9h".to_owned())),
            ("ec2:error:0", FaultError::Share("0".to_owned())),
            ("ec2:error:101%", FaultError::Share("101%".to_owned())),
            ("ec2:error:often", FaultError::Share("often".to_owned())),
        ] {
            assert_eq!(text.parse::<Fault>(), Err(expected.clone()), "{text}");
            let named = expected.to_string();
            assert!(named.contains("expected"), "{named}");
        }
        let named = "s3:error".parse::<Fault>().unwrap_err().to_string();
        for face in Face::ALL {
            assert!(named.contains(face.as_str()), "{named}");
        }
    }
}
