//! What must be asked of EC2 and SSM to know what a class means, and the answers.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::crd::{AmiSelectorTerm, Ec2NodeClass, Ec2NodeClassSpec};
use drover_common::ec2::{
    CapacityReservation, Ec2Answer, Ec2Call, Ec2Failure, Ec2FailureKind, Image, SelectorTerm,
    Subnet, Tags,
};

use super::image::{Devices, Parameter, alias_parameters};
use super::reservation::reservation_terms;
use super::template::ClusterSettings;

/// Owners of images that are selected by name or tags without an owner: one's own account and AWS.
const DEFAULT_OWNERS: [&str; 2] = ["self", "amazon"];

/// Answers to a class's calls. Start with an empty one to read everything anew.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClassAnswers {
    pub(super) subnets: Option<Vec<Subnet>>,
    pub(super) security_groups: Option<Vec<(String, String)>>,
    pub(super) images: BTreeMap<Vec<SelectorTerm>, Vec<Image>>,
    pub(super) parameters: BTreeMap<String, Option<String>>,
    pub(super) reservations: Option<Vec<CapacityReservation>>,
    failures: BTreeMap<String, Ec2Failure>,
}

impl ClassAnswers {
    /// Takes in an outcome. A parameter that does not exist is an answer: not every family has an
    /// image for every architecture, and an EC2 without reservations has none. Returns whether the
    /// call is one that classes make.
    pub fn record(&mut self, call: &Ec2Call, outcome: &Result<Ec2Answer, Ec2Failure>) -> bool {
        match (call, outcome) {
            (Ec2Call::DescribeSubnets(_), Ok(Ec2Answer::Subnets(subnets))) => {
                self.subnets = Some(subnets.clone());
            }
            (Ec2Call::DescribeSecurityGroups(_), Ok(Ec2Answer::SecurityGroups(groups))) => {
                self.security_groups = Some(groups.clone());
            }
            (Ec2Call::DescribeImages(terms), Ok(Ec2Answer::Images(images))) => {
                self.images.insert(terms.clone(), images.clone());
            }
            (
                Ec2Call::DescribeCapacityReservations(_),
                Ok(Ec2Answer::CapacityReservations(reservations)),
            ) => {
                self.reservations = Some(reservations.clone());
            }
            (Ec2Call::DescribeCapacityReservations(_), Err(failure))
                if failure.kind == Ec2FailureKind::Unsupported =>
            {
                self.reservations = Some(Vec::new());
            }
            (Ec2Call::GetParameter(name), Ok(Ec2Answer::Parameter(value))) => {
                self.parameters.insert(name.clone(), Some(value.clone()));
            }
            (Ec2Call::GetParameter(name), Err(failure))
                if failure.kind == Ec2FailureKind::NotFound =>
            {
                self.parameters.insert(name.clone(), None);
            }
            // An image id that does not exist (any more) is an answer, too.
            (Ec2Call::DescribeImages(terms), Err(failure))
                if failure.kind == Ec2FailureKind::NotFound =>
            {
                self.images.insert(terms.clone(), Vec::new());
            }
            (
                Ec2Call::DescribeSubnets(_)
                | Ec2Call::DescribeSecurityGroups(_)
                | Ec2Call::DescribeImages(_)
                | Ec2Call::DescribeCapacityReservations(_)
                | Ec2Call::GetParameter(_),
                Err(failure),
            ) => {
                self.failures.insert(call.name().to_owned(), failure.clone());
            }
            _ => return false,
        }
        true
    }

    /// The calls that failed, by name. While there are any, what was resolved before is better than
    /// what [`super::resolve`] makes of these answers.
    pub fn failures(&self) -> &BTreeMap<String, Ec2Failure> {
        &self.failures
    }

    pub(super) fn failure(&self, call: &str) -> Option<&Ec2Failure> {
        self.failures.get(call)
    }
}

