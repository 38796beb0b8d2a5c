//! What a class means now: its subnets, security groups, images, and its status.

use drover_common::crd::{
    Condition, ConditionStatus, Ec2NodeClass, FieldError, USER_DATA_LIMIT, validate_node_class,
};
use drover_common::ec2::{Ec2Failure, Subnet};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::image::{Devices, ResolvedImage, requirements, sort};
use super::refusal::refused_fields;
use super::reservation::{self, ResolvedReservation};
use super::selection::{ClassAnswers, image_terms, parameter_terms, parameters};
use super::template::{ClusterSettings, NodeRegistration};
use super::user_data::user_data;

/// A class with its selectors resolved.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResolvedClass {
    /// Subnets, those with most free addresses first.
    pub subnets: Vec<Subnet>,
    /// Security groups: (id, name), by id.
    pub security_groups: Vec<(String, String)>,
    /// Images, newest first; the first that is for a type is the type's.
    pub images: Vec<ResolvedImage>,
    /// Instance profile.
    pub instance_profile: Option<String>,
    /// Capacity reservations, by id; `None` where the class selects none.
    pub reservations: Option<Vec<ResolvedReservation>>,
    /// The status conditions as they should be.
    pub conditions: Vec<Condition>,
    /// The patch (RFC 7386) that brings the object's status up to date.
    pub status: Value,
}

impl ResolvedClass {
    /// Whether instances can be launched by it.
    pub fn is_ready(&self) -> bool {
        Condition::is_true(&self.conditions, "Ready")
    }

    /// The subnet to launch into in a zone: the one with most free addresses.
    pub fn subnet(&self, zone: &str) -> Option<&Subnet> {
        self.subnets.iter().find(|subnet| subnet.zone == zone)
    }
}

/// Puts a class and the answers to its calls together. Transition times of conditions that do not
/// change are kept.
pub fn resolve(
    class: &Ec2NodeClass,
    cluster: &ClusterSettings,
    answers: &ClassAnswers,
    now: Timestamp,
) -> ResolvedClass {
    let mut subnets = answers.subnets.clone().unwrap_or_default();
    subnets.sort_by(|left, right| {
        right.available_addresses.cmp(&left.available_addresses).then(left.id.cmp(&right.id))
    });
    let mut security_groups = answers.security_groups.clone().unwrap_or_default();
    security_groups.sort();
    let images = images(class, cluster, answers);
    let instance_profile = instance_profile(class);

    let mut findings = vec![
        found("SubnetsReady", "SubnetsNotFound", "subnets", subnets.is_empty())
            .unless(answers.failure("DescribeSubnets")),
        found(
            "SecurityGroupsReady",
            "SecurityGroupsNotFound",
            "security groups",
            security_groups.is_empty(),
        )
        .unless(answers.failure("DescribeSecurityGroups")),
        found("AMIsReady", "AMINotFound", "images", images.is_empty())
            .unless(answers.failure("DescribeImages").or(answers.failure("GetParameter"))),
        Finding::of(
            "InstanceProfileReady",
            instance_profile.is_none().then(|| {
                ("InstanceProfileNotFound", "neither role nor instanceProfile is set".to_owned())
            }),
        ),
    ];
    let selects = !class.spec.capacity_reservation_selector_terms.is_empty();
    let told = answers.reservations.as_deref().unwrap_or_default();
    let reservations = selects.then(|| reservation::resolved(told, now));
    if selects {
        // That none is there is no fault: they come and go.
        let failure = answers.failure("DescribeCapacityReservations");
        findings.push(Finding::of(RESERVATIONS_READY, None).unless(failure));
    }
    let mut errors = validate_node_class(class);
    errors.extend(refused_fields(class));
    errors.extend(user_data_error(class, cluster));
    findings.push(validation(&errors));

    let mut conditions = class.status.clone().unwrap_or_default().conditions;
    conditions.retain(|condition| selects || condition.type_ != RESERVATIONS_READY);
    let generation = class.metadata.generation;
    for finding in std::iter::once(ready(&findings)).chain(findings) {
        Condition::set(&mut conditions, finding.condition(generation, now));
    }
    // Free addresses change all the time: in this order the status is written only if it changes.
    let mut by_id: Vec<&Subnet> = subnets.iter().collect();
    by_id.sort_by(|left, right| left.id.cmp(&right.id));
    let mut status = json!({"status": {
        "subnets": by_id.iter().map(|subnet| json!({
            "id": subnet.id, "zone": subnet.zone, "zoneID": subnet.zone_id,
        })).collect::<Vec<_>>(),
        "securityGroups": security_groups.iter().map(|(id, name)| json!({
            "id": id, "name": name,
        })).collect::<Vec<_>>(),
        "amis": images.iter().map(image_status).collect::<Vec<_>>(),
        "instanceProfile": instance_profile,
        "conditions": conditions,
    }});
    if let Some(shown) = reservations_status(class, reservations.as_deref()) {
        status["status"]["capacityReservations"] = shown;
    }
    ResolvedClass {
        subnets,
        security_groups,
        images,
        instance_profile,
        reservations,
        conditions,
        status,
    }
}

const RESERVATIONS_READY: &str = "CapacityReservationsReady";

