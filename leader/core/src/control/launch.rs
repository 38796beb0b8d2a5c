//! Carrying out intents: NodeClaims, launch template, fleet, record.
//!
//! Whoever did not create an intent in this very reign asks EC2 for its instances first. Where an
//! attempt's outcome is unknown, EC2 is asked, too, and the same bytes are sent again, for 15 minutes
//! at most; afterwards EC2 is only asked. A launch is recorded as failed only if EC2 refused the only
//! attempt there was, or showed twice, a minute apart, that nothing came of it.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::call::{Call, Kind, KubernetesCall, KubernetesFailureKind, Outcome, Target};
use drover_common::ec2::{
    Ec2Answer, Ec2Call, Ec2FailureKind, FleetAnswer, FleetError, Instance, InstanceQuery,
    LaunchedInstance, Tags,
};
use drover_common::id::{InstanceId, IntentId, NodeClaimName};
use drover_common::instance_type::CapacityType;
use drover_common::labels;
use jiff::Timestamp;

use super::Control;
use super::by_hand::Mark;
use super::calls::CallKey;
use super::intent::intent_tags;
use crate::command::{Change, ClaimInstance, ClaimLaunch, LaunchIntent, UnavailableOffering};
use crate::state::{Stage, State};

/// The code of a launch whose NodeClaim is gone.
const CLAIM_DELETED: &str = "NodeClaimDeleted";
/// The code of a launch whose NodeClaim Kubernetes refuses.
const CLAIM_REFUSED: &str = "NodeClaimRefused";
/// Codes of launches that EC2 was never asked for: they say nothing of what it has.
const NOT_OF_EC2: [&str; 2] = [CLAIM_DELETED, CLAIM_REFUSED];

/// What this leader knows of the intents under way, and of single instances.
#[derive(Clone, Debug, Default)]
pub(super) struct Launches {
    progress: BTreeMap<IntentId, Progress>,
    tagged: BTreeSet<InstanceId>,
    terminated: BTreeMap<InstanceId, Timestamp>,
}

/// How far one intent is.
#[derive(Clone, Debug, Default)]
struct Progress {
    /// EC2 has to be asked before anything else is done.
    must_describe: bool,
    /// An attempt may have launched something that no answer told of.
    uncertain: bool,
    /// Instances that bear the intent's tag.
    found: Vec<Instance>,
    /// The first of the reads in a row that found nothing, since the last attempt.
    empty_since: Option<Timestamp>,
    described_at: Option<Timestamp>,
    template_ready: bool,
    /// EC2 or Kubernetes refuses it for good.
    refused: Option<FleetError>,
    answer: Option<FleetAnswer>,
}

impl Launches {
    /// An intent that this leader has just proposed: nobody can have tried it.
    pub(super) fn begin(&mut self, intent: &IntentId) {
        self.progress.insert(intent.clone(), Progress::default());
    }

    pub(super) fn note_tagged(&mut self, instance: InstanceId) {
        self.tagged.insert(instance);
    }

    pub(super) fn note_terminated(&mut self, instance: InstanceId, now: Timestamp) {
        self.terminated.insert(instance, now);
    }

    /// When EC2 last took a terminate of this instance from this leader.
    pub(super) fn terminated_at(&self, instance: &InstanceId) -> Option<Timestamp> {
        self.terminated.get(instance).copied()
    }

    fn of(&mut self, intent: &IntentId) -> &mut Progress {
        self.progress.entry(intent.clone()).or_insert_with(|| Progress {
            must_describe: true,
            uncertain: true,
            ..Progress::default()
        })
    }
}

/// The next thing to do for an intent.
enum Step {
    Describe,
    CreateClaims(Vec<usize>),
    /// Mark a claim made by hand as launched by this intent.
    MarkClaim(serde_json::Value),
    /// The claim made by hand is gone or going: nothing is launched for it.
    GiveUp,
    CreateTemplate,
    Launch,
    Record(FleetAnswer),
    Wait,
}

