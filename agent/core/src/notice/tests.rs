use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

fn spot(action: &str, time: i64) -> Answer {
    Answer::Body(format!("{{\"action\":\"{action}\",\"time\":\"{}\"}}", at(time)))
}

fn observe(notices: &mut Notices, path: NoticePath, answer: &Answer, seconds: i64) -> bool {
    let (instance, boot) = (InstanceId::from("i-1"), BootId::from("b"));
    notices.observe(path, answer, &instance, &boot, at(seconds).into()).unwrap()
}

fn deadline(notices: &Notices) -> Option<Timestamp> {
    notices.list().first().and_then(|notice| notice.deadline)
}

#[test]
fn a_notice_is_news_once_and_outlives_errors() {
    let mut notices = Notices::default();
    assert!(observe(&mut notices, NoticePath::SpotAction, &spot("terminate", 110), 0));
    assert!(!observe(&mut notices, NoticePath::SpotAction, &spot("terminate", 110), 1));
    let broken = Answer::Body("{\"action\":\"term".into());
    let (instance, boot) = (InstanceId::from("i-1"), BootId::from("b"));
    let path = NoticePath::SpotAction;
    assert!(notices.observe(path, &broken, &instance, &boot, at(2).into()).is_err());
    assert_eq!(deadline(&notices), Some(at(110)));
    assert_eq!(notices.list()[0].detected_at, at(0));
}

#[test]
fn moving_times_keep_the_earliest_deadline() {
    let mut notices = Notices::default();
    let mut news = 0;
    for second in 0..60 {
        let answer = spot("terminate", second + 120);
        news += i32::from(observe(&mut notices, NoticePath::SpotAction, &answer, second));
    }
    assert_eq!((news, deadline(&notices)), (1, Some(at(120))));
    assert!(observe(&mut notices, NoticePath::SpotAction, &spot("terminate", 90), 61));
    assert_eq!(deadline(&notices), Some(at(90)));
}

#[test]
fn impossible_times_are_corrected_once() {
    let mut notices = Notices::default();
    observe(&mut notices, NoticePath::SpotAction, &spot("terminate", 3_600), 0);
    assert_eq!(deadline(&notices), Some(at(120)));
    let mut notices = Notices::default();
    for second in 0..200 {
        observe(&mut notices, NoticePath::SpotAction, &spot("terminate", -500), second);
    }
    assert_eq!(deadline(&notices), Some(at(30)));
}

#[test]
fn only_a_lasting_none_withdraws() {
    let mut notices = Notices::default();
    observe(&mut notices, NoticePath::SpotAction, &spot("stop", 110), 0);
    for second in 1..10 {
        assert!(!observe(&mut notices, NoticePath::SpotAction, &Answer::Absent, second));
    }
    observe(&mut notices, NoticePath::SpotAction, &spot("stop", 110), 10);
    assert!(!observe(&mut notices, NoticePath::SpotAction, &Answer::Absent, 15));
    assert!(!observe(&mut notices, NoticePath::SpotAction, &Answer::Absent, 24));
    assert!(observe(&mut notices, NoticePath::SpotAction, &Answer::Absent, 25));
    assert!(notices.list().is_empty());
}

#[test]
fn kinds_live_side_by_side_and_a_path_has_one() {
    let mut notices = Notices::default();
    let rebalance = Answer::Body(format!("{{\"noticeTime\":\"{}\"}}", at(0)));
    assert!(observe(&mut notices, NoticePath::Rebalance, &rebalance, 0));
    assert!(!observe(&mut notices, NoticePath::Rebalance, &rebalance, 1));
    observe(&mut notices, NoticePath::SpotAction, &spot("stop", 110), 1);
    observe(&mut notices, NoticePath::SpotAction, &spot("terminate", 110), 2);
    let kinds: Vec<_> = notices.list().iter().map(|notice| notice.kind).collect();
    assert_eq!(kinds, [NoticeKind::SpotTerminate, NoticeKind::Rebalance]);
    assert!(!observe(&mut notices, NoticePath::Maintenance, &Answer::Body("[]".into()), 3));
}

fn recommendation(issued_at: i64) -> Answer {
    Answer::Body(format!("{{\"noticeTime\":\"{}\"}}", at(issued_at)))
}

#[test]
fn a_recommendation_that_is_issued_anew_is_news_once() {
    let mut notices = Notices::default();
    let told = [(0, 1), (2, 1), (4, 1), (600, 598), (602, 598), (604, 598), (606, 1), (608, 1)];
    let mut news = Vec::new();
    for (second, issued_at) in told {
        if observe(&mut notices, NoticePath::Rebalance, &recommendation(issued_at), second) {
            let notice = &notices.list()[0];
            news.push((second, notice.detected_at, notice.issued_at));
        }
    }
    // It is believed when it is read for the second time, and counts from the first.
    assert_eq!(news, [(0, at(0), Some(at(1))), (602, at(600), Some(at(598)))]);
}

#[test]
fn a_recommendation_whose_time_moves_with_every_read_stays_the_first() {
    let mut notices = Notices::default();
    let mut news = 0;
    for second in 0..600 {
        let told = recommendation(second);
        news += i32::from(observe(&mut notices, NoticePath::Rebalance, &told, second));
    }
    assert_eq!((news, notices.list()[0].issued_at), (1, Some(at(0))));
}

#[test]
fn rescheduled_maintenance_follows_its_new_time() {
    let event = |day: u8| {
        Answer::Body(format!(
            "[{{\"NotBefore\":\"{day} Jan 2030 00:00:00 GMT\",\"Code\":\"c\",\"EventId\":\"e\",\
             \"State\":\"active\"}}]"
        ))
    };
    let mut notices = Notices::default();
    assert!(observe(&mut notices, NoticePath::Maintenance, &event(2), 0));
    assert!(!observe(&mut notices, NoticePath::Maintenance, &event(2), 1));
    assert!(observe(&mut notices, NoticePath::Maintenance, &event(9), 2));
    assert_eq!(deadline(&notices).unwrap().to_string(), "2030-01-09T00:00:00Z");
}

#[test]
fn notices_from_disk_count_for_this_instance_and_boot_only() {
    let notice = |instance: &str, boot: &str| Notice {
        kind: NoticeKind::SpotTerminate,
        instance: instance.into(),
        boot: boot.into(),
        deadline: None,
        detected_at: at(0),
        issued_at: None,
    };
    for (instance, boot, kept) in [("i-1", "b", 1), ("i-2", "b", 0), ("i-1", "c", 0)] {
        let saved = vec![notice(instance, boot)];
        let restored = Notices::restore(saved, &InstanceId::from("i-1"), &BootId::from("b"));
        assert_eq!(restored.list().len(), kept, "{instance} {boot}");
    }
}