/// The reservations to show. A patch has to say so where there are none any more.
fn reservations_status(
    class: &Ec2NodeClass,
    reservations: Option<&[ResolvedReservation]>,
) -> Option<Value> {
    let shown = class.status.as_ref().is_some_and(|s| !s.capacity_reservations.is_empty());
    let list = reservations.unwrap_or_default();
    (shown || !list.is_empty())
        .then(|| list.iter().map(|one| json!(reservation::status_of(one))).collect())
}

fn image_status(resolved: &ResolvedImage) -> Value {
    let mut status = json!({
        "id": resolved.image.id,
        "name": resolved.image.name,
        "requirements": resolved.requirements,
    });
    if resolved.image.deprecated
        && let Value::Object(fields) = &mut status
    {
        fields.insert("deprecated".to_owned(), Value::Bool(true));
    }
    status
}

/// The profile named, or the one that bears the role's name: EC2's console, and most tools, make a
/// role's profile under the role's own name. Profiles are not made here.
fn instance_profile(class: &Ec2NodeClass) -> Option<String> {
    class.spec.instance_profile.clone().or_else(|| class.spec.role.clone())
}

/// Images of all terms, newest first; of several for the same types only the newest.
fn images(
    class: &Ec2NodeClass,
    cluster: &ClusterSettings,
    answers: &ClassAnswers,
) -> Vec<ResolvedImage> {
    let spec = &class.spec;
    let mut images: Vec<ResolvedImage> = Vec::new();
    for image in answers.images.get(&image_terms(spec)).into_iter().flatten() {
        let requirements = requirements(&image.architecture, Devices::Any);
        images.push(ResolvedImage { image: image.clone(), requirements });
    }
    let named = answers.images.get(&parameter_terms(spec, cluster, answers));
    for parameter in parameters(spec, cluster) {
        let Some(Some(id)) = answers.parameters.get(&parameter.name) else { continue };
        let Some(image) = named.into_iter().flatten().find(|image| image.id == *id) else {
            continue;
        };
        let requirements = requirements(&image.architecture, parameter.devices);
        images.push(ResolvedImage { image: image.clone(), requirements });
    }
    sort(&mut images);
    let mut kept: Vec<ResolvedImage> = Vec::new();
    for image in images {
        if kept.iter().all(|other| other.requirements != image.requirements) {
            kept.push(image);
        }
    }
    kept
}

/// What a condition should say.
struct Finding {
    type_: &'static str,
    status: ConditionStatus,
    reason: String,
    message: String,
}

impl Finding {
    fn of(type_: &'static str, problem: Option<(&str, String)>) -> Self {
        match problem {
            None => Self {
                type_,
                status: ConditionStatus::True,
                reason: type_.to_owned(),
                message: String::new(),
            },
            Some((reason, message)) => {
                Self { type_, status: ConditionStatus::False, reason: reason.to_owned(), message }
            }
        }
    }

    /// Nothing is known where the call failed.
    fn unless(mut self, failure: Option<&Ec2Failure>) -> Self {
        if let Some(failure) = failure {
            self.status = ConditionStatus::Unknown;
            "AwaitingReconciliation".clone_into(&mut self.reason);
            self.message = failure.to_string();
        }
        self
    }

    fn condition(self, generation: Option<i64>, now: Timestamp) -> Condition {
        Condition {
            type_: self.type_.to_owned(),
            status: self.status,
            observed_generation: generation,
            last_transition_time: Timestamp::from_second(now.as_second()).ok(),
            reason: self.reason,
            message: self.message,
        }
    }
}

fn found(type_: &'static str, reason: &'static str, what: &str, nothing: bool) -> Finding {
    Finding::of(type_, nothing.then(|| (reason, format!("the selector terms match no {what}"))))
}

/// User data that can't be merged, or is too long once it is.
fn user_data_error(class: &Ec2NodeClass, cluster: &ClusterSettings) -> Option<FieldError> {
    let family = class.spec.family()?;
    let reason = match user_data(&class.spec, family, &NodeRegistration::default(), cluster) {
        Err(error) => error.to_string(),
        Ok(merged) if merged.len() > USER_DATA_LIMIT => {
            let length = merged.len();
            format!("merged {length} bytes long, longer than EC2's limit of {USER_DATA_LIMIT}")
        }
        Ok(_) => return None,
    };
    Some(FieldError { field: "spec.userData".to_owned(), reason })
}

fn validation(errors: &[FieldError]) -> Finding {
    let message = || errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let reason = if errors.iter().any(|error| error.field.starts_with("spec.kubelet")) {
        "InvalidKubeletConfiguration"
    } else if errors.iter().any(|error| error.reason.contains("EC2's limit")) {
        "UserDataSizeLimitExceeded"
    } else {
        "UnsupportedConfiguration"
    };
    Finding::of("ValidationSucceeded", (!errors.is_empty()).then(|| (reason, message())))
}

/// Ready is all the others.
fn ready(findings: &[Finding]) -> Finding {
    let not_true = |finding: &&Finding| finding.status != ConditionStatus::True;
    let mut ready = Finding::of("Ready", None);
    if let Some(first) = findings.iter().find(not_true) {
        let any_false = findings.iter().any(|finding| finding.status == ConditionStatus::False);
        ready.status = if any_false { ConditionStatus::False } else { ConditionStatus::Unknown };
        ready.reason.clone_from(&first.reason);
        ready.message = findings
            .iter()
            .filter(not_true)
            .map(|finding| format!("{} is not true: {}", finding.type_, finding.message))
            .collect::<Vec<_>>()
            .join("; ");
    }
    ready
}
