//! The resource or the row that the path names.

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::http::extract::{check_ready, decoded, segments};
use crate::http::problem::ApiError;
use crate::state::{GatewayState, PathTarget, Resource};

/// The resource that the path names. Refuses while its first copy is being made.
pub(crate) struct PathResource(pub(crate) Arc<Resource>);

/// The resource that the path names, which can do what the method asks of its rows.
pub(crate) struct WritableResource(pub(crate) Arc<Resource>);

/// A row that the path names; it need not be there. Its resource can do what the method asks.
pub(crate) struct PathRow {
    pub(crate) resource: Arc<Resource>,
    pub(crate) id: String,
}

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

fn ready(resource: &Arc<Resource>) -> Result<Arc<Resource>, ApiError> {
    check_ready(&resource.dio).map(|()| Arc::clone(resource))
}
