//! What one agent says: a report every ten seconds, and a question for directives that is always open.

use std::sync::Arc;
use std::time::Duration;

use drover_common::protocol::{
    Directives, PROTOCOL_VERSION, PodUsage, Report, ReportAnswer, UsageDigest,
};
use jiff::Timestamp;
use reqwest::{Client, RequestBuilder};
use tokio::time::Instant;

use super::figures::Figures;

/// How often agents report.
pub(super) const PERIOD: Duration = Duration::from_secs(10);
const REPORT_TIMEOUT: Duration = Duration::from_secs(5);
const POLL_TIMEOUT: Duration = Duration::from_secs(32);
/// Pauses after failures, as agents make them that have no notice to tell.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// One in so many pods does something else at each report.
const RESTLESS: u64 = 10;

/// An agent that measures nothing.
pub(super) struct SimulatedAgent {
    pub(super) index: usize,
    pub(super) node: String,
    pub(super) instance: String,
    /// What leaders are shown.
    pub(super) token: String,
    pub(super) urls: Arc<[String]>,
    pub(super) client: Client,
    /// Pods on its node.
    pub(super) pods: u32,
}

/// Which replica is talked to; the next one after a failure, and not at once.
struct Talk {
    replica: usize,
    replicas: u32,
    failures: u32,
    /// The share of each pause that this one makes, between a half and the whole.
    share: f64,
}

impl Talk {
    fn went_well(&mut self) {
        self.failures = 0;
    }

    async fn failed(&mut self) {
        self.replica += 1;
        self.failures += 1;
        let rounds = self.failures / self.replicas.max(1);
        let pause = FIRST_PAUSE.saturating_mul(1 << rounds.min(6).saturating_sub(1));
        tokio::time::sleep(pause.min(LONGEST_PAUSE).mul_f64(self.share)).await;
    }
}

impl SimulatedAgent {
    fn talk(&self) -> Talk {
        let replicas = u32::try_from(self.urls.len()).unwrap_or(1);
        let share = 0.5 + (self.index * 7 % 500) as f64 / 1000.0;
        Talk { replica: self.index, replicas, failures: 0, share }
    }

    fn url(&self, talk: &Talk, path: &str) -> String {
        let base = self.urls.get(talk.replica % self.urls.len().max(1)).map_or("", String::as_str);
        format!("{base}{path}")
    }

    async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        request: RequestBuilder,
    ) -> Result<T, reqwest::Error> {
        let answer = request.bearer_auth(&self.token).send().await?;
        answer.error_for_status()?.json().await
    }

    /// Reports from `at` on, for ever.
    pub(super) async fn report(&self, mut at: Instant, figures: &Figures) {
        let mut talk = self.talk();
        let mut known = None;
        for sequence in 1.. {
            tokio::time::sleep_until(at).await;
            let report = self.report_of(sequence, known);
            let began = Instant::now();
            let url = self.url(&talk, "/agent/v1/reports");
            let request = self.client.post(url).timeout(REPORT_TIMEOUT).json(&report);
            match self.ask::<ReportAnswer>(request).await {
                Ok(answer) => {
                    figures.answered(began.elapsed());
                    talk.went_well();
                    known = Some(sequence).filter(|_| !answer.usage_unknown);
                    at += PERIOD;
                }
                Err(error) => {
                    tracing::debug!(node = self.node, %error, "A report was not taken.");
                    figures.failed(anyhow::Error::new(error).root_cause().to_string());
                    talk.failed().await;
                    at = Instant::now();
                }
            }
        }
    }

    /// Keeps a question for directives open from `at` on, for ever.
    pub(super) async fn poll(&self, at: Instant, figures: &Figures) {
        tokio::time::sleep_until(at).await;
        let mut talk = self.talk();
        let mut after = 0;
        loop {
            let path = format!(
                "/agent/v1/directives?node={}&instance={}&after={after}",
                self.node, self.instance
            );
            let request = self.client.get(self.url(&talk, &path)).timeout(POLL_TIMEOUT);
            match self.ask::<Directives>(request).await {
                Ok(directives) => {
                    figures.polled();
                    talk.went_well();
                    after = directives.sequence;
                }
                Err(_) => talk.failed().await,
            }
        }
    }

    fn report_of(&self, sequence: u64, known: Option<u64>) -> Report {
        let restless = |pod: u64| known.is_none() || pod % RESTLESS == sequence % RESTLESS;
        let pods = (0..u64::from(self.pods)).filter(|pod| restless(*pod));
        Report {
            version: PROTOCOL_VERSION,
            node: self.node.as_str().into(),
            instance: Some(self.instance.as_str().into()),
            boot: format!("boot-{}", self.index).into(),
            sequence,
            sent_at: Timestamp::now(),
            notices: Vec::new(),
            cordoned_at: None,
            imds_silent_since: None,
            usage: Some(UsageDigest {
                interval_seconds: 10,
                cpu_milli_mean: 1_000 + sequence % 500,
                cpu_milli_max: 2_000,
                memory_working_set: 6 << 30,
                pressure_permille: Some([3, 0, 1]),
                network_bytes_per_second: Some([120_000, 80_000]),
                disk_bytes_per_second: Some([0, 40_000]),
                pods: pods.map(|pod| self.pod_usage(pod, sequence)).collect(),
                ..UsageDigest::default()
            }),
            usage_since: known,
            usage_gone: Vec::new(),
            drain: None,
        }
    }

    fn pod_usage(&self, pod: u64, sequence: u64) -> PodUsage {
        PodUsage {
            uid: format!("{:08x}-0000-4000-8000-{pod:012x}", self.index),
            cpu_milli_mean: 20 + sequence * 13 % 100,
            cpu_milli_max: 150,
            memory_working_set: (64 + sequence % 64) << 20,
            pressure_permille: Some([1, 0, 0]),
            cpu_pressure_permille_max: Some(12),
            network_bytes_per_second: Some([4_000, 2_000]),
            cpu_milli_p90: Some(110),
            memory_peak: Some(160 << 20),
            ..PodUsage::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_news_is_told_of_pods_to_someone_who_knows_the_rest() {
        drover_kubernetes::install_crypto_provider();
        let agent = SimulatedAgent {
            index: 7,
            node: "n".to_owned(),
            instance: "i-7".to_owned(),
            token: String::new(),
            urls: Arc::from([]),
            client: Client::new(),
            pods: 30,
        };
        let pods = |sequence, known| agent.report_of(sequence, known).usage.unwrap().pods.len();
        assert_eq!((pods(1, None), pods(2, Some(1)), pods(3, None)), (30, 3, 30));
    }
}
