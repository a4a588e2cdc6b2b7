//! Full-text search: words that must all occur in a row.

use std::ops::ControlFlow;

use memchr::memmem::Finder;

use super::fields::{Fields, JsonRow, Path, decode, plain_text};
use crate::record::CborValue;
use crate::vista::Schema;

/// A compiled search: its words and the columns in which they are searched.
#[derive(Clone, Debug)]
pub(super) struct Search {
    words: Vec<Finder<'static>>,
    searchable: SearchText,
}

/// The searchable text of rows: texts and numbers in the searchable columns, in lower case.
#[derive(Clone, Debug)]
pub struct SearchText {
    columns: Vec<Path>,
}

impl SearchText {
    /// Creates it from the searchable columns of `schema`.
    pub fn new(schema: &Schema) -> SearchText {
        SearchText { columns: schema.searchable().iter().map(|column| Path::plain(column)).collect() }
    }

    /// Splits a search into words in lower case. Each must be a substring of some text of a row.
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

    /// Visits the texts until `visit` breaks.
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
    /// Compiles a search; `None` if it has no words.
    pub(super) fn new(text: &str, schema: &Schema) -> Option<Search> {
        let words: Vec<_> = SearchText::words(text).map(|word| Finder::new(word.as_bytes()).into_owned()).collect();
        (!words.is_empty()).then(|| Search { words, searchable: SearchText::new(schema) })
    }

    /// True if every word occurs in some cell of `row`, not necessarily the same one.
    pub(super) fn matches(&self, row: &impl Fields) -> bool {
        if let Some(JsonRow(json, _)) = row.canonical()
            && let Ok(json) = std::str::from_utf8(json)
        {
            let mut lower = String::new();
            lower_into(json, &mut lower);
            if self.words.iter().any(|word| is_verbatim_in_json(word.needle()) && word.find(lower.as_bytes()).is_none())
            {
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

/// True if JSON writes `word` without escapes.
fn is_verbatim_in_json(word: &[u8]) -> bool {
    !word.iter().any(|byte| *byte < 0x20 || matches!(byte, b'"' | b'\\'))
}

/// Lower-cases each character by itself, so that a substring has the same lower case as within the whole text.
fn lower_into(text: &str, out: &mut String) {
    out.clear();
    if text.is_ascii() {
        out.push_str(text);
        out.make_ascii_lowercase();
    } else {
        out.extend(text.chars().flat_map(char::to_lowercase));
    }
}

/// Visits every text and number in `value`, numbers in JSON's notation, until `visit` breaks.
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
