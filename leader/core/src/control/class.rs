//! What is told on EC2NodeClasses: status, conditions, and the finalizer that keeps a class as long
//! as claims launch by it.

use drover_common::call::{Call, Kind, KubernetesCall, Target};
use drover_common::crd::{Ec2NodeClass, Ec2NodeClassStatus};
use drover_common::labels;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Control;
use super::calls::CallKey;

impl Control {
    pub(super) fn report_classes(&mut self, now: Timestamp) {
        let classes: Vec<(String, std::sync::Arc<Ec2NodeClass>)> =
            self.view.classes().iter().map(|(n, c)| (n.clone(), c.clone())).collect();
        for (name, class) in classes {
            self.report_class_status(&name, &class, now);
            if let Some(patch) = self.class_finalizer_patch(&name, &class) {
                let call = KubernetesCall::MergePatch {
                    target: Target::cluster(Kind::Ec2NodeClass, name.clone()),
                    status: false,
                    patch,
                };
                self.calls.call(CallKey::PatchClass(name), Call::Kubernetes(call), now);
            }
        }
    }

    fn report_class_status(&mut self, name: &str, class: &Ec2NodeClass, now: Timestamp) {
        let Some(resolved) = self.discovery.resolved(name) else { return };
        let wanted = resolved.status.get("status").cloned().unwrap_or(Value::Null);
        let Ok(wanted_status) = serde_json::from_value::<Ec2NodeClassStatus>(wanted) else {
            return;
        };
        if class.status.as_ref() == Some(&wanted_status) {
            return;
        }
        let call = KubernetesCall::MergePatch {
            target: Target::cluster(Kind::Ec2NodeClass, name.to_owned()),
            status: true,
            patch: resolved.status.clone(),
        };
        self.calls.call(CallKey::PatchClassStatus(name.to_owned()), Call::Kubernetes(call), now);
    }

    fn class_finalizer_patch(&self, name: &str, class: &Ec2NodeClass) -> Option<Value> {
        let mut finalizers = class.metadata.finalizers.clone().unwrap_or_default();
        let held = finalizers.iter().any(|f| f == labels::NODECLASS_FINALIZER);
        let deleting = class.metadata.deletion_timestamp.is_some();
        let in_use =
            self.view.claims().values().any(|claim| claim.spec.node_class_ref.name == name);
        if !deleting && !held {
            finalizers.push(labels::NODECLASS_FINALIZER.to_owned());
        } else if deleting && held && !in_use {
            finalizers.retain(|f| f != labels::NODECLASS_FINALIZER);
        } else {
            return None;
        }
        Some(json!({"metadata": {
            "finalizers": finalizers,
            "uid": class.metadata.uid,
            "resourceVersion": class.metadata.resource_version,
        }}))
    }
}
