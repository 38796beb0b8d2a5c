//! Calls to EC2, SSM, Pricing and SQS, and their answers, as values without any SDK type.

mod queue;
mod reservation;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::InstanceId;
use crate::instance_type::{CapacityType, InstanceTypeFacts};

pub use queue::{QueueEvent, QueueEventError, QueueEventKind, QueueMessage};
pub use reservation::{CapacityReservation, ReservationTarget, ReservationTerm, ReservationUse};

/// Tags of an EC2 resource.
pub type Tags = BTreeMap<String, String>;

/// A request to EC2, SSM, Pricing or SQS. Paginated calls are one call here: the shell reads all pages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Ec2Call {
    /// `CreateFleet` of type `instant`.
    CreateFleet(FleetRequest),
    /// `DescribeInstances` (terminated ones included while EC2 still shows them).
    DescribeInstances(InstanceQuery),
    /// `TerminateInstances`; ids that are gone already are not an error.
    TerminateInstances(Vec<InstanceId>),
    /// `CreateTags`.
    CreateTags {
        /// Instance ids.
        instances: Vec<InstanceId>,
        /// Tags to set.
        tags: Tags,
    },
    /// `CreateLaunchTemplate`. A template of that name that exists already is a success: names are
    /// made from a hash of the content.
    CreateLaunchTemplate(LaunchTemplateRequest),
    /// `DeleteLaunchTemplate` by name.
    DeleteLaunchTemplate(String),
    /// `DescribeLaunchTemplates` with these tags (`*` for any value).
    DescribeLaunchTemplates(Tags),
    /// `DescribeInstanceTypes`, all of them.
    DescribeInstanceTypes,
    /// `DescribeInstanceTypeOfferings` by availability zone.
    DescribeInstanceTypeOfferings,
    /// `DescribeSpotPriceHistory`, newest per type and zone.
    DescribeSpotPriceHistory,
    /// Pricing `GetProducts`: Linux on-demand prices of the region.
    GetOnDemandPrices,
    /// `DescribeAvailabilityZones`.
    DescribeAvailabilityZones,
    /// `DescribeSubnets` that match any of the terms.
    DescribeSubnets(Vec<SelectorTerm>),
    /// `DescribeSecurityGroups` that match any of the terms.
    DescribeSecurityGroups(Vec<SelectorTerm>),
    /// `DescribeImages` that match any of the terms.
    DescribeImages(Vec<SelectorTerm>),
    /// `DescribeCapacityReservations` in state `active` that match any of the terms.
    DescribeCapacityReservations(Vec<ReservationTerm>),
    /// SSM `GetParameter`: the parameter's value.
    GetParameter(String),
    /// SQS `ReceiveMessage`, up to ten messages: waits up to 20 s for the first. They are not handed out
    /// again for a while.
    ReceiveMessages {
        /// The queue's name or URL.
        queue: String,
    },
    /// SQS `DeleteMessageBatch`.
    DeleteMessages {
        /// The queue's name or URL.
        queue: String,
        /// Receipts of at most ten messages.
        receipts: Vec<String>,
    },
}

impl Ec2Call {
    /// AWS's name of the call, as in policies, metrics and error reports.
    pub const fn name(&self) -> &'static str {
        match self {
            Ec2Call::CreateFleet(_) => "CreateFleet",
            Ec2Call::DescribeInstances(_) => "DescribeInstances",
            Ec2Call::TerminateInstances(_) => "TerminateInstances",
            Ec2Call::CreateTags { .. } => "CreateTags",
            Ec2Call::CreateLaunchTemplate(_) => "CreateLaunchTemplate",
            Ec2Call::DeleteLaunchTemplate(_) => "DeleteLaunchTemplate",
            Ec2Call::DescribeLaunchTemplates(_) => "DescribeLaunchTemplates",
            Ec2Call::DescribeInstanceTypes => "DescribeInstanceTypes",
            Ec2Call::DescribeInstanceTypeOfferings => "DescribeInstanceTypeOfferings",
            Ec2Call::DescribeSpotPriceHistory => "DescribeSpotPriceHistory",
            Ec2Call::GetOnDemandPrices => "GetProducts",
            Ec2Call::DescribeAvailabilityZones => "DescribeAvailabilityZones",
            Ec2Call::DescribeSubnets(_) => "DescribeSubnets",
            Ec2Call::DescribeSecurityGroups(_) => "DescribeSecurityGroups",
            Ec2Call::DescribeImages(_) => "DescribeImages",
            Ec2Call::DescribeCapacityReservations(_) => "DescribeCapacityReservations",
            Ec2Call::GetParameter(_) => "GetParameter",
            Ec2Call::ReceiveMessages { .. } => "ReceiveMessage",
            Ec2Call::DeleteMessages { .. } => "DeleteMessageBatch",
        }
    }
}

