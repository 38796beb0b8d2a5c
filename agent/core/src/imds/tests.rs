use proptest::prelude::*;

use super::*;

#[test]
fn spot_actions_of_all_kinds() {
    for (action, kind) in [
        ("terminate", NoticeKind::SpotTerminate),
        ("stop", NoticeKind::SpotStop),
        ("hibernate", NoticeKind::SpotHibernate),
    ] {
        // As the mock prints it: with tabs and a line feed.
        let body =
            format!("{{\n\t\"action\": \"{action}\",\n\t\"time\": \"2017-09-18T08:22:00Z\"\n}}\n");
        let parsed = spot_action(&body).unwrap();
        assert_eq!(parsed.kind, kind);
        assert_eq!(parsed.time.to_string(), "2017-09-18T08:22:00Z");
    }
}

#[test]
fn what_is_no_notice_is_an_error() {
    for body in [
        "",
        "null",
        "[]",
        "{}",
        "<html>404</html>",
        "{\"action\":\"terminate\",\"time\":\"2017-09-18T08:2",
        "{\"action\":\"terminate\"}",
        "{\"action\":\"terminate\",\"time\":\"\"}",
        "{\"action\":\"terminate\",\"time\":\"soon\"}",
        "{\"action\":\"terminate\",\"time\":17}",
        "{\"action\":\"none\",\"time\":\"2017-09-18T08:22:00Z\"}",
        "{\"action\":\"terminate\",\"time\":\"99999-09-18T08:22:00Z\"}",
    ] {
        assert!(spot_action(body).is_err(), "{body}");
        assert!(rebalance(body).is_err(), "{body}");
        if body != "[]" {
            assert!(maintenance(body).is_err(), "{body}");
        }
    }
    let long = format!("{{\"action\":\"terminate\"{}", " ".repeat(LONGEST_BODY));
    assert_eq!(spot_action(&long), Err(UnreadableBody::TooLong(long.len())));
}

#[test]
fn rebalance_time() {
    let time = rebalance("{\"noticeTime\":\"2020-10-27T08:22:00Z\"}").unwrap();
    assert_eq!(time.to_string(), "2020-10-27T08:22:00Z");
}

#[test]
fn maintenance_has_its_own_dates_and_only_active_events_count() {
    let event = |id: &str, time: &str, state: &str| {
        format!(
            "{{\"NotBefore\":\"{time}\",\"Code\":\"system-reboot\",\"Description\":\"d\",\
             \"EventId\":\"{id}\",\"NotAfter\":\"x\",\"State\":\"{state}\"}}"
        )
    };
    let body = format!(
        "[{},{},{},{}]",
        event("late", "21 Jan 2019 09:00:43 GMT", "active"),
        event("early", "2 Jan 2019 00:00:00 GMT", "active"),
        event("over", "1 Jan 2019 00:00:00 GMT", "completed"),
        event("off", "not even a date", "canceled"),
    );
    let events = maintenance(&body).unwrap();
    let short: Vec<_> =
        events.iter().map(|event| (event.event.as_str(), event.not_before.to_string())).collect();
    assert_eq!(
        short,
        [("early", "2019-01-02T00:00:00Z".to_owned()), ("late", "2019-01-21T09:00:43Z".to_owned())]
    );
    assert_eq!(maintenance("[]"), Ok(Vec::new()));
    for bad in ["2019-01-21T09:00:43Z", "32 Jan 2019 09:00:43 GMT", ""] {
        let body = format!("[{}]", event("bad", bad, "active"));
        assert!(maintenance(&body).is_err(), "{bad}");
    }
    assert!(maintenance(&format!("[{}]", event("e", "2 Jan 2019 00:00:00 GMT", "odd"))).is_err());
    // What can't be read hides no other.
    let good = event("good", "2 Jan 2019 00:00:00 GMT", "active");
    for bad in [event("bad", "2019-01-02", "active"), "{}".to_owned(), "7".to_owned()] {
        for body in [format!("[{bad},{good}]"), format!("[{good},{bad}]")] {
            let found = maintenance(&body).unwrap();
            let found: Vec<&str> = found.iter().map(|found| found.event.as_str()).collect();
            assert_eq!(found, ["good"], "{body}");
        }
    }
}

#[test]
fn instance_ids() {
    assert_eq!(instance_id("i-0abc123\n"), Ok(InstanceId::from("i-0abc123")));
    for bad in ["", "i-", "i-XYZ", "m-0abc", "i-0abc/../x", "<html>"] {
        assert!(instance_id(bad).is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_a_parser_panic(body in ".{0,200}") {
        let _outcomes =
            (spot_action(&body), rebalance(&body), maintenance(&body).is_ok(), instance_id(&body));
    }

    #[test]
    fn near_misses_neither_panic_nor_pass(
        cut in 0..58_usize,
        byte in any::<char>(),
    ) {
        let whole = "{\"action\":\"terminate\",\"time\":\"2017-09-18T08:22:00.123456Z\"}";
        let cut_off = &whole[..cut.min(whole.len() - 1)];
        prop_assert!(spot_action(cut_off).is_err(), "truncated JSON is no notice");
        let mut changed: Vec<char> = whole.chars().collect();
        changed[cut] = byte;
        if let Ok(notice) = spot_action(&changed.into_iter().collect::<String>()) {
            prop_assert_eq!(notice.kind, NoticeKind::SpotTerminate);
        }
    }
}
