//! Text patterns: `like` and regular expressions, both matched in linear time.
//!
//! A [`Pattern`] is only the pattern's text. Patterns are compiled when a query is prepared, and freed with the prepared query.
//! So thousands of queries can be cached, and a cache of prepared queries counts the memory of their compiled patterns.

use regex_automata::meta::{BuildError, Config, Regex};
use regex_automata::util::syntax;

use crate::vista::{Error, Result};

/// Maximum size of a compiled pattern in bytes.
const MAX_COMPILED: usize = 1 << 20;
/// Maximum size in bytes of the cache that a pattern builds while it is matched.
const MAX_CACHE: usize = 128 << 10;
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
pub struct Compiled(Option<Regex>);

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
        // The longest `like` of only `_` takes a little more than the limit of regular expressions.
        let (text, most) = match self.kind {
            Kind::Like => (&*like_to_regex(&self.source), 2 * MAX_COMPILED),
            Kind::Regex => (&*self.source, MAX_COMPILED),
        };
        let config = Config::new().nfa_size_limit(Some(most)).hybrid_cache_capacity(MAX_CACHE);
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
    /// True if `text` matches.
    pub fn is_match(&self, text: &str) -> bool {
        self.0.as_ref().is_some_and(|regex| regex.is_match(text))
    }

    /// Memory in bytes, including the cache that it may build while it is used.
    pub fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |regex| regex.memory_usage() + 2 * MAX_CACHE)
    }
}

impl std::fmt::Debug for Compiled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Compiled({} bytes)", self.bytes())
    }
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
