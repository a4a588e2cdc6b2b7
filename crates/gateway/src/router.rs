//! Table of routes: the handler for each method of each route.
//!
//! Paths are matched by `http/route.rs` and not by axum's router. So one enum determines the template of a route, its handlers and the
//! answer to other methods, and a request needs no second level of boxed services.

use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;

use axum::extract::{OriginalUri, Request};
use axum::handler::Handler as _;
use axum::http::{HeaderValue, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::access::Principal;
use crate::admin::{backup, health, operations, purge, refresh, scrape};
use crate::auth::{rights, routes};
use crate::http::extract::{Segment, segments};
use crate::http::problem::{ApiError, Code};
use crate::http::response;
use crate::http::route::Route;
use crate::notify::routes as notifications;
use crate::pages::{assets, index};
use crate::rows::{delete, insert, list, patch, query, record, related, replace, schema, write};
use crate::scope::Scope;
use crate::state::{GatewayState, PathTarget};
use crate::{audit, events, openapi, webhook};

type Answer = Pin<Box<dyn Future<Output = Response> + Send>>;

/// Answers `request`, whose path has matched `route`.
pub(crate) fn dispatch(route: Route, request: Request, gateway: Arc<GatewayState>) -> Answer {
    let method = match request.method().as_str() {
        "HEAD" => "GET",
        method => method,
    };
    match (route, method) {
        (Route::Index, "GET") => root(request, gateway),
        (Route::Docs, "GET") => index::docs.call(request, gateway),
        (Route::Live, "GET") => health::live.call(request, gateway),
        (Route::Ready, "GET") => health::ready.call(request, gateway),
        (Route::Metrics, "GET") => scrape::scrape.call(request, gateway),
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
        (Route::Audit, "GET") => audit::list::audit.call(request, gateway),
        (Route::Ticket, "POST") => routes::ticket.call(request, gateway),
        (Route::Session, "POST") => routes::begin_session.call(request, gateway),
        (Route::Session, "DELETE") => routes::end_session.call(request, gateway),
        (Route::Access, "GET") => rights::rights.call(request, gateway),
        (Route::Hook, "POST") => webhook::receive.call(request, gateway),
        (Route::Hook, "GET") => webhook::challenge.call(request, gateway),
        (Route::Hook, "OPTIONS") => webhook::options.call(request, gateway),
        (Route::Deliveries, "GET") => webhook::list.call(request, gateway),
        (Route::Delivery, "GET") => webhook::delivery.call(request, gateway),
        (Route::Replay, "POST") => webhook::replay.call(request, gateway),
        (Route::Notifications, "GET") => notifications::notifications.call(request, gateway),
        (Route::Notification, "GET") => notifications::notification.call(request, gateway),
        (Route::EnableNotification, "POST") => notifications::enable.call(request, gateway),
        (Route::Notices, "GET") => notifications::list.call(request, gateway),
        (Route::Notice, "GET") => notifications::delivery.call(request, gateway),
        (Route::ReplayNotice, "POST") => notifications::replay.call(request, gateway),
        (Route::Rows, "GET") => list::list.call(request, gateway),
        (Route::Rows, "POST") => insert::insert.call(request, gateway),
        (Route::Rows, "PATCH") => patch::patch_many.call(request, gateway),
        (Route::Rows, "DELETE") => delete::delete_many.call(request, gateway),
        (Route::Rows, "QUERY") | (Route::Query, "POST") => query::query.call(request, gateway),
        (Route::Aggregate, "GET") => events::aggregate.call(request, gateway),
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
        (Route::Nested, "GET") => related::nested.call(request, gateway),
        (Route::None, _) => immediate(not_found(request.uri())),
        _ => immediate(wrong_method(route, method, &request, &gateway)),
    }
}

/// Returns the refusal of a method that has no handler.
fn wrong_method(route: Route, method: &str, request: &Request, gateway: &GatewayState) -> ApiError {
    let path = request.uri().path();
    let (dio, word) = segments(path);
    let changes = matches!(method, "POST" | "PUT" | "PATCH" | "DELETE");
    let allow = match route {
        // A reserved word in the place of an id: a write is refused for that reason, whatever the word's own methods.
        Route::Events | Route::LiveRows | Route::Query | Route::Refresh | Route::Purge | Route::Schema if changes => {
            return write::reserved(word);
        }
        Route::Rows | Route::Row => match Scope::find(gateway, dio, &Principal::of(request.extensions())) {
            Ok((resource, _)) => {
                resource.allowed(if route == Route::Rows { PathTarget::Rows } else { PathTarget::Row })
            }
            Err(error) => return error,
        },
        Route::RetryMany
        | Route::Retry
        | Route::Backup
        | Route::Ticket
        | Route::Query
        | Route::Refresh
        | Route::Purge
        | Route::Replay
        | Route::EnableNotification
        | Route::ReplayNotice => HeaderValue::from_static("POST"),
        Route::Session => HeaderValue::from_static("POST, DELETE"),
        Route::Hook => HeaderValue::from_static("POST, OPTIONS"),
        Route::Operation => HeaderValue::from_static("GET, HEAD, DELETE"),
        _ => HeaderValue::from_static("GET, HEAD"),
    };
    ApiError::new(Code::MethodNotAllowed, format!("{path} does not support this method"))
        .hint("the header Allow lists the supported methods")
        .header(header::ALLOW, allow)
}

fn immediate(answer: impl IntoResponse) -> Answer {
    Box::pin(ready(answer.into_response()))
}

/// Answers `GET /`. The root of a nested gateway has no slash at its end; a URL with one is redirected.
fn root(request: Request, gateway: Arc<GatewayState>) -> Answer {
    let original = request.extensions().get::<OriginalUri>().map_or("/", |uri| uri.path());
    match original.strip_suffix('/') {
        None | Some("") => index::index.call(request, gateway),
        Some(bare) => immediate(Redirect::permanent(bare)),
    }
}

fn not_found(uri: &Uri) -> ApiError {
    ApiError::new(Code::NotFound, format!("the path {} does not exist", uri.path())).hint("GET / lists the resources")
}

/// Describes the code of a problem.
async fn problem(Segment(code): Segment<1>) -> Result<Response, ApiError> {
    let known = Code::ALL.iter().find(|known| known.as_str() == code);
    let code = known.ok_or_else(|| ApiError::new(Code::NotFound, format!("the code {code:?} does not exist")))?;
    let meaning = Meaning { code: code.as_str(), title: code.title(), status: code.status().as_u16() };
    Ok(response::json(&meaning))
}

/// Description of a code.
#[derive(Serialize, ToSchema)]
pub(crate) struct Meaning {
    code: &'static str,
    /// Short description, for people.
    title: &'static str,
    /// HTTP status of responses with this code.
    status: u16,
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
    fn every_template_matches_its_own_route() {
        for (index, route) in Route::ALL.into_iter().enumerate() {
            assert_eq!(route as usize, index);
            if route != Route::None {
                assert_eq!(Route::of(route.template()), route, "{}", route.template());
            }
        }
    }

    #[test]
    fn malformed_paths_match_no_route() {
        for path in ["//", "/products/", "/products//", "/products/7/", "/products/7/events/", "//7"] {
            assert_eq!(Route::of(path), Route::None, "{path}");
        }
        for (path, route) in [
            ("/products/health", Route::Row),
            ("/products/7/tags", Route::Nested),
            ("/products/_schema/tags", Route::None),
            ("/products/7/tags/", Route::None),
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
    async fn every_route_is_in_the_document() {
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
