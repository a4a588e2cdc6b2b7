//! Meaning of answers: by their status, or by rules of the configuration.

use super::pointer;
use diorama_core::record::CborValue;
use http::StatusCode;

/// Meaning of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpAction {
    /// The request has succeeded.
    Accept,
    /// There is nothing: no rows, no row.
    Ignore,
    /// The request is refused, and a repetition would be.
    Fail,
    /// A repetition may succeed; the API has not acted.
    Retry,
    /// Too many requests: none is sent until the time that the answer says.
    RateLimited,
    /// The API may have acted or not.
    Unknown,
}

impl HttpAction {
    /// Words of the configuration.
    pub(super) const WORDS: [&'static str; 4] = ["retry", "ignore", "fail", "rate_limited"];

    pub(super) fn of(word: &str) -> HttpAction {
        match word {
            "retry" => HttpAction::Retry,
            "ignore" => HttpAction::Ignore,
            "rate_limited" => HttpAction::RateLimited,
            _ => HttpAction::Fail,
        }
    }

    /// Returns the meaning of a status without a rule.
    pub(super) fn of_status(status: StatusCode) -> HttpAction {
        match status.as_u16() {
            200..=299 => HttpAction::Accept,
            429 => HttpAction::RateLimited,
            401 | 408 | 425 | 503 => HttpAction::Retry,
            500..=599 => HttpAction::Unknown,
            _ => HttpAction::Fail,
        }
    }
}

/// Rule for the meaning of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpRule {
    /// The status; any if missing.
    pub status: Option<u16>,
    /// JSON Pointer to a value of the answer, which must be there.
    pub path: Option<String>,
    /// The text of that value, as JSON without quotes; any if missing.
    pub equals: Option<String>,
    /// A part of the answer's text.
    pub contains: Option<String>,
    /// The meaning.
    pub action: HttpAction,
}

impl HttpRule {
    /// Returns true if the rule applies. `document` is the answer if it is JSON.
    fn applies(&self, status: StatusCode, body: &[u8], document: Option<&CborValue>) -> bool {
        let value = self.path.as_ref().map(|path| document.and_then(|document| pointer::get(document, path)));
        let is_value = match (value, &self.equals) {
            (None, _) => true,
            (Some(None), _) => false,
            (Some(Some(_)), None) => true,
            (Some(Some(value)), Some(wanted)) => plain(value) == *wanted,
        };
        is_value
            && self.status.is_none_or(|own| own == status.as_u16())
            && self.contains.as_ref().is_none_or(|part| memchr::memmem::find(body, part.as_bytes()).is_some())
    }
}

fn plain(value: &CborValue) -> String {
    match value {
        CborValue::Text(text) => text.clone(),
        value => String::from_utf8_lossy(&diorama_core::record::value_to_json(value)).into_owned(),
    }
}

/// Returns the action of the first rule that applies, else that of the status.
pub(super) fn action(rules: &[HttpRule], status: StatusCode, body: &[u8]) -> HttpAction {
    let needs_document = rules.iter().any(|rule| rule.path.is_some());
    let document = needs_document.then(|| super::client::parse(body).ok()).flatten();
    let rule = rules.iter().find(|rule| rule.applies(status, body, document.as_ref()));
    rule.map_or_else(|| HttpAction::of_status(status), |rule| rule.action)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_wins_over_the_status() {
        let rule = |status, path: Option<&str>, equals: Option<&str>, contains: Option<&str>, action| HttpRule {
            status,
            path: path.map(Into::into),
            equals: equals.map(Into::into),
            contains: contains.map(Into::into),
            action,
        };
        let rules = [
            rule(Some(404), None, None, None, HttpAction::Ignore),
            rule(Some(200), Some("/ok"), Some("false"), None, HttpAction::Fail),
            rule(None, None, None, Some("slow down"), HttpAction::RateLimited),
        ];
        let of = |status: u16, body: &str| action(&rules, StatusCode::from_u16(status).unwrap(), body.as_bytes());
        assert_eq!(of(404, ""), HttpAction::Ignore);
        assert_eq!(of(200, r#"{"ok":false}"#), HttpAction::Fail);
        assert_eq!(of(200, r#"{"ok":true}"#), HttpAction::Accept);
        assert_eq!(of(403, "please slow down"), HttpAction::RateLimited);
        assert_eq!(of(403, "<html>"), HttpAction::Fail);
        assert_eq!(
            [of(429, ""), of(503, ""), of(502, "")].map(|action| action as u8),
            [HttpAction::RateLimited as u8, HttpAction::Retry as u8, HttpAction::Unknown as u8]
        );
    }
}
