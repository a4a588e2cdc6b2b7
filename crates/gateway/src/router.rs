//! The URL table: which route a path is, and who answers its methods.
//!
//! Paths are looked up here and not by axum's own router: so one place knows a route's template, its handlers and what the other
//! methods are told, and a request is spared a second level of boxed services.

use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;

use axum::extract::{OriginalUri, Request};
use axum::handler::Handler as _;
use axum::http::{HeaderValue, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};

use crate::admin::{backup, health, operations, purge, refresh};
use crate::http::extract::{Segment, cut, segments};
use crate::http::problem::{ApiError, Code};
use crate::http::response;
use crate::pages::{assets, index};
use crate::rows::{aggregate, delete, insert, list, patch, query, record, replace, schema, write};
use crate::state::{GatewayState, PathTarget};
use crate::{events, metrics, openapi, webhook};

/// What a path can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Index,
    Docs,
    Live,
    Ready,
    Metrics,
    OpenApi,
    AsyncApi,
    Asset,
    Problem,
    Operations,
    RetryMany,
    Operation,
    Retry,
    Backup,
    Hook,
    Deliveries,
    Delivery,
    Replay,
    ManyEvents,
    Rows,
    Events,
    LiveRows,
    Query,
    Aggregate,
    Refresh,
    Purge,
    Schema,
    Row,
    RowEvents,
    /// Nothing.
    None,
}

type Answer = Pin<Box<dyn Future<Output = Response> + Send>>;

impl Route {
    /// All of them, in the order of their declaration.
    pub(crate) const ALL: [Route; 30] = {
        use Route::*;
        [
            Index, Docs, Live, Ready, Metrics, OpenApi, AsyncApi, Asset, Problem, Operations, RetryMany, Operation,
            Retry, Backup, Hook, Deliveries, Delivery, Replay, ManyEvents, Rows, Events, LiveRows, Query, Aggregate,
            Refresh, Purge, Schema, Row, RowEvents, None,
        ]
    };

    /// The route of a path within the gateway.
    pub(crate) fn of(path: &str) -> Route {
        let mut left = Some(path.strip_prefix('/').unwrap_or(path));
        let mut part = || {
            let (part, rest) = cut(left?);
            left = rest;
            Some(part)
        };
        let first = part().unwrap_or_default();
        let rest = (part(), part(), part());
        let more = (part(), part());
        match (first, rest) {
            ("", (None, ..)) => Route::Index,
            ("docs", (None, ..)) => Route::Docs,
            ("healthz", (None, ..)) => Route::Live,
            ("readyz", (None, ..)) => Route::Ready,
            ("metrics", (None, ..)) => Route::Metrics,
            ("openapi.json", (None, ..)) => Route::OpenApi,
            ("asyncapi.json", (None, ..)) => Route::AsyncApi,
            ("operations", (None, ..)) => Route::Operations,
            ("events", (None, ..)) => Route::ManyEvents,
            ("_backup", (None, ..)) => Route::Backup,
            ("", _) | (_, (Some(""), ..)) => Route::None,
            ("static", (Some(_), ..)) => Route::Asset,
            ("problems", (Some(_), None, _)) => Route::Problem,
            ("operations", (Some("_retry"), None, _)) => Route::RetryMany,
            ("operations", (Some(_), None, _)) => Route::Operation,
            ("operations", (Some(_), Some("retry"), None)) => Route::Retry,
            // Senders append a slash, people copy one.
            ("webhooks", (Some(_), None, _) | (Some(_), Some(""), None)) => Route::Hook,
            ("webhooks", (Some(_), Some("deliveries"), None)) => Route::Deliveries,
            ("webhooks", (Some(_), Some("deliveries"), Some(_))) => match more {
                (None, _) => Route::Delivery,
                (Some("replay"), None) => Route::Replay,
                _ => Route::None,
            },
            (_, (None, ..)) => Route::Rows,
            (_, (Some("events"), None, _)) => Route::Events,
            (_, (Some("live"), None, _)) => Route::LiveRows,
            (_, (Some("_query"), None, _)) => Route::Query,
            (_, (Some("_aggregate"), None, _)) => Route::Aggregate,
            (_, (Some("_refresh"), None, _)) => Route::Refresh,
            (_, (Some("_purge"), None, _)) => Route::Purge,
            (_, (Some("_schema"), None, _)) => Route::Schema,
            (_, (Some(_), None, _)) => Route::Row,
            (_, (Some(_), Some("events"), None)) => Route::RowEvents,
            _ => Route::None,
        }
    }

