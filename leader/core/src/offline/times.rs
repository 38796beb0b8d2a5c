//! The newest time that an object tells: any RFC 3339 text of its `metadata` and `status`, noted while the object
//! is read, in fields that no decision reads as well.
//!
//! [`Noting`] stands between a format and the types that are read from it, and hands everything on.

use std::cell::Cell;
use std::fmt;

use jiff::Timestamp;
use serde::de::{DeserializeSeed, EnumAccess, MapAccess, SeqAccess, Visitor};
use serde::{Deserializer, de};

/// The newest time so far.
pub(super) type Newest = Cell<Option<Timestamp>>;

/// Fields within `metadata` and `status` that are not looked into: users' texts, what is large and has no time, and
/// reservations, which tell when they will end.
const PASSED_OVER: [&str; 6] =
    ["annotations", "capacityReservations", "fieldsV1", "images", "labels", "message"];

/// The shortest text that is a time, `2026-01-01T00:00:00Z`.
const SHORTEST: usize = 20;

/// Where in an object something stands.
#[derive(Clone, Copy)]
enum Place<'n> {
    /// It is the object.
    Object(&'n Newest),
    /// It is part of its metadata or status.
    Within(&'n Newest),
    /// It is a key, which tells whether its value is looked into.
    Key(Level, &'n Cell<bool>),
}

#[derive(Clone, Copy)]
enum Level {
    Object,
    Within,
}

/// A deserializer, visitor or part of either that times are noted of.
pub(super) struct Noting<'n, T> {
    inner: T,
    place: Place<'n>,
}

impl<'n, T> Noting<'n, T> {
    /// The source of an object.
    pub(super) fn object(source: T, newest: &'n Newest) -> Self {
        Self { inner: source, place: Place::Object(newest) }
    }

    fn note(&self, text: &str) {
        match self.place {
            Place::Object(_) => {}
            Place::Within(newest) => newest.set(newest.get().max(time_of(text))),
            Place::Key(Level::Object, look) => look.set(matches!(text, "metadata" | "status")),
            Place::Key(Level::Within, look) => look.set(!PASSED_OVER.contains(&text)),
        }
    }
}

/// The time that a text is, if it is one.
fn time_of(text: &str) -> Option<Timestamp> {
    let sign = |at: usize, sign: u8| text.as_bytes().get(at) == Some(&sign);
    // Most texts are none, and need no parser to tell.
    let like = text.len() >= SHORTEST && sign(4, b'-') && sign(7, b'-') && sign(10, b'T');
    if like { text.parse().ok() } else { None }
}

macro_rules! hand_on {
    ($($method:ident($($name:ident: $type:ty),*)),* $(,)?) => {
        $(fn $method<V: Visitor<'de>>(self, $($name: $type,)* visitor: V) -> Result<V::Value, D::Error> {
            self.inner.$method($($name,)* Noting { inner: visitor, place: self.place })
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Noting<'_, D> {
    type Error = D::Error;

    hand_on! {
        deserialize_any(), deserialize_bool(), deserialize_i8(), deserialize_i16(), deserialize_i32(),
        deserialize_i64(), deserialize_i128(), deserialize_u8(), deserialize_u16(), deserialize_u32(),
        deserialize_u64(), deserialize_u128(), deserialize_f32(), deserialize_f64(), deserialize_char(),
        deserialize_str(), deserialize_string(), deserialize_bytes(), deserialize_byte_buf(),
        deserialize_option(), deserialize_unit(), deserialize_seq(), deserialize_map(),
        deserialize_identifier(),
        deserialize_unit_struct(name: &'static str),
        deserialize_newtype_struct(name: &'static str),
        deserialize_tuple(len: usize),
        deserialize_tuple_struct(name: &'static str, len: usize),
        deserialize_struct(name: &'static str, fields: &'static [&'static str]),
        deserialize_enum(name: &'static str, variants: &'static [&'static str]),
    }

    /// What nobody reads may be a time, too: a format that skips it would not show it.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.deserialize_any(visitor)
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! hand_on_value {
    ($($method:ident($type:ty)),* $(,)?) => {
        $(fn $method<E: de::Error>(self, value: $type) -> Result<V::Value, E> {
            self.inner.$method(value)
        })*
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Noting<'_, V> {
    type Value = V::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(formatter)
    }

    hand_on_value! {
        visit_bool(bool), visit_i8(i8), visit_i16(i16), visit_i32(i32), visit_i64(i64), visit_i128(i128),
        visit_u8(u8), visit_u16(u16), visit_u32(u32), visit_u64(u64), visit_u128(u128), visit_f32(f32),
        visit_f64(f64), visit_char(char), visit_bytes(&[u8]), visit_borrowed_bytes(&'de [u8]),
        visit_byte_buf(Vec<u8>),
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<V::Value, E> {
        self.note(text);
        self.inner.visit_str(text)
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<V::Value, E> {
        self.note(text);
        self.inner.visit_borrowed_str(text)
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<V::Value, E> {
        self.note(&text);
        self.inner.visit_string(text)
    }

    fn visit_none<E: de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, source: D) -> Result<V::Value, D::Error> {
        self.inner.visit_some(Noting { inner: source, place: self.place })
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, source: D) -> Result<V::Value, D::Error> {
        self.inner.visit_newtype_struct(Noting { inner: source, place: self.place })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<V::Value, A::Error> {
        self.inner.visit_seq(Noting { inner: seq, place: self.place })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        let map = Noting { inner: map, place: self.place };
        self.inner.visit_map(NotingMap { map, look: false })
    }

    /// The words of an enum are no times.
    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<V::Value, A::Error> {
        self.inner.visit_enum(data)
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Noting<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<S::Value, D::Error> {
        self.inner.deserialize(Noting { inner: source, place: self.place })
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Noting<'_, A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.inner.next_element_seed(Noting { inner: seed, place: self.place })
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

struct NotingMap<'n, A> {
    map: Noting<'n, A>,
    /// Whether the value of the key that was read last is looked into.
    look: bool,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for NotingMap<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        let look = Cell::new(false);
        let level = match self.map.place {
            Place::Object(_) => Level::Object,
            Place::Within(_) | Place::Key(..) => Level::Within,
        };
        let seed = Noting { inner: seed, place: Place::Key(level, &look) };
        let key = self.map.inner.next_key_seed(seed);
        self.look = look.get();
        key
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        match self.map.place {
            Place::Object(newest) | Place::Within(newest) if self.look => {
                let seed = Noting { inner: seed, place: Place::Within(newest) };
                self.map.inner.next_value_seed(seed)
            }
            _ => self.map.inner.next_value_seed(seed),
        }
    }

    fn size_hint(&self) -> Option<usize> {
        self.map.inner.size_hint()
    }
}
