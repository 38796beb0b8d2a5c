//! Executes [`Ec2Call`]s with the AWS SDKs: the one crate that knows them.
//!
//! Every call becomes one AWS operation (all pages of it) and every failure an [`Ec2Failure`] whose
//! kind says what to do next. Nothing is decided here: what to launch, what to retry and when is
//! the caller's affair, so calls that change something are never repeated by the SDK.

use std::sync::Arc;

use drover_common::ec2::{Ec2Answer, Ec2Call, Ec2Failure};

mod connect;
mod describe;
mod failure;
mod fleet;
mod instance_type;
mod price;
mod queue;
mod reservation;
mod template;

pub use connect::{Settings, StaticCredentials};

/// Clients of EC2, SSM, Pricing and SQS. Cheap to clone; clones share connections.
#[derive(Clone, Debug)]
pub struct Ec2 {
    /// Repeats throttled and failed requests by itself.
    reads: aws_sdk_ec2::Client,
    /// Sends every request once.
    writes: aws_sdk_ec2::Client,
    ssm: aws_sdk_ssm::Client,
    pricing: aws_sdk_pricing::Client,
    sqs: aws_sdk_sqs::Client,
    queue_urls: Arc<queue::QueueUrls>,
    region: String,
    /// Whether EC2 is somebody's imitation, which may lack calls.
    ec2_is_custom: bool,
    /// Whether Pricing is somebody's imitation, whose 5xx says "not imitated" rather than "down".
    pricing_is_custom: bool,
}

impl Ec2 {
    /// Executes one call.
    ///
    /// # Errors
    /// What AWS answered, or [`drover_common::ec2::Ec2FailureKind::Unknown`] where it did not.
    pub async fn execute(&self, call: &Ec2Call) -> Result<Ec2Answer, Ec2Failure> {
        tracing::trace!(call = call.name(), "A request is sent to AWS.");
        Ok(match call {
            Ec2Call::CreateFleet(request) => Ec2Answer::Fleet(self.create_fleet(request).await?),
            Ec2Call::DescribeInstances(query) => {
                Ec2Answer::Instances(self.describe_instances(query).await?)
            }
            Ec2Call::TerminateInstances(instances) => {
                self.terminate_instances(instances).await?;
                Ec2Answer::Done
            }
            Ec2Call::CreateTags { instances, tags } => {
                self.create_tags(instances, tags).await?;
                Ec2Answer::Done
            }
            Ec2Call::CreateLaunchTemplate(request) => {
                Ec2Answer::LaunchTemplate(self.create_launch_template(request).await?)
            }
            Ec2Call::DeleteLaunchTemplate(name) => {
                self.delete_launch_template(name).await?;
                Ec2Answer::Done
            }
            Ec2Call::DescribeLaunchTemplates(tags) => {
                Ec2Answer::LaunchTemplates(self.describe_launch_templates(tags).await?)
            }
            Ec2Call::DescribeInstanceTypes => {
                Ec2Answer::InstanceTypes(self.describe_instance_types().await?)
            }
            Ec2Call::DescribeInstanceTypeOfferings => {
                Ec2Answer::Offerings(self.describe_offerings().await?)
            }
            Ec2Call::DescribeSpotPriceHistory => {
                Ec2Answer::SpotPrices(self.describe_spot_prices().await?)
            }
            Ec2Call::GetOnDemandPrices => {
                Ec2Answer::OnDemandPrices(self.get_on_demand_prices().await?)
            }
            Ec2Call::DescribeAvailabilityZones => Ec2Answer::Zones(self.describe_zones().await?),
            Ec2Call::DescribeSubnets(terms) => {
                Ec2Answer::Subnets(self.describe_subnets(terms).await?)
            }
            Ec2Call::DescribeSecurityGroups(terms) => {
                Ec2Answer::SecurityGroups(self.describe_security_groups(terms).await?)
            }
            Ec2Call::DescribeImages(terms) => Ec2Answer::Images(self.describe_images(terms).await?),
            Ec2Call::DescribeCapacityReservations(terms) => {
                Ec2Answer::CapacityReservations(self.describe_capacity_reservations(terms).await?)
            }
            Ec2Call::GetParameter(name) => Ec2Answer::Parameter(self.get_parameter(name).await?),
            Ec2Call::ReceiveMessages { queue } => {
                Ec2Answer::Messages(self.receive_messages(queue).await?)
            }
            Ec2Call::DeleteMessages { queue, receipts } => {
                self.delete_messages(queue, receipts).await?;
                Ec2Answer::Done
            }
        })
    }
}
