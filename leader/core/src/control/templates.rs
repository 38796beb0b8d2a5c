//! Launch templates that no launch needs any more. A launch makes the one it names if it is not
//! there, so one that is deleted too early costs a call, and one that is left costs the account's
//! limit of templates.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::call::{Call, Outcome};
use drover_common::ec2::{Ec2Answer, Ec2Call, Ec2Failure, Ec2FailureKind, LaunchTemplate, Tags};
use drover_common::labels;
use jiff::Timestamp;

use super::Control;
use super::calls::CallKey;
use crate::nodeclass::TEMPLATE_PREFIX;
use crate::state::State;

/// The cluster's launch templates as EC2 last showed them.
#[derive(Clone, Debug, Default)]
pub(super) struct Templates {
    shown: BTreeMap<String, LaunchTemplate>,
    asked_at: Option<Timestamp>,
    /// Since when this leader has seen no open launch that names them.
    unused_since: BTreeMap<String, Timestamp>,
}

impl Control {
    /// Reads the cluster's templates now and then, and deletes those that are neither young nor were
    /// named by a launch lately.
    pub(super) fn sweep_templates(&mut self, state: &State, now: Timestamp) {
        let Some(uid) = self.cluster_uid() else { return };
        let used: BTreeSet<&str> =
            state.intents.values().map(|intent| intent.launch_template.name.as_str()).collect();
        let memory = &mut self.templates;
        memory
            .unused_since
            .retain(|name, _| !used.contains(name.as_str()) && memory.shown.contains_key(name));
        let patience = self.settings.template_patience;
        let mut swept = Vec::new();
        for (name, template) in &memory.shown {
            if used.contains(name.as_str()) {
                continue;
            }
            let since = *memory.unused_since.entry(name.clone()).or_insert(now);
            let begun = since.max(template.created_at);
            if now.duration_since(begun) >= patience {
                swept.push(name.clone());
            }
        }
        for name in swept {
            let call = Call::Ec2(Ec2Call::DeleteLaunchTemplate(name.clone()));
            self.calls.call(CallKey::DeleteLaunchTemplate(name), call, now);
        }
        let asked = self.templates.asked_at;
        if asked.is_none_or(|at| now.duration_since(at) >= patience) {
            let tags = Tags::from([(labels::CLUSTER_UID_TAG.to_owned(), uid)]);
            let call = Call::Ec2(Ec2Call::DescribeLaunchTemplates(tags));
            if self.calls.call(CallKey::DescribeLaunchTemplates, call, now) {
                self.templates.asked_at = Some(now);
            }
        }
    }

    /// Templates that bear the cluster's uid and a name of our making; others are nobody's to sweep.
    pub(super) fn take_templates(&mut self, outcome: Outcome) {
        let Outcome::Ec2(Ok(Ec2Answer::LaunchTemplates(read))) = outcome else { return };
        let uid = self.cluster_uid();
        self.templates.shown = read
            .into_iter()
            .filter(|template| {
                template.tags.get(labels::CLUSTER_UID_TAG) == uid.as_ref()
                    && template.name.starts_with(TEMPLATE_PREFIX)
            })
            .map(|template| (template.name.clone(), template))
            .collect();
    }

    pub(super) fn take_template_deleted(&mut self, name: &str, outcome: &Outcome) {
        let gone = match outcome {
            Outcome::Ec2(Err(Ec2Failure { kind, .. })) => *kind == Ec2FailureKind::NotFound,
            Outcome::Ec2(Ok(_)) => true,
            Outcome::Kubernetes(_) => false,
        };
        if gone {
            self.templates.shown.remove(name);
        }
    }
}
