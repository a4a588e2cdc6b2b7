//! Arrays in PostgreSQL's text form: `{1,NULL,"a \"b\""}`.
//!
//! Format: PostgreSQL documentation, section 8.15.6, "Array Input and Output Syntax".

use super::value::Codec;
use diorama_core::record::CborValue;

/// Maximum number of dimensions, which is the server's own.
const MAX_DIMENSIONS: usize = 6;

/// Parses an array. `None` for one whose indexes do not begin at 1, which JSON cannot express, and for other text.
pub(super) fn parse(text: &str, element: &Codec) -> Option<CborValue> {
    let mut parser = Parser { text, at: 0, element };
    let array = parser.array(1)?;
    (parser.at == text.len()).then_some(array)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    element: &'a Codec,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn array(&mut self, depth: usize) -> Option<CborValue> {
        if depth > MAX_DIMENSIONS {
            return None;
        }
        self.take(b'{')?;
        let mut items = Vec::new();
        if self.take(b'}').is_some() {
            return Some(CborValue::Array(items));
        }
        loop {
            items.push(match self.peek()? {
                b'{' => self.array(depth + 1)?,
                b'"' => {
                    let text = self.quoted()?;
                    self.element.read_text(&text)?
                }
                _ => self.plain()?,
            });
            if self.take(b',').is_none() {
                self.take(b'}')?;
                return Some(CborValue::Array(items));
            }
        }
    }

    fn quoted(&mut self) -> Option<String> {
        self.take(b'"')?;
        let mut text = String::new();
        let mut chars = self.text[self.at..].char_indices();
        while let Some((at, char)) = chars.next() {
            match char {
                '"' => {
                    self.at += at + 1;
                    return Some(text);
                }
                '\\' => text.push(chars.next()?.1),
                char => text.push(char),
            }
        }
        None
    }

    fn plain(&mut self) -> Option<CborValue> {
        let rest = &self.text[self.at..];
        let text = &rest[..rest.find([',', '}'])?];
        self.at += text.len();
        if text.eq_ignore_ascii_case("null") { Some(CborValue::Null) } else { self.element.read_text(text) }
    }
}

/// Writes an array. `None` if an item is not of the element type.
pub(super) fn write(items: &[CborValue], element: &Codec) -> Option<String> {
    let item = |item: &CborValue| match item {
        CborValue::Null => Some("NULL".to_string()),
        CborValue::Array(items) => write(items, element),
        other => Some(quote(&element.text_of(other)?)),
    };
    let items: Option<Vec<String>> = items.iter().map(item).collect();
    Some(format!("{{{}}}", items?.join(",")))
}

/// Writes an array of texts as they are, `None` for null.
pub(super) fn literal<'t>(texts: impl Iterator<Item = Option<&'t str>>) -> String {
    let items: Vec<String> = texts.map(|text| text.map_or_else(|| "NULL".to_string(), quote)).collect();
    format!("{{{}}}", items.join(","))
}

fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn arrays_are_read_with_their_dimensions() {
        let numbers = |text: &str| parse(text, &Codec::Integer);
        assert_eq!(numbers("{}"), Some(CborValue::Array(Vec::new())));
        assert_eq!(numbers("{1,NULL}"), Some(CborValue::Array(vec![1.into(), CborValue::Null])));
        let inner = CborValue::Array(vec![1.into(), 2.into()]);
        assert_eq!(numbers("{{1,2},{1,2}}"), Some(CborValue::Array(vec![inner.clone(), inner])));
        for wrong in ["", "{", "{1", "{1,", "{1}}", "[0:1]={1,2}", "1"] {
            assert_eq!(numbers(wrong), None, "{wrong}");
        }
        let texts = parse(r#"{"a \"b\" \\",plain,"NULL"}"#, &Codec::Text).unwrap();
        assert_eq!(texts, CborValue::Array(vec![r#"a "b" \"#.into(), "plain".into(), "NULL".into()]));
    }

    proptest! {
        #[test]
        fn texts_survive_writing_and_reading(texts in proptest::collection::vec(proptest::option::of(".*"), 0..5)) {
            let items: Vec<CborValue> = texts.into_iter().map(|text| text.map_or(CborValue::Null, CborValue::from)).collect();
            let written = write(&items, &Codec::Text).unwrap();
            prop_assert_eq!(parse(&written, &Codec::Text), Some(CborValue::Array(items)));
        }

        #[test]
        fn no_text_breaks_the_parser(text in "[{},\"\\\\a1NUL]{0,24}") {
            let _ = parse(&text, &Codec::Text);
        }
    }
}