/// The answer to an [`Ec2Call`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Ec2Answer {
    /// To `CreateFleet`.
    Fleet(FleetAnswer),
    /// To `DescribeInstances`.
    Instances(Vec<Instance>),
    /// To `CreateLaunchTemplate`: the template's id.
    LaunchTemplate(String),
    /// To `DescribeLaunchTemplates`.
    LaunchTemplates(Vec<LaunchTemplate>),
    /// To calls that return nothing of use.
    Done,
    /// To `DescribeInstanceTypes`.
    InstanceTypes(Vec<InstanceTypeFacts>),
    /// To `DescribeInstanceTypeOfferings`: (type, zone) pairs.
    Offerings(Vec<(String, String)>),
    /// To `DescribeSpotPriceHistory`: (type, zone, price in micro-dollars an hour).
    SpotPrices(Vec<(String, String, u64)>),
    /// To `GetOnDemandPrices`: (type, price in micro-dollars an hour).
    OnDemandPrices(Vec<(String, u64)>),
    /// To `DescribeAvailabilityZones`: (name, id).
    Zones(Vec<(String, String)>),
    /// To `DescribeSubnets`.
    Subnets(Vec<Subnet>),
    /// To `DescribeSecurityGroups`: (id, name).
    SecurityGroups(Vec<(String, String)>),
    /// To `DescribeImages`.
    Images(Vec<Image>),
    /// To `DescribeCapacityReservations`.
    CapacityReservations(Vec<CapacityReservation>),
    /// To `GetParameter`.
    Parameter(String),
    /// To `ReceiveMessage`.
    Messages(Vec<QueueMessage>),
}

/// Why EC2, SSM, Pricing or SQS did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Ec2Failure {
    /// What a caller branches on.
    pub kind: Ec2FailureKind,
    /// EC2's error code, or a word of ours where there was no answer.
    pub code: String,
    /// EC2's message.
    pub message: String,
}

/// The failures that lead to different next steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ec2FailureKind {
    /// Too many requests: try again later, nothing was done.
    Throttled,
    /// Credentials or permissions.
    Unauthorized,
    /// The thing named does not exist.
    NotFound,
    /// `IdempotentParameterMismatch`: the token was used with another request. A bug alarm.
    TokenMismatch,
    /// The request is refused for what it says.
    Invalid,
    /// The endpoint does not know this call.
    Unsupported,
    /// 5xx, time-out or lost connection: whether it was done is unknown.
    Unknown,
}

