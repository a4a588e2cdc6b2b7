//! Deliveries that name a row: its id is looked for as a word in what was sent.
//!
//! Which rows a delivery is about is not kept, and its webhook may be set up otherwise by now. So a delivery that has the id
//! anywhere counts, also where it means something else.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io::Read as _;

use flate2::read::MultiGzDecoder;
use percent_encoding::percent_decode;
use regex_automata::meta::{Config, Regex};
use regex_automata::util::syntax;
use serde_json::Value;

use crate::journal::RawRequest;
use crate::record::Id;
use crate::vista::{Error, Result};

/// Bytes of the compiled search, at most: a thousand long ids take about a tenth.
const MOST_COMPILED: usize = 64 << 20;

/// Bytes of a decompressed body that are searched, at most: no delivery has more.
const MOST_PLAIN: u64 = 64 << 20;
/// First bytes of a gzip body. Bodies are kept as they were sent.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// A search for ids.
pub(super) struct IdSearch {
    ids: Vec<Id>,
    words: Regex,
}

impl IdSearch {
    pub(super) fn of(ids: &HashSet<Id>) -> Result<IdSearch> {
        let ids: Vec<Id> = ids.iter().cloned().collect();
        let word = |id: &Id| format!("(?:^|[^0-9A-Za-z_])(?:{})(?:$|[^0-9A-Za-z_])", regex_syntax::escape(id));
        let patterns: Vec<String> = ids.iter().map(word).collect();
        let words = Regex::builder()
            .configure(Config::new().utf8_empty(false).nfa_size_limit(Some(MOST_COMPILED)))
            .syntax(syntax::Config::new().utf8(false).unicode(false))
            .build_many(&patterns)
            .map_err(|error| Error::invalid(format!("these ids are too long to be searched for: {error}")))?;
        Ok(IdSearch { ids, words })
    }

    /// An id that `raw` has somewhere.
    pub(super) fn first(&self, raw: &RawRequest) -> Option<&Id> {
        let found = self.words.find(&text(raw)[..])?;
        self.ids.get(found.pattern().as_usize())
    }
}

/// What was sent, as it is and as forms, URLs and JSON mean it.
fn text(raw: &RawRequest) -> Vec<u8> {
    let body = plain(&raw.body);
    let mut text = body.to_vec();
    for more in std::iter::once(&raw.uri).chain(raw.headers.iter().map(|(_, value)| value)) {
        text.push(b'\n');
        text.extend_from_slice(more.as_bytes());
    }
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    text.push(b'\n');
    text.extend(percent_decode(&spaced));
    let values = serde_json::Deserializer::from_slice(&body).into_iter::<Value>();
    values.map_while(|value| value.ok()).for_each(|value| strings(&value, &mut text));
    text
}

/// A body as its sender wrote it; of a damaged gzip body, what can be read.
fn plain(body: &[u8]) -> Cow<'_, [u8]> {
    if !body.starts_with(&GZIP) {
        return Cow::Borrowed(body);
    }
    let mut plain = Vec::new();
    // What was read before the damage is in `plain`.
    let _ = MultiGzDecoder::new(body).take(MOST_PLAIN).read_to_end(&mut plain);
    Cow::Owned(plain)
}

fn strings(value: &Value, text: &mut Vec<u8>) {
    let mut word = |word: &str| {
        text.push(b'\n');
        text.extend_from_slice(word.as_bytes());
    };
    match value {
        Value::String(string) => word(string),
        Value::Object(members) => {
            members.keys().for_each(|name| word(name));
            members.values().for_each(|value| strings(value, text));
        }
        Value::Array(values) => values.iter().for_each(|value| strings(value, text)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn names(id: &str, body: impl Into<Vec<u8>>) -> bool {
        let raw = RawRequest { uri: "/webhooks/shop?row=url-id".into(), headers: Vec::new(), body: body.into().into() };
        IdSearch::of(&HashSet::from([Id::from(id), Id::from("another")])).unwrap().first(&raw).is_some()
    }

    #[test]
    fn an_id_is_found_however_the_sender_wrote_it() {
        for (id, body) in [
            ("42", r#"{"id":42}"#),
            ("42", r#"{"id":"42","name":"Bun"}"#),
            ("42", "{\"id\":1}\n{\"id\":\"gid://shop/Product/42\"}"),
            ("ann@example.org", "email=ann%40example.org&x=1"),
            ("a b", "row=a+b"),
            ("Grüße/1", r#"{"row":{"Gr\u00fc\u00dfe\/1":true}}"#),
            ("1.5(x)", "1.5(x)"),
            ("url-id", ""),
        ] {
            assert!(names(id, body), "{id} in {body}");
        }
        for (id, body) in [("42", r#"{"id":142,"at":"420"}"#), ("42", "x42"), ("1.5", "1x5"), ("row_1", "row_12")] {
            assert!(!names(id, body), "{id} in {body}");
        }
    }

    #[test]
    fn an_id_is_found_in_a_compressed_body_also_before_its_damage() {
        let mut coder = GzEncoder::new(Vec::new(), Compression::none());
        coder.write_all(br#"{"id":"\u0034\u0032","padding":""#).unwrap();
        coder.write_all(&[b' '; 10_000]).unwrap();
        coder.write_all(br#""} {"id":"7"}"#).unwrap();
        let body = coder.finish().unwrap();
        assert!(names("42", body.clone()) && names("7", body.clone()) && !names("43", body.clone()));
        assert!(names("u0034", &body[..100]), "what can be read of a damaged body counts");
    }
}
