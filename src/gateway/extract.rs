//! What the path names: a resource, or a row of it.

use std::sync::Arc;

use axum::extract::{FromRequestParts, OriginalUri, Path};
use axum::http::request::Parts;

use super::problem::{ApiError, Code};
use super::state::{Mounted, Place, Shared};
use crate::vista::Error;

/// The resource that the path names. Refuses while its first copy is being made.
pub(super) struct On(pub(super) Arc<Mounted>);

/// The resource that the path names, which can do what the method asks of its rows.
pub(super) struct Writable(pub(super) Arc<Mounted>);

/// A row that the path names; it need not be there. Its resource can do what the method asks.
pub(super) struct OnRow {
    pub(super) at: Arc<Mounted>,
    pub(super) id: String,
}

/// What links begin with: everything before the gateway's own paths, wherever it is nested.
pub(super) struct Prefix(pub(super) String);

impl FromRequestParts<Arc<Shared>> for On {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, ApiError> {
        let Path(name) = Path::<String>::from_request_parts(parts, shared).await.map_err(unreadable)?;
        ready(shared.dio(&name)?).map(On)
    }
}

impl FromRequestParts<Arc<Shared>> for Writable {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, ApiError> {
        let On(at) = On::from_request_parts(parts, shared).await?;
        at.check_method(&parts.method, Place::Rows).map(|()| Writable(at))
    }
}

impl FromRequestParts<Arc<Shared>> for OnRow {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, ApiError> {
        let Path((name, id)) = Path::<(String, String)>::from_request_parts(parts, shared).await.map_err(unreadable)?;
        let at = ready(shared.dio(&name)?)?;
        at.check_method(&parts.method, Place::Row).map(|()| OnRow { at, id })
    }
}

impl FromRequestParts<Arc<Shared>> for Prefix {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, ApiError> {
        let own = parts.uri.path().to_string();
        let original = OriginalUri::from_request_parts(parts, shared).await.map(|uri| uri.path().to_string());
        let original = original.unwrap_or_default();
        let prefix = match own.as_str() {
            // The root of a nested router is asked for without its slash.
            "/" => Some(original.trim_end_matches('/')),
            own => original.strip_suffix(own),
        };
        Ok(Prefix(prefix.unwrap_or_default().to_string()))
    }
}

fn ready(at: &Arc<Mounted>) -> Result<Arc<Mounted>, ApiError> {
    match at.dio.is_ready() {
        true => Ok(Arc::clone(at)),
        false => {
            Err(ApiError::from(Error::NotReady { dio: at.dio.name().into() }).hint("GET /readyz says how far it is"))
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape of map_err")]
fn unreadable(error: axum::extract::rejection::PathRejection) -> ApiError {
    ApiError::new(Code::InvalidParameter, format!("the path cannot be read: {}", error.body_text()))
}

/// `text` as one segment of a path.
pub(crate) fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_id_is_one_segment_whatever_is_in_it() {
        assert_eq!(super::segment("a/b ü?#%"), "a%2Fb%20%C3%BC%3F%23%25");
    }
}
