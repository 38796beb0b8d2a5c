//! Calls that read the network, the images and the instances.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::{
    ArchitectureValues, CapacityReservationPreference, Filter, InstanceLifecycleType,
    InstanceStateName,
};
use drover_common::ec2::{
    Ec2Failure, Image, Instance, InstanceQuery, InstanceState, SelectorTerm, Subnet, Tags,
};
use drover_common::id::InstanceId;
use drover_common::instance_type::CapacityType;
use jiff::Timestamp;

use crate::Ec2;
use crate::failure::{failure, incomplete};

/// Most values in one filter (EC2's limit).
const FILTER_VALUES: usize = 200;
/// Largest page that `DescribeInstances` and its like give.
const PAGE: i32 = 1000;

impl Ec2 {
    pub(crate) async fn describe_instances(
        &self,
        query: &InstanceQuery,
    ) -> Result<Vec<Instance>, Ec2Failure> {
        if query.instances.is_empty() {
            return self.instances_matching(tag_filters(&query.tags)).await;
        }
        let mut found = Vec::new();
        for ids in query.instances.chunks(FILTER_VALUES) {
            let mut filters = tag_filters(&query.tags);
            // A filter, unlike the ids parameter, does not fail for an id that EC2 has forgotten.
            let ids = ids.iter().map(|id| id.to_string()).collect();
            filters.push(Filter::builder().name("instance-id").set_values(Some(ids)).build());
            found.extend(self.instances_matching(filters).await?);
        }
        Ok(found)
    }

    async fn instances_matching(&self, filters: Vec<Filter>) -> Result<Vec<Instance>, Ec2Failure> {
        let call = self.reads.describe_instances();
        let filters = (!filters.is_empty()).then_some(filters);
        let mut pages = call.set_filters(filters).max_results(PAGE).into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(failure)?;
            let shown = page.reservations().iter().flat_map(|one| one.instances());
            found.extend(shown.filter_map(instance));
        }
        Ok(found)
    }

    pub(crate) async fn describe_zones(&self) -> Result<Vec<(String, String)>, Ec2Failure> {
        let output = self.reads.describe_availability_zones().send().await.map_err(failure)?;
        let zones = output.availability_zones().iter();
        Ok(zones
            .filter_map(|zone| Some((zone.zone_name()?.to_owned(), zone.zone_id()?.to_owned())))
            .collect())
    }

    pub(crate) async fn describe_subnets(
        &self,
        terms: &[SelectorTerm],
    ) -> Result<Vec<Subnet>, Ec2Failure> {
        let mut found = BTreeMap::new();
        for filters in filters_of(terms, "subnet-id", None) {
            let call = self.reads.describe_subnets().set_filters(filters);
            let mut pages = call.into_paginator().items().send();
            while let Some(subnet) = pages.next().await {
                let subnet = subnet.map_err(failure)?;
                let (Some(id), Some(zone)) = (subnet.subnet_id(), subnet.availability_zone())
                else {
                    continue;
                };
                let free = subnet.available_ip_address_count().unwrap_or_default();
                let subnet = Subnet {
                    id: id.to_owned(),
                    zone: zone.to_owned(),
                    zone_id: subnet.availability_zone_id().unwrap_or_default().to_owned(),
                    available_addresses: u32::try_from(free).unwrap_or_default(),
                };
                found.insert(subnet.id.clone(), subnet);
            }
        }
        Ok(found.into_values().collect())
    }

    pub(crate) async fn describe_security_groups(
        &self,
        terms: &[SelectorTerm],
    ) -> Result<Vec<(String, String)>, Ec2Failure> {
        let mut found = BTreeMap::new();
        for filters in filters_of(terms, "group-id", Some("group-name")) {
            let call = self.reads.describe_security_groups().set_filters(filters);
            let mut pages = call.into_paginator().items().send();
            while let Some(group) = pages.next().await {
                let group = group.map_err(failure)?;
                if let (Some(id), Some(name)) = (group.group_id(), group.group_name()) {
                    found.insert(id.to_owned(), name.to_owned());
                }
            }
        }
        Ok(found.into_iter().collect())
    }

    pub(crate) async fn describe_images(
        &self,
        terms: &[SelectorTerm],
    ) -> Result<Vec<Image>, Ec2Failure> {
        let mut found = BTreeMap::new();
        let now = Timestamp::now();
        let filters = filters_of(terms, "image-id", Some("name"));
        for (index, filters) in filters.into_iter().enumerate() {
            let term = terms.get(index);
            let mut call =
                self.reads.describe_images().set_filters(filters).include_deprecated(true);
            for owner in owners(term) {
                call = call.owners(owner);
            }
            let mut pages = call.into_paginator().items().send();
            while let Some(shown) = pages.next().await {
                if let Some(image) = image(&shown.map_err(failure)?, now) {
                    found.insert(image.id.clone(), image);
                }
            }
        }
        let mut images: Vec<Image> = found.into_values().collect();
        images.sort_by(|left, right| {
            right.creation_date.cmp(&left.creation_date).then_with(|| left.id.cmp(&right.id))
        });
        Ok(images)
    }

    pub(crate) async fn get_parameter(&self, name: &str) -> Result<String, Ec2Failure> {
        let output = self.ssm.get_parameter().name(name).send().await.map_err(failure)?;
        output
            .parameter()
            .and_then(|parameter| parameter.value())
            .map(str::to_owned)
            .ok_or_else(|| incomplete("GetParameter", "a value"))
    }
}

