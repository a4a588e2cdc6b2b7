//! Routes of the gateway, with their templates for documents and metrics.

use crate::access::Verb;
use crate::http::extract::cut;
use crate::options::is_reserved_id;

/// Route that a path matches.
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
    Audit,
    Ticket,
    Session,
    Access,
    Hook,
    Deliveries,
    Delivery,
    Replay,
    Notifications,
    Notification,
    EnableNotification,
    Notices,
    Notice,
    ReplayNotice,
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
    Nested,
    /// No route matches.
    None,
}

impl Route {
    /// All routes, in the order of their declaration.
    pub(crate) const ALL: [Route; 41] = {
        use Route::*;
        [
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
            Audit,
            Ticket,
            Session,
            Access,
            Hook,
            Deliveries,
            Delivery,
            Replay,
            Notifications,
            Notification,
            EnableNotification,
            Notices,
            Notice,
            ReplayNotice,
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
            Nested,
            None,
        ]
    };

    /// Matches a path within the gateway.
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
            ("_audit", (None, ..)) => Route::Audit,
            ("_ticket", (None, ..)) => Route::Ticket,
            ("_session", (None, ..)) => Route::Session,
            ("_access", (None, ..)) => Route::Access,
            ("_notify", (None, ..)) => Route::Notifications,
            ("", _) | (_, (Some(""), ..)) => Route::None,
            ("static", (Some(_), ..)) => Route::Asset,
            ("problems", (Some(_), None, _)) => Route::Problem,
            ("operations", (Some("_retry"), None, _)) => Route::RetryMany,
            ("operations", (Some(_), None, _)) => Route::Operation,
            ("operations", (Some(_), Some("retry"), None)) => Route::Retry,
            // Some senders append a slash, and people copy one.
            ("webhooks", (Some(_), None, _) | (Some(_), Some(""), None)) => Route::Hook,
            ("webhooks", (Some(_), Some("deliveries"), None)) => Route::Deliveries,
            ("webhooks", (Some(_), Some("deliveries"), Some(_))) => match more {
                (None, _) => Route::Delivery,
                (Some("replay"), None) => Route::Replay,
                _ => Route::None,
            },
            ("_notify", (Some(_), None, _)) => Route::Notification,
            ("_notify", (Some(_), Some("enable"), None)) => Route::EnableNotification,
            ("_notify", (Some(_), Some("deliveries"), None)) => Route::Notices,
            ("_notify", (Some(_), Some("deliveries"), Some(_))) => match more {
                (None, _) => Route::Notice,
                (Some("replay"), None) => Route::ReplayNotice,
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
            (_, (Some(id), Some(relation), None)) if !is_reserved_id(id) && !relation.is_empty() => Route::Nested,
            _ => Route::None,
        }
    }

    /// Returns the template of the route, as documents and metrics write it.
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
            Route::Audit => "/_audit",
            Route::Ticket => "/_ticket",
            Route::Session => "/_session",
            Route::Access => "/_access",
            Route::Hook => "/webhooks/{hook}",
            Route::Deliveries => "/webhooks/{hook}/deliveries",
            Route::Delivery => "/webhooks/{hook}/deliveries/{id}",
            Route::Replay => "/webhooks/{hook}/deliveries/{id}/replay",
            Route::Notifications => "/_notify",
            Route::Notification => "/_notify/{notification}",
            Route::EnableNotification => "/_notify/{notification}/enable",
            Route::Notices => "/_notify/{notification}/deliveries",
            Route::Notice => "/_notify/{notification}/deliveries/{id}",
            Route::ReplayNotice => "/_notify/{notification}/deliveries/{id}/replay",
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
            Route::Nested => "/{dio}/{id}/{relation}",
            Route::None => "none",
        }
    }

    /// Returns the action of a request with `method`; `None` if the route is not about the rows of one resource.
    pub(crate) fn verb(self, method: &str) -> Option<Verb> {
        Some(match (self, method) {
            (Route::Rows | Route::Row, "GET" | "HEAD" | "QUERY")
            | (Route::Nested, _)
            | (Route::Query | Route::Aggregate, _) => Verb::Read,
            (Route::Rows | Route::Row, "POST") => Verb::Insert,
            (Route::Rows | Route::Row, "PUT" | "PATCH") => Verb::Update,
            (Route::Rows | Route::Row, "DELETE") => Verb::Delete,
            (Route::Events | Route::RowEvents | Route::LiveRows, _) => Verb::Events,
            (Route::Refresh, _) => Verb::Refresh,
            (Route::Purge, _) => Verb::Admin,
            _ => return None,
        })
    }

    /// Returns true if a path of this route begins with the name of a resource.
    pub(crate) fn is_of_dio(self) -> bool {
        self.template().starts_with("/{dio}")
    }
}
