//! Reads a page of a list, object by object.

use std::fmt;

use drover_common::call::Kind;
use drover_common::cluster::{ClusterObject, UnreadableObject};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::text;

/// A page of a list.
pub(super) struct Page {
    pub(super) metadata: PageMetadata,
    pub(super) items: Vec<Item>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PageMetadata {
    #[serde(default)]
    pub(super) resource_version: String,
    #[serde(default)]
    pub(super) r#continue: String,
}

/// An object as it came, with what is known of it even if it can't be read.
pub(super) struct Item {
    pub(super) uid: String,
    pub(super) version: String,
    pub(super) object: Result<ClusterObject, UnreadableObject>,
}

impl Item {
    pub(super) fn new(kind: Kind, object: Value) -> Self {
        Self {
            uid: text(&object, "/metadata/uid"),
            version: text(&object, "/metadata/resourceVersion"),
            object: ClusterObject::from_json(kind, object),
        }
    }
}

impl Page {
    /// Each object is made slim before the next is read: the JSON of all of them takes many times the
    /// memory of what is kept, and an allocator gives little of it back.
    pub(super) fn read(kind: Kind, json: &[u8]) -> serde_json::Result<Self> {
        let mut source = serde_json::Deserializer::from_slice(json);
        let page = source.deserialize_map(PageVisitor(kind))?;
        source.end()?;
        Ok(page)
    }
}

struct PageVisitor(Kind);

impl<'de> Visitor<'de> for PageVisitor {
    type Value = Page;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Page, A::Error> {
        let mut metadata = None;
        let mut items = Vec::new();
        while let Some(name) = fields.next_key::<String>()? {
            match name.as_str() {
                "metadata" => metadata = Some(fields.next_value()?),
                "items" => items = fields.next_value_seed(Items(self.0))?,
                _ => {
                    fields.next_value::<IgnoredAny>()?;
                }
            }
        }
        let metadata = metadata.ok_or_else(|| A::Error::missing_field("metadata"))?;
        Ok(Page { metadata, items })
    }
}

struct Items(Kind);

impl<'de> DeserializeSeed<'de> for Items {
    type Value = Vec<Item>;

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<Vec<Item>, D::Error> {
        source.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Items {
    type Value = Vec<Item>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("objects, or null")
    }

    /// Go's empty list.
    fn visit_unit<E: Error>(self) -> Result<Vec<Item>, E> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut objects: A) -> Result<Vec<Item>, A::Error> {
        let mut items = Vec::new();
        while let Some(object) = objects.next_element()? {
            items.push(Item::new(self.0, object));
        }
        Ok(items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(json: &str) -> serde_json::Result<Vec<String>> {
        let page = Page::read(Kind::Pod, json.as_bytes())?;
        Ok(page
            .items
            .into_iter()
            .map(|item| format!("{} {}", item.uid, item.object.is_ok()))
            .collect())
    }

    #[test]
    fn pages_are_read_object_by_object() {
        let json = r#"{"kind":"PodList","items":[
            {"metadata":{"name":"a","namespace":"d","uid":"1","resourceVersion":"5"}},
            {"metadata":{"name":"b","namespace":"d","uid":"2","resourceVersion":"6"},"spec":7}],
            "metadata":{"resourceVersion":"9","continue":"c"}}"#;
        let page = Page::read(Kind::Pod, json.as_bytes()).unwrap();
        assert_eq!(page.metadata.resource_version, "9");
        assert_eq!(page.metadata.r#continue, "c");
        assert_eq!(page.items[1].version, "6");
        assert_eq!(names(json).unwrap(), ["1 true", "2 false"]);
    }

    #[test]
    fn pages_may_be_empty_but_not_broken() {
        assert!(names(r#"{"metadata":{},"items":null}"#).unwrap().is_empty());
        assert!(names(r#"{"metadata":{}}"#).unwrap().is_empty());
        for broken in
            ["", "[]", r#"{"items":[]}"#, r#"{"metadata":{},"items":[{}"#, r#"{"metadata":{}} x"#]
        {
            assert!(names(broken).is_err(), "{broken}");
        }
    }
}
