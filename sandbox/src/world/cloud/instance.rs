//! One simulated instance, from launch until EC2 forgets it.

use std::net::Ipv4Addr;

use drover_common::ec2::{Instance, InstanceQuery, InstanceState, Tags};
use drover_common::id::InstanceId;
use drover_common::instance_type::CapacityType;
use jiff::{SignedDuration, Timestamp};

use super::network::tags_match;
use super::notice::{Notices, SpotAction};

/// A simulated instance.
#[derive(Clone, Debug)]
pub struct SimulatedInstance {
    /// Its id.
    pub id: InstanceId,
    /// Its type.
    pub instance_type: String,
    /// `amd64` or `arm64`.
    pub architecture: String,
    /// Its zone's name.
    pub zone: String,
    /// Its zone's id.
    pub zone_id: String,
    /// Its subnet.
    pub subnet: String,
    /// How it is billed.
    pub capacity_type: CapacityType,
    /// The capacity reservation that it runs in.
    pub reservation: Option<String>,
    /// Its image.
    pub image: String,
    /// Its private address.
    pub private_address: Ipv4Addr,
    /// The launch template it was made from.
    pub launch_template: String,
    /// The instance profile, whose role has its name here.
    pub instance_profile: Option<String>,
    /// User data, decoded.
    pub user_data: String,
    /// Whether IMDS wants a session token with every read.
    pub imds_tokens_required: bool,
    /// The `CreateFleet` token that launched it.
    pub client_token: String,
    /// Price at launch, micro-dollars an hour.
    pub price: u64,
    /// When it was launched or, later, started last: EC2's launch time.
    pub launched: Timestamp,
    /// How often its machine has booted; a hibernated one goes on in the same boot.
    pub boots: u32,
    /// Its state.
    pub state: InstanceState,
    /// When it came into its state.
    pub since: Timestamp,
    /// Why it went, if it did: EC2's state reason code.
    pub reason: Option<&'static str>,
    /// What its metadata service says.
    pub notices: Notices,
    /// Its tags, as written last.
    pub tags: Tags,
    /// When describe calls begin to show it.
    pub visible_from: Timestamp,
    /// Earlier tags and until when describe calls go on showing them, oldest first.
    pub(super) stale_tags: Vec<(Timestamp, Tags)>,
    /// What it cost until it was started last.
    pub(super) spent: u64,
    /// Whether it was stopped with its memory saved.
    pub(super) hibernated: bool,
    /// When billing stopped.
    pub(super) billed_until: Option<Timestamp>,
    /// When it dies by itself, and why; what EC2 announces stands in its notices.
    pub(super) ends: Option<(Timestamp, &'static str)>,
}

/// EC2's state reason of a reclaimed spot instance.
const SPOT_TERMINATION: &str = "Server.SpotInstanceTermination";
/// EC2's state reason of a spot instance that it stopped or hibernated.
const SPOT_SHUTDOWN: &str = "Server.SpotInstanceShutdown";

impl SimulatedInstance {
    /// Its private DNS name, `ip-10-0-0-1.ec2.internal`; also its Node's name.
    pub fn private_dns_name(&self) -> String {
        private_dns_name(&self.zone, self.private_address)
    }

