//! The cloud's own books: what was launched for whom, which no driver can argue with.

use std::collections::BTreeMap;

use drover_common::ec2::FleetAnswer;
use drover_common::id::InstanceId;
use drover_common::labels;
use serde::Serialize;

use super::Cloud;

/// The books as a report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// Instances ever launched.
    pub launches: u64,
    /// Instances launched for an intent beyond what it asked for.
    pub repeated_launches: u64,
    /// Instances neither shutting down nor terminated.
    pub live: u64,
    /// Spot instances reclaimed at the end of a notice.
    pub interrupted: u64,
    /// Calls answered, refused ones included, by AWS's name.
    pub calls: BTreeMap<String, u64>,
    /// Calls refused by a token bucket.
    pub throttled: u64,
    /// Use of each client token.
    pub tokens: BTreeMap<String, TokenUse>,
    /// Client tokens that came with two different requests: a bug in the caller.
    pub token_mismatches: u64,
    /// The intents (by tag) of [`Self::repeated_launches`].
    pub launched_twice: Vec<String>,
    /// NodeClaims (by tag) borne by more than one live instance.
    pub claims_with_two_instances: Vec<String>,
    /// Live instances that bear no NodeClaim tag.
    pub without_claim: Vec<InstanceId>,
}

/// How often one client token was used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TokenUse {
    /// Requests under it.
    pub requests: u64,
    /// Instances asked for.
    pub wanted: u32,
    /// Instances launched.
    pub instances: Vec<InstanceId>,
    /// The intent in the request's tags.
    pub intent: Option<String>,
}

/// The running part of the books.
#[derive(Clone, Debug, Default)]
pub(super) struct Books {
    pub(super) calls: BTreeMap<String, u64>,
    pub(super) throttled: u64,
    pub(super) interrupted: u64,
    pub(super) launched: u64,
    pub(super) token_mismatches: u64,
    pub(super) tokens: BTreeMap<String, TokenUse>,
}

impl Books {
    pub(super) fn launched(
        &mut self,
        token: &str,
        wanted: u32,
        intent: Option<&String>,
        answer: &FleetAnswer,
    ) {
        let entry = self.tokens.entry(token.to_owned()).or_default();
        entry.wanted = wanted;
        entry.intent = intent.cloned();
        entry.instances.extend(answer.instances.iter().map(|launched| launched.instance.clone()));
        self.launched += answer.instances.len() as u64;
    }
}

impl Cloud {
    /// What was launched under which token, and what should not have been.
    pub fn audit(&self) -> Audit {
        let books = &self.books;
        let repeated = repeated_launches(&books.tokens);
        let mut audit = Audit {
            launches: books.launched,
            interrupted: books.interrupted,
            calls: books.calls.clone(),
            throttled: books.throttled,
            tokens: books.tokens.clone(),
            token_mismatches: books.token_mismatches,
            repeated_launches: repeated.values().sum(),
            launched_twice: repeated.into_keys().collect(),
            ..Audit::default()
        };
        let mut claims: BTreeMap<&str, u32> = BTreeMap::new();
        for instance in self.instances().filter(|instance| !instance.state.is_gone()) {
            audit.live += 1;
            match instance.tags.get(labels::NODECLAIM_TAG) {
                Some(claim) => *claims.entry(claim).or_default() += 1,
                None => audit.without_claim.push(instance.id.clone()),
            }
        }
        audit.claims_with_two_instances = claims
            .into_iter()
            .filter(|(_, count)| *count > 1)
            .map(|(claim, _)| claim.to_owned())
            .collect();
        audit
    }
}

/// For each intent under whose tokens more was launched than any one of its requests wanted: how
/// much more.
fn repeated_launches(tokens: &BTreeMap<String, TokenUse>) -> BTreeMap<String, u64> {
    let mut intents: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (token, used) in tokens {
        let intent = used.intent.as_deref().unwrap_or(token);
        let entry = intents.entry(intent).or_default();
        entry.0 += used.instances.len() as u64;
        entry.1 = entry.1.max(u64::from(used.wanted));
    }
    let more = intents
        .into_iter()
        .map(|(intent, (launched, wanted))| (intent.to_owned(), launched.saturating_sub(wanted)));
    more.filter(|(_, more)| *more > 0).collect()
}