    /// The route as documents and metrics write it.
    pub(crate) fn template(self) -> &'static str {
        match self {
            Route::Index => "/",
            Route::Docs => "/docs",
            Route::Live => "/healthz",
            Route::Ready => "/readyz",
            Route::Metrics => "/metrics",
            Route::OpenApi => "/openapi.json",
            Route::AsyncApi => "/asyncapi.json",
            Route::Asset => "/static/{file}",
            Route::Problem => "/problems/{code}",
            Route::Operations => "/operations",
            Route::RetryMany => "/operations/_retry",
            Route::Operation => "/operations/{id}",
            Route::Retry => "/operations/{id}/retry",
            Route::Backup => "/_backup",
            Route::Hook => "/webhooks/{hook}",
            Route::Deliveries => "/webhooks/{hook}/deliveries",
            Route::Delivery => "/webhooks/{hook}/deliveries/{id}",
            Route::Replay => "/webhooks/{hook}/deliveries/{id}/replay",
            Route::ManyEvents => "/events",
            Route::Rows => "/{dio}",
            Route::Events => "/{dio}/events",
            Route::LiveRows => "/{dio}/live",
            Route::Query => "/{dio}/_query",
            Route::Aggregate => "/{dio}/_aggregate",
            Route::Refresh => "/{dio}/_refresh",
            Route::Purge => "/{dio}/_purge",
            Route::Schema => "/{dio}/_schema",
            Route::Row => "/{dio}/{id}",
            Route::RowEvents => "/{dio}/{id}/events",
            Route::None => "none",
        }
    }

    /// Whether a path of this route begins with the name of a resource.
    pub(crate) fn is_of_dio(self) -> bool {
        self.template().starts_with("/{dio}")
    }

    /// The answer to `request`, whose path is this route.
    pub(crate) fn answer(self, request: Request, gateway: Arc<GatewayState>) -> Answer {
        let method = match request.method().as_str() {
            "HEAD" => "GET",
            method => method,
        };
        match (self, method) {
            (Route::Index, "GET") => root(request, gateway),
            (Route::Docs, "GET") => index::docs.call(request, gateway),
            (Route::Live, "GET") => health::live.call(request, gateway),
            (Route::Ready, "GET") => health::ready.call(request, gateway),
            (Route::Metrics, "GET") => metrics::scrape.call(request, gateway),
            (Route::OpenApi, "GET") => openapi::openapi.call(request, gateway),
            (Route::AsyncApi, "GET") => openapi::asyncapi.call(request, gateway),
            (Route::Asset, "GET") => assets::asset.call(request, gateway),
            (Route::Problem, "GET") => problem.call(request, gateway),
            (Route::Operations, "GET") => operations::operations.call(request, gateway),
            (Route::RetryMany, "POST") => operations::retry_many.call(request, gateway),
            (Route::Operation, "GET") => operations::operation.call(request, gateway),
            (Route::Operation, "DELETE") => operations::discard.call(request, gateway),
            (Route::Retry, "POST") => operations::retry.call(request, gateway),
            (Route::Backup, "POST") => backup::backup.call(request, gateway),
            (Route::Hook, "POST") => webhook::receive.call(request, gateway),
            (Route::Hook, "GET") => webhook::challenge.call(request, gateway),
            (Route::Hook, "OPTIONS") => webhook::options.call(request, gateway),
            (Route::Deliveries, "GET") => webhook::list.call(request, gateway),
            (Route::Delivery, "GET") => webhook::delivery.call(request, gateway),
            (Route::Replay, "POST") => webhook::replay.call(request, gateway),
            (Route::Rows, "GET") => list::list.call(request, gateway),
            (Route::Rows, "POST") => insert::insert.call(request, gateway),
            (Route::Rows, "PATCH") => patch::patch_many.call(request, gateway),
            (Route::Rows, "DELETE") => delete::delete_many.call(request, gateway),
            (Route::Rows, "QUERY") | (Route::Query, "POST") => query::query.call(request, gateway),
            (Route::Aggregate, "GET") => aggregate::aggregate.call(request, gateway),
            (Route::ManyEvents, "GET") => events::subscribe_many.call(request, gateway),
            (Route::Events, "GET") => events::subscribe.call(request, gateway),
            (Route::LiveRows, "GET") => events::live.call(request, gateway),
            (Route::Refresh, "POST") => refresh::refresh.call(request, gateway),
            (Route::Purge, "POST") => purge::purge.call(request, gateway),
            (Route::Schema, "GET") => schema::schema.call(request, gateway),
            (Route::Row, "GET") => record::record.call(request, gateway),
            (Route::Row, "POST") => insert::insert_at.call(request, gateway),
            (Route::Row, "PUT") => replace::replace.call(request, gateway),
            (Route::Row, "PATCH") => patch::patch.call(request, gateway),
            (Route::Row, "DELETE") => delete::delete.call(request, gateway),
            (Route::RowEvents, "GET") => events::subscribe_one.call(request, gateway),
            (Route::None, _) => at_once(nothing(request.uri())),
            _ => at_once(self.wrong_method(method, request.uri().path(), &gateway)),
        }
    }

    /// What is said to a method that has no handler.
    fn wrong_method(self, method: &str, path: &str, gateway: &GatewayState) -> ApiError {
        let (dio, word) = segments(path);
        let changes = matches!(method, "POST" | "PUT" | "PATCH" | "DELETE");
        let allow = match self {
            // A word of the URL where an id would stand: writes are told so, whatever else the word can do.
            Route::Events | Route::LiveRows | Route::Query | Route::Refresh | Route::Purge | Route::Schema
                if changes =>
            {
                return write::reserved(word);
            }
            Route::Rows | Route::Row => match gateway.dio(dio) {
                Ok(resource) => resource.allowed(if self == Route::Rows { PathTarget::Rows } else { PathTarget::Row }),
                Err(error) => return error,
            },
            Route::RetryMany
            | Route::Retry
            | Route::Backup
            | Route::Query
            | Route::Refresh
            | Route::Purge
            | Route::Replay => HeaderValue::from_static("POST"),
            Route::Hook => HeaderValue::from_static("POST, OPTIONS"),
            Route::Operation => HeaderValue::from_static("GET, HEAD, DELETE"),
            _ => HeaderValue::from_static("GET, HEAD"),
        };
        ApiError::new(Code::MethodNotAllowed, "the method does not fit the path")
            .hint("the header Allow says which do")
            .header(header::ALLOW, allow)
    }
}

