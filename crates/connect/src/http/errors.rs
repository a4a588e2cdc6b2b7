//! Failures of requests, and their errors for reads and writes.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use jiff::fmt::rfc2822;

use super::pointer;
use diorama_core::vista::{Error, ErrorKind};

/// Maximum pause that an API can demand.
const LONGEST_PAUSE: Duration = Duration::from_secs(3_600);
/// Maximum length of an API's own words in an error, in characters.
const MOST_DETAIL: usize = 300;

/// Members of JSON answers that describe an error: RFC 9457, GitHub, GitLab, Stripe, Google, Airtable, OData, JSON:API, RFC 6749.
const DETAILS: [&str; 10] = [
    "/detail",
    "/message",
    "/error/message",
    "/errors/0/detail",
    "/errors/0/message",
    "/error_description",
    "/error",
    "/errors",
    "/msg",
    "/title",
];

/// A request without a usable answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The API has not acted: nothing was sent, or it said so.
    NotActed {
        /// The reason.
        message: String,
        /// Time until a repetition makes sense, if it is known.
        retry_after: Option<Duration>,
    },
    /// The API may have acted.
    Unanswered(String),
    /// The API has refused the request.
    Refused {
        /// The status.
        status: StatusCode,
        /// The API's own words.
        message: String,
    },
}

impl Failure {
    pub(crate) fn not_acted(message: impl Into<String>) -> Failure {
        Failure::NotActed { message: message.into(), retry_after: None }
    }

    /// Returns the error for a read, which can always be repeated.
    pub(crate) fn of_read(self) -> Error {
        match self {
            Failure::NotActed { message, retry_after } => transient(message, retry_after),
            Failure::Unanswered(message) => Error::transient(message),
            Failure::Refused { message, .. } => Error::permanent(message),
        }
    }

    /// Returns the error for the write of row `id`.
    pub(super) fn of_write(self, id: &str) -> Error {
        match self {
            Failure::NotActed { message, retry_after } => transient(message, retry_after),
            Failure::Unanswered(message) => Error::unknown(message),
            Failure::Refused { status, message } => match status.as_u16() {
                404 | 410 => Error::NotFound { id: id.to_string() },
                409 => Error::Conflict { id: id.to_string(), detail: format!("conflicts: {message}") },
                412 => Error::Precondition { id: id.to_string() },
                400 | 422 => Error::invalid(message),
                _ => Error::permanent(message),
            },
        }
    }
}

fn transient(message: String, retry_after: Option<Duration>) -> Error {
    Error::Source { message, kind: ErrorKind::Transient, retry_after, cause: None }
}

/// Returns the error's text without the URL, which may contain a secret, with its cause.
pub(crate) fn plain(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(next) = cause {
        let own = next.to_string();
        if !text.contains(&own) {
            text = format!("{text}: {own}");
        }
        cause = next.source();
    }
    text
}

/// Returns the API's own words about an error as `: WORDS`; empty if there are none.
pub(super) fn detail_of(body: &[u8]) -> String {
    let document = super::client::parse(body).ok();
    let words = document.as_ref().and_then(|document| {
        DETAILS.iter().filter_map(|at| pointer::get(document, at)).find_map(|value| match value.as_text() {
            Some(text) => Some(text.to_string()).filter(|text| !text.is_empty()),
            None if value.is_map() || value.is_array() => {
                Some(String::from_utf8_lossy(&diorama_core::record::value_to_json(value)).into_owned())
            }
            None => None,
        })
    });
    let words = words.or_else(|| match document {
        // A page for people says nothing in its first characters.
        None if !body.trim_ascii_start().starts_with(b"<") => {
            Some(String::from_utf8_lossy(body).trim().to_string()).filter(|text| !text.is_empty())
        }
        _ => None,
    });
    words.map(|words| format!(": {}", words.chars().take(MOST_DETAIL).collect::<String>())).unwrap_or_default()
}

/// Returns the time that `Retry-After` names: seconds, or a date (RFC 9110, section 10.2.3); at most [`LONGEST_PAUSE`].
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok()?,
        Err(_) => until(rfc2822::parse(text).ok()?.timestamp()),
    };
    Some(wait.min(LONGEST_PAUSE))
}

/// Returns the time until a limit is lifted, from a header with seconds, a Unix time in seconds or milliseconds, or RFC 3339; at most
/// [`LONGEST_PAUSE`].
pub(super) fn reset_in(value: &str) -> Option<Duration> {
    let value = value.trim();
    let wait = match value.parse::<f64>() {
        Err(_) => until(value.parse().ok()?),
        // A day at most is a time from now; anything larger is a Unix time.
        Ok(seconds) if seconds <= 86_400.0 => Duration::try_from_secs_f64(seconds.max(0.0)).ok()?,
        Ok(seconds) if seconds < 1e11 => until(Timestamp::from_second(seconds as i64).ok()?),
        Ok(milliseconds) => until(Timestamp::from_millisecond(milliseconds as i64).ok()?),
    };
    Some(wait.min(LONGEST_PAUSE))
}

fn until(time: Timestamp) -> Duration {
    Duration::try_from(time.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_limits_are_read_in_every_form_that_apis_use() {
        let headers = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(http::header::RETRY_AFTER, value.parse().unwrap());
            headers
        };
        assert_eq!(retry_after(&headers("7")), Some(Duration::from_secs(7)));
        assert_eq!(retry_after(&headers("2.5")), Some(Duration::from_millis(2_500)));
        assert_eq!(retry_after(&headers("soon")), None);
        assert_eq!(retry_after(&headers("Wed, 21 Oct 2015 07:28:00 GMT")), Some(Duration::ZERO));
        let date = rfc2822::DateTimePrinter::new()
            .timestamp_to_rfc9110_string(&(Timestamp::now() + Duration::from_secs(100)))
            .unwrap();
        let wait = retry_after(&headers(&date)).unwrap();
        assert!((98..=100).contains(&wait.as_secs()), "{wait:?}");
        let soon = Timestamp::now() + Duration::from_secs(50);
        for value in [soon.as_second().to_string(), soon.as_millisecond().to_string(), soon.to_string()] {
            let wait = reset_in(&value).unwrap();
            assert!((48..=50).contains(&wait.as_secs()), "{value}: {wait:?}");
        }
        assert_eq!(reset_in("30"), Some(Duration::from_secs(30)));
        assert_eq!(reset_in("1015213"), Some(Duration::ZERO));
    }

    #[test]
    fn an_error_has_the_words_of_the_api() {
        let of = |body: &str| detail_of(body.as_bytes());
        assert_eq!(of(r#"{"message":"Not Found","documentation_url":"x"}"#), ": Not Found");
        assert_eq!(of(r#"{"error":{"type":"INVALID","message":"bad name"}}"#), ": bad name");
        assert_eq!(of(r#"{"errors":[{"detail":"too long"}]}"#), ": too long");
        assert_eq!(of(r#"{"errors":{"title":["can't be blank"]}}"#), r#": {"title":["can't be blank"]}"#);
        assert_eq!(of("<html><body>Bad Gateway"), "");
        assert_eq!((of("no such thing\n"), of("")), (": no such thing".into(), String::new()));
    }
}