/// Whose images a term looks among: its owner's; otherwise, unless it names an id, our own and
/// Amazon's, so that a name can't be taken over by a stranger's public image.
fn owners(term: Option<&SelectorTerm>) -> Vec<String> {
    match term {
        Some(SelectorTerm { owner: Some(owner), .. }) => vec![owner.clone()],
        Some(SelectorTerm { id: Some(_), .. }) => Vec::new(),
        _ => vec!["self".to_owned(), "amazon".to_owned()],
    }
}

/// One list of filters per term; one call without filters where there is no term.
fn filters_of(
    terms: &[SelectorTerm],
    id_filter: &str,
    name_filter: Option<&str>,
) -> Vec<Option<Vec<Filter>>> {
    if terms.is_empty() {
        return vec![None];
    }
    terms
        .iter()
        .map(|term| {
            let mut filters = tag_filters(&term.tags);
            let mut add = |name: &str, value: &str| {
                filters.push(Filter::builder().name(name).values(value).build());
            };
            if let Some(id) = &term.id {
                add(id_filter, id);
            }
            if let (Some(name), Some(filter)) = (&term.name, name_filter) {
                add(filter, name);
            }
            (!filters.is_empty()).then_some(filters)
        })
        .collect()
}

/// Tag filters; `*` asks for the key alone.
pub(crate) fn tag_filters(tags: &Tags) -> Vec<Filter> {
    tags.iter()
        .map(|(key, value)| match value.as_str() {
            "*" => Filter::builder().name("tag-key").values(key).build(),
            value => Filter::builder().name(format!("tag:{key}")).values(value).build(),
        })
        .collect()
}

/// An instance without id or launch time is nothing that can be acted on.
fn instance(shown: &aws_sdk_ec2::types::Instance) -> Option<Instance> {
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    let launched = shown.launch_time()?;
    let spot = shown.instance_lifecycle() == Some(&InstanceLifecycleType::Spot);
    // An instance may have landed in an open reservation without having been launched for it.
    let for_reservation = shown.capacity_reservation_specification().is_some_and(|asked| {
        asked.capacity_reservation_target().is_some()
            || asked.capacity_reservation_preference()
                == Some(&CapacityReservationPreference::CapacityReservationsOnly)
    });
    let capacity_type = match (spot, shown.capacity_reservation_id()) {
        (true, _) => CapacityType::Spot,
        (false, Some(_)) if for_reservation => CapacityType::Reserved,
        (false, _) => CapacityType::OnDemand,
    };
    let tags = shown.tags().iter();
    Some(Instance {
        instance: InstanceId::from(shown.instance_id()?),
        instance_type: text(shown.instance_type().map(|name| name.as_str())),
        zone: text(shown.placement().and_then(|placement| placement.availability_zone())),
        state: state(shown.state().and_then(|state| state.name())?)?,
        capacity_type,
        reservation: shown.capacity_reservation_id().map(str::to_owned),
        image: text(shown.image_id()),
        subnet: text(shown.subnet_id()),
        private_dns_name: text(shown.private_dns_name()),
        launch_time: Timestamp::new(launched.secs(), 0).ok()?,
        tags: tags.filter_map(|tag| Some((tag.key()?.to_owned(), text(tag.value())))).collect(),
    })
}

fn state(name: &InstanceStateName) -> Option<InstanceState> {
    Some(match name {
        InstanceStateName::Pending => InstanceState::Pending,
        InstanceStateName::Running => InstanceState::Running,
        InstanceStateName::ShuttingDown => InstanceState::ShuttingDown,
        InstanceStateName::Stopping => InstanceState::Stopping,
        InstanceStateName::Stopped => InstanceState::Stopped,
        InstanceStateName::Terminated => InstanceState::Terminated,
        _ => return None,
    })
}

/// An image of an architecture that no node has is left out.
fn image(shown: &aws_sdk_ec2::types::Image, now: Timestamp) -> Option<Image> {
    let architecture = match shown.architecture()? {
        ArchitectureValues::X8664 => "amd64",
        ArchitectureValues::Arm64 => "arm64",
        _ => return None,
    };
    let deprecated = shown
        .deprecation_time()
        .and_then(|time| time.parse::<Timestamp>().ok())
        .is_some_and(|time| time <= now);
    Some(Image {
        id: shown.image_id()?.to_owned(),
        name: shown.name().unwrap_or_default().to_owned(),
        architecture: architecture.to_owned(),
        creation_date: shown
            .creation_date()
            .and_then(|time| time.parse().ok())
            .unwrap_or(Timestamp::UNIX_EPOCH),
        deprecated,
    })
}
