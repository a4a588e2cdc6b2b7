//! What the path names: a resource, or a row of it.

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::{FromRequestParts, OriginalUri};
use axum::http::request::Parts;

use crate::http::problem::{ApiError, Code};
use crate::state::{GatewayState, PathTarget, Resource};
use diorama_core::dio::Dio;
use diorama_core::vista::query::url::percent_decoded;

/// The resource that the path names. Refuses while its first copy is being made.
pub(crate) struct PathResource(pub(crate) Arc<Resource>);

/// The resource that the path names, which can do what the method asks of its rows.
pub(crate) struct WritableResource(pub(crate) Arc<Resource>);

/// A row that the path names; it need not be there. Its resource can do what the method asks.
pub(crate) struct PathRow {
    pub(crate) resource: Arc<Resource>,
    pub(crate) id: String,
}

/// One segment of the path, the first is number 0.
pub(crate) struct Segment<const AT: usize>(pub(crate) String);

impl<const AT: usize> FromRequestParts<Arc<GatewayState>> for Segment<AT> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<GatewayState>) -> Result<Self, ApiError> {
        let segment = parts.uri.path().trim_start_matches('/').split('/').nth(AT).unwrap_or_default();
        Ok(Segment(decoded(segment)?.into_owned()))
    }
}

/// What links begin with: everything before the gateway's own paths, wherever it is nested.
pub(crate) struct Prefix(pub(crate) String);

impl FromRequestParts<Arc<GatewayState>> for PathResource {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, gateway: &Arc<GatewayState>) -> Result<Self, ApiError> {
        let (name, _) = segments(parts.uri.path());
        ready(gateway.dio(&decoded(name)?)?).map(PathResource)
    }
}

impl FromRequestParts<Arc<GatewayState>> for WritableResource {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, gateway: &Arc<GatewayState>) -> Result<Self, ApiError> {
        let PathResource(resource) = PathResource::from_request_parts(parts, gateway).await?;
        resource.check_method(&parts.method, PathTarget::Rows).map(|()| WritableResource(resource))
    }
}

impl FromRequestParts<Arc<GatewayState>> for PathRow {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, gateway: &Arc<GatewayState>) -> Result<Self, ApiError> {
        let (name, id) = segments(parts.uri.path());
        let id = decoded(id)?.into_owned();
        let resource = ready(gateway.dio(&decoded(name)?)?)?;
        let id = match resource.dio.known_id(&id) {
            Cow::Owned(known) => known,
            Cow::Borrowed(_) => id,
        };
        resource.check_method(&parts.method, PathTarget::Row).map(|()| PathRow { resource, id })
    }
}

impl FromRequestParts<Arc<GatewayState>> for Prefix {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, gateway: &Arc<GatewayState>) -> Result<Self, ApiError> {
        let own = parts.uri.path().to_string();
        let original = OriginalUri::from_request_parts(parts, gateway).await.map(|uri| uri.path().to_string());
        let original = original.unwrap_or_default();
        let prefix = match own.as_str() {
            // The root of a nested router is asked for without its slash.
            "/" => Some(original.trim_end_matches('/')),
            own => original.strip_suffix(own),
        };
        Ok(Prefix(prefix.unwrap_or_default().to_string()))
    }
}

fn ready(resource: &Arc<Resource>) -> Result<Arc<Resource>, ApiError> {
    check_ready(&resource.dio).map(|()| Arc::clone(resource))
}

/// Refuses while there is no first copy.
pub(crate) fn check_ready(dio: &Dio) -> Result<(), ApiError> {
    dio.check_ready().map_err(|error| ApiError::from(error).hint("GET /readyz says how far it is"))
}

/// The first two segments of a path that a route has matched; the router has cut off what the gateway is nested under.
pub(crate) fn segments(path: &str) -> (&str, &str) {
    let (first, rest) = cut(path.trim_start_matches('/'));
    (first, rest.map(cut).unwrap_or_default().0)
}

/// A path up to its first slash, and what follows that. Byte by byte: segments are short.
pub(crate) fn cut(path: &str) -> (&str, Option<&str>) {
    match path.bytes().position(|byte| byte == b'/') {
        Some(at) => (&path[..at], Some(&path[at + 1..])),
        None => (path, None),
    }
}

pub(crate) fn decoded(segment: &str) -> Result<Cow<'_, str>, ApiError> {
    percent_decoded(segment, false)
        .ok_or_else(|| ApiError::new(Code::InvalidParameter, "the path cannot be read: it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use diorama_core::vista::query::url::segment;

    #[test]
    fn an_id_is_one_segment_whatever_is_in_it() {
        let id = "a/b ü?#%+";
        assert_eq!(segment(id), "a%2Fb%20%C3%BC%3F%23%25%2B");
        assert_eq!(super::decoded(&segment(id)).unwrap(), id);
        assert_eq!(super::decoded("a+b%").unwrap(), "a+b%");
        assert!(super::decoded("%FF").is_err());
    }
}
