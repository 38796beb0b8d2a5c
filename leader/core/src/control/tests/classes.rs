//! Classes that no node is to be launched by.

use drover_common::call::Kind;
use serde_json::json;

use super::rig::*;

#[test]
fn nothing_is_launched_by_a_class_that_is_being_deleted() {
    let mut rig = Rig::new();
    rig.world.add_pods("web", 1, 1_500);
    rig.run(10);
    assert!(rig.world.delete_named(Kind::Ec2NodeClass, "default"));
    rig.world.add_pods("more", 1, 1_500);
    rig.world.add_claim_by_hand("own", &json!({}));
    rig.run(60);
    assert_eq!((rig.world.instances.len(), rig.world.running_pods()), (1, 1));
    let status = rig.control.status(&rig.state, rig.world.now);
    let reason = "NodePool general: EC2NodeClass default is being deleted".to_owned();
    assert_eq!(status.unschedulable, [("default/more-0".to_owned(), vec![reason])]);
    let claims = rig.world.list(Kind::NodeClaim);
    let own = claims.iter().find(|claim| claim["metadata"]["name"] == "own").unwrap();
    assert!(own.to_string().contains("EC2NodeClass default is being deleted"), "{own}");
    rig.world.delete_named(Kind::NodeClaim, "own");
    rig.world.remove_pods("more");
    rig.world.remove_pods("web");
    rig.run(120);
    assert!(rig.world.list(Kind::Ec2NodeClass).is_empty(), "its last node is gone, and so is it");
}
