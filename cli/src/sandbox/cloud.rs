//! The sandbox's admin endpoint: what a story needs to do to the cloud, and to know of it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use serde::Deserialize;
use serde_json::{Value, json};

/// A client of the admin endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Cloud {
    client: reqwest::Client,
    base: String,
}

/// An instance, terminated ones included while the cloud shows them.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Instance {
    pub(crate) id: String,
    pub(crate) state: String,
    pub(crate) private_dns_name: String,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) notices: Notices,
}

/// What an instance's metadata service says of its future.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Notices {
    /// A spot interruption.
    pub(crate) spot: Option<Value>,
}

impl Cloud {
    /// A client for the endpoint at `base`.
    pub(crate) fn new(base: &str) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(5))
            .build()
            .context("cannot make an HTTP client")?;
        Ok(Self { client, base: base.to_owned() })
    }

    /// Every instance.
    pub(crate) async fn instances(&self) -> anyhow::Result<Vec<Instance>> {
        Ok(serde_json::from_value(self.get("/instances").await?)?)
    }

    /// What the cloud counted: launches by client token, leaks, repeats.
    pub(crate) async fn audit(&self) -> anyhow::Result<Value> {
        self.get("/audit").await
    }

    /// Dollars an hour of everything that runs now.
    pub(crate) async fn cost_per_hour(&self) -> anyhow::Result<f64> {
        let cost = self.get("/cost").await?;
        cost.get("dollars_per_hour").and_then(Value::as_f64).context("the cost has no figure")
    }

    /// Puts a spot interruption notice into an instance's IMDS.
    pub(crate) async fn interrupt(&self, instance: &str, lead: Duration) -> anyhow::Result<()> {
        let body = json!({"instance": instance, "lead_seconds": lead.as_secs()});
        self.post("/interrupt", &body).await
    }

    /// Makes the cloud misbehave.
    pub(crate) async fn fault(&self, fault: &Value) -> anyhow::Result<()> {
        self.post("/faults", fault).await
    }

    async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let answer = self.client.get(format!("{}{path}", self.base)).send().await?;
        Ok(answer.error_for_status()?.json().await?)
    }

    async fn post(&self, path: &str, body: &Value) -> anyhow::Result<()> {
        let answer = self.client.post(format!("{}{path}", self.base)).json(body).send().await?;
        if answer.status().is_success() {
            return Ok(());
        }
        let status = answer.status();
        anyhow::bail!("{path} answered {status}: {}", answer.text().await.unwrap_or_default())
    }
}
