//! The client of the instance metadata service, version 2.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use drover_agent_core::Answer;
use drover_agent_core::imds::LONGEST_BODY;
use reqwest::{Client, Response, StatusCode};

use crate::body::{self, BodyError, innermost};

#[cfg(test)]
mod tests;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest life that IMDS grants a token, seconds.
const TOKEN_SECONDS: u64 = 21_600;
/// Between two tries to renew a token that still counts: one that hangs delays the read that made it.
const RENEW_AGAIN: Duration = Duration::from_secs(30);

/// Why IMDS gave no answer. The next poll tries again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImdsError {
    /// No connection, no answer in time, or it broke off.
    #[error("no answer: {}", innermost(.0))]
    Unreachable(#[from] reqwest::Error),
    /// A status that is neither an answer nor repaired by a new token.
    #[error("{path}: status {status}")]
    Status {
        /// Where.
        path: String,
        /// What it said.
        status: StatusCode,
    },
    /// The token is no header value, or the body too long.
    #[error("{path}: {reason}")]
    Body {
        /// Where.
        path: String,
        /// Why.
        reason: &'static str,
    },
}

/// One keep-alive connection, more while reads overlap, and one token.
#[derive(Debug)]
pub(crate) struct Imds {
    client: Client,
    base: String,
    token: Mutex<Option<Token>>,
}

#[derive(Clone, Debug)]
struct Token {
    value: String,
    /// Early, so that a token never runs out while IMDS has a bad minute.
    refresh_at: Instant,
    /// When IMDS takes it no more.
    ends_at: Instant,
}

impl Imds {
    /// A client of the service at `base`, which may have a path.
    pub(crate) fn new(base: &str) -> Result<Self, reqwest::Error> {
        // A proxy would make IMDS refuse the token, and no certificate is ever looked at.
        let client = Client::builder()
            .no_proxy()
            .tls_certs_only([])
            .http1_only()
            .pool_max_idle_per_host(1)
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self { client, base: base.to_owned(), token: Mutex::default() })
    }

    /// Reads a path below `/latest/meta-data/`; each request may take `timeout`.
    pub(crate) async fn read(&self, path: &str, timeout: Duration) -> Result<Answer, ImdsError> {
        let mut response = self.request(path, timeout).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            // Expired early, or the service forgot it.
            self.keep(None);
            response = self.request(path, timeout).await?;
        }
        match response.status() {
            StatusCode::OK => Ok(Answer::Body(text(path, response).await?)),
            StatusCode::NOT_FOUND => {
                // The connection is kept only if the body is read to its end.
                text(path, response).await?;
                Ok(Answer::Absent)
            }
            status => {
                if status == StatusCode::UNAUTHORIZED {
                    self.keep(None);
                }
                Err(ImdsError::Status { path: path.to_owned(), status })
            }
        }
    }

    async fn request(&self, path: &str, timeout: Duration) -> Result<Response, ImdsError> {
        let token = self.token(timeout).await?;
        let url = format!("{}/latest/meta-data/{path}", self.base);
        let request = self.client.get(url).timeout(timeout);
        Ok(request.header("X-aws-ec2-metadata-token", token).send().await?)
    }

    fn keep(&self, token: Option<Token>) {
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = token;
    }

    /// The token that is kept, as long as it counts, and whether this read is to renew it.
    fn kept(&self, now: Instant) -> (Option<String>, bool) {
        let mut kept = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(token) = kept.as_mut().filter(|token| now < token.ends_at) else {
            return (None, true);
        };
        let is_due = token.refresh_at <= now;
        if is_due {
            token.refresh_at = now + RENEW_AGAIN;
        }
        (Some(token.value.clone()), is_due)
    }

    /// The token. Reads that overlap may each get one, all of which count: none waits for another's. One
    /// that can't be renewed yet is used to its end.
    async fn token(&self, timeout: Duration) -> Result<String, ImdsError> {
        match self.kept(Instant::now()) {
            (Some(token), false) => Ok(token),
            (None, _) => self.fresh_token(timeout).await,
            (Some(token), true) => Ok(self.fresh_token(timeout).await.unwrap_or_else(|error| {
                tracing::debug!(%error, "Metadata token can't be renewed yet.");
                token
            })),
        }
    }

    async fn fresh_token(&self, timeout: Duration) -> Result<String, ImdsError> {
        const PATH: &str = "/latest/api/token";
        const TTL: &str = "X-aws-ec2-metadata-token-ttl-seconds";
        let now = Instant::now();
        let request = self.client.put(format!("{}{PATH}", self.base)).timeout(timeout);
        let response = request.header(TTL, TOKEN_SECONDS).send().await?;
        let status = response.status();
        if !status.is_success() {
            return Err(ImdsError::Status { path: PATH.to_owned(), status });
        }
        let granted = response.headers().get(TTL).and_then(|ttl| ttl.to_str().ok()?.parse().ok());
        let life = Duration::from_secs(granted.unwrap_or(TOKEN_SECONDS).min(TOKEN_SECONDS));
        let value = text(PATH, response).await?.trim().to_owned();
        let is_token = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_token {
            let reason = "no token in the answer";
            return Err(ImdsError::Body { path: PATH.to_owned(), reason });
        }
        let (refresh_at, ends_at) = (now + life / 2, now + life);
        self.keep(Some(Token { value: value.clone(), refresh_at, ends_at }));
        Ok(value)
    }
}

/// The body, up to a length that no honest answer reaches.
async fn text(path: &str, response: Response) -> Result<String, ImdsError> {
    match body::read(response, LONGEST_BODY).await {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(BodyError::BrokeOff(error)) => Err(error.into()),
        Err(BodyError::TooLong(_)) => {
            Err(ImdsError::Body { path: path.to_owned(), reason: "the body has no end" })
        }
    }
}
