//! Talking to the leaders: any replica takes reports and directive polls.

mod addresses;
mod connecting;
mod proof;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use drover_agent_core::Input;
use drover_common::id::{InstanceId, NodeName};
use drover_common::protocol::{Directives, NonceAnswer, Report, ReportAnswer};
use drover_kubernetes::part_of;
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::body::{self, innermost};
use crate::config::Config;
use connecting::{Authorities, CertificatesError, Connecting};
use proof::Proof;

const REPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// A notice goes on to the next leader after so long, as long as one is left that was not asked.
const URGENT_TIMEOUT: Duration = Duration::from_millis(1_500);
/// What is under way when there is news has so long to end.
const NEWS_PATIENCE: Duration = Duration::from_millis(500);
/// Longer than a leader holds a poll.
const POLL_TIMEOUT: Duration = Duration::from_secs(32);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// What can wait is tried again after so long at first: of thousands of agents that lose their leader at once,
/// the others would hear little else.
const FIRST_CALM_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_CALM_PAUSE: Duration = Duration::from_secs(10);

/// What a leader that changes its mind with each poll is given time for.
const SHORTEST_POLL: Duration = Duration::from_millis(200);
/// Answers have some hundred bytes. The agent has little memory, and a broken leader may have no end.
const LONGEST_ANSWER: usize = 64 * 1024;
/// The most of a refusal that is shown.
const LONGEST_REFUSAL: usize = 200;

