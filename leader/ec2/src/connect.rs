//! Region, endpoints, credentials, time-outs.

use std::sync::Arc;
use std::time::Duration;

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_ec2::config::{Credentials, SharedCredentialsProvider, SharedHttpClient};
use aws_smithy_http_client::tls;

use crate::Ec2;

/// How long a connection may take to open.
const CONNECT: Duration = Duration::from_secs(3);
/// How long one read request may take.
const READ: Duration = Duration::from_secs(20);
/// How long one request that changes something may take. `CreateFleet` of type `instant` launches
/// before it answers, which takes seconds on a busy day.
const WRITE: Duration = Duration::from_secs(40);
/// How long a question to a queue may take, which itself waits 20 s for a message.
const LISTEN: Duration = Duration::from_secs(30);
/// Attempts for a read, the first included.
const READ_ATTEMPTS: u32 = 3;
/// The Pricing API exists in few regions; this one knows the prices of all of the same partition.
const PRICING_REGION: &str = "us-east-1";

/// Where AWS is and who we are.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The region, e.g. `us-east-1`.
    pub region: String,
    /// EC2's URL where it is not AWS's own (`AWS_ENDPOINT_URL_EC2`, `AWS_ENDPOINT_URL`).
    pub ec2_endpoint: Option<String>,
    /// SSM's URL where it is not AWS's own (`AWS_ENDPOINT_URL_SSM`, `AWS_ENDPOINT_URL`).
    pub ssm_endpoint: Option<String>,
    /// Pricing's URL where it is not AWS's own (`AWS_ENDPOINT_URL_PRICING`, `AWS_ENDPOINT_URL`).
    pub pricing_endpoint: Option<String>,
    /// SQS' URL where it is not AWS's own (`AWS_ENDPOINT_URL_SQS`, `AWS_ENDPOINT_URL`).
    pub sqs_endpoint: Option<String>,
    /// The metadata service to take credentials from, where it is not the link-local address
    /// (`AWS_EC2_METADATA_SERVICE_ENDPOINT`).
    pub imds_endpoint: Option<String>,
    /// Credentials; the SDK's default chain (environment, profile, web identity, container,
    /// metadata service) if `None`.
    pub credentials: Option<StaticCredentials>,
}

/// An access key.
#[derive(Clone)]
pub struct StaticCredentials {
    /// Its id.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: String,
}

impl std::fmt::Debug for StaticCredentials {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("StaticCredentials")
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}

impl Ec2 {
    /// Clients for these settings. Nothing is sent yet: wrong credentials show with the first call.
    pub async fn connect(settings: Settings) -> Self {
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
            .build_https();
        let shared = load(&settings, &http).await;
        let ec2 = |retries: RetryConfig, patience: Duration| {
            let mut config = aws_sdk_ec2::config::Builder::from(&shared)
                .retry_config(retries)
                .timeout_config(timeouts(patience));
            config.set_endpoint_url(settings.ec2_endpoint.clone());
            aws_sdk_ec2::Client::from_conf(config.build())
        };
        let reads = RetryConfig::standard().with_max_attempts(READ_ATTEMPTS);
        let mut ssm = aws_sdk_ssm::config::Builder::from(&shared).retry_config(reads.clone());
        ssm.set_endpoint_url(settings.ssm_endpoint.clone());
        let mut pricing = aws_sdk_pricing::config::Builder::from(&shared)
            .retry_config(reads.clone())
            .region(Region::new(PRICING_REGION));
        pricing.set_endpoint_url(settings.pricing_endpoint.clone());
        // A message that was handed out, but did not arrive, comes again by itself.
        let mut sqs = aws_sdk_sqs::config::Builder::from(&shared)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts(LISTEN));
        sqs.set_endpoint_url(settings.sqs_endpoint.clone());
        Self {
            reads: ec2(reads, READ),
            writes: ec2(RetryConfig::disabled(), WRITE),
            ssm: aws_sdk_ssm::Client::from_conf(ssm.build()),
            pricing: aws_sdk_pricing::Client::from_conf(pricing.build()),
            sqs: aws_sdk_sqs::Client::from_conf(sqs.build()),
            queue_urls: Arc::default(),
            ec2_is_custom: settings.ec2_endpoint.is_some(),
            pricing_is_custom: settings.pricing_endpoint.is_some(),
            region: settings.region,
        }
    }
}

async fn load(settings: &Settings, http: &SharedHttpClient) -> SdkConfig {
    let region = Region::new(settings.region.clone());
    let credentials = match &settings.credentials {
        Some(key) => SharedCredentialsProvider::new(Credentials::new(
            &key.access_key_id,
            &key.secret_access_key,
            None,
            None,
            "settings",
        )),
        None => chain(settings, region.clone(), http).await,
    };
    aws_config::defaults(BehaviorVersion::latest())
        .region(region)
        .http_client(http.clone())
        .timeout_config(timeouts(READ))
        .credentials_provider(credentials)
        .load()
        .await
}

/// The SDK's default chain, over our HTTP client.
async fn chain(
    settings: &Settings,
    region: Region,
    http: &SharedHttpClient,
) -> SharedCredentialsProvider {
    let provider = ProviderConfig::without_region()
        .with_region(Some(region.clone()))
        .with_http_client(http.clone());
    let mut chain = DefaultCredentialsChain::builder().region(region).configure(provider.clone());
    if let Some(endpoint) = &settings.imds_endpoint {
        match aws_config::imds::Client::builder().configure(&provider).endpoint(endpoint) {
            Ok(imds) => chain = chain.imds_client(imds.build()),
            Err(error) => {
                tracing::warn!(%endpoint, %error, "The metadata service's address is not a URL.");
            }
        }
    }
    SharedCredentialsProvider::new(chain.build().await)
}

fn timeouts(attempt: Duration) -> TimeoutConfig {
    TimeoutConfig::builder().connect_timeout(CONNECT).operation_attempt_timeout(attempt).build()
}
