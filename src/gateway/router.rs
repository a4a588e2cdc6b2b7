//! The URL table.

use std::sync::Arc;

use axum::extract::{OriginalUri, Path, Request, State};
use axum::handler::Handler as _;
use axum::http::{Method, Uri, header};
use axum::response::{Redirect, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Router, middleware};

use super::problem::{ApiError, Code};
use super::state::{Place, Shared};
use super::{
    answer, delete, events, health, index, insert, list, metrics, openapi, operations, patch, pipeline, query, record,
    refresh, replace, schema, webhook, write,
};

/// A table of routes that knows its templates: requests are counted by them.
#[derive(Default)]
struct Table {
    router: Router<Arc<Shared>>,
    templates: Vec<&'static str>,
}

impl Table {
    fn route(mut self, template: &'static str, methods: MethodRouter<Arc<Shared>>) -> Table {
        self.templates.push(template);
        Table { router: self.router.route(template, methods), ..self }
    }
}

/// All routes, under the base path.
pub(super) fn router(mut shared: Shared) -> Router {
    let rows = get(list::list).post(insert::insert).patch(patch::patch_many).delete(delete::delete_many);
    let row =
        get(record::record).post(insert::insert_at).put(replace::replace).patch(patch::patch).delete(delete::delete);
    let table = Table::default()
        .route("/", get(index::index))
        .route("/healthz", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::scrape))
        .route("/openapi.json", get(openapi::openapi))
        .route("/problems/{code}", get(problem))
        .route("/operations", get(operations::operations))
        .route("/operations/_retry", post(operations::retry_many))
        .route("/operations/{id}", get(operations::operation).delete(operations::discard))
        .route("/operations/{id}/retry", post(operations::retry))
        .route("/webhooks/{hook}", post(webhook::receive).options(webhook::options))
        .route("/{dio}", rows.fallback(other_of_rows))
        .route("/{dio}/events", get(events::subscribe).fallback(reserved))
        .route("/{dio}/_query", post(query::query).fallback(reserved))
        .route("/{dio}/_refresh", post(refresh::refresh).fallback(reserved))
        .route("/{dio}/_schema", get(schema::schema).fallback(reserved))
        .route("/{dio}/{id}", row.fallback(other_of_row))
        .route("/{dio}/{id}/events", get(events::subscribe_one));
    shared.metrics = metrics::Metrics::new(table.templates, shared.dios.len(), shared.hooks.len());
    let shared = Arc::new(shared);
    let routes = match shared.base_path.as_str() {
        "" => table.router,
        base => Router::new().nest(base, table.router).route(&format!("{base}/"), get(without_slash)),
    };
    routes
        .fallback(nothing)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), pipeline::pipeline))
        .with_state(shared)
}

async fn nothing(uri: Uri) -> ApiError {
    ApiError::new(Code::NotFound, format!("there is nothing at {}", uri.path())).hint("GET / lists the resources")
}

/// A nested root has no slash at its end; people write one.
async fn without_slash(OriginalUri(uri): OriginalUri) -> Redirect {
    Redirect::permanent(uri.path().trim_end_matches('/'))
}

async fn wrong_method() -> ApiError {
    ApiError::new(Code::MethodNotAllowed, "the method does not fit the path").hint("the header Allow says which do")
}

/// `QUERY` is not among the methods that a table can name. What else is allowed depends on the resource.
async fn other_of_rows(
    State(shared): State<Arc<Shared>>,
    Path(dio): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    if request.method().as_str() == "QUERY" {
        return Ok(query::query.call(request, shared).await);
    }
    let allow = shared.dio(&dio)?.allowed(Place::Rows);
    Err(wrong_method().await.header(header::ALLOW, allow))
}

async fn other_of_row(State(shared): State<Arc<Shared>>, Path((dio, _)): Path<(String, String)>) -> ApiError {
    match shared.dio(&dio) {
        Ok(at) => wrong_method().await.header(header::ALLOW, at.allowed(Place::Row)),
        Err(error) => error,
    }
}

/// A word of the URL where an id would stand: writes are told so, whatever else the word can do.
async fn reserved(method: Method, uri: Uri) -> ApiError {
    match method {
        Method::POST | Method::PUT | Method::PATCH | Method::DELETE => {
            write::reserved(uri.path().rsplit('/').next().unwrap_or_default())
        }
        _ => wrong_method().await,
    }
}

/// What a code means.
async fn problem(Path(code): Path<String>) -> Result<Response, ApiError> {
    let code = Code::ALL.iter().find(|known| known.as_str() == code);
    let code = code.ok_or_else(|| ApiError::new(Code::NotFound, "there is no such problem"))?;
    let body = serde_json::json!({ "code": code.as_str(), "title": code.title(), "status": code.status().as_u16() });
    Ok(answer::json(&body))
}
