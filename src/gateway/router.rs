//! The URL table.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::handler::Handler as _;
use axum::http::{HeaderValue, Uri, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};

use super::layer::Around;
use super::problem::{ApiError, Code};
use super::state::Shared;
use super::{
    answer, delete, events, health, insert, list, operations, patch, query, record, refresh, replace, schema, webhook,
};

/// All routes, under the base path.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    let rows = get(list::list).post(insert::insert).patch(patch::patch_many).delete(delete::delete_many);
    let row =
        get(record::record).post(insert::insert_at).put(replace::replace).patch(patch::patch).delete(delete::delete);
    let routes = Router::new()
        .route("/", get(health::index))
        .route("/healthz", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/problems/{code}", get(problem))
        .route("/operations", get(operations::operations))
        .route("/operations/{id}", get(operations::operation).delete(operations::discard))
        .route("/operations/{id}/retry", post(operations::retry))
        .route("/webhooks/{hook}", post(webhook::receive))
        .route("/{dio}", rows.fallback(query_method))
        .route("/{dio}/events", get(events::subscribe))
        .route("/{dio}/_query", post(query::query))
        .route("/{dio}/_refresh", post(refresh::refresh))
        .route("/{dio}/_schema", get(schema::schema))
        .route("/{dio}/{id}", row)
        .route("/{dio}/{id}/events", get(events::subscribe_one));
    let routes = match shared.base_path.as_str() {
        "" => routes,
        base => Router::new().nest(base, routes),
    };
    routes
        .fallback(nothing)
        .method_not_allowed_fallback(wrong_method)
        .layer(Around(Arc::clone(&shared)))
        .with_state(shared)
}

async fn nothing(uri: Uri) -> ApiError {
    ApiError::new(Code::NotFound, format!("there is nothing at {}", uri.path())).hint("GET / lists the resources")
}

async fn wrong_method() -> ApiError {
    ApiError::new(Code::MethodNotAllowed, "the method does not fit the path").hint("the header Allow says which do")
}

/// `QUERY` is not among the methods that a table can name.
async fn query_method(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    if request.method().as_str() == "QUERY" {
        return query::query.call(request, shared).await;
    }
    let allow = HeaderValue::from_static("GET, HEAD, POST, PATCH, DELETE, QUERY");
    wrong_method().await.header(header::ALLOW, allow).into_response()
}

/// What a code means.
async fn problem(Path(code): Path<String>) -> Result<Response, ApiError> {
    let code = Code::ALL.iter().find(|known| known.as_str() == code);
    let code = code.ok_or_else(|| ApiError::new(Code::NotFound, "there is no such problem"))?;
    let body = serde_json::json!({ "code": code.as_str(), "title": code.title(), "status": code.status().as_u16() });
    Ok(answer::json(&body))
}
