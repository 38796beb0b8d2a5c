use super::signals::maintenance;
use super::*;

#[test]
fn a_cordon_that_others_take_back_is_put_back_more_and_more_rarely() {
    for (notice, expected) in [
        (maintenance(1_200_000), 12..=20),
        (Input::Notice(NoticePath::AutoScaling, Answer::Body("Terminated".into())), 110..=130),
        (Input::Shutdown(Some(SignedDuration::from_mins(20))), 110..=130),
        (spot("terminate", 3_000_000), 110..=130),
    ] {
        let mut agent = settled();
        let mut inputs = vec![notice];
        let (mut patches, mut last) = (0, 0);
        for tick in 0..2_400 {
            let now = tick * 250;
            for input in std::mem::take(&mut inputs).into_iter().chain([Input::Tick]) {
                if let Some((key, patch)) = cordon_patch(&agent.step(input, at(now))) {
                    (patches, last) = (patches + 1, now);
                    let mut cordoned = node(json!({}));
                    merge(&mut cordoned, patch);
                    agent.step(Input::Outcome(key, Ok(cordoned)), at(now));
                    inputs.push(applied(Kind::Node, node(json!({}))));
                }
            }
        }
        assert!(expected.contains(&patches), "{patches} in ten minutes");
        // One that stood for long is put back at once.
        let effects = agent.step(Input::Tick, at(last + 70_000));
        let (key, patch) = cordon_patch(&effects).unwrap();
        let mut cordoned = node(json!({}));
        merge(&mut cordoned, patch);
        agent.step(Input::Outcome(key, Ok(cordoned)), at(last + 70_000));
        let effects = agent.step(applied(Kind::Node, node(json!({}))), at(last + 3_600_000));
        assert!(cordon_patch(&effects).is_some());
    }
}

#[test]
fn a_cordon_that_was_fought_over_for_one_notice_is_made_at_once_for_the_next() {
    let mut agent = settled();
    let mut effects = agent.step(maintenance(1_200_000), at(0));
    let mut now = 0;
    // Until it waits for a minute.
    for _ in 0..10 {
        let (key, patch) = loop {
            match cordon_patch(&effects) {
                Some(patch) => break patch,
                None => now += 250,
            }
            effects = agent.step(Input::Tick, at(now));
        };
        let mut cordoned = node(json!({}));
        merge(&mut cordoned, patch);
        agent.step(Input::Outcome(key, Ok(cordoned)), at(now));
        effects = agent.step(applied(Kind::Node, node(json!({}))), at(now));
    }
    assert!(cordon_patch(&agent.step(Input::Tick, at(now + 10_000))).is_none());
    let effects = agent.step(spot("terminate", now + 120_000), at(now + 10_500));
    let (key, patch) = cordon_patch(&effects).unwrap();
    assert!(patch.to_string().contains("spot-terminate"), "{patch}");
    // As long as it's the same notice, its own pace holds.
    let mut cordoned = node(json!({}));
    merge(&mut cordoned, patch);
    agent.step(Input::Outcome(key, Ok(cordoned)), at(now + 10_600));
    let again = agent.step(applied(Kind::Node, node(json!({}))), at(now + 10_700));
    assert!(cordon_patch(&again).is_none());
}