impl Control {
    pub(super) fn execute_launches(&mut self, state: &State, now: Timestamp) {
        for (id, intent) in &state.intents {
            match self.next_step(intent, now) {
                Step::Describe => {
                    let query = InstanceQuery { instances: Vec::new(), tags: intent_tags(id) };
                    let call = Call::Ec2(Ec2Call::DescribeInstances(query));
                    self.calls.call(CallKey::DescribeIntent(id.clone()), call, now);
                }
                // The template launches nothing, and EC2 takes its time to make it.
                Step::CreateClaims(missing) => {
                    self.create_claims(intent, &missing, now);
                    self.create_template(intent, now);
                }
                Step::MarkClaim(patch) => {
                    if let Some(name) = intent.claims.first().map(|plan| &plan.name) {
                        let key = CallKey::PatchClaim(name.clone());
                        self.patch_claim(name, key, false, patch, now);
                    }
                }
                Step::GiveUp => {
                    self.launches.of(id).refused = Some(FleetError {
                        code: CLAIM_DELETED.to_owned(),
                        message: "the NodeClaim was deleted before its launch".to_owned(),
                        instance_type: None,
                        zone: None,
                    });
                }
                Step::CreateTemplate => self.create_template(intent, now),
                Step::Launch => {
                    let call = Call::Ec2(Ec2Call::CreateFleet(intent.request.clone()));
                    self.calls.call(CallKey::Launch(id.clone()), call, now);
                }
                Step::Record(answer) => {
                    let change = self.outcome_of(intent, &answer, now);
                    self.note_outcome(intent, &change, now);
                    self.propose(change, now);
                    self.tell_failed_launch(intent, &answer, now);
                }
                Step::Wait => {}
            }
        }
        self.launches.progress.retain(|id, progress| {
            state.intents.contains_key(id)
                || (progress.answer.is_none() && !state.closed_intents.contains_key(id))
        });
        self.tag_instances(state, now);
    }

    fn next_step(&mut self, intent: &LaunchIntent, now: Timestamp) -> Step {
        let replay_ends =
            intent.created_at.checked_add(self.settings.replay_for).unwrap_or(Timestamp::MAX);
        let proof = self.settings.absence_interval;
        let claims_first = self.claims_first(intent);
        let progress = self.launches.of(&intent.id);
        if let Some(answer) = &progress.answer {
            return Step::Record(answer.clone());
        }
        if progress.must_describe {
            return Step::Describe;
        }
        if progress.found.len() >= intent.claims.len() {
            return Step::Record(answer_of(&progress.found));
        }
        let proven_empty = progress
            .empty_since
            .zip(progress.described_at)
            .is_some_and(|(first, last)| last.duration_since(first) >= proof);
        let refused = progress.refused.clone();
        if refused.is_some() || now >= replay_ends {
            if !progress.found.is_empty() {
                return Step::Record(answer_of(&progress.found));
            }
            if proven_empty || (refused.is_some() && !progress.uncertain) {
                let error = refused.unwrap_or_else(|| FleetError {
                    code: "LaunchLost".to_owned(),
                    message: "EC2 shows no instance of this launch".to_owned(),
                    instance_type: None,
                    zone: None,
                });
                return Step::Record(FleetAnswer { instances: vec![], errors: vec![error] });
            }
            let waited = progress.described_at.is_none_or(|at| now.duration_since(at) >= proof);
            return if waited { Step::Describe } else { Step::Wait };
        }
        if let Some(step) = claims_first {
            return step;
        }
        if progress.template_ready { Step::Launch } else { Step::CreateTemplate }
    }

    /// What the NodeClaims need before EC2 is asked.
    fn claims_first(&self, intent: &LaunchIntent) -> Option<Step> {
        if intent.nodepool.is_none() {
            return match self.mark_of(intent) {
                Mark::Made => None,
                Mark::Missing(patch) => Some(Step::MarkClaim(patch)),
                Mark::Void => Some(Step::GiveUp),
            };
        }
        let missing: Vec<usize> = (0..intent.claims.len())
            .filter(|position| {
                let plan = intent.claims.get(*position);
                plan.is_some_and(|plan| !self.view.claims().contains_key(&plan.name))
            })
            .collect();
        (!missing.is_empty()).then_some(Step::CreateClaims(missing))
    }

    fn create_claims(&mut self, intent: &LaunchIntent, missing: &[usize], now: Timestamp) {
        for plan in missing.iter().filter_map(|position| intent.claims.get(*position)) {
            let call = Call::Kubernetes(KubernetesCall::Create {
                target: Target::cluster(Kind::NodeClaim, plan.name.to_string()),
                object: plan.object.clone(),
            });
            self.calls.call(CallKey::CreateClaim(plan.name.clone()), call, now);
        }
    }

    fn create_template(&mut self, intent: &LaunchIntent, now: Timestamp) {
        if !self.launches.of(&intent.id).template_ready {
            let call = Call::Ec2(Ec2Call::CreateLaunchTemplate(intent.launch_template.clone()));
            self.calls.call(CallKey::CreateLaunchTemplate(intent.id.clone()), call, now);
        }
    }

