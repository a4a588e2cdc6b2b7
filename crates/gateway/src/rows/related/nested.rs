//! `GET /{dio}/{id}/{relation}`: the rows that are related to one row.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;

use super::relation::Relation;
use crate::http::bounds::Bounds;
use crate::http::extract::Segment;
use crate::http::problem::{ApiError, Code};
use crate::rows::extract::PathRow;
use crate::rows::format::Bytes;
use crate::rows::list;
use crate::rows::record;
use crate::rows::snapshot::Snapshot;
use crate::state::GatewayState;
use diorama_core::vista::Error;

/// Lists the related rows of a relation to many, and returns the one of a relation to one.
pub(crate) async fn nested(
    bounds: Bounds,
    PathRow { scope, id }: PathRow,
    Segment(name): Segment<2>,
    State(gateway): State<Arc<GatewayState>>,
    request: Request,
) -> Result<Response, ApiError> {
    let view = Snapshot::of(&scope);
    let not_found = |id: String| ApiError::from(Error::NotFound { id });
    let row = view.row(&id).ok_or_else(|| not_found(id.clone()))?;
    let relation = Relation::find(&gateway, &scope, &name, None).map_err(|error| match error.code() {
        Code::UnknownColumn => {
            let hint = format!("GET /{}/_schema lists the relations in references", scope.dio.name());
            ApiError::new(Code::NotFound, error.detail().to_string()).hint(hint)
        }
        _ => error,
    })?;
    let target = relation.id_in(&Bytes::from(&row).into()).map(String::from);
    if relation.many {
        let within = relation.owned_by(&id);
        return list::list_within(&gateway, &relation.scope, &bounds, Some(within), request).await;
    }
    let target = target.ok_or_else(|| not_found(format!("{id}/{name}")))?;
    let target = relation.stored_id(&target).into_owned();
    let (parts, _) = request.into_parts();
    record::record_of(&gateway, &relation.scope, &target, &bounds, &parts).await
}
