//! Outline of a document's top level, parsed without keeping the document.

use std::fmt;
use std::io::{BufReader, Read};
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::file::source::{Content, open_regular};
use crate::file::text::{Coding, Text};

/// Returns the names of the arrays of objects in a JSON file that is one object, if at least two of them have elements. Each is a
/// resource. Empty for a file that cannot be read; opening the file reports the error.
pub fn arrays(path: &Path) -> Vec<String> {
    let Ok(file) = open_regular(path) else { return Vec::new() };
    let mut content = Content::new(file);
    let Ok(coding) = Coding::of(&mut content, None) else { return Vec::new() };
    let mut text = BufReader::new(Text::new(&mut content, coding));
    let Some(mark) = first_bytes(&mut text) else { return Vec::new() };
    let document = mark.chain(text);
    let mut reader = serde_json::Deserializer::from_reader(document);
    let Ok(Outline(members)) = Outline::deserialize(&mut reader) else { return Vec::new() };
    if reader.end().is_err() || members.iter().filter(|(_, rows)| *rows > 0).count() < 2 {
        return Vec::new();
    }
    members.into_iter().map(|(name, _)| name).collect()
}

/// Returns the first three bytes, or none if they are a byte order mark.
fn first_bytes(text: &mut impl Read) -> Option<std::io::Cursor<Vec<u8>>> {
    let mut first = Vec::new();
    text.take(3).read_to_end(&mut first).ok()?;
    let first = if first == b"\xef\xbb\xbf" { Vec::new() } else { first };
    Some(std::io::Cursor::new(first))
}

/// Arrays of objects among the members of an object, with their lengths.
struct Outline(Vec<(String, usize)>);

impl<'de> Deserialize<'de> for Outline {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Outline, D::Error> {
        struct Top;
        impl<'de> Visitor<'de> for Top {
            type Value = Outline;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Outline, A::Error> {
                let mut members = Vec::new();
                while let Some((name, Length(length))) = map.next_entry::<String, Length>()? {
                    members.extend(length.map(|length| (name, length)));
                }
                Ok(Outline(members))
            }
        }
        deserializer.deserialize_map(Top)
    }
}

/// Length of an array that holds only objects; `None` for other values.
struct Length(Option<usize>);

/// True if a value is an object.
struct IsMap(bool);

macro_rules! scalars {
    ($value:expr) => {
        fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
            Ok($value)
        }
        fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
            Ok($value)
        }
        fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
            Ok($value)
        }
        fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
            Ok($value)
        }
        fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
            Ok($value)
        }
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok($value)
        }
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a value")
        }
    };
}

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Length, D::Error> {
        struct Member;
        impl<'de> Visitor<'de> for Member {
            type Value = Length;

            scalars!(Length(None));

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Length, A::Error> {
                IgnoredAny.visit_map(map).map(|_| Length(None))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Length, A::Error> {
                let (mut count, mut all) = (0, true);
                while let Some(IsMap(is_map)) = seq.next_element()? {
                    count += 1;
                    all &= is_map;
                }
                Ok(Length(all.then_some(count)))
            }
        }
        deserializer.deserialize_any(Member)
    }
}

impl<'de> Deserialize<'de> for IsMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<IsMap, D::Error> {
        struct Element;
        impl<'de> Visitor<'de> for Element {
            type Value = IsMap;

            scalars!(IsMap(false));

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<IsMap, A::Error> {
                IgnoredAny.visit_map(map).map(|_| IsMap(true))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<IsMap, A::Error> {
                IgnoredAny.visit_seq(seq).map(|_| IsMap(false))
            }
        }
        deserializer.deserialize_any(Element)
    }
}
