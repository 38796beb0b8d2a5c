//! Signs tokens for EKS with the role that IMDS has for the instance.

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use drover_agent_core::Answer;
use drover_agent_core::eks::{self, Credentials, EksToken};
use drover_agent_core::imds::UnreadableBody;
use drover_kubernetes::{EksCluster, EksIdentity, SignEksToken, TokenFuture};
use jiff::Timestamp;

use crate::config::Config;
use crate::imds::{Imds, ImdsError};

/// How long one answer of IMDS, and how long all that a token needs, may take: a request waits for it.
const TIMEOUT: Duration = Duration::from_millis(1_500);
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two tries to renew a token that still counts.
const RENEW_AGAIN: Duration = Duration::from_secs(30);
/// Between two tries while there is none: what is asked for in between is told why the last one failed.
const SIGN_AGAIN: Duration = Duration::from_millis(500);

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
enum SignError {
    #[error(transparent)]
    Imds(#[from] ImdsError),
    #[error("{path}: {source}")]
    Body { path: &'static str, source: UnreadableBody },
    #[error("the region of the cluster: {0}")]
    Region(UnreadableBody),
    #[error("the credentials of the instance's role ended at {0}")]
    Expired(Timestamp),
    #[error("the instance has no role")]
    NoRole,
    #[error("IMDS does not tell the region")]
    NoRegion,
    #[error("{0:?} is no EKS cluster's name")]
    Cluster(String),
    #[error("IMDS did not answer within {} s", PATIENCE.as_secs())]
    Late,
}

/// How an agent shows itself to the API server.
pub(crate) fn identity(config: &Config, imds: Arc<Imds>) -> EksIdentity {
    let cluster = config.eks_cluster.clone().map(|name| EksCluster { name, region: None });
    EksIdentity { signer: Arc::new(RoleSigner::new(imds)), cluster }
}

/// Signs, and keeps the last token.
#[derive(Debug)]
struct RoleSigner {
    imds: Arc<Imds>,
    kept: Mutex<Kept>,
    /// Held by the one who signs.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Used to their end while IMDS gives no others.
    credentials: Option<Credentials>,
    region: Option<String>,
    token: Option<(EksCluster, EksToken)>,
    /// Before this, a token is not renewed.
    not_before: Option<Instant>,
    /// When the last try failed, and why.
    failed: Option<(Instant, String)>,
}

/// What to do for a request.
enum Step {
    Show(String),
    /// The token still counts, whatever comes of it.
    Renew(String),
    Sign,
}

impl RoleSigner {
    fn new(imds: Arc<Imds>) -> Self {
        Self { imds, kept: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The token is measured by the wall clock, which is what was signed: it may have been set since.
    fn step(&self, cluster: &EksCluster) -> Step {
        let (now, wall) = (Instant::now(), Timestamp::now());
        let mut kept = self.kept();
        let Some((_, token)) =
            kept.token.as_ref().filter(|(of, token)| of == cluster && token.holds(wall))
        else {
            return Step::Sign;
        };
        let text = token.text().to_owned();
        if !token.is_due(wall) || kept.not_before.is_some_and(|time| now < time) {
            return Step::Show(text);
        }
        // Nobody else waits for it.
        kept.not_before = Some(now + RENEW_AGAIN);
        Step::Renew(text)
    }

    async fn token(&self, cluster: &EksCluster) -> Result<String, String> {
        match self.step(cluster) {
            Step::Show(token) => return Ok(token),
            Step::Renew(token) => {
                return Ok(self.sign(cluster).await.unwrap_or_else(|error| {
                    tracing::debug!(%error, "Token for EKS can't be renewed yet.");
                    token
                }));
            }
            Step::Sign => {}
        }
        let _turn = self.turn.lock().await;
        // Somebody else may have signed meanwhile, or failed.
        if let Step::Show(token) | Step::Renew(token) = self.step(cluster) {
            return Ok(token);
        }
        if let Some((at, reason)) = &self.kept().failed
            && at.elapsed() < SIGN_AGAIN
        {
            return Err(reason.clone());
        }
        let signed = self.sign(cluster).await;
        let reason = signed.map_err(|error| format!("no token can be signed for EKS: {error}"));
        let mut kept = self.kept();
        match &reason {
            Ok(_) => kept.failed = None,
            Err(reason) => {
                if kept.failed.replace((Instant::now(), reason.clone())).is_none() {
                    tracing::warn!(reason, "The API server can't be shown who this is; retrying.");
                }
            }
        }
        reason
    }

    /// Another token, with newer credentials if IMDS has some, else with those that were kept.
    async fn sign(&self, cluster: &EksCluster) -> Result<String, SignError> {
        if !eks::is_cluster_name(&cluster.name) {
            return Err(SignError::Cluster(cluster.name.clone()));
        }
        let read = async {
            let credentials = self.read_credentials().await?;
            Ok::<_, SignError>((credentials, self.region(cluster).await?))
        };
        let read = tokio::time::timeout(PATIENCE, read).await.unwrap_or(Err(SignError::Late));
        let now = Timestamp::now();
        let mut kept = self.kept();
        match read {
            Ok((credentials, region)) => {
                // What IMDS has may be older than what it had.
                if credentials.expires > now || kept.credentials.is_none() {
                    kept.credentials = Some(credentials);
                }
                kept.region = Some(region);
            }
            Err(error) => {
                let counts = kept.credentials.as_ref().is_some_and(|kept| now < kept.expires);
                if !counts {
                    return Err(error);
                }
                tracing::debug!(%error, "No newer credentials of the instance's role.");
            }
        }
        let Kept { credentials: Some(credentials), region: Some(region), .. } = &*kept else {
            return Err(SignError::NoRegion);
        };
        let token = EksToken::sign(&cluster.name, region, credentials, now);
        if !token.holds(now) {
            return Err(SignError::Expired(credentials.expires));
        }
        let text = token.text().to_owned();
        kept.token = Some((cluster.clone(), token));
        Ok(text)
    }

    async fn read_credentials(&self) -> Result<Credentials, SignError> {
        const PATH: &str = "iam/security-credentials/";
        let failed = |source| SignError::Body { path: PATH, source };
        let body = self.read(PATH).await?.ok_or(SignError::NoRole)?;
        let path = format!("{PATH}{}", eks::role(&body).map_err(failed)?);
        let body = self.read(&path).await?.ok_or(SignError::NoRole)?;
        eks::credentials(&body).map_err(failed)
    }

    /// The cluster's region as it was told, else the instance's, which never changes.
    async fn region(&self, cluster: &EksCluster) -> Result<String, SignError> {
        const PATH: &str = "placement/region";
        if let Some(told) = &cluster.region {
            return Ok(eks::region(told).map_err(SignError::Region)?.to_owned());
        }
        let kept = self.kept().region.clone();
        let told = match kept {
            Some(region) => region,
            None => self.read(PATH).await?.ok_or(SignError::NoRegion)?,
        };
        let region = eks::region(&told).map_err(|source| SignError::Body { path: PATH, source })?;
        Ok(region.to_owned())
    }

    async fn read(&self, path: &str) -> Result<Option<String>, ImdsError> {
        Ok(match self.imds.read(path, TIMEOUT).await? {
            Answer::Body(body) => Some(body),
            Answer::Absent => None,
        })
    }
}

impl SignEksToken for RoleSigner {
    fn token<'a>(&'a self, cluster: &'a EksCluster) -> TokenFuture<'a> {
        Box::pin(self.token(cluster))
    }
}
