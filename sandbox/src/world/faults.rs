//! What goes wrong on purpose: errors, delays, answers that are lost, cut off or slow, and hangs, per face and operation.

use serde::{Deserialize, Serialize};

use super::failure::ApiFailure;
use super::random::Random;

mod flag;

pub use flag::FaultError;

/// Which face a fault applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Face {
    /// The Kubernetes API.
    Kubernetes,
    /// EC2.
    Ec2,
    /// SSM.
    Ssm,
    /// Pricing.
    Pricing,
    /// SQS.
    Sqs,
    /// The instances' metadata service.
    Imds,
    /// The nodes' kubelets.
    Kubelet,
}

impl Face {
    /// All of them.
    pub const ALL: [Face; 7] = [
        Face::Kubernetes,
        Face::Ec2,
        Face::Ssm,
        Face::Pricing,
        Face::Sqs,
        Face::Imds,
        Face::Kubelet,
    ];

    /// Its name in commands and flags.
    pub fn as_str(self) -> &'static str {
        match self {
            Face::Kubernetes => "kubernetes",
            Face::Ec2 => "ec2",
            Face::Ssm => "ssm",
            Face::Pricing => "pricing",
            Face::Sqs => "sqs",
            Face::Imds => "imds",
            Face::Kubelet => "kubelet",
        }
    }
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum FaultEffect {
    /// It is refused; nothing is done.
    Error {
        /// HTTP status.
        status: u16,
        /// The protocol's error code or reason (`RequestLimitExceeded`, `InternalError`, …).
        code: String,
        /// The message that goes with it.
        #[serde(default)]
        message: String,
    },
    /// It is done, after a wait.
    Delay {
        /// The wait.
        milliseconds: u64,
    },
    /// It is done at once, but the answer comes late.
    DelayAnswer {
        /// The wait.
        milliseconds: u64,
    },
    /// It is done, but the answer is lost: the connection closes.
    LostAnswer,
    /// It is done, but the answer's body ends in its middle, and looks as if it were whole. (A watch's has no middle:
    /// nothing of it comes.)
    CutBody,
    /// It is done and the answer begins at once, but its body comes bit by bit. (A watch's does not come.)
    SlowBody {
        /// Until the body is there.
        milliseconds: u64,
    },
    /// It is not done, and no answer ever comes.
    Hang,
}

/// The code of an error that is a conflict about a PodDisruptionBudget, as only evictions meet it.
pub const CONTENDED_BUDGET: &str = "ContendedBudget";

/// One fault.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fault {
    /// Where.
    pub face: Face,
    /// The operation it strikes: an action (`CreateFleet`) or `verb resource` (`create pods`,
    /// `patch nodes/status`, `create pods/eviction`), with `*` for any text; every one if empty.
    #[serde(default)]
    pub operation: String,
    /// What happens.
    pub effect: FaultEffect,
    /// The part of matching requests that are struck; all if absent.
    #[serde(default = "always")]
    pub probability: f64,
    /// How many requests it strikes before it is used up; no end if absent.
    #[serde(default)]
    pub remaining: Option<u64>,
}

fn always() -> f64 {
    1.0
}

/// The faults in force, in the order they were put in; the first that strikes decides.
#[derive(Clone, Debug)]
pub struct Faults {
    rules: Vec<(u64, Fault)>,
    next_id: u64,
    random: Random,
}

impl Faults {
    /// No faults.
    pub fn new(random: Random) -> Self {
        Self { rules: Vec::new(), next_id: 1, random }
    }

