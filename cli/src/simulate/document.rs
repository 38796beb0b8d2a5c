//! Pieces of a file: one object each, or a document whose objects are not told apart yet.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};

/// Where in a file something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Number of the document, from 1.
    pub(crate) document: usize,
    /// Index in the document's `items`, if it is a list.
    pub(crate) item: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "document {}", self.document)?;
        match self.item {
            Some(item) => write!(formatter, ", items[{item}]"),
            None => Ok(()),
        }
    }
}

/// `apiVersion` and `kind`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) api_version: String,
    pub(crate) kind: String,
}

impl Head {
    /// The head of a JSON object, as far as its text (that may end early) tells.
    pub(crate) fn of_json(text: &[u8]) -> Self {
        let mut head = Self::default();
        let mut source = serde_json::Deserializer::from_slice(text);
        // It always ends in an error: when enough is known, or where the text ends.
        let _enough = source.deserialize_map(HeadVisitor(&mut head));
        head
    }

    /// What the items of such a list are, where they don't say so themselves.
    pub(crate) fn of_items(&self) -> Self {
        let kind = self.kind.strip_suffix("List").unwrap_or_default();
        Self { api_version: self.api_version.clone(), kind: kind.to_owned() }
    }

    /// The head of a document that had items, and those of them that do not say their kind, which
    /// are the list's; they are nothing where the document is no list. Without any kind it is taken
    /// for a list if its items do without.
    pub(crate) fn of_envelope(mut self, mut held: Vec<Piece>) -> (Self, Vec<Piece>) {
        if self.kind.is_empty() && held.is_empty() {
            "List".clone_into(&mut self.kind);
        }
        if !self.is_list() {
            held.clear();
        }
        for piece in &mut held {
            let (Text::Json(own, _) | Text::Yaml(own, _)) = &mut piece.text;
            *own = self.of_items();
        }
        (self, held)
    }

    /// Whether the object holds others.
    pub(crate) fn is_list(&self) -> bool {
        self.kind.ends_with("List")
    }
}

struct HeadVisitor<'h>(&'h mut Head);

impl<'de> Visitor<'de> for HeadVisitor<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match key.as_ref() {
                "apiVersion" => self.0.api_version = map.next_value()?,
                "kind" => self.0.kind = map.next_value()?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
            if !self.0.api_version.is_empty() && !self.0.kind.is_empty() {
                return Err(A::Error::custom("enough"));
            }
        }
        Ok(())
    }
}

/// A piece of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) place: Place,
    pub(crate) text: Text,
}

/// The text of a piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Text {
    /// One JSON object; a list without its items is one, too.
    Json(Head, Vec<u8>),
    /// One YAML document, or one item of a list made a document. The head is what it counts as if it
    /// does not say.
    Yaml(Head, String),
}