    /// Its MAC address.
    pub fn mac(&self) -> String {
        let [a, b, c, d] = self.private_address.octets();
        format!("0e:ff:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
    }

    /// As `DescribeInstances` shows it at `now`; `None` while it is not visible yet.
    pub fn shown(&self, now: Timestamp) -> Option<Instance> {
        if now < self.visible_from {
            return None;
        }
        let stale = self.stale_tags.iter().find(|(until, _)| now < *until);
        let tags = stale.map_or(&self.tags, |(_, tags)| tags);
        let terminated = self.state == InstanceState::Terminated;
        Some(Instance {
            instance: self.id.clone(),
            instance_type: self.instance_type.clone(),
            zone: self.zone.clone(),
            state: self.state,
            // What a reservation was named for is on demand once it is over; what landed in an open
            // one always was.
            capacity_type: match (self.capacity_type, &self.reservation) {
                (CapacityType::Spot, _) => CapacityType::Spot,
                (CapacityType::Reserved, Some(_)) => CapacityType::Reserved,
                _ => CapacityType::OnDemand,
            },
            reservation: self.reservation.clone(),
            image: self.image.clone(),
            // EC2 forgets network and name of a terminated instance.
            subnet: if terminated { String::new() } else { self.subnet.clone() },
            private_dns_name: if terminated { String::new() } else { self.private_dns_name() },
            launch_time: self.launched,
            tags: tags.clone(),
        })
    }

    /// Sets tags; describe calls show the old ones until `visible`.
    pub(super) fn tag(&mut self, tags: &Tags, visible: Timestamp) {
        self.stale_tags.push((visible, self.tags.clone()));
        self.tags.extend(tags.iter().map(|(key, value)| (key.clone(), value.clone())));
    }

    /// Begins its end, unless it has begun already.
    pub(super) fn shut_down(&mut self, reason: &'static str, now: Timestamp) {
        if !self.state.is_gone() {
            self.enter(InstanceState::ShuttingDown, now);
            self.reason = Some(reason);
            self.billed_until.get_or_insert(now);
        }
    }

    /// Takes it back, as its notice said.
    pub(super) fn reclaim(&mut self, action: SpotAction, now: Timestamp) {
        match action {
            SpotAction::Terminate => self.shut_down(SPOT_TERMINATION, now),
            SpotAction::Stop | SpotAction::Hibernate => {
                self.stop(SPOT_SHUTDOWN, now);
                self.hibernated = action == SpotAction::Hibernate;
            }
        }
    }

    pub(super) fn stop(&mut self, reason: &'static str, now: Timestamp) {
        self.enter(InstanceState::Stopping, now);
        self.reason = Some(reason);
        self.hibernated = false;
        self.billed_until = Some(now);
    }

    /// Starts it again: it keeps id, address and tags. What was announced has been done.
    pub(super) fn start(&mut self, now: Timestamp) {
        self.spent = self.cost(now);
        self.launched = now;
        self.billed_until = None;
        if !std::mem::replace(&mut self.hibernated, false) {
            self.boots = self.boots.saturating_add(1);
        }
        (self.reason, self.ends) = (None, None);
        (self.notices.spot, self.notices.rebalance) = (None, None);
        self.enter(InstanceState::Pending, now);
    }

    /// Whether it starts or runs, and is not on its way to anything else.
    pub fn is_up(&self) -> bool {
        matches!(self.state, InstanceState::Pending | InstanceState::Running)
    }

    /// When it goes: by itself, or because EC2 takes it back.
    pub(super) fn end(&self) -> Option<Timestamp> {
        let own = self.ends.map(|(at, _)| at);
        let spot = self.notices.spot.as_ref().map(|notice| notice.time);
        own.into_iter().chain(spot).min().filter(|_| self.is_up())
    }

    /// Whether it is paid for.
    pub(super) fn is_billed(&self) -> bool {
        self.billed_until.is_none()
    }

    pub(super) fn enter(&mut self, state: InstanceState, now: Timestamp) {
        self.state = state;
        self.since = now;
    }

    /// What it has cost until `now`, micro-dollars: by the second, from each start to shutting down or
    /// stopping.
    pub fn cost(&self, now: Timestamp) -> u64 {
        let end = self.billed_until.unwrap_or(now);
        let seconds = end.duration_since(self.launched).as_secs().max(0);
        let seconds = u64::try_from(seconds).unwrap_or_default();
        self.spent.saturating_add(self.price.saturating_mul(seconds) / 3600)
    }
}

/// Whether an instance as shown is asked for.
pub(super) fn asked_for(query: &InstanceQuery, instance: &Instance) -> bool {
    (query.instances.is_empty() || query.instances.contains(&instance.instance))
        && tags_match(&query.tags, &instance.tags)
}

/// us-east-1 has the domain `ec2.internal`, every other region `<region>.compute.internal`.
fn private_dns_name(zone: &str, address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    let region = zone.trim_end_matches(|letter: char| letter.is_ascii_lowercase());
    if region == "us-east-1" {
        format!("ip-{a}-{b}-{c}-{d}.ec2.internal")
    } else {
        format!("ip-{a}-{b}-{c}-{d}.{region}.compute.internal")
    }
}

/// A time some while after another; the end of time where there is no such.
pub(super) fn after(time: Timestamp, wait: SignedDuration) -> Timestamp {
    time.checked_add(wait).unwrap_or(Timestamp::MAX)
}