/// The calls whose answers are still missing, given those there are: first subnets, security groups,
/// capacity reservations and SSM parameters, then the images that the parameters name. Empty once
/// [`super::resolve`] has all it needs, or a call of this step failed.
pub fn class_calls(
    class: &Ec2NodeClass,
    cluster: &ClusterSettings,
    answers: &ClassAnswers,
) -> Vec<Ec2Call> {
    let spec = &class.spec;
    let mut calls = Vec::new();
    if answers.subnets.is_none() && answers.failure("DescribeSubnets").is_none() {
        calls.push(Ec2Call::DescribeSubnets(subnet_terms(spec)));
    }
    if answers.security_groups.is_none() && answers.failure("DescribeSecurityGroups").is_none() {
        calls.push(Ec2Call::DescribeSecurityGroups(security_group_terms(spec)));
    }
    if !spec.capacity_reservation_selector_terms.is_empty()
        && answers.reservations.is_none()
        && answers.failure("DescribeCapacityReservations").is_none()
    {
        calls.push(Ec2Call::DescribeCapacityReservations(reservation_terms(spec)));
    }
    if answers.failure("GetParameter").is_some() || answers.failure("DescribeImages").is_some() {
        return calls;
    }
    let wanted: BTreeSet<String> =
        parameters(spec, cluster).into_iter().map(|parameter| parameter.name).collect();
    let missing: Vec<Ec2Call> = wanted
        .iter()
        .filter(|name| !answers.parameters.contains_key(*name))
        .map(|name| Ec2Call::GetParameter(name.clone()))
        .collect();
    if missing.is_empty() {
        for terms in [image_terms(spec), parameter_terms(spec, cluster, answers)] {
            if !terms.is_empty() && !answers.images.contains_key(&terms) {
                calls.push(Ec2Call::DescribeImages(terms));
            }
        }
    }
    calls.extend(missing);
    calls
}

fn subnet_terms(spec: &Ec2NodeClassSpec) -> Vec<SelectorTerm> {
    let term = |term: &drover_common::crd::SubnetSelectorTerm| SelectorTerm {
        id: term.id.clone(),
        tags: term.tags.clone(),
        ..SelectorTerm::default()
    };
    spec.subnet_selector_terms.iter().map(term).collect()
}

fn security_group_terms(spec: &Ec2NodeClassSpec) -> Vec<SelectorTerm> {
    let term = |term: &drover_common::crd::SecurityGroupSelectorTerm| SelectorTerm {
        id: term.id.clone(),
        name: term.name.clone(),
        tags: term.tags.clone(),
        owner: None,
    };
    spec.security_group_selector_terms.iter().map(term).collect()
}

/// The parameters a class's images are found by.
pub(super) fn parameters(spec: &Ec2NodeClassSpec, cluster: &ClusterSettings) -> Vec<Parameter> {
    let mut list = match spec.alias() {
        Some((family, version)) => alias_parameters(family, version, &cluster.kubernetes_version),
        None => Vec::new(),
    };
    let named = spec.ami_selector_terms.iter().filter_map(|term| term.ssm_parameter.clone());
    list.extend(named.map(|name| Parameter { name, devices: Devices::Any }));
    list
}

/// The terms of a class's images that EC2 is asked about directly.
pub(super) fn image_terms(spec: &Ec2NodeClassSpec) -> Vec<SelectorTerm> {
    let direct = |term: &&AmiSelectorTerm| term.alias.is_none() && term.ssm_parameter.is_none();
    spec.ami_selector_terms.iter().filter(direct).flat_map(owned_terms).collect()
}

/// A term without id and owner stands for the images of one's own account and of AWS.
fn owned_terms(term: &AmiSelectorTerm) -> Vec<SelectorTerm> {
    let with_owner = |owner: Option<String>| SelectorTerm {
        id: term.id.clone(),
        name: term.name.clone(),
        owner,
        tags: term.tags.clone(),
    };
    if term.id.is_some() || term.owner.is_some() {
        vec![with_owner(term.owner.clone())]
    } else {
        DEFAULT_OWNERS.into_iter().map(|owner| with_owner(Some(owner.to_owned()))).collect()
    }
}

/// The images that the parameters name, by id.
pub(super) fn parameter_terms(
    spec: &Ec2NodeClassSpec,
    cluster: &ClusterSettings,
    answers: &ClassAnswers,
) -> Vec<SelectorTerm> {
    let ids: BTreeSet<&String> = parameters(spec, cluster)
        .iter()
        .filter_map(|parameter| answers.parameters.get(&parameter.name)?.as_ref())
        .collect();
    ids.into_iter()
        .map(|id| SelectorTerm { id: Some(id.clone()), name: None, owner: None, tags: Tags::new() })
        .collect()
}
