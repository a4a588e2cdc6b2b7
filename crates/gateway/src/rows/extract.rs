//! Extractors for the resource or the row in the path.

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::Method;
use axum::http::request::Parts;

use crate::access::{Principal, Verb};
use crate::http::extract::{check_ready, decoded, segments};
use crate::http::problem::ApiError;
use crate::http::route::Route;
use crate::scope::Scope;
use crate::state::{GatewayState, PathTarget};

/// Resource in the path. Rejects the request while its first copy is being read.
pub(crate) struct PathScope(pub(crate) Scope);

/// Resource in the path, which supports the request's method on its rows.
pub(crate) struct WritableScope(pub(crate) Scope);

/// Row in the path, which need not exist. Its resource supports the request's method.
pub(crate) struct PathRow {
    pub(crate) scope: Scope,
    pub(crate) id: String,
}

impl FromRequestParts<Arc<GatewayState>> for PathScope {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, gateway: &Arc<GatewayState>) -> Result<Self, ApiError> {
        let (name, _) = segments(parts.uri.path());
        ready(permitted(gateway, name, parts)?).map(PathScope)
    }
}

impl FromRequestParts<Arc<GatewayState>> for WritableScope {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, gateway: &Arc<GatewayState>) -> Result<Self, ApiError> {
        let PathScope(scope) = PathScope::from_request_parts(parts, gateway).await?;
        scope.check_method(&parts.method, PathTarget::Rows).map(|()| WritableScope(scope))
    }
}

impl FromRequestParts<Arc<GatewayState>> for PathRow {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, gateway: &Arc<GatewayState>) -> Result<Self, ApiError> {
        let (name, id) = segments(parts.uri.path());
        let id = decoded(id)?.into_owned();
        let scope = ready(permitted(gateway, name, parts)?)?;
        let makes = matches!(parts.method, Method::POST | Method::PUT);
        let id = match scope.rows.known_id(&id, makes) {
            Cow::Owned(known) => known,
            Cow::Borrowed(_) => id,
        };
        scope.check_method(&parts.method, PathTarget::Row).map(|()| PathRow { scope, id })
    }
}

/// Returns the caller's scope in the resource `name`, for what the request does.
fn permitted(gateway: &GatewayState, name: &str, parts: &Parts) -> Result<Scope, ApiError> {
    // A route that does not say what it does is for administrators.
    let verb = Route::of(parts.uri.path()).verb(parts.method.as_str()).unwrap_or(Verb::Admin);
    Scope::of(gateway, &decoded(name)?, &Principal::of(&parts.extensions), verb)
}

fn ready(scope: Scope) -> Result<Scope, ApiError> {
    check_ready(&scope.dio).map(|()| scope)
}