    /// Puts a fault in force; its id takes it away again.
    pub fn add(&mut self, fault: Fault) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.rules.push((id, fault));
        id
    }

    /// Takes a fault away; false if there is none of that id.
    pub fn remove(&mut self, id: u64) -> bool {
        let before = self.rules.len();
        self.rules.retain(|(rule, _)| *rule != id);
        self.rules.len() != before
    }

    /// Takes all faults away.
    pub fn clear(&mut self) {
        self.rules.clear();
    }

    /// The faults in force with their ids.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Fault)> {
        self.rules.iter().map(|(id, fault)| (*id, fault))
    }

    /// What happens to this request, if a fault strikes it.
    pub fn strike(&mut self, face: Face, operation: &str) -> Option<FaultEffect> {
        self.strike_with(face, operation, |_| true)
    }

    /// What refuses an eviction in process, if a fault does; the others are the wire's.
    pub fn refuse_eviction(&mut self) -> Option<Box<ApiFailure>> {
        let is_error = |effect: &FaultEffect| matches!(effect, FaultEffect::Error { .. });
        match self.strike_with(Face::Kubernetes, "create pods/eviction", is_error)? {
            FaultEffect::Error { status, code, message } => {
                Some(self.refusal(status, &code, &message))
            }
            _ => None,
        }
    }

    fn strike_with(
        &mut self,
        face: Face,
        operation: &str,
        takes: impl Fn(&FaultEffect) -> bool,
    ) -> Option<FaultEffect> {
        let struck = self.rules.iter_mut().find(|(_, fault)| {
            fault.face == face
                && takes(&fault.effect)
                && (fault.operation.is_empty() || matches_pattern(&fault.operation, operation))
                && fault.remaining != Some(0)
                && self.random.chance(fault.probability)
        })?;
        if let Some(remaining) = &mut struck.1.remaining {
            *remaining -= 1;
        }
        let effect = struck.1.effect.clone();
        self.rules.retain(|(_, fault)| fault.remaining != Some(0));
        Some(effect)
    }

    /// An error as the Kubernetes API puts it. Of too many requests it asks for 1 to 32 s, as one does under load.
    pub fn refusal(&mut self, status: u16, code: &str, message: &str) -> Box<ApiFailure> {
        if code == CONTENDED_BUDGET {
            return ApiFailure::contended_budget("contended");
        }
        let mut failure = ApiFailure::injected(status, code, message);
        if status == 429 {
            failure.retry_after_seconds = u32::try_from(self.random.below(32) + 1).ok();
        }
        failure
    }
}

/// Whether a text matches a pattern in which `*` stands for any text.
fn matches_pattern(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((prefix, rest)) => text.strip_prefix(prefix).is_some_and(|tail| {
            tail.char_indices()
                .map(|(index, _)| index)
                .chain([tail.len()])
                .any(|index| tail.get(index..).is_some_and(|tail| matches_pattern(rest, tail)))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_requests_are_to_be_tried_again_sooner_or_later() {
        let mut faults = Faults::new(Random::new(1));
        let mut asked = || faults.refusal(429, "TooManyRequests", "").retry_after_seconds;
        let seconds: std::collections::BTreeSet<_> = (0..1_000).map(|_| asked()).collect();
        assert_eq!(seconds, (1..=32).map(Some).collect());
        assert_eq!(faults.refusal(503, "ServiceUnavailable", "").retry_after_seconds, None);
    }

    #[test]
    fn a_fault_strikes_what_it_names_until_it_is_used_up() {
        let mut faults = Faults::new(Random::new(1));
        let fault = Fault {
            face: Face::Kubernetes,
            operation: "* pods*".to_owned(),
            effect: FaultEffect::Hang,
            probability: 1.0,
            remaining: Some(2),
        };
        faults.add(fault);
        assert_eq!(faults.strike(Face::Kubernetes, "get nodes"), None);
        assert_eq!(faults.strike(Face::Ec2, "get pods"), None);
        assert_eq!(faults.strike(Face::Kubernetes, "get pods"), Some(FaultEffect::Hang));
        assert_eq!(
            faults.strike(Face::Kubernetes, "create pods/eviction"),
            Some(FaultEffect::Hang)
        );
        assert_eq!(faults.strike(Face::Kubernetes, "get pods"), None);
        assert_eq!(faults.iter().count(), 0);
    }
}
