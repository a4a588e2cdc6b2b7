//! Extractors for parts of the request: segments of the path, its prefix, the query.

use std::borrow::Cow;

use axum::extract::{FromRequestParts, OriginalUri, Query};
use axum::http::request::Parts;

use crate::http::problem::{ApiError, Code};
use diorama_core::dio::Dio;
use diorama_core::vista::query::url::percent_decoded;

/// Decoded segment number `AT` of the path, counted from 0.
pub(crate) struct Segment<const AT: usize>(pub(crate) String);

impl<S: Send + Sync, const AT: usize> FromRequestParts<S> for Segment<AT> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let segment = parts.uri.path().trim_start_matches('/').split('/').nth(AT).unwrap_or_default();
        Ok(Segment(decoded(segment)?.into_owned()))
    }
}

/// Prefix of links: the part of the path before the gateway's own paths, empty unless the gateway is nested.
pub(crate) struct Prefix(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Prefix {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let own = parts.uri.path().to_string();
        let original = OriginalUri::from_request_parts(parts, state).await.map(|uri| uri.path().to_string());
        Ok(Prefix(prefix(&original.unwrap_or_default(), &own).to_string()))
    }
}

/// Returns the part of the path `original` before the path `own` within the gateway.
pub(crate) fn prefix<'p>(original: &'p str, own: &str) -> &'p str {
    let prefix = match own {
        // The root of a nested router is requested without its slash.
        "/" => Some(original.trim_end_matches('/')),
        own => original.strip_suffix(own),
    };
    prefix.unwrap_or_default()
}

/// Refuses requests while the first copy of the resource is being read.
pub(crate) fn check_ready(dio: &Dio) -> Result<(), ApiError> {
    dio.check_ready().map_err(|error| ApiError::from(error).hint("repeat the request; GET /readyz shows the progress"))
}

/// Returns the first two segments of a path within the gateway. The router has already removed the prefix of a nested gateway.
pub(crate) fn segments(path: &str) -> (&str, &str) {
    let (first, rest) = cut(path.trim_start_matches('/'));
    (first, rest.map(cut).unwrap_or_default().0)
}

/// Splits a path at its first slash. Searches byte by byte, because segments are short.
pub(crate) fn cut(path: &str) -> (&str, Option<&str>) {
    match path.bytes().position(|byte| byte == b'/') {
        Some(at) => (&path[..at], Some(&path[at + 1..])),
        None => (path, None),
    }
}

pub(crate) fn decoded(segment: &str) -> Result<Cow<'_, str>, ApiError> {
    percent_decoded(segment, false)
        .ok_or_else(|| ApiError::new(Code::InvalidParameter, "the percent-decoded path is not valid UTF-8"))
}

/// Extractor for the parameters of the query, or the reason why they are not valid.
pub(crate) type QueryParameters<T> = Result<Query<T>, axum::extract::rejection::QueryRejection>;

/// Returns the parameters of the query.
pub(crate) fn parameters<T>(query: QueryParameters<T>) -> Result<T, ApiError> {
    match query {
        Ok(Query(parameters)) => Ok(parameters),
        Err(error) => Err(ApiError::new(Code::InvalidParameter, error.body_text())),
    }
}

#[cfg(test)]
mod tests {
    use diorama_core::vista::query::url::segment;

    #[test]
    fn an_id_with_special_characters_is_one_segment() {
        let id = "a/b ü?#%+";
        assert_eq!(segment(id), "a%2Fb%20%C3%BC%3F%23%25%2B");
        assert_eq!(super::decoded(&segment(id)).unwrap(), id);
        assert_eq!(super::decoded("a+b%").unwrap(), "a+b%");
        assert!(super::decoded("%FF").is_err());
    }
}
