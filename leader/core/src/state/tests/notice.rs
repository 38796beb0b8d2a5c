//! Entries of older builds mean what they meant: replicas of both builds read one log.

use super::*;

/// What is written of a recommendation by this build, or by one that tells issues not apart.
fn told(issued_at: i64, is_old: bool) -> Change {
    let notice = Notice {
        kind: NoticeKind::Rebalance,
        instance: "i-1".into(),
        boot: "boot".into(),
        deadline: None,
        detected_at: at(issued_at),
        issued_at: Some(at(issued_at)),
    };
    let change = Change::RecordNotice {
        node: None,
        notice,
        unavailable: None,
        source: NoticeSource::Agent,
        by_issue: true,
    };
    let mut written = serde_json::to_value(change).unwrap();
    if is_old {
        written.as_object_mut().unwrap().retain(|key, _| key != "by_issue");
    }
    serde_json::from_value(written).unwrap()
}

fn with_an_instance() -> State {
    let mut state = State::default();
    apply_all(&mut state, &life_of_a_claim()[..2]);
    assert!(state.instances.contains_key(&InstanceId::from("i-1")));
    state
}

#[test]
fn an_older_build_told_no_issues_apart() {
    use Applied::{Done, Unchanged};
    for (is_old, second) in [(true, Unchanged), (false, Done)] {
        let mut state = with_an_instance();
        let entries = [told(1, is_old), told(600, is_old), told(600, is_old)];
        assert_eq!(apply_all(&mut state, &entries), [Done, second, Unchanged]);
    }
}
