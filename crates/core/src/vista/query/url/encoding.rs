//! Percent-encoding, as URLs and forms have it.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Everything that a segment of a path cannot hold as it is.
const IN_SEGMENTS: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Percent-decoding, with `+` as a space or as itself. A `%` that begins no code stands for itself. `None` if it is not UTF-8.
pub fn percent_decoded(text: &str, plus_is_space: bool) -> Option<Cow<'_, str>> {
    let spaced = if plus_is_space && text.contains('+') { text.replace('+', " ").into() } else { Cow::Borrowed(text) };
    match spaced {
        plain if !plain.contains('%') => Some(plain),
        Cow::Borrowed(text) => percent_decode_str(text).decode_utf8().ok(),
        Cow::Owned(text) => percent_decode_str(&text).decode_utf8().ok().map(|text| text.into_owned().into()),
    }
}

/// `text` as one segment of a path.
pub fn segment(text: &str) -> String {
    utf8_percent_encode(text, IN_SEGMENTS).to_string()
}
