//! Percent-encoding of URLs and forms.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Characters that are escaped in a path segment.
const IN_SEGMENTS: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Decodes percent-encoding, with `+` as a space or as itself. A `%` that does not begin a code is kept. `None` if the result is
/// not UTF-8.
pub fn percent_decoded(text: &str, plus_is_space: bool) -> Option<Cow<'_, str>> {
    let spaced = if plus_is_space && text.contains('+') { text.replace('+', " ").into() } else { Cow::Borrowed(text) };
    match spaced {
        plain if !plain.contains('%') => Some(plain),
        Cow::Borrowed(text) => percent_decode_str(text).decode_utf8().ok(),
        Cow::Owned(text) => percent_decode_str(&text).decode_utf8().ok().map(|text| text.into_owned().into()),
    }
}

/// Encodes `text` as one path segment.
pub fn segment(text: &str) -> String {
    utf8_percent_encode(text, IN_SEGMENTS).to_string()
}
