//! Compiled text patterns: `like` and regular expressions, both in linear time.

use regex::{Regex, RegexBuilder};

use crate::vista::{Error, Result};

const SIZE_LIMIT: usize = 1 << 20;

/// A pattern compiled once; equal if written alike.
#[derive(Clone)]
pub struct Pattern {
    source: String,
    regex: Regex,
}

impl Pattern {
    /// A pattern for whole texts: `*` and `%` stand for any run, `_` for one character, `\` takes the next one literally.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is too big.
    pub fn like(source: &str) -> Result<Pattern> {
        Pattern::compile(source, &like_to_regex(source), false)
    }

    /// [`Pattern::like`] whatever the case.
    ///
    /// # Errors
    /// As [`Pattern::like`].
    pub fn ilike(source: &str) -> Result<Pattern> {
        Pattern::compile(source, &like_to_regex(source), true)
    }

    /// A regular expression (syntax of the `regex` crate) that is looked for anywhere in a text.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it cannot be read or is too big.
    pub fn regex(source: &str) -> Result<Pattern> {
        Pattern::compile(source, source, false)
    }

    /// [`Pattern::regex`] whatever the case.
    ///
    /// # Errors
    /// As [`Pattern::regex`].
    pub fn iregex(source: &str) -> Result<Pattern> {
        Pattern::compile(source, source, true)
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

    /// Whether `text` fits.
    pub fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    fn compile(source: &str, regex: &str, ignore_case: bool) -> Result<Pattern> {
        let regex = RegexBuilder::new(regex)
            .case_insensitive(ignore_case)
            .size_limit(SIZE_LIMIT)
            .dfa_size_limit(SIZE_LIMIT)
            .build()
            .map_err(|error| Error::invalid(format!("the pattern {source:?} cannot be used: {}", reason(&error))))?;
        Ok(Pattern { source: source.to_string(), regex })
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        // The compiled text tells `like` from `regex`; case is told by the variant of the test that holds the pattern.
        self.source == other.source && self.regex.as_str() == other.regex.as_str()
    }
}

impl std::fmt::Debug for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pattern({:?})", self.source)
    }
}

fn reason(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(_) => "it is too big".to_string(),
        // The crate draws the place on several lines; the last one says what is wrong.
        other => {
            let text = other.to_string();
            text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_string()
        }
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
                regex.push_str(&regex::escape(next.encode_utf8(&mut literal)));
            }
            _ => regex.push_str(&regex::escape(c.encode_utf8(&mut literal))),
        }
    }
    regex.push_str(r"\z");
    regex
}
