//! Entries of older builds mean what they meant: replicas of both builds read one log.

use super::*;

/// What is written of a recommendation by this build, or by one that told issues not apart and let notices lapse.
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
        lasts: true,
    };
    let mut written = serde_json::to_value(change).unwrap();
    if is_old {
        written.as_object_mut().unwrap().retain(|key, _| key != "by_issue" && key != "lasts");
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

#[test]
fn what_an_older_build_recorded_lapses_an_hour_after_its_time() {
    for (is_old, kept) in [(true, 0), (false, 1)] {
        let mut state = with_an_instance();
        apply_all(&mut state, &[told(1, is_old)]);
        let pause = Change::SetPause {
            nodepool: None,
            paused: true,
            by: "ops".to_owned(),
            reason: String::new(),
        };
        for (second, left) in [(3_600, 1), (3_700, kept)] {
            let command = Command { at: at(second), change: pause.clone() };
            state.apply(state.applied + 1, &command);
            assert_eq!(state.notices.len(), left, "{is_old} {second}");
        }
    }
}
