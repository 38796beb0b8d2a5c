//! Deletions that are under way already.

use super::*;

/// A pod that was told to end then, with so much time, as its object shows it.
fn ending(since: i64, period: i64) -> Pod {
    let mut web = pod("web", 600);
    web.metadata.deletion_timestamp = Some(at(since + period));
    web.metadata.deletion_grace_period_seconds = Some(period);
    web
}

#[test]
fn a_running_deletion_is_shortened_once_to_each_deadline() {
    let web = ending(-10, 600);
    let mut drain = Drain::new(disruption(None));
    assert!(drain.step(&[&web], 0).is_empty());
    drain.purpose = spot(100);
    let calls = drain.step(&[&web], 10);
    assert_eq!(short(&calls), ["delete web Some(90)"]);
    drain.answer(&calls[0], Ok(()));
    assert!(drain.step(&[&web], 11).is_empty(), "the watch is late");
    // The API server counts from the first deletion, the kubelet from this one.
    let web = ending(-10, 90);
    assert!(drain.step(&[&web], 12).is_empty());
    assert_eq!(drain.state.report().remaining[0].1, "terminating, 88 s left");
    drain.purpose = spot(80);
    let calls = drain.step(&[&web], 20);
    assert_eq!(short(&calls), ["delete web Some(60)"], "a deadline that was tightened counts, too");
    drain.answer(&calls[0], Err(KubernetesFailureKind::Unreachable));
    let web = ending(-10, 60);
    let calls = drain.step(&[&web], 21);
    assert_eq!(short(&calls), [""; 0], "not in the same breath");
    let calls = drain.step(&[&web], 22);
    assert_eq!(short(&calls), ["delete web Some(58)"], "it may have been done late");
    drain.answer(&calls[0], Ok(()));
    assert!(drain.step(&[&web], 23).is_empty());
}

#[test]
fn a_deletion_that_an_api_server_would_end_at_once_is_shortened_in_the_last_second() {
    // Of what it was given 80 s have passed, or one more: a request may need ten to arrive.
    for (since, expected) in [(-70, vec!["delete web Some(90)"]), (-71, Vec::new())] {
        let calls = Drain::new(spot(100)).step(&[&ending(since, 600)], 10);
        assert_eq!(short(&calls), expected, "{since}");
    }
    let web = ending(-200, 600);
    let mut drain = Drain::new(spot(100));
    for second in 10..99 {
        assert_eq!(short(&drain.step(&[&web], second)), [""; 0], "at {second} s");
    }
    let calls = drain.step(&[&web], 99);
    assert_eq!(short(&calls), ["delete web Some(1)"]);
    drain.answer(&calls[0], Ok(()));
    assert!(drain.step(&[&ending(98, 1)], 100).is_empty());
    assert!(drain.step(&[&ending(98, 1)], 130).is_empty());

    // A deadline that passed before leaves a second.
    let mut drain = Drain::new(spot(30));
    let calls = drain.step(&[&web], 45);
    assert_eq!(short(&calls), ["delete web Some(1)"]);
    drain.answer(&calls[0], Ok(()));
    assert!(drain.step(&[&web], 46).is_empty());

    // With a period of 0, or none, it would take the object from under its containers.
    for period in [Some(0), None] {
        let mut web = ending(0, 600);
        web.metadata.deletion_grace_period_seconds = period;
        assert!(Drain::new(spot(100)).step(&[&web], 99).is_empty());
    }
}

#[test]
fn a_pod_with_time_until_the_deadline_is_not_stuck_before() {
    let mut drain = Drain::new(spot(200));
    let calls = drain.step(&[&ending(0, 600)], 95);
    assert_eq!(short(&calls), ["delete web Some(105)"]);
    drain.answer(&calls[0], Ok(()));
    let web = ending(0, 105);
    for (second, phase) in [(199, DrainPhase::Draining), (259, DrainPhase::Draining)] {
        assert!(drain.step(&[&web], second).is_empty());
        assert_eq!(drain.state.report().phase, phase, "at {second} s");
    }
    drain.step(&[&web], 260);
    assert_eq!(drain.state.report().phase, DrainPhase::Drained);
    // The same for one that knows nothing of the shortening, and for an API server before 1.33, which
    // shows an end long past.
    for web in [ending(0, 105), ending(0, 1)] {
        let mut drain = Drain::new(spot(200));
        drain.step(&[&web], 180);
        drain.step(&[&web], 259);
        assert_eq!(drain.state.report().phase, DrainPhase::Draining);
        drain.step(&[&web], 260);
        assert_eq!(drain.state.report().phase, DrainPhase::Drained);
    }
    // A deadline far away keeps nobody waiting for a kubelet that is lost.
    let mut drain = Drain::new(disruption(Some(100_000)));
    let mut lost = ending(0, 30);
    lost.spec.termination_grace_period_seconds = Some(30);
    drain.step(&[&lost], 0);
    drain.step(&[&lost], 90);
    assert_eq!(drain.state.report().phase, DrainPhase::Drained);
}
