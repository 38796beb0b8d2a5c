//! The simulated cloud: instances, capacity, prices, images and the calls that change them.
//!
//! It imitates what a driver of EC2 has to cope with: idempotent client tokens, describe calls that
//! lag behind, token buckets, offerings that can't be had, spot prices that drift and spot
//! instances that are reclaimed. It does not run anything: kubelets are the cluster's affair.

use std::collections::BTreeMap;

use drover_common::ec2::{
    Ec2Answer, Ec2Call, Ec2Failure, Ec2FailureKind, FleetAnswer, FleetRequest, InstanceState,
    QueueMessage, Tags,
};
use drover_common::id::InstanceId;
use drover_common::instance_type::{CapacityType, InstanceTypeFacts};
use jiff::{SignedDuration, Timestamp};

use super::WorldOptions;
use super::random::Random;

mod audit;
mod command;
mod credentials;
mod doom;
mod fleet;
mod image;
mod instance;
mod market;
mod network;
mod notice;
mod power;
mod queue;
mod reservation;
mod template;
mod throttle;

#[cfg(test)]
mod tests;

pub use audit::{Audit, TokenUse};
pub use credentials::InstanceCredentials;
pub use instance::SimulatedInstance;
pub use market::{CapacityRule, CatalogType};
pub use notice::{
    MaintenanceCode, MaintenanceEvent, MaintenanceState, NoticeError, Notices, SpotAction,
    SpotNotice, TargetLifecycleState,
};
pub use reservation::ReservationOrder;

use audit::Books;
use doom::Doomed;
use fleet::resource_id;
use image::Images;
use instance::{after, asked_for};
use market::Market;
use network::Network;
use queue::Queue;
use reservation::Reservations;
use template::Templates;
use throttle::Throttle;

/// How the cloud behaves.
#[derive(Clone, Debug)]
pub struct CloudOptions {
    /// The region.
    pub region: String,
    /// The cluster's name, in the discovery tags.
    pub cluster: String,
    /// Seed of prices and pool depths.
    pub seed: u64,
    /// Pending to running.
    pub pending_for: SignedDuration,
    /// Shutting down to terminated.
    pub shutting_down_for: SignedDuration,
    /// How long describe calls lag behind launches and tags.
    pub visible_after: SignedDuration,
    /// How long a terminated instance is still shown.
    pub terminated_kept_for: SignedDuration,
    /// Whether token buckets throttle.
    pub throttle: bool,
}

impl CloudOptions {
    /// EC2's phases, shorter than EC2's (which takes half a minute and more for either), so that a tour
    /// fits in two minutes; shortened further as the world's options say.
    pub fn of(options: &WorldOptions) -> Self {
        Self {
            region: options.region.clone(),
            cluster: options.cluster_name.clone(),
            seed: options.seed,
            pending_for: options.scaled(SignedDuration::from_secs(6)),
            shutting_down_for: options.scaled(SignedDuration::from_secs(6)),
            visible_after: options.scaled(SignedDuration::from_secs(2)),
            terminated_kept_for: SignedDuration::from_hours(1),
            throttle: true,
        }
    }
}

/// The simulated cloud.
#[derive(Clone, Debug)]
pub struct Cloud {
    /// How it behaves; may be changed at any time.
    pub options: CloudOptions,
    random: Random,
    request_ids: Random,
    market: Market,
    network: Network,
    images: Images,
    templates: Templates,
    reservations: Reservations,
    instances: BTreeMap<InstanceId, SimulatedInstance>,
    /// What was asked and answered under each client token.
    tokens: BTreeMap<String, (FleetRequest, FleetAnswer)>,
    throttle: Throttle,
    doomed: Doomed,
    queue: Queue,
    books: Books,
    /// Micro-dollars spent on instances that are forgotten by now.
    spent: u64,
}

impl Cloud {
    /// A cloud without instances that sells the repository's own catalogue.
    pub fn new(options: &WorldOptions, random: Random, _now: Timestamp) -> Self {
        let types = drover_common::catalog::reference().into_iter();
        let types = types.map(|entry| CatalogType::of(entry, &options.region));
        Self::selling(CloudOptions::of(options), types, random)
    }

