//! Instances that end before their Nodes join.

use drover_common::call::Kind;
use drover_common::ec2::InstanceState;
use drover_common::id::InstanceId;
use drover_common::protocol::NoticeKind;

use super::super::*;
use super::rig::*;
use crate::command::{Change, NoticeSource};

/// A pod whose node is on its way.
fn on_its_way() -> Rig {
    let mut rig = Rig::new();
    rig.boots = false;
    rig.world.add_pods("web", 1, 800);
    rig.run(3);
    assert_eq!(rig.world.running_instances().len(), 1);
    rig
}

/// EC2 ends all instances that it runs.
fn end_all(rig: &mut Rig) {
    let running = rig.world.running_instances().into_iter();
    let running = running.filter(|it| it.state == InstanceState::Running);
    let ids: Vec<InstanceId> = running.map(|it| it.instance.clone()).collect();
    ids.iter().for_each(|id| rig.world.end_instance(id));
}

fn failures(rig: &Rig) -> u32 {
    rig.state.pools.values().map(|health| health.failures).sum()
}

#[test]
fn instances_that_end_before_they_register_make_their_pool_back_off() {
    let mut rig = on_its_way();
    for _ in 0..600 {
        end_all(&mut rig);
        rig.run(1);
    }
    assert!(rig.world.fleets_asked <= 9, "{} in ten minutes", rig.world.fleets_asked);
    assert!(failures(&rig) >= 5, "{}", failures(&rig));
    let pool = rig.world.list(Kind::NodePool)[0].clone();
    let all = pool["status"]["conditions"].as_array().unwrap();
    let health = all.iter().find(|one| one["type"] == "NodeRegistrationHealthy").unwrap();
    assert_eq!(health["status"], "False");
    rig.boots = true;
    rig.run(900);
    assert_eq!((rig.world.running_pods(), failures(&rig)), (1, 0), "one that registers ends it");
}

#[test]
fn what_ec2_takes_back_with_notice_or_a_user_deletes_is_no_failure() {
    let mut rig = on_its_way();
    let instance = rig.world.running_instances()[0].instance.clone();
    let notice = rig.report(&instance, Some(NoticeKind::SpotTerminate)).notices.remove(0);
    let change = Change::RecordNotice {
        node: None,
        notice,
        unavailable: None,
        source: NoticeSource::Queue,
        by_issue: false,
        lasts: false,
    };
    rig.apply(&Command { at: rig.world.now, change });
    rig.run(1);
    rig.world.end_instance(&instance);
    rig.run(60);
    assert!(!rig.state.instances.contains_key(&instance));
    assert_eq!(failures(&rig), 0);
    let claim = rig.world.list(Kind::NodeClaim)[0]["metadata"]["name"].as_str().unwrap().to_owned();
    rig.world.delete_named(Kind::NodeClaim, &claim);
    rig.run(60);
    assert!(!rig.state.claims.contains_key(&claim.as_str().into()));
    assert_eq!(failures(&rig), 0);
}
