//! Words that must all occur in a row.

use memchr::memmem::Finder;

use super::fields::{Fields, Path};
use crate::record::CborValue;
use crate::vista::Schema;

/// The words of a search, compiled, and where they are looked for.
#[derive(Clone, Debug)]
pub(super) struct Search {
    words: Vec<Finder<'static>>,
    columns: Vec<Path>,
}

impl Search {
    /// `None` if there is no word.
    pub(super) fn new(text: &str, schema: &Schema) -> Option<Search> {
        let mut lower = String::new();
        let words: Vec<_> = text
            .split_whitespace()
            .map(|word| {
                lower_into(word, &mut lower);
                Finder::new(lower.as_bytes()).into_owned()
            })
            .collect();
        let columns = schema.searchable().iter().map(|column| Path::plain(column)).collect();
        (!words.is_empty()).then_some(Search { words, columns })
    }

    /// Whether every word is in some cell of `row`, each in any.
    pub(super) fn matches(&self, row: &impl Fields) -> bool {
        let mut lower = String::new();
        if let Some(json) = row.json_text() {
            lower_into(json, &mut lower);
            if self.words.iter().any(|word| stands_verbatim(word.needle()) && word.find(lower.as_bytes()).is_none()) {
                return false;
            }
        }
        let mut missing: Vec<&Finder<'_>> = self.words.iter().collect();
        for column in &self.columns {
            if let Some(value) = row.field(column) {
                each_text(&value, &mut |text| {
                    lower_into(text, &mut lower);
                    missing.retain(|word| word.find(lower.as_bytes()).is_none());
                });
            }
            if missing.is_empty() {
                return true;
            }
        }
        false
    }
}

/// Whether JSON writes `word` as it is.
fn stands_verbatim(word: &[u8]) -> bool {
    !word.iter().any(|byte| *byte < 0x20 || matches!(byte, b'"' | b'\\'))
}

/// Lower case character by character, so that a part of a text has the same lower case as within it.
fn lower_into(text: &str, out: &mut String) {
    out.clear();
    if text.is_ascii() {
        out.push_str(text);
        out.make_ascii_lowercase();
    } else {
        out.extend(text.chars().flat_map(char::to_lowercase));
    }
}

/// Every text and number in `value`, numbers as JSON writes them.
fn each_text(value: &CborValue, visit: &mut impl FnMut(&str)) {
    match value {
        CborValue::Text(text) => visit(text),
        CborValue::Integer(number) => visit(&i128::from(*number).to_string()),
        CborValue::Float(number) if number.is_finite() => visit(&format!("{number:?}")),
        CborValue::Array(items) => items.iter().for_each(|item| each_text(item, visit)),
        CborValue::Map(members) => members.iter().for_each(|(_, value)| each_text(value, visit)),
        CborValue::Tag(_, inner) => each_text(inner, visit),
        _ => {}
    }
}
