//! `GET /openapi.json`: what this gateway serves, as OpenAPI 3.1, made from the live schemas when the router is made; and
//! `GET /asyncapi.json`, the same of events and live queries as AsyncAPI 3.0.
//!
//! `document.rs` is a document as it is sent; `resource.rs` has the paths of one Dio and `fixed.rs` all others; `rows.rs` has the schemas of a Dio's rows and `shapes.rs`
//! those that are the same everywhere, `frames.rs` those of frames; `parameters.rs` and `answers.rs` have what operations share.

mod answers;
mod asyncapi;
mod deliveries;
pub(crate) mod document;
mod fixed;
mod frames;
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
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, Paths, RefOr, Server};
use utoipa::openapi::{Schema, Tag};

use self::document::{Document, serve};
use crate::http::auth::Auth;
use crate::state::GatewayState;

/// What the gateway serves, as an OpenAPI document.
pub(crate) fn describe(gateway: &GatewayState) -> Document {
    Document::new(build(gateway).to_pretty_json().unwrap_or_default())
}

/// What it pushes, as an AsyncAPI document.
pub(crate) fn describe_events(gateway: &GatewayState) -> Document {
    Document::new(serde_json::to_string_pretty(&asyncapi::build(gateway)).unwrap_or_default())
}

/// Serves the document.
pub(crate) async fn openapi(State(gateway): State<Arc<GatewayState>>, headers: HeaderMap) -> Response {
    serve(&gateway.openapi, &headers)
}

/// Serves the document of events.
pub(crate) async fn asyncapi(State(gateway): State<Arc<GatewayState>>, headers: HeaderMap) -> Response {
    serve(&gateway.asyncapi, &headers)
}

const ABOUT: &str = "Rows are read from a copy of their source, and writes are queued for it: a 202 means that the write is \
    in the journal and visible to every reader, `Prefer: wait=N` waits for the source. Refusals are `application/problem+json` \
    with a stable `code`. `QUERY /{resource}`, which this version of OpenAPI cannot describe, does what `POST \
    /{resource}/_query` does.\n\nA filter is a column with a value, which is equality, or with `operator.value`: eq, neq, gt, \
    gte, lt, lte, like, ilike (`*` stands for anything), match, imatch (regular expressions), in (`in.(a,b)`), is (null, \
    not_null, true, false, unknown) or isdistinct. `not.` before an operator turns it around, a value that is given several \
    times is in, and `eq.` before a value takes it as it is. Parameters and columns that do not exist are refused.";

/// The name of the security scheme of everything but webhooks.
const BEARER: &str = "bearer";

/// Paths and schemas while they are collected.
#[derive(Default)]
struct Api {
    paths: Paths,
    schemas: BTreeMap<String, RefOr<Schema>>,
    securities: BTreeMap<String, SecurityScheme>,
    /// Whether tokens are asked for.
    guarded: bool,
    /// Whether pages of other origins are turned away.
    origins: bool,
    /// Whether the `Host` is checked.
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

    /// Adds the schema that is derived for `T`.
    fn derived<T: ToSchema>(&mut self) {
        self.schemas.insert(T::name().into_owned(), shapes::derived::<T>());
    }

    /// An operation, with what the pipeline may answer before its handler does.
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

fn build(gateway: &GatewayState) -> OpenApi {
    let mut api = Api {
        guarded: matches!(gateway.auth, Auth::Tokens(_)),
        origins: gateway.origins.loopback.is_some() || !gateway.origins.listed.is_empty(),
        hosts: gateway.origins.loopback.is_some(),
        ..Api::default()
    };
    if api.guarded {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("One of the server's tokens."));
        api.securities.insert(BEARER.to_string(), SecurityScheme::Http(scheme.build()));
    }
    shapes::add(&mut api);
    frames::add(&mut api);
    fixed::add(&mut api, gateway);
    let mut tags = vec![fixed::tag()];
    for (title, resource) in titles(gateway.dios.keys()).into_iter().zip(gateway.dios.values()) {
        tags.push(Tag::new(resource.dio.name()));
        rows::add(&mut api, &title, resource);
        resource::add(&mut api, &title, resource);
    }
    for hook in gateway.hooks.values() {
        fixed::hook(&mut api, hook);
        deliveries::add(&mut api, hook);
    }
    let Api { paths, schemas, securities, guarded, .. } = api;
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
    let no_scopes: [&str; 0] = [];
    OpenApiBuilder::new()
        .info(info.build())
        .servers(Some([Server::new(base)]))
        .paths(paths)
        .components(Some(components.build()))
        .security(guarded.then(|| [SecurityRequirement::new(BEARER, no_scopes)]))
        .tags(Some(tags))
        .build()
}

/// What the schemas and operations of each Dio are called: `my-items` is `MyItems`, and a second one of that name `MyItems2`.
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
    fn every_resource_has_a_title_of_its_own() {
        let names: Vec<Arc<str>> = ["my-items", "my_items", "myItems", "2024"].map(Arc::from).into();
        assert_eq!(titles(names.iter()), ["MyItems", "MyItems2", "MyItems3", "2024"]);
    }
}
