//! Who may call: bearer tokens, compared in constant time.

use axum::http::{HeaderMap, header};
use subtle::ConstantTimeEq as _;

use super::problem::{ApiError, Code};

/// Who may call.
#[derive(Clone, Default)]
pub enum Auth {
    /// Anybody.
    #[default]
    None,
    /// Whoever sends one of these as `Authorization: Bearer TOKEN`.
    Tokens(Vec<String>),
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Auth::None => f.write_str("None"),
            Auth::Tokens(tokens) => write!(f, "Tokens({} of them)", tokens.len()),
        }
    }
}

impl Auth {
    /// Whether the request of `headers` may pass.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let Auth::Tokens(tokens) = self else { return Ok(()) };
        let refuse = |detail: &'static str| {
            Err(ApiError::new(Code::Unauthenticated, detail).hint("send the header Authorization: Bearer TOKEN"))
        };
        let Some(value) = headers.get(header::AUTHORIZATION) else { return refuse("a token is required") };
        let given = match value.as_bytes().split_at_checked(7) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => token.trim_ascii(),
            _ => return refuse("the Authorization header is no bearer token"),
        };
        // Every token is compared, so that the time says nothing of which one was close.
        let known = tokens.iter().fold(subtle::Choice::from(0), |known, token| known | token.as_bytes().ct_eq(given));
        if bool::from(known) && !given.is_empty() { Ok(()) } else { refuse("the token is not known") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(header: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        if let Some(header) = header {
            headers.insert(header::AUTHORIZATION, header.parse().unwrap());
        }
        Auth::Tokens(vec!["one".into(), "two".into(), String::new()]).check(&headers).is_ok()
    }

    #[test]
    fn only_known_tokens_pass_and_an_empty_one_never() {
        assert!(check(Some("Bearer two")) && check(Some("bearer one")));
        for refused in [None, Some("Bearer "), Some("Bearer"), Some("Bearer three"), Some("Basic one"), Some("on")] {
            assert!(!check(refused), "{refused:?}");
        }
    }
}
