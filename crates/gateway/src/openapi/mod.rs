//! `GET /openapi.json`: the description of the gateway as OpenAPI 3.1. `GET /asyncapi.json`: its events and live queries as AsyncAPI 3.0.
//! Both are built from the schemas of the resources when the router is built. With access rules, each caller gets those
//! of what it may do, from `catalog.rs`.
//!
//! `document.rs` serves a document. `resource.rs` has the paths of one Dio, `fixed.rs`, `credentials.rs` and `deliveries.rs` all others. `rows.rs` has the
//! schemas of a Dio's rows, `frames.rs` those of frames, `shapes.rs` the other ones. `parameters.rs` and `answers.rs` have the parameters
//! and responses that operations share.

mod answers;
mod asyncapi;
pub(crate) mod catalog;
mod credentials;
mod deliveries;
pub(crate) mod document;
mod fixed;
mod frames;
mod notices;
mod parameters;
mod resource;
mod rows;
mod shapes;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use utoipa::ToSchema;
use utoipa::openapi::path::{HttpMethod, Operation, OperationBuilder, PathItem};
use utoipa::openapi::security::SecurityScheme;
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, Paths, RefOr, Server};
use utoipa::openapi::{Schema, Tag};

use self::catalog::Catalog;
use self::document::{Document, serve};
use crate::access::Principal;
use crate::state::GatewayState;

/// Builds the OpenAPI document of everything.
pub(crate) fn describe(gateway: &GatewayState) -> Document {
    openapi_of(gateway, &Catalog::whole(gateway))
}

/// Builds the AsyncAPI document of everything.
pub(crate) fn describe_events(gateway: &GatewayState) -> Document {
    asyncapi_of(gateway, &Catalog::whole(gateway))
}

fn openapi_of(gateway: &GatewayState, catalog: &Catalog) -> Document {
    Document::new(build(gateway, catalog).to_pretty_json().unwrap_or_default())
}

fn asyncapi_of(gateway: &GatewayState, catalog: &Catalog) -> Document {
    Document::new(serde_json::to_string_pretty(&asyncapi::build(gateway, catalog)).unwrap_or_default())
}

/// Serves the OpenAPI document of what the caller may do.
pub(crate) async fn openapi(
    State(gateway): State<Arc<GatewayState>>,
    principal: Principal,
    headers: HeaderMap,
) -> Response {
    if !gateway.policy.load().has_rules() {
        return serve(&gateway.openapi, &headers);
    }
    serve(&own(&gateway, &principal).0, &headers)
}

/// Serves the AsyncAPI document of what the caller may follow.
pub(crate) async fn asyncapi(
    State(gateway): State<Arc<GatewayState>>,
    principal: Principal,
    headers: HeaderMap,
) -> Response {
    if !gateway.policy.load().has_rules() {
        return serve(&gateway.asyncapi, &headers);
    }
    serve(&own(&gateway, &principal).1, &headers)
}

/// Returns both documents of what the caller may do.
fn own(gateway: &GatewayState, principal: &Principal) -> (Document, Document) {
    let build = |catalog: &Catalog| (openapi_of(gateway, catalog), asyncapi_of(gateway, catalog));
    gateway.documents.of(gateway, principal, build)
}

const ABOUT: &str = "Rows are read from a copy of their source, and writes are queued for the source. The status 202 means that \
    the write is in the journal and visible to every reader; `Prefer: wait=N` waits for the source. Errors are \
    `application/problem+json` with a stable `code`. `QUERY /{resource}`, which this version of OpenAPI cannot describe, is \
    equivalent to `POST /{resource}/_query`.\n\nA filter is a parameter with the name of a column. Its value is compared for \
    equality, or has the form `operator.value`. The operators are eq, neq, gt, gte, lt, lte, like and ilike (`*` matches any \
    characters), match and imatch (regular expressions), in (`in.(a,b)`), is (null, not_null, true, false, unknown) and \
    isdistinct. The prefix `not.` negates an operator. A parameter that is repeated with plain values matches any of them. With \
    the prefix `eq.`, the rest of a value is literal. Unknown parameters and columns are refused.";

/// Paths and schemas while they are collected.
#[derive(Default)]
struct Api {
    paths: Paths,
    schemas: BTreeMap<String, RefOr<Schema>>,
    securities: BTreeMap<String, SecurityScheme>,
    /// True if a token is required.
    guarded: bool,
    /// True if requests of foreign origins are refused.
    origins: bool,
    /// True if the `Host` is checked.
    hosts: bool,
}