impl Ec2FailureKind {
    /// The kind of an AWS error code (EC2's list of API error codes, and the common ones of SSM and
    /// Pricing). A code not listed says something about the request: [`Ec2FailureKind::Invalid`].
    pub fn of_code(code: &str) -> Self {
        match code {
            "RequestLimitExceeded"
            | "Throttling"
            | "ThrottlingException"
            | "ThrottledException"
            | "RequestThrottled"
            | "RequestThrottledException"
            | "EC2ThrottledException"
            | "TooManyRequestsException"
            | "BandwidthLimitExceeded"
            | "SlowDown"
            | "PriorRequestNotComplete" => Self::Throttled,
            "UnauthorizedOperation"
            | "AuthFailure"
            | "AccessDenied"
            | "AccessDeniedException"
            | "Blocked"
            | "ExpiredToken"
            | "ExpiredTokenException"
            | "IncompleteSignature"
            | "InvalidClientTokenId"
            | "InvalidSignatureException"
            | "MissingAuthenticationToken"
            | "OptInRequired"
            | "PendingVerification"
            | "RequestExpired"
            | "SignatureDoesNotMatch"
            | "UnrecognizedClientException" => Self::Unauthorized,
            "IdempotentParameterMismatch" => Self::TokenMismatch,
            "InvalidAction"
            | "NotImplemented"
            | "UnknownOperationException"
            | "UnsupportedOperation"
            | "UnsupportedOperationException" => Self::Unsupported,
            "InternalError"
            | "InternalFailure"
            | "InternalServerError"
            | "InternalErrorException"
            | "InternalServerException"
            | "RequestTimeout"
            | "RequestTimeoutException"
            | "ServerInternal"
            | "ServiceUnavailable"
            | "Unavailable" => Self::Unknown,
            "AWS.SimpleQueueService.NonExistentQueue" | "QueueDoesNotExist" => Self::NotFound,
            _ if code.contains("NotFound") => Self::NotFound,
            _ => Self::Invalid,
        }
    }
}

/// One `CreateFleet` request, exact to the last field: a replay sends the same bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetRequest {
    /// At most 64 ASCII characters; derived from the intent's id.
    pub client_token: String,
    /// Launch template name.
    pub launch_template: String,
    /// What may be launched, cheapest first.
    pub overrides: Vec<FleetOverride>,
    /// Spot (`price-capacity-optimized`), on-demand (`lowest-price` or `prioritized`), or the capacity
    /// reservation that the launch template names.
    pub capacity_type: CapacityType,
    /// Whether that reservation is a capacity block, which EC2 bills as a market of its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub capacity_block: bool,
    /// Whether on-demand is taken in the order of the overrides: prices don't say which zone comes first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub prioritized: bool,
    /// How many instances.
    pub count: u32,
    /// Tags on the instances (and the fleet).
    pub tags: Tags,
    /// `EC2NodeClass.spec.context`.
    pub context: Option<String>,
}

/// One entry of a fleet's overrides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetOverride {
    /// Instance type.
    pub instance_type: String,
    /// Subnet.
    pub subnet: String,
    /// The subnet's zone.
    pub zone: String,
    /// Image, where the types of one fleet need different ones.
    pub image: Option<String>,
}

/// What `CreateFleet` did; part of it may have failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetAnswer {
    /// Instances launched, in EC2's order.
    pub instances: Vec<LaunchedInstance>,
    /// Offerings that could not be had.
    pub errors: Vec<FleetError>,
}

/// One instance of a [`FleetAnswer`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchedInstance {
    /// Its id.
    pub instance: InstanceId,
    /// Its type.
    pub instance_type: String,
    /// Its zone.
    pub zone: String,
    /// Its subnet.
    pub subnet: String,
    /// How it is billed.
    pub capacity_type: CapacityType,
}

/// One failed override of a [`FleetAnswer`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetError {
    /// EC2's code, e.g. `InsufficientInstanceCapacity`.
    pub code: String,
    /// EC2's message.
    pub message: String,
    /// Type, where the error is about one.
    pub instance_type: Option<String>,
    /// Zone, where the error is about one.
    pub zone: Option<String>,
}

impl FleetError {
    /// Whether the offering itself could not be had, so that others should be tried for a while.
    /// The codes are Karpenter's list (its AWS provider, 1.14).
    pub fn is_unfulfillable(&self) -> bool {
        matches!(
            self.code.as_str(),
            "InsufficientInstanceCapacity"
                | "MaxSpotInstanceCountExceeded"
                | "VcpuLimitExceeded"
                | "UnfulfillableCapacity"
                | "Unsupported"
                | "InsufficientFreeAddressesInSubnet"
                | "MaxFleetCountExceeded"
                | "ReservationCapacityExceeded"
        )
    }
}

/// Which instances to describe; all conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceQuery {
    /// These ids (empty: any).
    pub instances: Vec<InstanceId>,
    /// Tag key and value (`*` for any value).
    pub tags: Tags,
}

