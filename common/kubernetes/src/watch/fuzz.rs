//! Whatever an API server sends as a list's page or a watch's lines: nothing panics, nothing is taken for
//! more than it is, and it does not matter in what pieces it arrives.
//!
//! A long run: `PROPTEST_CASES=1000000 cargo test -p drover-kubernetes fuzz`.

use axum::body::{Body as Pieces, Bytes};
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

const PAGE: &str = r#"{"kind":"PodList","metadata":{"resourceVersion":"5","continue":"t"},"items":[
    {"metadata":{"name":"a","namespace":"d","uid":"u","resourceVersion":"1","labels":{"x":"y"}},
     "spec":{"nodeName":"n","containers":[{"name":"c","resources":{"requests":{"cpu":"100m"}}}],
        "terminationGracePeriodSeconds":30,"priority":5},"status":{"phase":"Running"}},
    {"metadata":{"name":"b","deletionTimestamp":"2026-01-01T00:00:00Z"},"spec":null}]}"#;
const NODES: &str = r#"{"items":[{"metadata":{"name":"n","annotations":{"k":"v"}},
    "spec":{"providerID":"aws:///a/i-1","taints":[{"key":"k","effect":"NoSchedule"}]},
    "status":{"capacity":{"cpu":"4"},"conditions":[{"type":"Ready","status":"True"}]}}],"metadata":{}}"#;
const LINES: &str = concat!(
    r#"{"type":"ADDED","object":{"metadata":{"name":"a","uid":"u","resourceVersion":"6"}}}"#,
    "\n\n",
    r#"{"type":"MODIFIED","object":{"metadata":{"name":"a"},"spec":{"containers":3}}}"#,
    "\n",
    r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9"}}}"#,
    "\n",
    r#"{"type":"ERROR","object":{"code":410}}"#,
    "\n",
    r#"{"type":"DEL"#
);

/// These texts with parts cut, repeated, replaced or put in, and noise.
pub(crate) fn inputs(known: Vec<&'static str>) -> impl Strategy<Value = Vec<u8>> {
    let parts = vec![
        "[", "]", "{", "}", "\"", "\n", "null", "1e999", "-1", ":", ",", "\\u0000", "\u{fffd}",
    ];
    let part = prop::sample::select(parts).prop_map(|part| part.as_bytes().to_vec());
    let noise = || prop::collection::vec(any::<u8>(), 0..8);
    let put = prop_oneof![part, noise()];
    let change = (any::<Index>(), 0..40_usize, put, 1..20_usize);
    let changed = (prop::sample::select(known), prop::collection::vec(change, 0..6)).prop_map(
        |(text, changes)| {
            let mut bytes = text.as_bytes().to_vec();
            for (at, cut, put, times) in changes {
                let from = at.index(bytes.len().max(1)).min(bytes.len());
                let to = from.saturating_add(cut).min(bytes.len());
                bytes.splice(from..to, put.repeat(times));
            }
            bytes
        },
    );
    prop_oneof![9 => changed, 1 => prop::collection::vec(any::<u8>(), 0..300)]
}

/// All lines of a body that arrives in pieces of this size, and whether it ended well.
fn lines(bytes: &[u8], size: usize, longest: usize) -> (Vec<Vec<u8>>, bool) {
    let pieces: Vec<_> = bytes
        .chunks(size)
        .map(|piece| Ok::<_, std::io::Error>(Bytes::copy_from_slice(piece)))
        .collect();
    let body = Pieces::from_stream(futures::stream::iter(pieces));
    let mut lines = Lines::new(body, longest);
    let mut read = Vec::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        loop {
            match lines.next().await {
                Ok(Some(line)) => read.push(line),
                Ok(None) => break (read, true),
                Err(_reason) => break (read, false),
            }
        }
    })
}

proptest! {
    #[test]
    fn pages(json in inputs(vec![PAGE, NODES, LINES]), values in 0..60_usize) {
        for kind in [Kind::Pod, Kind::Node] {
            let Ok(page) = Page::read(kind, &json) else { continue };
            // What is skipped may hold numbers and texts that are none.
            let Ok(whole) = serde_json::from_slice::<Value>(&json) else { continue };
            let items = whole["items"].as_array().map_or(0, Vec::len);
            prop_assert_eq!(page.items.len(), items);
        }
        if let Ok(whole) = serde_json::from_slice::<Value>(&json) {
            // Each value but the outermost follows a comma or a bracket, or is an empty one's own.
            let few = count(&whole) <= values.saturating_add(1);
            prop_assert!(few || limits::may_exceed(&json, values), "{} values", count(&whole));
        }
    }

    #[test]
    fn watch_lines(bytes in inputs(vec![PAGE, NODES, LINES]), size in 1..400_usize, longest in 20..400_usize) {
        let (read, _) = lines(&bytes, size, usize::MAX);
        let mut expected: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
        // The last one was cut off.
        expected.pop();
        expected.retain(|line| !line.is_empty());
        prop_assert_eq!(&read, &expected);
        let (limited, ended) = lines(&bytes, size, longest);
        prop_assert!(read.starts_with(&limited));
        prop_assert!(!ended || limited == read, "a line was left out");
        // One piece may bring more than the limit before it is looked at.
        prop_assert!(limited.iter().all(|line| line.len() <= longest.saturating_add(size)));
        for line in read {
            let Ok(Line { object, .. }) = serde_json::from_slice::<Line>(&line) else { continue };
            for kind in [Kind::Pod, Kind::Node] {
                let item = Item::new(kind, object.clone());
                prop_assert_eq!(&item.version, &text(&object, "/metadata/resourceVersion"));
            }
        }
    }
}

/// The values in a JSON value, itself among them.
fn count(value: &Value) -> usize {
    match value {
        Value::Array(values) => values.iter().map(count).sum::<usize>().saturating_add(1),
        Value::Object(fields) => fields.values().map(count).sum::<usize>().saturating_add(1),
        _ => 1,
    }
}
