//! `GET /_access`: who the caller is, and what it may do.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::schema::{Array, ArrayBuilder};

use super::request::uncached;
use crate::access::{Grant, Principal, Verb, Verbs};
use crate::http::response;
use crate::http::schemas::words;
use crate::state::GatewayState;

/// The caller, and what it may do.
#[derive(Serialize, ToSchema)]
pub(crate) struct Rights {
    /// Name of the caller; null without credentials.
    #[schema(required)]
    name: Option<String>,
    /// Role, which the access rules name.
    role: String,
    /// True if the server accepts credentials, so that other ones may give other rights.
    credentials: bool,
    /// True if the caller is known by a session, which `DELETE /_session` ends.
    session: bool,
    /// Actions that the caller may do with every resource, and with the server itself.
    #[schema(schema_with = actions)]
    everywhere: Vec<&'static str>,
    /// Resources with which the caller may do anything.
    #[schema(inline)]
    resources: BTreeMap<String, ResourceRights>,
}

/// Rights of the caller in a resource. Rules may restrict them to some of its rows.
#[derive(Serialize, ToSchema)]
struct ResourceRights {
    /// Permitted actions.
    #[schema(schema_with = actions)]
    can: Vec<&'static str>,
    /// Columns by action, for the permitted actions whose rules name columns; the others may use all.
    columns: BTreeMap<&'static str, Vec<String>>,
}

impl ResourceRights {
    fn of(grant: &Grant) -> ResourceRights {
        let verbs = [Verb::Read, Verb::Events, Verb::Insert, Verb::Update].into_iter();
        let permitted = verbs.filter(|verb| grant.verbs().has(*verb));
        let columns = permitted.filter_map(|verb| {
            let names = grant.columns(verb)?.iter().map(|name| name.to_string()).collect();
            Some((verb.as_str(), names))
        });
        ResourceRights { can: grant.verbs().iter().map(Verb::as_str).collect(), columns: columns.collect() }
    }
}

fn actions() -> Array {
    ArrayBuilder::new().items(words(Verb::ALL.map(Verb::as_str))).build()
}

/// Answers who the caller is and what it may do.
pub(crate) async fn rights(State(gateway): State<Arc<GatewayState>>, principal: Principal) -> Response {
    let policy = gateway.policy.load();
    let grants = gateway.dios.iter().map(|(name, of)| (name, policy.grant(name, &of.schema, &principal)));
    let granted = grants.filter(|(_, grant)| !grant.verbs().is_empty());
    let everywhere: Verbs = Verb::ALL.into_iter().filter(|verb| policy.permits_everywhere(*verb, &principal)).collect();
    uncached(response::json(&Rights {
        name: principal.name().map(|name| name.to_string()),
        role: principal.role().to_string(),
        credentials: gateway.auth.is_required(),
        session: principal.has_session(),
        everywhere: everywhere.iter().map(Verb::as_str).collect(),
        resources: granted.map(|(name, grant)| (name.to_string(), ResourceRights::of(&grant))).collect(),
    }))
}
