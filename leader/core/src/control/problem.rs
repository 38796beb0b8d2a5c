//! What is wrong for now, told under `problems` of `/v1/status`. Each goes once it is mended, once what it is
//! about is gone, or once nobody meets it any more.

use std::collections::BTreeMap;
use std::fmt;

use drover_common::id::NodePoolName;
use jiff::{SignedDuration, Timestamp};

use super::calls::CallKey;
use super::{Control, PlanPurpose};
use crate::state::State;

/// What keeps nodes from being made is met again at each try; what was not for this long is over: there is
/// nothing to be made any more.
const TOLD_FOR: SignedDuration = SignedDuration::from_mins(10);

/// A call that failed so often in a row is a problem. A first conflict or lost connection is everyday life.
const FAILURES_TOLD: u32 = 3;

/// What a problem is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    /// A call that fails.
    Call(CallKey),
    /// A read of AWS that is not offered, by the call's words.
    Read(String),
    /// NodeClaims that the log does not know.
    Adoption,
    /// Launches of a pool.
    Launches(NodePoolName),
    /// Replacements for nodes, in a pool.
    Replacements(NodePoolName),
    /// Nodes that a static pool lacks.
    StaticNodes(NodePoolName),
    /// A pool that no node can be made of.
    NodePool(NodePoolName),
    /// A pool's policy on recommendations.
    Recommendations(NodePoolName),
    /// Plans of one purpose.
    Plans(PlanPurpose),
    /// Messages of the interruption queue.
    QueueMessages,
}

impl Subject {
    fn pool(&self) -> Option<&NodePoolName> {
        match self {
            Self::Launches(pool)
            | Self::Replacements(pool)
            | Self::StaticNodes(pool)
            | Self::NodePool(pool)
            | Self::Recommendations(pool)
            | Self::Call(CallKey::PatchPoolStatus(pool)) => Some(pool),
            Self::Call(_)
            | Self::Read(_)
            | Self::Adoption
            | Self::Plans(_)
            | Self::QueueMessages => None,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(key) => write!(f, "{}", words_of(key)),
            Self::Read(what) => write!(f, "{what}"),
            Self::Adoption => write!(f, "adoption of NodeClaims"),
            Self::Launches(pool) => write!(f, "launches of NodePool {pool}"),
            Self::Replacements(pool) => write!(f, "replacements of NodePool {pool}"),
            Self::StaticNodes(pool) => write!(f, "nodes of static NodePool {pool}"),
            Self::NodePool(pool) => write!(f, "NodePool {pool}"),
            Self::Recommendations(pool) => write!(f, "recommendations of NodePool {pool}"),
            Self::Plans(purpose) => write!(f, "plans for {}", purpose.as_str()),
            Self::QueueMessages => write!(f, "messages of the interruption queue"),
        }
    }
}

#[derive(Clone, Debug)]
struct Problem {
    words: String,
    /// When it was met last.
    at: Timestamp,
    /// Whether it is that launches wait for something, and over with that.
    waits: bool,
}

/// All that is wrong for now.
#[derive(Clone, Debug, Default)]
pub(super) struct Problems(BTreeMap<Subject, Problem>);

impl Problems {
    pub(super) fn tell(&mut self, subject: Subject, words: impl Into<String>, now: Timestamp) {
        self.0.insert(subject, Problem { words: words.into(), at: now, waits: false });
    }

    /// Nothing is launched for a pool for a while.
    pub(super) fn tell_wait(&mut self, pool: &NodePoolName, words: String, now: Timestamp) {
        self.0.insert(Subject::Launches(pool.clone()), Problem { words, at: now, waits: true });
    }

