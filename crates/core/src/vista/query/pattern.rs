//! Text patterns: `like` and regular expressions, both matched in linear time.
//!
//! A [`Pattern`] is its text only; a query's patterns are compiled when the query is prepared, and live as long as what was
//! prepared. So queries can be kept by the thousand, and what compiled patterns take is counted where they are kept.

use regex_automata::meta::{BuildError, Config, Regex};
use regex_automata::util::syntax;

use crate::vista::{Error, Result};

/// Bytes of a compiled pattern, at most.
const MOST_COMPILED: usize = 1 << 20;
/// Bytes that a pattern may remember of the texts it was tried on.
const MOST_REMEMBERED: usize = 128 << 10;
/// Characters of a pattern, at most.
pub const MAX_PATTERN: usize = 1_000;

/// A pattern as it was written.
#[derive(Clone, PartialEq, Eq)]
pub struct Pattern {
    source: String,
    kind: Kind,
    ignore_case: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Like,
    Regex,
}

/// A pattern that texts can be tried on.
#[derive(Clone)]
pub struct Compiled(Option<Regex>);

impl Pattern {
    /// A pattern for whole texts: `*` and `%` stand for any run, `_` for one character, `\` takes the next one literally.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is longer than [`MAX_PATTERN`] characters.
    pub fn like(source: &str) -> Result<Pattern> {
        Pattern::checked(source, Kind::Like, false)
    }

    /// [`Pattern::like`] whatever the case.
    ///
    /// # Errors
    /// As [`Pattern::like`].
    pub fn ilike(source: &str) -> Result<Pattern> {
        Pattern::checked(source, Kind::Like, true)
    }

    /// A regular expression (syntax of the `regex` crate) that is looked for anywhere in a text. It is compiled to see whether
    /// that can be done, which may take some milliseconds.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it cannot be read or is too big.
    pub fn regex(source: &str) -> Result<Pattern> {
        Pattern::checked(source, Kind::Regex, false)
    }

    /// [`Pattern::regex`] whatever the case.
    ///
    /// # Errors
    /// As [`Pattern::regex`].
    pub fn iregex(source: &str) -> Result<Pattern> {
        Pattern::checked(source, Kind::Regex, true)
    }

    /// A `like` source that finds `text` anywhere, literally.
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

    /// As it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Makes it ready for texts.
    pub fn compile(&self) -> Compiled {
        // It was found to be possible when the pattern was made.
        Compiled(self.build().ok())
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
        // The longest `like` of nothing but `_` takes a little more than a regular expression may.
        let (text, most) = match self.kind {
            Kind::Like => (&*like_to_regex(&self.source), 2 * MOST_COMPILED),
            Kind::Regex => (&*self.source, MOST_COMPILED),
        };
        let config = Config::new().nfa_size_limit(Some(most)).hybrid_cache_capacity(MOST_REMEMBERED);
        let syntax = syntax::Config::new().case_insensitive(self.ignore_case);
        Regex::builder().configure(config).syntax(syntax).build(text).map_err(Box::new)
    }
}

impl std::fmt::Debug for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pattern({:?})", self.source)
    }
}

impl Compiled {
    /// Whether `text` fits.
    pub fn is_match(&self, text: &str) -> bool {
        self.0.as_ref().is_some_and(|regex| regex.is_match(text))
    }

    /// Bytes that it takes, and may come to take while it is used.
    pub fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |regex| regex.memory_usage() + 2 * MOST_REMEMBERED)
    }
}

impl std::fmt::Debug for Compiled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Compiled({} bytes)", self.bytes())
    }
}

fn reason(error: &BuildError) -> String {
    match error.syntax_error() {
        // The parser draws the place on several lines; the last one says what is wrong.
        Some(syntax) => {
            let text = syntax.to_string();
            text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_string()
        }
        None => "it is too big".to_string(),
    }
}

fn like_to_regex(source: &str) -> String {
    let mut regex = String::with_capacity(source.len() + 8);
    regex.push_str(r"(?s)\A");
    let mut chars = source.chars().peekable();
    let mut literal = [0; 4];
    while let Some(c) = chars.next() {
        match c {
            '*' | '%' => {
                while chars.next_if(|next| matches!(next, '*' | '%')).is_some() {}
                regex.push_str(".*");
            }
            '_' => regex.push('.'),
            '\\' => {
                let next = chars.next().unwrap_or('\\');
                regex.push_str(&regex_syntax::escape(next.encode_utf8(&mut literal)));
            }
            _ => regex.push_str(&regex_syntax::escape(c.encode_utf8(&mut literal))),
        }
    }
    regex.push_str(r"\z");
    regex
}
