//! An agent that hears nothing of IMDS says so.

use super::*;

fn none() -> Input {
    Input::Notice(NoticePath::SpotAction, Answer::Absent)
}

fn facts(effects: &[Effect]) -> Vec<Fact> {
    let fact = |effect: &Effect| match effect {
        Effect::Tell(fact @ (Fact::Blind { .. } | Fact::Sees)) => Some(fact.clone()),
        _ => None,
    };
    effects.iter().filter_map(fact).collect()
}

/// What is told of IMDS by inputs that come each half second, and by reports: `since` and when.
fn run(
    agent: &mut Agent,
    from: i64,
    to: i64,
    input: &Input,
) -> (Vec<Fact>, Vec<Option<Timestamp>>) {
    let mut told = (Vec::new(), Vec::new());
    for time in (from..to).step_by(500) {
        let effects = agent.step(input.clone(), at(time));
        told.0.extend(facts(&effects));
        told.1.extend(reports(&effects).iter().map(|report| report.imds_silent_since));
    }
    told
}

#[test]
fn silence_is_told_once_and_at_once_and_so_is_its_end() {
    let mut agent = settled();
    let (told, reported) = run(&mut agent, 0, 60_000, &none());
    assert_eq!(told, []);
    assert!(reported.len() > 3 && reported.iter().all(Option::is_none), "{reported:?}");
    let since = at(59_500);
    let (told, reported) = run(&mut agent, 60_000, 74_500, &Input::Tick);
    assert_eq!(told, [], "some questions may get lost");
    assert!(reported.iter().all(Option::is_none));
    let effects = agent.step(Input::Tick, at(74_500));
    assert_eq!(facts(&effects), [Fact::Blind { since }]);
    assert_eq!(reports(&effects)[0].imds_silent_since, Some(since), "it does not wait");
    let (told, reported) = run(&mut agent, 75_000, 105_000, &Input::Tick);
    assert_eq!(told, [], "it was told");
    assert!(reported.len() == 3 && reported.iter().all(|told| *told == Some(since)));
    let effects = agent.step(none(), at(105_000));
    assert_eq!(facts(&effects), [Fact::Sees]);
    assert_eq!(reports(&effects)[0].imds_silent_since, None);
}

#[test]
fn what_can_not_be_read_is_not_heard() {
    let garbage = Input::Notice(NoticePath::SpotAction, Answer::Body("{\"action\": \"term".into()));
    let mut agent = settled();
    let (told, _) = run(&mut agent, 0, 20_000, &garbage);
    assert_eq!(told, [Fact::Blind { since: at(0) }]);
}

#[test]
fn other_paths_do_not_speak_for_that_of_spot_notices() {
    let other = Input::Notice(NoticePath::Rebalance, Answer::Absent);
    let mut agent = settled();
    let (told, _) = run(&mut agent, 0, 20_000, &other);
    assert_eq!(told, [Fact::Blind { since: at(0) }]);
}

#[test]
fn without_an_instance_id_no_notice_counts_and_none_is_heard() {
    let mut agent = agent(None);
    let (told, reported) = run(&mut agent, 0, 20_000, &none());
    assert_eq!(told, [Fact::Blind { since: at(0) }]);
    assert_eq!(reported.last(), Some(&Some(at(0))));
}
