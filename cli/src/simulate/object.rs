//! Objects from pieces.

use drover_common::cluster::drop_nulls;
use drover_core::offline::{DumpKind, DumpObject};
use serde_json::Value;

use super::document::{Head, Piece, Place, Text};

/// What a piece was read as.
#[derive(Debug)]
pub(crate) enum Read {
    /// An object a plan depends on.
    Object(Box<DumpObject>),
    /// One of another kind.
    Ignored(String),
    /// One that can't be read, and why.
    Unreadable(Place, String),
}

/// Reads the objects of a piece.
pub(crate) fn read(piece: &Piece) -> Vec<Read> {
    match &piece.text {
        Text::Json(head, _) if head.is_list() && piece.place.item.is_some() => {
            vec![Read::Unreadable(piece.place, "a list in a list".to_owned())]
        }
        Text::Json(head, text) if head.is_list() => read_json_list(piece.place, text),
        Text::Json(head, text) => vec![read_json(piece.place, head, text)],
        Text::Yaml(head, text) => read_yaml(piece.place, head, text),
    }
}

/// A list whose items were taken out, or that has none: nothing, but it must be JSON.
fn read_json_list(place: Place, text: &[u8]) -> Vec<Read> {
    let read = serde_json::from_slice::<serde::de::IgnoredAny>(text);
    let unreadable = |error| Read::Unreadable(place, format!("not JSON: {error}"));
    read.err().map(unreadable).into_iter().collect()
}

fn read_json(place: Place, head: &Head, text: &[u8]) -> Read {
    if let Some(kind) = DumpKind::of(&head.api_version, &head.kind) {
        let mut source = serde_json::Deserializer::from_slice(text);
        let object = DumpObject::read(kind, &mut source);
        if let (Ok(object), Ok(())) = (object, source.end()) {
            return Read::Object(Box::new(object));
        }
    } else if !head.kind.is_empty() {
        return ignored(&head.api_version, &head.kind);
    }
    // Read again at leisure: without nulls, and with the path of what is wrong.
    match serde_json::from_slice::<Value>(text) {
        Ok(value) => read_value(place, head, value),
        Err(error) => Read::Unreadable(place, format!("not JSON: {error}")),
    }
}

/// The most parser events a document may take: enough for a list of 100,000 pods that has to be
/// read as a whole.
const MOST_EVENTS: usize = 50_000_000;

fn read_yaml(place: Place, head: &Head, text: &str) -> Vec<Read> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_events: MOST_EVENTS, max_nodes: MOST_EVENTS },
    };
    let value: Value = match serde_saphyr::from_str_with_options(text, options) {
        Ok(value) => value,
        Err(error) => {
            let words = error.to_string();
            let first = words.lines().next().unwrap_or_default();
            return vec![Read::Unreadable(place, format!("not YAML: {first}"))];
        }
    };
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let own = Head { api_version: text("/apiVersion").into(), kind: text("/kind").into() };
    let own = if own.kind.is_empty() { head.clone() } else { own };
    match value {
        Value::Null => Vec::new(),
        Value::Object(mut fields) if own.is_list() => {
            let Some(Value::Array(items)) = fields.remove("items") else { return Vec::new() };
            let head = own.of_items();
            let each = items.into_iter().enumerate();
            each.map(|(index, item)| read_value(Place { item: Some(index), ..place }, &head, item))
                .collect()
        }
        other => vec![read_value(place, head, other)],
    }
}

/// Who has a Karpenter of before v1 is to see why its NodePools buy nothing.
fn ignored(api_version: &str, kind: &str) -> Read {
    let is_karpenters = api_version.starts_with("karpenter.");
    Read::Ignored(if is_karpenters { format!("{kind} of {api_version}") } else { kind.to_owned() })
}

/// Reads an object; where it does not say its kind, `head` does.
fn read_value(place: Place, head: &Head, mut value: Value) -> Read {
    if !value.is_object() {
        return Read::Unreadable(place, "not an object".to_owned());
    }
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str);
    let (api_version, kind) = match text("/kind") {
        Some(kind) => (text("/apiVersion").unwrap_or_default(), kind),
        None => (head.api_version.as_str(), head.kind.as_str()),
    };
    if kind.is_empty() {
        return Read::Unreadable(place, "field kind: it is missing".to_owned());
    }
    let Some(known) = DumpKind::of(api_version, kind) else {
        return ignored(api_version, kind);
    };
    let Some(name) = text("/metadata/name").filter(|name| !name.is_empty()) else {
        return Read::Unreadable(place, format!("{kind}: field metadata.name: it is missing"));
    };
    let title = match text("/metadata/namespace") {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    };
    drop_nulls(&mut value);
    let mut track = serde_path_to_error::Track::new();
    let source = serde_path_to_error::Deserializer::new(value, &mut track);
    match DumpObject::read(known, source) {
        Ok(object) => Read::Object(Box::new(object)),
        Err(error) => Read::Unreadable(place, format!("{title}: field {}: {error}", track.path())),
    }
}
