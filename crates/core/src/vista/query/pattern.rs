//! Text patterns: `like` and regular expressions, both matched in linear time.
//!
//! A [`Pattern`] is only the pattern's text. Patterns are compiled when a query is prepared, and freed with the prepared query.
//! So thousands of queries can be cached, and a cache of prepared queries counts the memory of their compiled patterns.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::sync::Arc;

use memchr::memmem::Finder;
use regex_automata::meta::{BuildError, Config, Regex};
use regex_automata::util::syntax;
use regex_syntax::hir::{Hir, HirKind};

use super::block::Mask;
use crate::vista::{Error, Result};

/// Maximum size of a compiled pattern in bytes.
const MAX_COMPILED: usize = 1 << 20;
/// Maximum size in bytes of the cache that a pattern builds while it is matched.
const MAX_CACHE: usize = 128 << 10;
/// Maximum number of literals that are looked for before a pattern is matched.
const MAX_LITERALS: usize = 3;
/// Maximum number of characters in a pattern.
pub const MAX_PATTERN: usize = 1_000;

/// A pattern in its source form.
#[derive(Clone, PartialEq, Eq)]
pub struct Pattern {
    source: String,
    kind: Kind,
    ignore_case: bool,
}

/// Syntax of a pattern.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Like,
    Regex,
}

/// A compiled pattern, ready to match texts.
#[derive(Clone)]
pub struct Compiled {
    regex: Option<Regex>,
    /// Literals that are in every text that matches, the longest first.
    literals: Arc<[Finder<'static>]>,
}

impl Pattern {
    /// A pattern for whole texts: `*` and `%` match any run of characters, `_` matches one, `\` makes the next one literal.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is longer than [`MAX_PATTERN`] characters.
    pub fn like(source: &str) -> Result<Pattern> {
        Pattern::checked(source, Kind::Like, false)
    }

    /// Case-insensitive [`Pattern::like`].
    ///
    /// # Errors
    /// As [`Pattern::like`].
    pub fn ilike(source: &str) -> Result<Pattern> {
        Pattern::checked(source, Kind::Like, true)
    }

    /// A regular expression (syntax of the `regex` crate) that matches anywhere in a text. It is compiled once as a check, which
    /// may take some milliseconds.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it cannot be parsed or is too big.
    pub fn regex(source: &str) -> Result<Pattern> {
        Pattern::checked(source, Kind::Regex, false)
    }

    /// Case-insensitive [`Pattern::regex`].
    ///
    /// # Errors
    /// As [`Pattern::regex`].
    pub fn iregex(source: &str) -> Result<Pattern> {
        Pattern::checked(source, Kind::Regex, true)
    }

    /// Source of a `like` pattern that matches texts containing `text` literally.
    pub fn containing(text: &str) -> String {
        let mut source = String::with_capacity(text.len() + 2);
        source.push('*');
        for c in text.chars() {
            if matches!(c, '*' | '%' | '_' | '\\') {
                source.push('\\');
            }
            source.push(c);
        }
        source.push('*');
        source
    }

    /// Source text of the pattern.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Compiles the pattern.
    pub fn compile(&self) -> Compiled {
        // Cannot fail: regular expressions were compiled as a check when the pattern was created.
        let regex = self.build().ok();
        let hir = syntax::parse_with(&self.regex_source(), &self.syntax()).ok();
        let mut literals = Vec::new();
        hir.iter().for_each(|hir| required(hir, &mut literals));
        literals.sort_by_key(|literal| Reverse(literal.len()));
        let literals = literals.into_iter().take(MAX_LITERALS).map(|literal| Finder::new(literal).into_owned());
        Compiled { regex, literals: literals.collect() }
    }

    fn checked(source: &str, kind: Kind, ignore_case: bool) -> Result<Pattern> {
        let unusable = |why: &str| Error::invalid(format!("the pattern {source:?} cannot be used: {why}"));
        if source.chars().nth(MAX_PATTERN).is_some() {
            let detail = format!("a pattern is longer than {MAX_PATTERN} characters");
            return Err(Error::invalid(detail));
        }
        let pattern = Pattern { source: source.to_string(), kind, ignore_case };
        if kind == Kind::Regex {
            pattern.build().map_err(|error| unusable(&reason(&error)))?;
        }
        Ok(pattern)
    }

    fn build(&self) -> Result<Regex, Box<BuildError>> {
        // The longest `like` of only `_` takes a little more than the limit of regular expressions.
        let most = match self.kind {
            Kind::Like => 2 * MAX_COMPILED,
            Kind::Regex => MAX_COMPILED,
        };
        let config = Config::new().nfa_size_limit(Some(most)).hybrid_cache_capacity(MAX_CACHE);
        Regex::builder().configure(config).syntax(self.syntax()).build(&self.regex_source()).map_err(Box::new)
    }

    /// The regular expression of this pattern.
    fn regex_source(&self) -> Cow<'_, str> {
        match self.kind {
            Kind::Like => Cow::Owned(like_to_regex(&self.source)),
            Kind::Regex => Cow::Borrowed(&self.source),
        }
    }

    fn syntax(&self) -> syntax::Config {
        syntax::Config::new().case_insensitive(self.ignore_case)
    }
}

impl std::fmt::Debug for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pattern({:?})", self.source)
    }
}

impl Compiled {
    /// True if `text` matches.
    pub fn is_match(&self, text: &str) -> bool {
        self.regex.as_ref().is_some_and(|regex| regex.is_match(text))
    }

