//! Tokenization: texts into tokens, and tokens into index terms.

use super::dictionary::Dictionary;

/// An index term: a key under which rows are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Term {
    /// One byte that occurs in a token, or a token of two bytes that is not in the dictionary.
    Short(u32),
    /// Three bytes that occur in a token that is not in the dictionary.
    Gram(u32),
    /// A token of the dictionary, by number.
    Token(u32),
}

/// Encodes three bytes as a number.
pub(super) fn gram(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |all, byte| all << 8 | u32::from(*byte))
}

/// Encodes one or two bytes as a number.
pub(super) fn short(bytes: &[u8]) -> u32 {
    // Single bytes are numbered before all pairs.
    if bytes.len() == 1 { gram(bytes) } else { 0x100 + gram(bytes) }
}

/// Splits a text into tokens: runs of ASCII letters and digits, and of non-ASCII characters that are not white space.
///
/// Search words have no white space. So a word of token characters occurs in a text if and only if it occurs in a token.
pub(super) fn tokens(text: &str) -> impl Iterator<Item = &str> {
    let is_token_char = |c: char| if c.is_ascii() { c.is_ascii_alphanumeric() } else { !c.is_whitespace() };
    text.split(move |c| !is_token_char(c)).filter(|token| !token.is_empty())
}

/// Visits every term of a lower-case text; some more than once.
pub(super) fn each_term(text: &str, dictionary: &Dictionary, visit: &mut impl FnMut(Term)) {
    for token in tokens(text) {
        let bytes = token.as_bytes();
        bytes.windows(1).for_each(|byte| visit(Term::Short(short(byte))));
        match dictionary.number(token) {
            Some(number) => visit(Term::Token(number)),
            None if bytes.len() == 2 => visit(Term::Short(short(bytes))),
            None => bytes.windows(3).for_each(|bytes| visit(Term::Gram(gram(bytes)))),
        }
    }
}