    /// A cloud without instances that sells these types.
    pub fn selling(
        options: CloudOptions,
        types: impl IntoIterator<Item = CatalogType>,
        mut random: Random,
    ) -> Self {
        // The network's and the images' ids are part of the region's nature: the same for any seed,
        // so that manifests which name them work in every run.
        let mut fixed = Random::new(0);
        let network = Network::new(&options.region, &options.cluster, |prefix| {
            resource_id(&mut fixed, prefix)
        });
        let images = Images::new(&options.cluster, |prefix| resource_id(&mut fixed, prefix));
        Self {
            market: Market::new(options.seed, types),
            network,
            images,
            random: random.fork(),
            request_ids: random.fork(),
            queue: Queue::new(random.fork()),
            templates: Templates::default(),
            reservations: Reservations::default(),
            instances: BTreeMap::new(),
            tokens: BTreeMap::new(),
            throttle: Throttle::default(),
            doomed: Doomed::default(),
            books: Books::default(),
            spent: 0,
            options,
        }
    }

    /// Replaces what is for sale.
    pub fn sell(&mut self, types: impl IntoIterator<Item = CatalogType>) {
        self.market = Market::new(self.options.seed, types);
    }

    /// Answers a call as EC2, SSM or Pricing would.
    ///
    /// # Errors
    /// What AWS would answer, throttling included.
    pub fn apply(&mut self, call: &Ec2Call, now: Timestamp) -> Result<Ec2Answer, Ec2Failure> {
        let name = call.name();
        *self.books.calls.entry(name.to_owned()).or_default() += 1;
        if self.options.throttle && !self.throttle.admit(name, now) {
            self.books.throttled += 1;
            let code = match name {
                "GetParameter" | "GetProducts" => "ThrottlingException",
                _ => "RequestLimitExceeded",
            };
            return Err(refuse(code, "Request limit exceeded."));
        }
        self.answer(call, now)
    }

    fn answer(&mut self, call: &Ec2Call, now: Timestamp) -> Result<Ec2Answer, Ec2Failure> {
        Ok(match call {
            Ec2Call::CreateFleet(request) => Ec2Answer::Fleet(self.create_fleet(request, now)?),
            Ec2Call::DescribeInstances(query) => {
                let shown = self.instances.values().filter_map(|instance| instance.shown(now));
                Ec2Answer::Instances(shown.filter(|shown| asked_for(query, shown)).collect())
            }
            Ec2Call::TerminateInstances(instances) => {
                self.terminate(instances, now);
                Ec2Answer::Done
            }
            Ec2Call::CreateTags { instances, tags } => {
                self.create_tags(instances, tags, now)?;
                Ec2Answer::Done
            }
            Ec2Call::CreateLaunchTemplate(request) => {
                Ec2Answer::LaunchTemplate(self.create_launch_template(request, now)?)
            }
            Ec2Call::DeleteLaunchTemplate(name) => {
                self.delete_launch_template(name)?;
                Ec2Answer::Done
            }
            Ec2Call::DescribeLaunchTemplates(tags) => {
                Ec2Answer::LaunchTemplates(self.matching_launch_templates(tags))
            }
            Ec2Call::GetParameter(name) => match self.images.parameter(name) {
                Some(value) => Ec2Answer::Parameter(value.to_owned()),
                None => return Err(refuse("ParameterNotFound", format!("parameter {name}"))),
            },
            Ec2Call::DescribeSubnets(terms) => {
                Ec2Answer::Subnets(self.network.matching_subnets(terms))
            }
            Ec2Call::DescribeSecurityGroups(terms) => {
                Ec2Answer::SecurityGroups(self.network.matching_groups(terms))
            }
            Ec2Call::DescribeImages(terms) => Ec2Answer::Images(self.images.matching(terms)),
            Ec2Call::DescribeCapacityReservations(terms) => {
                Ec2Answer::CapacityReservations(self.matching_reservations(terms))
            }
            Ec2Call::ReceiveMessages { queue } => {
                let hidden_for = SignedDuration::from_secs(20);
                Ec2Answer::Messages(self.receive_messages(queue, 10, hidden_for, now)?)
            }
            Ec2Call::DeleteMessages { queue, receipts } => {
                self.delete_messages(queue, receipts)?;
                Ec2Answer::Done
            }
            Ec2Call::DescribeAvailabilityZones => {
                Ec2Answer::Zones(self.zones().map(|zone| (zone.name, zone.id)).collect())
            }
            Ec2Call::DescribeInstanceTypes
            | Ec2Call::DescribeInstanceTypeOfferings
            | Ec2Call::DescribeSpotPriceHistory
            | Ec2Call::GetOnDemandPrices => self.describe_market(call, now),
        })
    }