    /// The `rows` that may match: those whose cells contain a literal that is in every text that matches. `ends` are the ends of the
    /// rows' cells in `text`.
    pub(super) fn candidates(&self, text: &str, ends: &[u32], rows: &Mask) -> Mask {
        /// Number of rows that show if a literal is rare.
        const SAMPLE: usize = 64;
        // The literals are looked for in all cells.
        if rows.len() < ends.len() / 2 {
            return *rows;
        }
        let sample = ends.len().min(SAMPLE);
        let is_rare = |literal: &&Finder<'_>| holders(literal, text, &ends[..sample]).len() <= sample / 2;
        let rare = self.literals.iter().find(is_rare);
        rare.map_or(*rows, |literal| rows.and(&holders(literal, text, ends)))
    }

    /// Memory in bytes, including the cache that it may build while it is used.
    pub fn bytes(&self) -> usize {
        self.regex.as_ref().map_or(0, |regex| regex.memory_usage() + 2 * MAX_CACHE)
    }
}

impl std::fmt::Debug for Compiled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Compiled({} bytes)", self.bytes())
    }
}

/// Collects literals that are in every text that matches `hir`.
fn required<'h>(hir: &'h Hir, literals: &mut Vec<&'h [u8]>) {
    match hir.kind() {
        HirKind::Literal(literal) => literals.push(&literal.0),
        HirKind::Concat(parts) => parts.iter().for_each(|part| required(part, literals)),
        HirKind::Capture(capture) => required(&capture.sub, literals),
        HirKind::Repetition(repetition) if repetition.min > 0 => required(&repetition.sub, literals),
        _ => {}
    }
}

/// The cells of `text` that contain `literal`, which is not empty.
fn holders(literal: &Finder<'_>, text: &str, ends: &[u32]) -> Mask {
    let mut found = Mask::NONE;
    let text = &text.as_bytes()[..ends.last().map_or(0, |end| *end as usize)];
    let (mut at, mut row) = (0, 0);
    while let Some(offset) = text.get(at..).and_then(|rest| literal.find(rest)) {
        let start = at + offset;
        while ends[row] as usize <= start {
            row += 1;
        }
        let end = ends[row] as usize;
        // A literal may begin in one cell and end in another.
        let is_inside = start + literal.needle().len() <= end;
        if is_inside {
            found.insert(row);
        }
        at = if is_inside { end } else { start + 1 };
    }
    found
}

fn reason(error: &BuildError) -> String {
    match error.syntax_error() {
        // The parser draws the position on several lines; the last one is the message.
        Some(syntax) => {
            let text = syntax.to_string();
            text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_string()
        }
        None => "it is too big".to_string(),
    }
}

fn like_to_regex(source: &str) -> String {
    let mut regex = String::with_capacity(source.len() + 8);
    regex.push_str("(?s)");
    let is_any = |c: char| matches!(c, '*' | '%');
    // Any run at an end is left out, and with it the anchor: the rest is searched for, by its literals if it has some.
    let begin = source.trim_start_matches(is_any);
    if begin.len() == source.len() {
        regex.push_str(r"\A");
    }
    let mut anchored = !begin.is_empty() || source.is_empty();
    let mut chars = begin.chars().peekable();
    let mut literal = [0; 4];
    while let Some(c) = chars.next() {
        match c {
            '*' | '%' => {
                while chars.next_if(|next| is_any(*next)).is_some() {}
                anchored = chars.peek().is_some();
                if anchored {
                    regex.push_str(".*");
                }
            }
            '_' => regex.push('.'),
            '\\' => {
                let next = chars.next().unwrap_or('\\');
                regex.push_str(&regex_syntax::escape(next.encode_utf8(&mut literal)));
            }
            _ => regex.push_str(&regex_syntax::escape(c.encode_utf8(&mut literal))),
        }
    }
    if anchored {
        regex.push_str(r"\z");
    }
    regex
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PATTERNS: [&str; 14] = [
        "aa",
        "ab+a",
        "(ab)+",
        "a|b",
        "(a|b)b",
        "b{2}",
        "^a.*b$",
        "[a]b",
        "(?i)ab",
        "(aé)*b",
        "a(?:ba)?a",
        "é",
        "",
        "aé.*ba",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn candidates_of_a_pattern_have_every_text_that_matches(
            texts in prop::collection::vec("[abé]{0,5}", 0..150),
            pattern in prop::sample::select(PATTERNS.to_vec()),
            like: bool,
        ) {
            let pattern = if like { Pattern::like(&format!("*{pattern}*")) } else { Pattern::regex(pattern) };
            let compiled = pattern.unwrap().compile();
            let (mut text, mut ends) = (String::new(), Vec::new());
            for cell in &texts {
                text.push_str(cell);
                ends.push(text.len() as u32);
            }
            let candidates = compiled.candidates(&text, &ends, &Mask::first(texts.len()));
            let matching = Mask::of(texts.len(), |at| compiled.is_match(&texts[at]));
            prop_assert_eq!(matching.without(&candidates), Mask::NONE);
        }
    }

    #[test]
    fn rare_literals_leave_few_candidates() {
        let texts: Vec<String> = (0..1_000).map(|number| format!("number {number} of them")).collect();
        let ends = texts.iter().scan(0, |end, text| {
            *end += text.len() as u32;
            Some(*end)
        });
        let ends: Vec<u32> = ends.collect();
        let compiled = Pattern::regex("number [0-9]*99 of").unwrap().compile();
        let candidates = compiled.candidates(&texts.concat(), &ends, &Mask::first(texts.len()));
        assert_eq!(
            candidates.iter().collect::<Vec<_>>(),
            (0..10).map(|hundred| hundred * 100 + 99).collect::<Vec<_>>()
        );
    }
}
