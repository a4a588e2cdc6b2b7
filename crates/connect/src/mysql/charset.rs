//! Character sets of text in the binary log, which has it as the server stores it.

use std::sync::Arc;

use super::errors::failed;
use super::pool::Session;
use super::value::text_literal;
use diorama_core::vista::Result;

/// Conversion from a character set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Charset {
    /// UTF-8 and its subset.
    #[default]
    Utf8,
    /// A character for each byte, as the server converts them.
    Bytes(Arc<[char]>),
    /// Any other: values cannot be converted here.
    Other,
}

impl Charset {
    /// Returns the conversion from the character set `name`, which the server has.
    ///
    /// # Errors
    /// [`Error::Source`](diorama_core::Error::Source) if the server fails.
    pub(super) async fn of(session: &mut Session, name: &str) -> Result<Charset> {
        if matches!(name, "" | "ascii" | "utf8" | "utf8mb3" | "utf8mb4") {
            return Ok(Charset::Utf8);
        }
        let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let known = format!(
            "SELECT 1 FROM information_schema.CHARACTER_SETS WHERE CHARACTER_SET_NAME = {} AND MAXLEN = 1",
            text_literal(name)
        );
        if !is_plain || session.rows(&known).await.map_err(failed)?.is_empty() {
            return Ok(Charset::Other);
        }
        let bytes: String = (0..=u8::MAX).map(|byte| format!("{byte:02x}")).collect();
        let rows = session.rows(&format!("SELECT CONVERT(_{name} x'{bytes}' USING utf8mb4)")).await.map_err(failed)?;
        let text: String = rows.first().and_then(|row| row.get(0)).unwrap_or_default();
        let chars: Vec<char> = text.chars().collect();
        Ok(if chars.len() == 256 { Charset::Bytes(chars.into()) } else { Charset::Other })
    }

    /// Returns a stored text; `None` if it cannot be converted.
    pub(super) fn decode(&self, bytes: &[u8]) -> Option<String> {
        match self {
            Charset::Utf8 => std::str::from_utf8(bytes).ok().map(str::to_string),
            Charset::Bytes(chars) => bytes.iter().map(|byte| chars.get(usize::from(*byte))).collect(),
            Charset::Other => None,
        }
    }
}

/// Returns the words of the declared type `enum('a','b')` or `set('a','b')`.
pub(super) fn words_of(declared: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = declared.chars().peekable();
    while let Some(char) = chars.next() {
        match (&mut word, char) {
            (None, '\'') => word = Some(String::new()),
            (None, _) => {}
            (Some(text), '\'') if chars.next_if_eq(&'\'').is_some() => text.push('\''),
            (Some(_), '\'') => words.extend(word.take()),
            (Some(text), '\\') => text.extend(chars.next().map(unescaped)),
            (Some(text), char) => text.push(char),
        }
    }
    words
}

fn unescaped(char: char) -> char {
    match char {
        'n' => '\n',
        'r' => '\r',
        '0' => '\0',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::words_of;

    #[test]
    fn words_are_read_as_they_were_declared() {
        assert_eq!(words_of(r"enum('sad','happy, ''very''','','a\\b')"), ["sad", "happy, 'very'", "", r"a\b"]);
        assert_eq!(words_of("int(11)"), [""; 0]);
    }
}