/// An instance as `DescribeInstances` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Its id.
    pub instance: InstanceId,
    /// Its type.
    pub instance_type: String,
    /// Its zone.
    pub zone: String,
    /// Its state.
    pub state: InstanceState,
    /// How it is billed.
    pub capacity_type: CapacityType,
    /// The capacity reservation that it runs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservation: Option<String>,
    /// Its image.
    pub image: String,
    /// Its subnet.
    pub subnet: String,
    /// Its private DNS name.
    pub private_dns_name: String,
    /// When it was launched.
    pub launch_time: Timestamp,
    /// Its tags.
    pub tags: Tags,
}

/// EC2's instance states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceState {
    /// Starting.
    Pending,
    /// Running.
    Running,
    /// Stopping.
    Stopping,
    /// Stopped.
    Stopped,
    /// Going away.
    ShuttingDown,
    /// Gone; EC2 shows it for about an hour.
    Terminated,
}

impl InstanceState {
    /// Whether it is or will be gone.
    pub fn is_gone(self) -> bool {
        matches!(self, InstanceState::ShuttingDown | InstanceState::Terminated)
    }
}

/// The content of a launch template.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LaunchTemplateRequest {
    /// Derived from a hash of the rest.
    pub name: String,
    /// Image id.
    pub image: String,
    /// Security group ids.
    pub security_groups: Vec<String>,
    /// Instance profile name.
    pub instance_profile: Option<String>,
    /// User data, not yet base64.
    pub user_data: String,
    /// Block devices.
    pub block_devices: Vec<BlockDevice>,
    /// `HttpEndpoint`, `HttpProtocolIpv6`, `HttpTokens` as EC2 spells their values, and the hop limit.
    pub metadata_options: MetadataOptions,
    /// Detailed monitoring.
    pub detailed_monitoring: bool,
    /// Public address; the subnet's default if `None`.
    pub associate_public_ip: Option<bool>,
    /// Which capacity reservations its instances use; any open one that they match if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservation: Option<ReservationUse>,
    /// Tags of the template and of volumes and interfaces.
    pub tags: Tags,
}

/// A launch template as `DescribeLaunchTemplates` shows it: not what is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchTemplate {
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Its tags.
    pub tags: Tags,
}

/// One block device of a launch template.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockDevice {
    /// Device name.
    pub device_name: String,
    /// GiB.
    pub size_gib: Option<u32>,
    /// gp3, io2, …
    pub volume_type: Option<String>,
    /// Provisioned operations a second.
    pub iops: Option<u32>,
    /// MiB a second.
    pub throughput: Option<u32>,
    /// Encryption.
    pub encrypted: Option<bool>,
    /// Key for it.
    pub kms_key_id: Option<String>,
    /// Snapshot to start from.
    pub snapshot_id: Option<String>,
    /// Whether it goes with the instance.
    pub delete_on_termination: Option<bool>,
    /// MiB/s at which a snapshot is loaded.
    pub volume_initialization_rate: Option<u32>,
}

/// IMDS settings of a launch template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetadataOptions {
    /// `enabled` or `disabled`.
    pub http_endpoint: String,
    /// `enabled` or `disabled`.
    pub http_protocol_ipv6: String,
    /// 1 to 64.
    pub http_put_response_hop_limit: u32,
    /// `required` or `optional`.
    pub http_tokens: String,
}

/// A selector term of an EC2NodeClass: within a term all hold, between terms any.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SelectorTerm {
    /// Resource id.
    pub id: Option<String>,
    /// Name (images: may hold `*`).
    pub name: Option<String>,
    /// Owner (images).
    pub owner: Option<String>,
    /// Tags; `*` for any value.
    pub tags: Tags,
}

/// A subnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// Its id.
    pub id: String,
    /// Its zone's name.
    pub zone: String,
    /// Its zone's id.
    pub zone_id: String,
    /// Free IPv4 addresses.
    pub available_addresses: u32,
}

/// A machine image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `amd64` or `arm64`.
    pub architecture: String,
    /// When it was made.
    pub creation_date: Timestamp,
    /// Whether it is deprecated.
    pub deprecated: bool,
}
