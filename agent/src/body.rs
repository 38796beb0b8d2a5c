//! Bodies of answers, up to a length.

use reqwest::Response;

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// It broke off.
    #[error("{}", innermost(.0))]
    BrokeOff(#[from] reqwest::Error),
    /// It is longer than anything honest.
    #[error("the body is longer than {0} bytes")]
    TooLong(usize),
}

/// Reads a body to its end, which has to come within `longest` bytes.
pub(crate) async fn read(mut response: Response, longest: usize) -> Result<Vec<u8>, BodyError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if bytes.len().saturating_add(chunk.len()) > longest {
            return Err(BodyError::TooLong(longest));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// reqwest keeps the useful part of an error in the last of its sources.
pub(crate) fn innermost(error: &reqwest::Error) -> String {
    let mut source: &dyn std::error::Error = error;
    while let Some(inner) = source.source() {
        source = inner;
    }
    source.to_string()
}