    pub(super) fn take_claim_created(
        &mut self,
        state: &State,
        claim: &NodeClaimName,
        outcome: &Outcome,
    ) {
        let Outcome::Kubernetes(Err(failure)) = outcome else { return };
        if failure.kind != KubernetesFailureKind::Invalid {
            return;
        }
        let intent = state.claims.get(claim).and_then(|claim| claim.intent.as_ref());
        if let Some(intent) = intent.filter(|id| state.intents.contains_key(id)) {
            self.launches.of(intent).refused = Some(FleetError {
                code: CLAIM_REFUSED.to_owned(),
                message: format!("NodeClaim {claim}: {}", failure.message),
                instance_type: None,
                zone: None,
            });
        }
    }

    pub(super) fn take_intent_read(&mut self, id: &IntentId, outcome: Outcome, now: Timestamp) {
        let Outcome::Ec2(Ok(Ec2Answer::Instances(read))) = outcome else { return };
        let uid = self.cluster_uid();
        let mut found: Vec<Instance> = read
            .into_iter()
            .filter(|instance| instance.tags.get(labels::CLUSTER_UID_TAG) == uid.as_ref())
            .collect();
        found.sort_by(|left, right| left.instance.cmp(&right.instance));
        let progress = self.launches.of(id);
        progress.must_describe = false;
        progress.described_at = Some(now);
        if found.is_empty() {
            progress.empty_since.get_or_insert(now);
        } else {
            progress.empty_since = None;
        }
        progress.found = found;
    }

    pub(super) fn take_template(&mut self, id: &IntentId, outcome: &Outcome) {
        match outcome {
            Outcome::Ec2(Ok(_)) => self.launches.of(id).template_ready = true,
            Outcome::Ec2(Err(failure)) if failure.kind == Ec2FailureKind::Invalid => {
                self.launches.of(id).refused = Some(FleetError {
                    code: failure.code.clone(),
                    message: failure.message.clone(),
                    instance_type: None,
                    zone: None,
                });
            }
            _ => {}
        }
    }

    pub(super) fn take_fleet(&mut self, id: &IntentId, outcome: Outcome) {
        let progress = self.launches.of(id);
        match outcome {
            Outcome::Ec2(Ok(Ec2Answer::Fleet(answer))) => progress.answer = Some(answer),
            Outcome::Ec2(Err(failure)) => match failure.kind {
                Ec2FailureKind::Throttled | Ec2FailureKind::Unauthorized => {}
                // The template may have been swept; EC2 did nothing.
                Ec2FailureKind::NotFound => progress.template_ready = false,
                Ec2FailureKind::Invalid
                | Ec2FailureKind::Unsupported
                | Ec2FailureKind::TokenMismatch => {
                    // A token that was used with other bytes means that something was sent that
                    // this log does not know: only EC2's word ends it.
                    let mismatch = failure.kind == Ec2FailureKind::TokenMismatch;
                    progress.uncertain |= mismatch;
                    progress.must_describe |= progress.uncertain;
                    progress.refused = Some(FleetError {
                        code: failure.code,
                        message: failure.message,
                        instance_type: None,
                        zone: None,
                    });
                }
                Ec2FailureKind::Unknown => {
                    progress.uncertain = true;
                    progress.must_describe = true;
                    progress.empty_since = None;
                }
            },
            Outcome::Ec2(Ok(_)) | Outcome::Kubernetes(_) => {
                progress.uncertain = true;
                progress.must_describe = true;
                progress.empty_since = None;
            }
        }
    }

    /// The record of what EC2 answered: instances to claims in order.
    fn outcome_of(&self, intent: &LaunchIntent, answer: &FleetAnswer, now: Timestamp) -> Change {
        let until = now.checked_add(self.settings.unavailable_for).unwrap_or(now);
        let unavailable = unavailable_offerings(intent, &answer.errors, until);
        let launched: Vec<ClaimLaunch> = intent
            .claims
            .iter()
            .zip(&answer.instances)
            .map(|(plan, instance)| ClaimLaunch {
                claim: plan.name.clone(),
                hourly_price_micro: self.discovery.price(
                    &intent.nodeclass,
                    &instance.instance_type,
                    &instance.zone,
                    instance.capacity_type,
                ),
                instance: ClaimInstance {
                    id: instance.instance.clone(),
                    instance_type: instance.instance_type.clone(),
                    zone: instance.zone.clone(),
                    subnet: instance.subnet.clone(),
                    capacity_type: instance.capacity_type,
                    reservation: intent
                        .reservation()
                        .filter(|_| instance.capacity_type == CapacityType::Reserved)
                        .map(|target| target.id.clone()),
                    image: image_of(intent, instance),
                },
            })
            .collect();
        let errors = answer.errors.clone();
        let intent = intent.id.clone();
        if launched.is_empty() {
            Change::RecordLaunchFailed { intent, errors, unavailable }
        } else {
            Change::RecordLaunched { intent, launched, unavailable, errors }
        }
    }

