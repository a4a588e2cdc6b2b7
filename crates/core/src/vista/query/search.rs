//! Words that must all occur in a row.

use std::ops::ControlFlow;

use memchr::memmem::Finder;

use super::fields::{Fields, JsonRow, Path, decode, plain_text};
use crate::record::CborValue;
use crate::vista::Schema;

/// The words of a search, compiled, and where they are looked for.
#[derive(Clone, Debug)]
pub(super) struct Search {
    words: Vec<Finder<'static>>,
    searchable: SearchText,
}

/// What of a row is searched: the texts and numbers in its searchable columns, in lower case.
#[derive(Clone, Debug)]
pub struct SearchText {
    columns: Vec<Path>,
}

impl SearchText {
    /// The searchable columns of `schema`.
    pub fn new(schema: &Schema) -> SearchText {
        SearchText { columns: schema.searchable().iter().map(|column| Path::plain(column)).collect() }
    }

    /// The words of a search: each has to be a part of some text of a row.
    pub fn words(search: &str) -> impl Iterator<Item = String> {
        search.split_whitespace().map(|word| {
            let mut lower = String::new();
            lower_into(word, &mut lower);
            lower
        })
    }

    /// Visits every text and number in `row`, in lower case.
    pub fn each(&self, row: &impl Fields, visit: &mut impl FnMut(&str)) {
        let _ = self.walk(row, &mut |text| {
            visit(text);
            ControlFlow::Continue(())
        });
    }

    /// Visits them until `visit` has enough.
    fn walk(&self, row: &impl Fields, visit: &mut impl FnMut(&str) -> ControlFlow<()>) -> ControlFlow<()> {
        let mut lower = String::new();
        let mut visit = |text: &str| {
            lower_into(text, &mut lower);
            visit(&lower)
        };
        if let Some(values) = row.canonical().as_ref().and_then(|row| row.values(&self.columns)) {
            for value in values {
                match plain_text(value) {
                    Some(text) => visit(text)?,
                    None => decode(value).map_or(ControlFlow::Continue(()), |value| each_text(&value, &mut visit))?,
                }
            }
            return ControlFlow::Continue(());
        }
        self.columns.iter().filter_map(|column| row.field(column)).try_for_each(|value| each_text(&value, &mut visit))
    }
}

impl Search {
    /// `None` if there is no word.
    pub(super) fn new(text: &str, schema: &Schema) -> Option<Search> {
        let words: Vec<_> = SearchText::words(text).map(|word| Finder::new(word.as_bytes()).into_owned()).collect();
        (!words.is_empty()).then(|| Search { words, searchable: SearchText::new(schema) })
    }

    /// Whether every word is in some cell of `row`, each in any.
    pub(super) fn matches(&self, row: &impl Fields) -> bool {
        if let Some(JsonRow(json, _)) = row.canonical()
            && let Ok(json) = std::str::from_utf8(json)
        {
            let mut lower = String::new();
            lower_into(json, &mut lower);
            if self.words.iter().any(|word| stands_verbatim(word.needle()) && word.find(lower.as_bytes()).is_none()) {
                return false;
            }
        }
        let mut missing: Vec<&Finder<'_>> = self.words.iter().collect();
        let found = self.searchable.walk(row, &mut |text| {
            missing.retain(|word| word.find(text.as_bytes()).is_none());
            if missing.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        found.is_break()
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

/// Every text and number in `value`, numbers as JSON writes them, until `visit` has enough.
fn each_text(value: &CborValue, visit: &mut impl FnMut(&str) -> ControlFlow<()>) -> ControlFlow<()> {
    match value {
        CborValue::Text(text) => visit(text),
        CborValue::Integer(number) => visit(&i128::from(*number).to_string()),
        CborValue::Float(number) if number.is_finite() => visit(&format!("{number:?}")),
        CborValue::Array(items) => items.iter().try_for_each(|item| each_text(item, visit)),
        CborValue::Map(members) => members.iter().try_for_each(|(_, value)| each_text(value, visit)),
        CborValue::Tag(_, inner) => each_text(inner, visit),
        _ => ControlFlow::Continue(()),
    }
}
