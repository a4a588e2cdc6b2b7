//! Content negotiation: the format of an answer, by `Accept`.

use axum::http::{HeaderMap, HeaderValue, header};
use thiserror::Error;

/// Error of a request that accepts none of the formats that can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("none of the formats in Accept is supported here")]
pub(crate) struct NotAcceptable {
    /// Supported formats.
    pub(crate) formats: &'static [Format],
}

/// Formats of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// An array of objects.
    Json,
    /// An object per line.
    Ndjson,
    /// RFC 4180 with a header line.
    Csv,
    /// An array of maps, RFC 8949.
    Cbor,
}

const LISTS: &[Format] = &[Format::Json, Format::Ndjson, Format::Csv, Format::Cbor];
const LOGS: &[Format] = &[Format::Json, Format::Ndjson];
const RECORDS: &[Format] = &[Format::Json, Format::Cbor];

impl Format {
    pub(crate) fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Format::Json => "application/json",
            Format::Ndjson => "application/x-ndjson",
            Format::Csv => "text/csv; charset=utf-8; header=present",
            Format::Cbor => "application/cbor",
        })
    }

    /// Returns the end of a strong ETag, so that the representations of one URL have different tags.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Format::Json => "",
            Format::Ndjson => "-n",
            Format::Csv => "-v",
            Format::Cbor => "-c",
        }
    }

    /// Returns true if a list without a limit is sent whole.
    pub(crate) fn is_streamed(self) -> bool {
        self != Format::Json
    }

    /// Returns how specifically the media range matches this format, from 0 for `*/*` to 2; `None` if it does not match.
    fn matches(self, range: &str) -> Option<u8> {
        let own: &[&str] = match self {
            Format::Json => &["application/json"],
            Format::Ndjson => &["application/x-ndjson", "application/jsonl", "application/ndjson"],
            Format::Csv => &["text/csv"],
            Format::Cbor => &["application/cbor"],
        };
        match range {
            "*/*" => Some(0),
            _ if range
                .strip_suffix("/*")
                .is_some_and(|kind| own.iter().any(|name| name.split('/').next() == Some(kind))) =>
            {
                Some(1)
            }
            _ => own.iter().any(|name| name.eq_ignore_ascii_case(range)).then_some(2),
        }
    }
}

/// The format of a list.
pub(crate) fn of_list(headers: &HeaderMap) -> Result<Format, NotAcceptable> {
    choose(headers, LISTS)
}

/// The format of a list of what is no row.
pub(crate) fn of_log(headers: &HeaderMap) -> Result<Format, NotAcceptable> {
    choose(headers, LOGS)
}

/// The format of one record.
pub(crate) fn of_record(headers: &HeaderMap) -> Result<Format, NotAcceptable> {
    choose(headers, RECORDS)
}

/// Returns true if the client lists `text/html`, with a quality not lower than that of JSON.
pub(crate) fn prefers_html(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let ranges: Vec<(&str, f32)> = accepted.flat_map(|value| value.split(',')).map(range).collect();
    let quality = |name: &str| {
        let named = ranges.iter().find(|(range, _)| range.eq_ignore_ascii_case(name));
        named.map_or(0.0, |(_, q)| *q)
    };
    quality("text/html") > 0.0 && quality("text/html") >= quality("application/json")
}

/// Returns the format with the highest quality. Of several with the same quality, the first of `formats` is chosen.
fn choose(headers: &HeaderMap, formats: &'static [Format]) -> Result<Format, NotAcceptable> {
    let mut accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).peekable();
    if accepted.peek().is_none_or(|first| *first == "*/*" || *first == "application/json") {
        return Ok(Format::Json);
    }
    let ranges = accepted.flat_map(|value| value.split(',')).map(range).filter(|(name, _)| !name.is_empty());
    let ranges: Vec<(&str, f32)> = ranges.collect();
    if ranges.is_empty() {
        return Ok(Format::Json);
    }
    let quality = |format: Format| {
        let fits = ranges.iter().filter_map(|(range, q)| Some((format.matches(range)?, *q)));
        fits.max_by_key(|(rank, _)| *rank).map_or(0.0, |(_, q)| q)
    };
    let mut best: Option<(Format, f32)> = None;
    for format in formats {
        let q = quality(*format);
        if q > best.map_or(0.0, |(_, best)| best) {
            best = Some((*format, q));
        }
    }
    best.map(|(format, _)| format).ok_or(NotAcceptable { formats })
}

pub(crate) fn range(text: &str) -> (&str, f32) {
    let mut parts = text.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let q = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    let q = q.map_or(1.0, |q| q.trim().parse().unwrap_or(0.0));
    (name, q)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_range_applies_and_json_is_preferred_among_equals() {
        for (accept, expected) in [
            ("*/*", Some(Format::Json)),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Some(Format::Json)),
            ("text/csv", Some(Format::Csv)),
            ("text/*", Some(Format::Csv)),
            ("application/*", Some(Format::Json)),
            ("application/json;q=0.5, application/cbor", Some(Format::Cbor)),
            ("application/json;q=0, */*", Some(Format::Ndjson)),
            ("application/jsonl", Some(Format::Ndjson)),
            ("image/png", None),
            ("", Some(Format::Json)),
            (" , ", Some(Format::Json)),
            ("text/csv;q=0, text/csv;q=0", None),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
            assert_eq!(of_list(&headers).ok(), expected, "{accept}");
        }
        assert_eq!(of_list(&HeaderMap::new()).ok(), Some(Format::Json));
    }
}
