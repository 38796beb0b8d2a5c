//! Answers that come late.

use drover_common::call::{Call, Kind, KubernetesCall, Outcome, Target};
use drover_common::id::NodeClaimName;
use serde_json::json;

use super::super::calls::CallKey;
use super::super::*;
use super::rig::*;

/// Has a write of a NodeClaim under way, whose answer is yet to come.
fn under_way(rig: &mut Rig, name: &str) -> CallKey {
    let key = CallKey::PatchClaimStatus(NodeClaimName::from(name));
    let target = Target::cluster(Kind::NodeClaim, name.to_owned());
    let patch = KubernetesCall::MergePatch { target, status: true, patch: json!({}) };
    let now = rig.world.now;
    assert!(rig.control.calls.call(key.clone(), Call::Kubernetes(patch), now));
    let _the_rig_must_not_answer_it = rig.control.calls.take_effects();
    key
}

#[test]
fn an_answer_that_comes_after_newer_news_is_no_news() {
    let mut rig = Rig::new();
    rig.world.add_pods("web", 1, 800);
    rig.run(10);
    let before = rig.world.list(Kind::NodeClaim)[0].clone();
    let name = before["metadata"]["name"].as_str().unwrap().to_owned();
    rig.world.remove_pods("web");
    let deleted = |rig: &Rig| {
        rig.world.list(Kind::NodeClaim)[0].pointer("/metadata/deletionTimestamp").is_some()
    };
    for _ in 0..120 {
        rig.run(1);
        if deleted(&rig) {
            break;
        }
    }
    assert!(deleted(&rig), "its NodeClaim is being deleted");
    // What an earlier write returned comes last, and nothing about the NodeClaim is watched after it.
    let key = under_way(&mut rig, &name);
    rig.step(Input::Answer { key, outcome: Outcome::Kubernetes(Ok(before)) });
    let known = &rig.control.view.claims()[&NodeClaimName::from(name.as_str())];
    assert!(known.metadata.deletion_timestamp.is_some(), "what was watched since is kept");
    rig.run(120);
    assert_eq!(rig.world.list(Kind::NodeClaim).len(), 0);
    rig.check_settled();
}