    pub(super) fn mended(&mut self, subject: &Subject) {
        self.0.remove(subject);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// In words, by what they are about.
    pub(super) fn in_words(&self) -> BTreeMap<String, String> {
        let words =
            |(subject, problem): (&Subject, &Problem)| (subject.to_string(), problem.words.clone());
        self.0.iter().map(words).collect()
    }
}

impl Control {
    /// A call failed, and not for the first time.
    pub(super) fn tell_failed_call(&mut self, key: &CallKey, words: String, now: Timestamp) {
        if self.calls.failures(key) >= FAILURES_TOLD {
            self.problems.tell(Subject::Call(key.clone()), words, now);
        }
    }

    /// Forgets what nothing would ever make well: what was told of NodePools that are gone, of calls that are
    /// not made any more, and of nodes that nobody wants to make any more.
    pub(super) fn forget_problems(&mut self, state: &State, now: Timestamp) {
        let mut problems = std::mem::take(&mut self.problems);
        problems.0.retain(|subject, problem| {
            if subject.pool().is_some_and(|pool| !self.view.pools().contains_key(pool)) {
                return false;
            }
            let lately = now.duration_since(problem.at) < TOLD_FOR;
            match subject {
                Subject::Call(key) => self.calls.failures(key) >= FAILURES_TOLD,
                // The last refusal is told until a launch succeeds.
                Subject::Launches(pool) if self.is_refused(pool) => true,
                Subject::Launches(pool) if problem.waits => {
                    self.launches_wait(state, pool, now).is_some()
                }
                Subject::Launches(_) => lately,
                Subject::Adoption | Subject::Replacements(_) | Subject::StaticNodes(_) => lately,
                Subject::Read(_)
                | Subject::NodePool(_)
                | Subject::Recommendations(_)
                | Subject::Plans(_)
                | Subject::QueueMessages => true,
            }
        });
        self.problems = problems;
    }
}

/// What a call is for.
fn words_of(key: &CallKey) -> String {
    match key {
        CallKey::Lease => "the lease".to_owned(),
        CallKey::Discover(what) => what.clone(),
        CallKey::DescribeInstances => "reading the cluster's instances".to_owned(),
        CallKey::ReceiveMessages => "reading the interruption queue".to_owned(),
        CallKey::DeleteMessages => "deleting messages of the interruption queue".to_owned(),
        CallKey::DescribeInstance(id) => format!("reading instance {id}"),
        CallKey::DescribeIntent(id) => format!("reading the instances of intent {id}"),
        CallKey::CreateLaunchTemplate(id) => format!("the launch template of intent {id}"),
        CallKey::Launch(id) => format!("the launch of intent {id}"),
        CallKey::DescribeLaunchTemplates => "reading the cluster's launch templates".to_owned(),
        CallKey::DeleteLaunchTemplate(name) => format!("deleting launch template {name}"),
        CallKey::TagInstance(id) => format!("tagging instance {id}"),
        CallKey::Terminate(id) => format!("terminating instance {id}"),
        CallKey::CreateClaim(name) => format!("creating NodeClaim {name}"),
        CallKey::ReadClaim(name) => format!("reading NodeClaim {name}"),
        CallKey::PatchClaim(name) => format!("patching NodeClaim {name}"),
        CallKey::PatchClaimStatus(name) => format!("the status of NodeClaim {name}"),
        CallKey::DeleteClaim(name) => format!("deleting NodeClaim {name}"),
        CallKey::PatchNode(name) => format!("patching Node {name}"),
        CallKey::DeleteNode(name) => format!("deleting Node {name}"),
        CallKey::Drain(claim, ..) => format!("draining the Node of NodeClaim {claim}"),
        CallKey::PatchPoolStatus(name) => format!("the status of NodePool {name}"),
        CallKey::PatchClass(name) => format!("patching EC2NodeClass {name}"),
        CallKey::PatchClassStatus(name) => format!("the status of EC2NodeClass {name}"),
        CallKey::PatchOverlayStatus(name) => format!("the status of NodeOverlay {name}"),
        CallKey::PatchBufferStatus(key) => format!("the status of CapacityBuffer {key}"),
        CallKey::Event(name) => format!("event {name}"),
    }
}
