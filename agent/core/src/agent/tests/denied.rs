//! What the API server denies is told, and changes nothing else.

use std::collections::BTreeSet;

use super::*;
use crate::permission::{Permission, names};

#[test]
fn what_is_denied_is_told_once_and_when_it_is_granted() {
    let mut agent = settled();
    let told = |agent: &mut Agent, denied: &[Permission], now: i64| {
        let effects = agent.step(Input::Denied(denied.iter().copied().collect()), at(now));
        let facts = effects.into_iter().filter_map(|effect| match effect {
            Effect::Tell(fact) => Some(fact),
            _ => None,
        });
        (facts.collect::<Vec<_>>(), agent.metrics(at(now)).denied)
    };
    assert_eq!(told(&mut agent, &[], 1_000), (vec![], 0));
    let two = [Permission::EvictPods, Permission::DeletePods];
    let denied = Fact::Denied(BTreeSet::from(two));
    assert_eq!(told(&mut agent, &two, 2_000), (vec![denied], 2));
    assert_eq!(told(&mut agent, &two, 3_000), (vec![], 2));
    assert!(!calls(&agent.step(spot("terminate", 110_000), at(4_000))).is_empty());
    assert_eq!(told(&mut agent, &[], 5_000), (vec![Fact::Granted], 0));
}

#[test]
fn each_permission_is_asked_for_as_the_calls_need_it() {
    let asked = |one: Permission| one.attributes(&"n".into());
    for one in Permission::ALL {
        let (verb, resource) = one.name().split_once(' ').unwrap();
        assert_eq!(asked(one)["verb"], verb);
        assert!(resource.starts_with(asked(one)["resource"].as_str().unwrap()), "{one:?}");
    }
    assert_eq!(asked(Permission::PatchNode)["name"], "n");
    assert_eq!(asked(Permission::EvictPods)["subresource"], "eviction");
    let selector = &asked(Permission::WatchPods)["fieldSelector"]["requirements"][0];
    assert_eq!(*selector, json!({"key": "spec.nodeName", "operator": "In", "values": ["n"]}));
    assert_eq!(names(&[Permission::GetNode, Permission::DeletePods]), "get nodes, delete pods");
}