impl Api {
    fn add(&mut self, path: &str, method: HttpMethod, operation: impl Into<Operation>) {
        let item = PathItem::new(method, operation);
        match self.paths.paths.get_mut(path) {
            Some(known) => known.merge_operations(item),
            None => drop(self.paths.paths.insert(path.to_string(), item)),
        }
    }

    fn schema(&mut self, name: impl Into<String>, schema: impl Into<RefOr<Schema>>) {
        self.schemas.insert(name.into(), schema.into());
    }

    /// Adds the derived schema of `T`.
    fn derived<T: ToSchema>(&mut self) {
        self.schemas.insert(T::name().into_owned(), shapes::derived::<T>());
    }

    /// Creates an operation with the errors that the pipeline may answer before the handler runs.
    fn operation(&self, id: impl Into<String>, tag: &str, summary: &str, method: &HttpMethod) -> OperationBuilder {
        let mut refusals = vec![414, 429, 500];
        refusals.extend(self.hosts.then_some(421));
        refusals.extend(self.guarded.then_some(401));
        let safe = matches!(method, HttpMethod::Get | HttpMethod::Head);
        refusals.extend((self.origins && !safe).then_some(403));
        let operation = OperationBuilder::new().operation_id(Some(id)).tag(tag).summary(Some(summary));
        answers::refusals(operation, &refusals)
    }
}

fn build(gateway: &GatewayState, catalog: &Catalog) -> OpenApi {
    let mut api = Api {
        guarded: gateway.auth.is_required(),
        origins: gateway.origins.loopback.is_some() || !gateway.origins.listed.is_empty(),
        hosts: gateway.origins.loopback.is_some(),
        ..Api::default()
    };
    credentials::schemes(&mut api);
    shapes::add(&mut api);
    frames::add(&mut api);
    fixed::add(&mut api, catalog);
    let mut tags = vec![fixed::tag()];
    for (title, resource) in titles(catalog.dios.keys()).into_iter().zip(catalog.dios.values()) {
        tags.push(Tag::new(resource.dio.name()));
        rows::add(&mut api, &title, resource);
        resource::add(&mut api, &title, resource);
    }
    notices::add(&mut api);
    for hook in &catalog.hooks {
        fixed::hook(&mut api, hook);
        deliveries::add(&mut api, hook);
    }
    let Api { mut paths, schemas, securities, guarded, .. } = api;
    paths.paths.retain(|path, item| catalog.narrow(path, item));
    let mut components = ComponentsBuilder::new().schemas_from_iter(schemas);
    for (name, response) in answers::problems() {
        components = components.response(name, response);
    }
    for (name, scheme) in securities {
        components = components.security_scheme(name, scheme);
    }
    let base = if gateway.base_path.is_empty() { "/" } else { gateway.base_path.as_str() };
    let license = LicenseBuilder::new().name(env!("CARGO_PKG_LICENSE")).identifier(Some(env!("CARGO_PKG_LICENSE")));
    let info = InfoBuilder::new()
        .title("Diorama")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(ABOUT))
        .license(Some(license.build()));
    OpenApiBuilder::new()
        .info(info.build())
        .servers(Some([Server::new(base)]))
        .paths(paths)
        .components(Some(components.build()))
        .security(guarded.then(|| credentials::requirements(gateway.auth.is_open())))
        .tags(Some(tags))
        .build()
}

/// Returns the prefix of the names of each Dio's schemas and operations: `MyItems` for `my-items`, and `MyItems2` for a second one.
fn titles<'a>(names: impl Iterator<Item = &'a Arc<str>>) -> Vec<String> {
    let mut titles: Vec<String> = Vec::new();
    for name in names {
        let words = name.split(['-', '_']).filter(|word| !word.is_empty());
        let title: String = words.map(|word| word[..1].to_ascii_uppercase() + &word[1..]).collect();
        let again = (2..).map(|number| format!("{title}{number}"));
        let free = std::iter::once(title.clone()).chain(again).find(|title| !titles.contains(title));
        titles.extend(free);
    }
    titles
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_of_resources_are_unique() {
        let names: Vec<Arc<str>> = ["my-items", "my_items", "myItems", "2024"].map(Arc::from).into();
        assert_eq!(titles(names.iter()), ["MyItems", "MyItems2", "MyItems3", "2024"]);
    }
}
