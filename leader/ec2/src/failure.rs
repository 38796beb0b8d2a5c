//! SDK errors as [`Ec2Failure`]s.

use std::error::Error;

use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use drover_common::ec2::{Ec2Failure, Ec2FailureKind};

/// The failure that an SDK error stands for.
pub(crate) fn failure<E>(error: SdkError<E, HttpResponse>) -> Ec2Failure
where
    E: ProvideErrorMetadata + Error + 'static,
{
    match &error {
        SdkError::ServiceError(service) => {
            let status = service.raw().status().as_u16();
            let meta = service.err().meta();
            let message = meta.message().unwrap_or("no message");
            of_response(meta.code().filter(|code| !code.is_empty()), status, message)
        }
        SdkError::ResponseError(response) => {
            of_response(None, response.raw().status().as_u16(), &words(&error))
        }
        SdkError::ConstructionFailure(_) => unanswered("RequestNotBuilt", &error, Invalid),
        SdkError::TimeoutError(_) => unanswered("RequestTimeout", &error, Unknown),
        _ => unanswered("NoAnswer", &error, Unknown),
    }
}

use Ec2FailureKind::{Invalid, Throttled, Unauthorized, Unknown, Unsupported};

/// A failure from an answer's error code, or from its status where it has none.
fn of_response(code: Option<&str>, status: u16, message: &str) -> Ec2Failure {
    let of_code = code.map(Ec2FailureKind::of_code);
    let kind = match (of_code, status) {
        // An unknown code with a 5xx speaks of the server, not of the request.
        (Some(Invalid) | None, 500..=599) => match status {
            501 => Unsupported,
            _ => Unknown,
        },
        (Some(kind), _) => kind,
        (None, 401 | 403) => Unauthorized,
        (None, 429) => Throttled,
        (None, 404 | 405) => Unsupported,
        // A success that can't be read: whatever was asked for has happened.
        (None, 200..=299) => Unknown,
        (None, _) => Invalid,
    };
    let code = code.map_or_else(|| format!("HTTP {status}"), str::to_owned);
    Ec2Failure { kind, code, message: message.to_owned() }
}

fn unanswered(code: &str, error: &dyn Error, kind: Ec2FailureKind) -> Ec2Failure {
    Ec2Failure { kind, code: code.to_owned(), message: words(error) }
}

/// An error and its causes in one line.
fn words(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}

/// A failure of an answer that lacks what it must have.
pub(crate) fn incomplete(call: &str, lacks: &str) -> Ec2Failure {
    Ec2Failure {
        kind: Unknown,
        code: "IncompleteAnswer".to_owned(),
        message: format!("{call}: the answer lacks {lacks}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_decide_before_statuses() {
        let kind = |code, status| of_response(code, status, "").kind;
        assert_eq!(kind(Some("RequestLimitExceeded"), 503), Throttled);
        assert_eq!(kind(Some("IdempotentParameterMismatch"), 400), Ec2FailureKind::TokenMismatch);
        assert_eq!(kind(Some("InvalidInstanceID.NotFound"), 400), Ec2FailureKind::NotFound);
        assert_eq!(kind(Some("UnauthorizedOperation"), 403), Unauthorized);
        assert_eq!(kind(Some("InternalError"), 500), Unknown);
        assert_eq!(kind(Some("SomethingNew"), 500), Unknown);
        assert_eq!(kind(Some("SomethingNew"), 400), Invalid);
        assert_eq!(kind(Some("InvalidAction"), 400), Unsupported);
    }

    #[test]
    fn a_status_decides_where_there_is_no_code() {
        let kind = |status| of_response(None, status, "").kind;
        assert_eq!(kind(404), Unsupported);
        assert_eq!(kind(429), Throttled);
        assert_eq!(kind(502), Unknown);
        assert_eq!(kind(403), Unauthorized);
        assert_eq!(of_response(None, 500, "").code, "HTTP 500");
    }
}