/// Why the leaders can't be talked to at all.
#[derive(Debug, thiserror::Error)]
#[error("the client can't be built: {0}")]
pub struct LeadersError(#[from] reqwest::Error);

/// Whether a file of leaders' certificates can be used now.
pub(crate) async fn check_certificates(path: &Path) -> Result<(), CertificatesError> {
    Authorities::read(path).await.map(|_read| ())
}

/// The leaders, one of which is talked to until it fails.
#[derive(Clone, Debug)]
pub(crate) struct Leaders {
    connecting: Connecting,
    client: Client,
    urls: Arc<[String]>,
    token: TokenSource,
    current: usize,
    /// Of each name's addresses, which one is first.
    turn: usize,
    failures: u32,
}

/// What the agent shows to be let in.
#[derive(Clone, Debug)]
enum TokenSource {
    /// A file, read anew for each request.
    File(PathBuf),
    /// Nothing, until a leader asks for it.
    Proof(Arc<Proof>),
}

impl Leaders {
    /// The leaders of a configuration; `None` if it names none. `clients` brings the way to the API
    /// server once there is one.
    pub(crate) async fn new(
        config: &Config,
        clients: watch::Receiver<Option<drover_kubernetes::Client>>,
    ) -> Result<Option<Self>, LeadersError> {
        if config.leaders.is_empty() {
            return Ok(None);
        }
        let connecting = Connecting::of(config).await;
        // Agents spread over the replicas.
        let turn = fastrand::usize(..1 << 16);
        Ok(Some(Self {
            client: connecting.client(turn)?,
            connecting,
            urls: config.leaders.clone().into(),
            token: match &config.token_file {
                Some(path) => TokenSource::File(path.clone()),
                None => TokenSource::Proof(Arc::new(Proof::new(config.node.clone(), clients))),
            },
            turn,
            current: fastrand::usize(..config.leaders.len()),
            failures: 0,
        }))
    }

    fn url(&self, path: &str) -> String {
        let base = self.urls.get(self.current).map_or("", String::as_str);
        format!("{base}{path}")
    }

    /// Sends a request and reads its JSON answer.
    async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        request: RequestBuilder,
    ) -> Result<T, String> {
        match &self.token {
            TokenSource::File(path) => {
                let token = tokio::fs::read_to_string(path)
                    .await
                    .map_err(|error| format!("token {}: {error}", path.display()))?;
                answer(send(request.bearer_auth(token.trim())).await?).await
            }
            TokenSource::Proof(proof) => self.ask_with_proof(proof, request).await,
        }
    }

    /// Asks with the token that there is; where a leader wants to see another, proves whose agent this
    /// is and asks once more.
    async fn ask_with_proof<T: serde::de::DeserializeOwned>(
        &self,
        proof: &Proof,
        request: RequestBuilder,
    ) -> Result<T, String> {
        let again = request.try_clone();
        let token = proof.token();
        let request = match &token {
            None => request,
            Some(token) => request.bearer_auth(token),
        };
        let response = send(request).await?;
        let refused = matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        let (Some(again), true) = (again, refused) else {
            let answer = answer(response).await?;
            proof.succeed();
            return Ok(answer);
        };
        let asking = async {
            let request = self
                .client
                .post(self.url("/agent/v1/nonces"))
                .timeout(REPORT_TIMEOUT)
                .query(&[("node", proof.node().as_str())]);
            answer::<NonceAnswer>(send(request).await?).await
        };
        let fresh = proof.renew(token.as_deref(), asking).await?;
        let answer = answer(send(again.bearer_auth(fresh)).await?).await?;
        proof.succeed();
        Ok(answer)
    }

    /// All leaders that are known: several may have one name.
    fn count(&self) -> usize {
        self.urls.len().saturating_mul(self.connecting.turns()).max(1)
    }

    /// Goes on to the next URL and, after the last, to the next address of each.
    fn turn_to_next(&mut self) {
        self.current = self.current.saturating_add(1);
        if self.current < self.urls.len() {
            return;
        }
        self.current = 0;
        self.turn = self.turn.wrapping_add(1);
        if self.connecting.turns() > 1 {
            // The old one's connections lead to the old address.
            self.build_client();
        }
    }

    /// Connects anew. The old client does where there can't be a new one.
    fn build_client(&mut self) {
        match self.connecting.client(self.turn) {
            Ok(client) => self.client = client,
            Err(error) => tracing::warn!(%error, "Client of the leaders can't be built anew."),
        }
    }

    /// Once all have failed in turn: they may be signed by others now.
    async fn look_at_certificates(&mut self) {
        let all_failed = (self.failures as usize).is_multiple_of(self.count());
        if all_failed && self.connecting.renew().await {
            self.build_client();
        }
    }

    /// How long a leader has to answer a report.
    fn patience(&self, report: &Report) -> Duration {
        let others_left = (self.failures as usize) < self.count();
        if is_news(report) && others_left { URGENT_TIMEOUT } else { REPORT_TIMEOUT }
    }

    /// Turns to the next leader; returns how long to pause before, which is not at all until all have failed,
    /// but for what can wait.
    fn fail_over(&mut self, what: &str, error: &str, can_wait: bool) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let leader = self.url("");
        self.turn_to_next();
        let count = self.count();
        let rounds = usize::try_from(self.failures).unwrap_or(usize::MAX) / count;
        if rounds == 0 {
            tracing::debug!(what, %leader, %error, "Leader failed; trying another.");
            if !can_wait {
                return Duration::ZERO;
            }
        }
        if rounds == 1 && self.failures as usize == count {
            tracing::warn!(what, %leader, %error, "No leader answers; the node is guarded alone.");
        }
        let factor = 1_u32 << rounds.min(6).saturating_sub(1);
        let (first, longest) = if can_wait {
            (FIRST_CALM_PAUSE, LONGEST_CALM_PAUSE)
        } else {
            (FIRST_PAUSE, LONGEST_PAUSE)
        };
        part_of(first.saturating_mul(factor).min(longest))
    }

    fn succeed(&mut self, what: &str) {
        if usize::try_from(self.failures).unwrap_or(usize::MAX) >= self.count() {
            tracing::info!(what, leader = %self.url(""), "A leader answers again.");
        }
        self.failures = 0;
    }

    /// Sends each report as it comes; while leaders fail, only the newest is tried.
    pub(crate) async fn send_reports(
        mut self,
        mut reports: watch::Receiver<Option<Arc<Report>>>,
        inputs: mpsc::Sender<Input>,
    ) {
        while reports.changed().await.is_ok() {
            loop {
                let Some(report) = reports.borrow_and_update().clone() else { break };
                let request = self
                    .client
                    .post(self.url("/agent/v1/reports"))
                    .timeout(self.patience(&report))
                    .json(report.as_ref());
                let asking = self.ask::<ReportAnswer>(request);
                match unless_news(asking, &report, &mut reports).await {
                    Ok(answer) => {
                        self.succeed("report");
                        if inputs.send(Input::Answered(report.sequence, answer)).await.is_err() {
                            return;
                        }
                        break;
                    }
                    // News shortens the pause: it may be a notice.
                    Err(error) => {
                        let pause = self.fail_over("report", &error, !is_news(&report));
                        self.look_at_certificates().await;
                        tokio::select! {
                            () = tokio::time::sleep(pause) => {}
                            changed = reports.changed() => if changed.is_err() { return },
                        }
                    }
                }
            }
        }
    }

    /// Polls for directives for ever.
    pub(crate) async fn poll_directives(
        mut self,
        node: NodeName,
        mut instance: watch::Receiver<Option<InstanceId>>,
        inputs: mpsc::Sender<Input>,
    ) {
        let Ok(instance) =
            instance.wait_for(Option::is_some).await.map(|known| known.clone().unwrap_or_default())
        else {
            return;
        };
        let mut after = 0_u64;
        loop {
            let began = Instant::now();
            let query = [
                ("node", node.to_string()),
                ("instance", instance.to_string()),
                ("after", after.to_string()),
            ];
            let request = self
                .client
                .get(self.url("/agent/v1/directives"))
                .timeout(POLL_TIMEOUT)
                .query(&query);
            match self.ask::<Directives>(request).await {
                Ok(answer) => {
                    self.succeed("directives");
                    let same = answer.sequence == after;
                    after = answer.sequence;
                    if inputs.send(Input::Directives(answer.directives)).await.is_err() {
                        return;
                    }
                    // A leader that does not hold the poll is not asked more than once a second.
                    let shortest = if same { Duration::from_secs(1) } else { SHORTEST_POLL };
                    tokio::time::sleep_until(began + shortest).await;
                }
                Err(error) => {
                    let pause = self.fail_over("directives", &error, true);
                    self.look_at_certificates().await;
                    tokio::time::sleep(pause).await;
                    // Sequences are each replica's own.
                    after = 0;
                }
            }
        }
    }
}