    fn tell_failed_launch(&mut self, intent: &LaunchIntent, answer: &FleetAnswer, now: Timestamp) {
        let Some(error) = answer.errors.first() else { return };
        for plan in intent.claims.iter().skip(answer.instances.len()) {
            let reason =
                if error.is_unfulfillable() { "InsufficientCapacityError" } else { "LaunchFailed" };
            let note = format!("NodeClaim was not launched, {}: {}", error.code, error.message);
            self.claim_event(&plan.name, reason, &note, true, now);
        }
    }

    /// Karpenter's tags that name an instance's claim; known only after the launch.
    fn tag_instances(&mut self, state: &State, now: Timestamp) {
        if !self.cloud.is_read() {
            return;
        }
        for (name, claim) in &state.claims {
            let Some(instance) = &claim.instance else { continue };
            if claim.stage >= Stage::Terminating || self.launches.tagged.contains(&instance.id) {
                continue;
            }
            let call = Call::Ec2(Ec2Call::CreateTags {
                instances: vec![instance.id.clone()],
                tags: Tags::from([
                    (labels::NODECLAIM_TAG.to_owned(), name.to_string()),
                    ("Name".to_owned(), name_tag(claim, name)),
                ]),
            });
            self.calls.call(CallKey::TagInstance(instance.id.clone()), call, now);
        }
    }

    /// Instances that a read shows with their claim's tag need none.
    pub(super) fn note_tagged(&mut self, state: &State) {
        for (id, name) in &state.instances {
            let tag = self.cloud.get(id).and_then(|i| i.tags.get(labels::NODECLAIM_TAG));
            if tag.is_some_and(|tag| tag == name.as_str()) {
                self.launches.tagged.insert(id.clone());
            }
        }
        self.launches.tagged.retain(|id| state.instances.contains_key(id));
        self.launches.terminated.retain(|id, _| state.terminations.contains_key(id));
    }
}

/// Karpenter's `Name` tag: pool and node, or the claim until the node is known.
fn name_tag(claim: &crate::state::ClaimRecord, name: &NodeClaimName) -> String {
    let pool = claim.nodepool.as_ref().map_or("", |pool| pool.as_str());
    format!("{pool}/{name}")
}

fn answer_of(found: &[Instance]) -> FleetAnswer {
    let instances = found
        .iter()
        .map(|instance| LaunchedInstance {
            instance: instance.instance.clone(),
            instance_type: instance.instance_type.clone(),
            zone: instance.zone.clone(),
            subnet: instance.subnet.clone(),
            capacity_type: instance.capacity_type,
        })
        .collect();
    FleetAnswer { instances, errors: Vec::new() }
}

fn image_of(intent: &LaunchIntent, instance: &LaunchedInstance) -> String {
    intent
        .request
        .overrides
        .iter()
        .find(|o| o.instance_type == instance.instance_type && o.zone == instance.zone)
        .and_then(|o| o.image.clone())
        .unwrap_or_else(|| intent.launch_template.image.clone())
}

/// The offerings that EC2's errors speak of. An error without a type or zone speaks of every
/// override that it does not exclude. A reservation is left alone whatever EC2 says: it is the first
/// choice, and would be so again and again.
fn unavailable_offerings(
    intent: &LaunchIntent,
    errors: &[FleetError],
    until: Timestamp,
) -> Vec<UnavailableOffering> {
    let target = intent.reservation();
    let is_of_reservation =
        |error: &FleetError| target.is_some() && !NOT_OF_EC2.contains(&error.code.as_str());
    let offerings: BTreeSet<UnavailableOffering> = errors
        .iter()
        .filter(|error| error.is_unfulfillable() || is_of_reservation(error))
        .flat_map(|error| {
            intent.request.overrides.iter().filter(|o| {
                error.instance_type.as_ref().is_none_or(|t| *t == o.instance_type)
                    && error.zone.as_ref().is_none_or(|z| *z == o.zone)
            })
        })
        .map(|o| UnavailableOffering {
            instance_type: o.instance_type.clone(),
            zone: o.zone.clone(),
            capacity_type: intent.request.capacity_type,
            reservation: target.map(|target| target.id.clone()),
            until,
        })
        .collect();
    offerings.into_iter().collect()
}