fn at_once(answer: impl IntoResponse) -> Answer {
    Box::pin(ready(answer.into_response()))
}

/// The resources. A nested root has no slash at its end; people write one.
fn root(request: Request, gateway: Arc<GatewayState>) -> Answer {
    let original = request.extensions().get::<OriginalUri>().map_or("/", |uri| uri.path());
    match original.strip_suffix('/') {
        None | Some("") => index::index.call(request, gateway),
        Some(bare) => at_once(Redirect::permanent(bare)),
    }
}

fn nothing(uri: &Uri) -> ApiError {
    ApiError::new(Code::NotFound, format!("there is nothing at {}", uri.path())).hint("GET / lists the resources")
}

/// What a code means.
async fn problem(Segment(code): Segment<1>) -> Result<Response, ApiError> {
    let code = Code::ALL.iter().find(|known| known.as_str() == code);
    let code = code.ok_or_else(|| ApiError::new(Code::NotFound, "there is no such problem"))?;
    let body = serde_json::json!({ "code": code.as_str(), "title": code.title(), "status": code.status().as_u16() });
    Ok(response::json(&body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Gateway;
    use crate::webhook::Hook;
    use diorama_connect::MemoryTable;
    use diorama_core::cache::MemoryCache;
    use diorama_core::lens::Lens;
    use diorama_core::vista::Schema;
    use diorama_inbound::{self as inbound, Scheme};

    #[test]
    fn every_template_is_its_own_route() {
        for (at, route) in Route::ALL.into_iter().enumerate() {
            assert_eq!(route as usize, at);
            if route != Route::None {
                assert_eq!(Route::of(route.template()), route, "{}", route.template());
            }
        }
    }

    #[test]
    fn paths_that_are_nothing_are_no_row_and_no_resource() {
        for path in ["//", "/products/", "/products//", "/products/7/", "/products/7/8", "/products/7/events/", "//7"] {
            assert_eq!(Route::of(path), Route::None, "{path}");
        }
        for (path, route) in [
            ("/products/health", Route::Row),
            ("/healthz/7", Route::Row),
            ("/webhooks", Route::Rows),
            ("/static/assets/images/a.png", Route::Asset),
            ("/webhooks/shop", Route::Hook),
            ("/webhooks/shop/", Route::Hook),
            ("/webhooks/shop//", Route::None),
            ("/webhooks//", Route::None),
            ("", Route::Index),
        ] {
            assert_eq!(Route::of(path), route, "{path}");
        }
    }

    #[tokio::test]
    async fn c7_every_route_is_in_the_document() {
        let lens = Lens::new().cache_source(MemoryCache::default()).build().unwrap();
        let vista = MemoryTable::vista("items", Schema::new("id", Vec::new()), Vec::new());
        let hook = Hook::new("items", "items", inbound::Hook::new(Scheme::None));
        let gateway = Gateway::new().mount(lens.make_dio(vista).await.unwrap()).try_hook(hook).unwrap();
        let document: serde_json::Value = serde_json::from_slice(&gateway.openapi()).unwrap();
        for route in Route::ALL.into_iter().filter(|route| *route != Route::None) {
            let path = route.template().replace("{dio}", "items").replace("{hook}", "items");
            assert!(document["paths"][&path].is_object(), "{path}");
        }
    }
}