    fn describe_market(&self, call: &Ec2Call, now: Timestamp) -> Ec2Answer {
        let types = &self.market.types;
        let offered = || {
            types.values().flat_map(|entry| {
                self.zones()
                    .filter(|zone| self.market.offered(&entry.facts.name, &zone.name))
                    .map(|zone| (entry.facts.name.clone(), zone.name))
            })
        };
        match call {
            Ec2Call::DescribeInstanceTypes => {
                Ec2Answer::InstanceTypes(types.values().map(|entry| entry.facts.clone()).collect())
            }
            Ec2Call::DescribeInstanceTypeOfferings => Ec2Answer::Offerings(offered().collect()),
            Ec2Call::DescribeSpotPriceHistory => Ec2Answer::SpotPrices(
                offered()
                    .filter_map(|(name, zone)| {
                        let price = self.market.price(&name, &zone, CapacityType::Spot, now)?;
                        Some((name, zone, price))
                    })
                    .collect(),
            ),
            _ => Ec2Answer::OnDemandPrices(
                types
                    .values()
                    .filter_map(|entry| Some((entry.facts.name.clone(), entry.on_demand_price?)))
                    .collect(),
            ),
        }
    }

    fn terminate(&mut self, instances: &[InstanceId], now: Timestamp) {
        for id in instances {
            if let Some(instance) = self.instances.get_mut(id) {
                instance.shut_down("Client.UserInitiatedShutdown", now);
            }
        }
    }

    fn create_tags(
        &mut self,
        instances: &[InstanceId],
        tags: &Tags,
        now: Timestamp,
    ) -> Result<(), Ec2Failure> {
        if let Some(missing) = self.unknown(instances).first() {
            return Err(unknown_instance(missing));
        }
        let visible = after(now, self.options.visible_after);
        for id in instances {
            if let Some(instance) = self.instances.get_mut(id) {
                instance.tag(tags, visible);
            }
        }
        Ok(())
    }

    /// Up to `most` messages of a queue, hidden from the next for a while.
    ///
    /// # Errors
    /// There is no such queue.
    pub(crate) fn receive_messages(
        &mut self,
        queue: &str,
        most: usize,
        hidden_for: SignedDuration,
        now: Timestamp,
    ) -> Result<Vec<QueueMessage>, Ec2Failure> {
        self.queue_named(queue)?;
        // What a command did since the last tick is there to be told.
        self.queue.follow(&self.options.region, &self.instances, now);
        Ok(self.queue.receive(most, hidden_for, now))
    }

    /// Deletes messages by their receipts.
    ///
    /// # Errors
    /// There is no such queue.
    pub(crate) fn delete_messages(
        &mut self,
        queue: &str,
        receipts: &[String],
    ) -> Result<(), Ec2Failure> {
        self.queue_named(queue)?;
        self.queue.delete(receipts);
        Ok(())
    }

    /// The name of a queue that is told by name or URL.
    ///
    /// # Errors
    /// There is no such queue: the one there is bears the cluster's name.
    pub(crate) fn queue_named<'a>(&self, queue: &'a str) -> Result<&'a str, Ec2Failure> {
        let name = queue.rsplit('/').next().unwrap_or(queue);
        if name == self.options.cluster {
            return Ok(name);
        }
        Err(Ec2Failure {
            kind: Ec2FailureKind::NotFound,
            code: "com.amazonaws.sqs#QueueDoesNotExist".to_owned(),
            message: format!("queue {name}: it does not exist"),
        })
    }

    /// Lets everything happen that is due at `now`.
    pub fn tick(&mut self, now: Timestamp) {
        self.end_reservations(now);
        let mut forgotten = Vec::new();
        for instance in self.instances.values_mut() {
            instance.stale_tags.retain(|(until, _)| now < *until);
            if instance.end().is_some_and(|at| at <= now) {
                match (instance.ends, &instance.notices.spot) {
                    (Some((at, reason)), _) if at <= now => instance.shut_down(reason, now),
                    (_, Some(notice)) => {
                        instance.reclaim(notice.action, now);
                        self.books.interrupted += 1;
                    }
                    _ => {}
                }
            }
            let in_state = now.duration_since(instance.since);
            match instance.state {
                InstanceState::Pending if in_state >= self.options.pending_for => {
                    instance.enter(InstanceState::Running, now);
                }
                InstanceState::Stopping if in_state >= self.options.shutting_down_for => {
                    instance.enter(InstanceState::Stopped, now);
                }
                InstanceState::ShuttingDown if in_state >= self.options.shutting_down_for => {
                    instance.enter(InstanceState::Terminated, now);
                    if let Some(subnet) = self.network.subnets.get_mut(&instance.subnet) {
                        subnet.release(instance.private_address);
                    }
                }
                InstanceState::Terminated if in_state >= self.options.terminated_kept_for => {
                    forgotten.push(instance.id.clone());
                }
                _ => {}
            }
        }
        self.queue.follow(&self.options.region, &self.instances, now);
        for id in forgotten {
            if let Some(instance) = self.instances.remove(&id) {
                self.spent = self.spent.saturating_add(instance.cost(now));
            }
        }
    }

    /// The earliest time at which something is due.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.instances
            .values()
            .flat_map(|instance| {
                let wait = match instance.state {
                    InstanceState::Pending => Some(self.options.pending_for),
                    InstanceState::Stopping | InstanceState::ShuttingDown => {
                        Some(self.options.shutting_down_for)
                    }
                    InstanceState::Terminated => Some(self.options.terminated_kept_for),
                    InstanceState::Running | InstanceState::Stopped => None,
                };
                [wait.map(|wait| after(instance.since, wait)), instance.end()]
            })
            .flatten()
            .chain(self.reservations_due())
            .min()
    }
}