/// Whether a report tells what leaders have to act on.
fn is_news(report: &Report) -> bool {
    !report.notices.is_empty() || report.drain.is_some()
}

/// Whether a report has something to act on that an earlier one had not: how a drain gets on is no news.
fn adds_to(earlier: &Report, newest: &Report) -> bool {
    let began = newest.drain.is_some() && earlier.drain.is_none() && earlier.notices.is_empty();
    began || newest.notices.iter().any(|notice| !earlier.notices.contains(notice))
}

/// What a leader answers to a report. Where a newer one has something to act on, it must not take long.
async fn unless_news<T>(
    asking: impl Future<Output = Result<T, String>>,
    told: &Arc<Report>,
    reports: &mut watch::Receiver<Option<Arc<Report>>>,
) -> Result<T, String> {
    let news = async {
        while reports.changed().await.is_ok() {
            if reports.borrow().as_deref().is_some_and(|newest| adds_to(told, newest)) {
                return;
            }
        }
        std::future::pending().await
    };
    tokio::pin!(asking);
    let answer = tokio::select! {
        answer = &mut asking => Some(answer),
        () = news => None,
    };
    // What was seen meanwhile is yet to be told.
    if reports.borrow().as_ref().is_some_and(|newest| !Arc::ptr_eq(newest, told)) {
        reports.mark_changed();
    }
    let late = || Err("no answer while there was news to tell".to_owned());
    match answer {
        Some(answer) => answer,
        None => tokio::time::timeout(NEWS_PATIENCE, asking).await.unwrap_or_else(|_| late()),
    }
}

async fn send(request: RequestBuilder) -> Result<Response, String> {
    request.send().await.map_err(|error| innermost(&error))
}

/// An answer's JSON, or its failure in words.
async fn answer<T: serde::de::DeserializeOwned>(response: Response) -> Result<T, String> {
    let status = response.status();
    let body = body::read(response, LONGEST_ANSWER).await;
    if !status.is_success() {
        let body = body.unwrap_or_default();
        let words: String = String::from_utf8_lossy(&body).chars().take(LONGEST_REFUSAL).collect();
        return Err(format!("status {status}: {words}"));
    }
    let body = body.map_err(|error| error.to_string())?;
    serde_json::from_slice(&body).map_err(|error| error.to_string())
}