impl Cloud {
    /// Every instance that EC2 has not forgotten, by id.
    pub fn instances(&self) -> impl Iterator<Item = &SimulatedInstance> {
        self.instances.values()
    }

    /// One instance.
    pub fn instance(&self, instance: &InstanceId) -> Option<&SimulatedInstance> {
        self.instances.get(instance)
    }

    /// What live instances cost now, micro-dollars an hour at their launch prices.
    pub fn hourly_cost(&self) -> u64 {
        let billed = self.instances.values().filter(|instance| instance.is_billed());
        billed.map(|instance| instance.price).fold(0, u64::saturating_add)
    }

    /// What all instances have cost until `now`, micro-dollars.
    pub fn total_cost(&self, now: Timestamp) -> u64 {
        let shown = self.instances.values().map(|instance| instance.cost(now));
        shown.fold(self.spent, u64::saturating_add)
    }

    /// Those of the ids that EC2 does not know. Describe calls lag behind; calls that change an
    /// instance know it at once.
    pub(crate) fn unknown(&self, instances: &[InstanceId]) -> Vec<InstanceId> {
        instances.iter().filter(|id| !self.instances.contains_key(id)).cloned().collect()
    }

    /// The zone of a subnet.
    pub(crate) fn zone_of_subnet(&self, id: &str) -> Option<String> {
        self.network.subnets.get(id).map(|subnet| subnet.zone.name.clone())
    }

    /// What EC2 says of a type.
    pub(crate) fn facts(&self, instance_type: &str) -> Option<&InstanceTypeFacts> {
        self.market.types.get(instance_type).map(|entry| &entry.facts)
    }

    /// An id for a request. It has a generator of its own, so that requests that only read leave
    /// the world's course as it is.
    pub(crate) fn request_id(&mut self) -> String {
        self.request_ids.uuid()
    }

    /// The id of the VPC.
    pub(crate) fn vpc(&self) -> &str {
        &self.network.vpc
    }

    /// Owner account, tags and whether it is Windows, of an image.
    pub(crate) fn image_details(&self, id: &str) -> Option<(&str, &Tags, bool)> {
        let image = self.images.images.get(id)?;
        Some((&image.owner, &image.tags, image.windows))
    }

    /// An image's name; empty if there is no such image.
    pub fn image_name(&self, id: &str) -> &str {
        self.images.images.get(id).map_or("", |image| image.image.name.as_str())
    }

    /// The tags of a subnet or security group.
    pub(crate) fn network_tags(&self, id: &str) -> Option<&Tags> {
        let group = || self.network.groups.iter().find(|group| group.id == id);
        self.network
            .subnets
            .get(id)
            .map(|subnet| &subnet.tags)
            .or_else(|| group().map(|group| &group.tags))
    }

    fn zones(&self) -> impl Iterator<Item = network::Zone> {
        network::zones(&self.options.region).into_iter()
    }
}

/// A failure under one of AWS's codes.
pub(crate) fn refuse(code: &str, message: impl Into<String>) -> Ec2Failure {
    Ec2Failure {
        kind: Ec2FailureKind::of_code(code),
        code: code.to_owned(),
        message: message.into(),
    }
}

/// EC2's answer to an id it does not know.
pub(crate) fn unknown_instance(instance: &InstanceId) -> Ec2Failure {
    refuse("InvalidInstanceID.NotFound", format!("The instance ID '{instance}' does not exist"))
}
