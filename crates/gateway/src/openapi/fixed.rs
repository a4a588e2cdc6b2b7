//! Paths that do not belong to a Dio: health, operations, problems, webhooks, documents.

use utoipa::IntoParams as _;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::path::{HttpMethod, OperationBuilder};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{AnyOfBuilder, ObjectBuilder, SchemaType, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Required, ResponseBuilder, Tag};

use super::catalog::Catalog;
use super::shapes::{any, array, count, derived, flag, named, object, text, word};
use super::{Api, answers, parameters};
use crate::admin::health::{Alive, Readiness};
use crate::admin::operations::{OperationFilter, WaitParameters};
use crate::audit::list::{AuditBody, AuditFilter};
use crate::http::problem::Code;
use crate::pages::index::Index;
use crate::router::Meaning;
use crate::webhook::Hook;
use diorama_inbound::Proof;

const SERVER: &str = "server";
pub(super) const WEBHOOKS: &str = "webhooks";

pub(super) fn tag() -> Tag {
    let mut tag = Tag::new(SERVER);
    tag.description = Some("The server itself, and the writes that it has accepted.".to_string());
    tag
}

pub(super) fn add(api: &mut Api, catalog: &Catalog) {
    server(api);
    documents(api);
    events(api);
    operations(api, catalog);
    backup(api);
    audit(api);
    super::credentials::add(api);
}

fn audit(api: &mut Api) {
    api.derived::<AuditBody>();
    let about = "Actions of administrators, each when it begins and when it has ended, refused requests (summed up by the minute for each \
        caller), starts and stops. There are no bodies, credentials or URLs; ids of erased rows are hashed. Pages of other origins are \
        refused.";
    let list = get(api, "listAuditEntries", "List the entries of the audit log").description(Some(about));
    let list = list.parameters(Some(AuditFilter::parameters()));
    let response = answers::json("The entries.", array(named("AuditEntry")));
    let response = answers::content(response, "application/x-ndjson", text().description(Some("One entry per line.")));
    let response = answers::header(response, "Link", "URL of the next page, if there is one (RFC 8288).", text());
    let list = list.response("200", response.build());
    api.add("/_audit", HttpMethod::Get, answers::refusals(list, &[400, 403, 404, 406, 503]));
}

fn backup(api: &mut Api) {
    let backup = api.operation("makeBackup", SERVER, "Back up cache and journal", &HttpMethod::Post);
    let about = "Returns a tar file with consistent copies of the files, as `diorama backup` unpacks it. To restore them, replace the \
        files of a stopped server; it then starts with a new epoch. One backup is made at a time. Pages of other origins are refused.";
    let files = answers::content(answers::empty("The tar file."), "application/x-tar", text());
    let backup = backup.description(Some(about)).response("200", files.build());
    api.add("/_backup", HttpMethod::Post, answers::refusals(backup, &[403, 404, 503, 507]));
}

fn get(api: &Api, id: &str, summary: &str) -> OperationBuilder {
    api.operation(id, SERVER, summary, &HttpMethod::Get)
}

fn server(api: &mut Api) {
    let links = answers::content(answers::json("The URLs.", derived::<Index>()), "text/html", text());
    let root = get(api, "listResources", "List resources and webhooks");
    api.add("/", HttpMethod::Get, root.response("200", links.build()));

    // No token is required here, so there is no 401.
    let open = Api { guarded: false, hosts: api.hosts, ..Api::default() };
    let live = open.operation("isAlive", SERVER, "Check that the process runs", &HttpMethod::Get);
    let live = live.response("200", answers::json("The process runs.", derived::<Alive>()).build());
    api.add("/healthz", HttpMethod::Get, unguarded(api, live));

    api.derived::<Readiness>();
    let not_yet =
        answers::json("At least one resource cannot be read yet, or the server is stopping.", named("Readiness"));
    let not_yet = answers::content(not_yet, answers::PROBLEM, named("Problem"));
    let not_yet = answers::header(not_yet, "Retry-After", "Seconds to wait before the request is repeated.", count());
    let ready = get(api, "isReady", "Check that every resource can be read");
    let ready = ready.response("200", answers::json("Every resource can be read.", named("Readiness")).build());
    api.add("/readyz", HttpMethod::Get, ready.response("503", not_yet.build()));

    let metrics = get(api, "readMetrics", "Get metrics in the text format of Prometheus");
    let samples = answers::content(answers::empty("The metrics."), "text/plain; version=0.0.4", text());
    api.add("/metrics", HttpMethod::Get, metrics.response("200", samples.build()));
}

fn documents(api: &mut Api) {
    let this = get(api, "readOpenApi", "Get this document").parameter(parameters::if_none_match());
    let docs = get(api, "readDocs", "Get this document as an interactive page");
    let page = answers::content(answers::empty("The page."), "text/html; charset=utf-8", text());
    api.add("/docs", HttpMethod::Get, docs.response("200", page.build()));

    let version = |response| answers::header(response, "ETag", "Version of the content.", text()).build();
    let this = this.response("200", version(answers::json("The document.", ObjectBuilder::new())));
    api.add(
        "/openapi.json",
        HttpMethod::Get,
        this.response("304", version(answers::empty("The client has the current version."))),
    );
    let events = get(api, "readAsyncApi", "Get the description of events and live queries as AsyncAPI 3.0");
    let events = events.parameter(parameters::if_none_match());
    let events = events.response("200", version(answers::json("The document.", ObjectBuilder::new())));
    let events = events.response("304", version(answers::empty("The client has the current version.")));
    api.add("/asyncapi.json", HttpMethod::Get, events);

    let open = Api { guarded: false, hosts: api.hosts, ..Api::default() };
    let file = open.operation("getFile", SERVER, "Get a file of the browser client or of the pages", &HttpMethod::Get);
    let name = text().pattern(Some(r"^[a-z-]+\.(js|css)$"));
    let file = file.parameter(parameters::path("file", "Name of the file.", name));
    let sent = answers::content(answers::empty("The file."), "text/javascript; charset=utf-8", text());
    let sent = answers::content(sent, "text/css; charset=utf-8", text());
    let file = file.parameter(parameters::if_none_match()).response("200", version(sent));
    let file = file.response("304", version(answers::empty("The client has the current version.")));
    let file = unguarded(api, answers::refusals(file, &[404]));
    api.add("/static/{file}", HttpMethod::Get, file);

    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    let problem = get(api, "explainProblem", "Get the description of a code");
    let problem = problem.parameter(parameters::path("code", "Code of an error.", word(&codes)));
    let problem = problem.response("200", answers::json("The description.", derived::<Meaning>()).build());
    api.add("/problems/{code}", HttpMethod::Get, answers::refusals(problem, &[404]));
}

fn events(api: &mut Api) {
    let about = "Sends the events of several resources on one connection. Each frame has the name of its subscription in `sub`. On a \
        WebSocket, clients open and close subscriptions with `SubscribeFrame` and `UnsubscribeFrame`: several filters of one resource, \
        and live queries.";
    let frames = super::frames::tagged(api);
    let watch = get(api, "watchMany", "Subscribe to events of several resources").description(Some(about));
    let watch = answers::events(watch.parameters(Some(parameters::many_events())), frames);
    let watch = if api.origins { answers::refusals(watch, &[403]) } else { watch };
    api.add("/events", HttpMethod::Get, watch);
}

fn operations(api: &mut Api, catalog: &Catalog) {
    let dios: Vec<&str> = catalog.dios.keys().map(|name| &**name).collect();
    let list = get(api, "listOperations", "List accepted writes, newest first");
    let list = list.parameters(Some(OperationFilter::parameters(&dios)));
    let response = answers::json("The operations.", array(named("Operation")));
    let response =
        answers::content(response, "application/x-ndjson", text().description(Some("One operation per line.")));
    let response = answers::header(response, "X-Total-Count", "Number of matching operations on all pages.", count());
    let response = answers::header(response, "Link", "URL of the next page, if there is one (RFC 8288).", text());
    let list = list.response("200", response.build());
    api.add("/operations", HttpMethod::Get, answers::refusals(list, &[400, 404, 406]));

    let many = api.operation("retryOperations", SERVER, "Retry parked writes", &HttpMethod::Post);
    let many = many.parameters(Some(parameters::retries(&dios)));
    let outcomes = answers::json("The outcome of each, in the order of acceptance.", array(named("Retried")));
    let outcomes = answers::header(outcomes, "X-Total-Count", "Number of matching parked operations.", count());
    let many = many.response("200", outcomes.build());
    api.add("/operations/_retry", HttpMethod::Post, answers::refusals(many, &[400, 404, 503, 507]));

    let id = || parameters::path("id", "Id of the operation.", OperationFilter::id());
    let one = get(api, "getOperation", "Get the state of a write, or wait until it has ended");
    let one =
        one.parameter(id()).parameters(Some(WaitParameters::into_params(|| None))).parameter(parameters::prefer());
    let response = answers::json("The operation.", named("Operation"));
    let response = answers::header(
        response,
        "Retry-After",
        "Seconds to wait before the request is repeated; present until the operation has ended.",
        count(),
    );
    let response =
        answers::header(response, "Preference-Applied", "Preferences in `Prefer` that were applied.", text());
    let one = one.response("200", response.build());
    api.add("/operations/{id}", HttpMethod::Get, answers::refusals(one, &[400, 404]));

    let discard = api.operation("discardOperation", SERVER, "Discard a parked write", &HttpMethod::Delete);
    let discard = discard.parameter(id()).response("204", answers::empty("The operation is discarded.").build());
    api.add("/operations/{id}", HttpMethod::Delete, answers::refusals(discard, &[404, 409, 503, 507]));

    let retry = api.operation("retryOperation", SERVER, "Retry a parked write", &HttpMethod::Post);
    let accepted = answers::json("The new operation, which is at the end of the queue.", named("Operation"));
    let accepted = answers::header(accepted, "Location", "URL of the new operation.", text());
    let retry = retry.parameter(id()).response("202", accepted.build());
    api.add("/operations/{id}/retry", HttpMethod::Post, answers::refusals(retry, &[404, 409, 503, 507]));
}

/// Adds the path of one webhook. Senders authenticate to the hook, and need no token of the server.
pub(super) fn hook(api: &mut Api, hook: &Hook) {
    if !api.schemas.contains_key("Change") {
        api.schema("Change", change());
    }
    let open = Api::default();
    let id = format!("receive_{}", hook.name);
    let receive = open.operation(id, WEBHOOKS, "Receive a delivery", &HttpMethod::Post);
    let format = match hook.inbound.is_native() {
        true => "Diorama's own format",
        false => "the format of the sender, as configured",
    };
    let about = format!(
        "Feeds `{}` with changes in {format}. A delivery with an id is applied once within a week. One without an id is \
         applied once within five minutes for the same bytes, as long as all of its changes are still in effect.",
        hook.dio
    );
    let receive = receive.description(Some(about));
    let receive = if api.hosts { answers::refusals(receive, &[421]) } else { receive };
    let either = AnyOfBuilder::new().item(named("Change")).item(array(named("Change")).max_items(Some(10_000)));
    let lines = text().description(Some("One change per line."));
    let body = RequestBodyBuilder::new().required(Some(Required::True));
    let body = match hook.inbound.is_native() {
        true => body
            .content("application/json", ContentBuilder::new().schema(Some(either)).build())
            .content("application/x-ndjson", ContentBuilder::new().schema(Some(lines)).build()),
        // The sender determines the format.
        false => body.content("application/json", ContentBuilder::new().schema(Some(any())).build()),
    };
    let receive = receive.request_body(Some(body.build()));
    let done = "The delivery is applied, was applied before, or contains nothing for this resource.";
    let storage = "Storage of the delivery: `disk`, or `memory`, which is lost when the process ends.";
    let done =
        answers::header(answers::json(done, named("Received")), "Dio-Durable", storage, word(&["disk", "memory"]));
    let kept =
        "The delivery is in the journal: it is still being applied, or cannot be decoded and is kept for a person.";
    let kept =
        answers::header(answers::json(kept, named("Received")), "Dio-Durable", storage, word(&["disk", "memory"]));
    let receive = receive.response("200", done.build()).response("202", kept.build());
    let receive = answers::refusals(receive, &[400, 408, 409, 413, 415, 422, 429, 500, 502, 503, 504, 507]);
    let receive = unguarded(api, receive);
    let path = format!("/webhooks/{}", hook.name);
    let receive = proof(api, hook, receive);
    api.add(&path, HttpMethod::Post, receive);
    if hook.inbound.has_challenge() {
        challenge(api, hook, &path);
    }
}

/// Adds the challenge of senders that use `GET`.
fn challenge(api: &mut Api, hook: &Hook, path: &str) {
    let id = format!("challenge_{}", hook.name);
    let operation = Api::default().operation(id, WEBHOOKS, "Answer a challenge of the sender", &HttpMethod::Get);
    let echoed = ResponseBuilder::new().description("The challenge, returned unchanged.");
    let operation = operation.response("200", answers::content(echoed, "text/plain", text()).build());
    let operation = answers::refusals(operation, &[401, 405]);
    let operation = if api.hosts { answers::refusals(operation, &[421]) } else { operation };
    let operation = unguarded(api, operation);
    api.add(path, HttpMethod::Get, operation);
}

/// Adds the authentication of the hook's senders.
fn proof(api: &mut Api, hook: &Hook, receive: OperationBuilder) -> OperationBuilder {
    let (scheme, about) = match hook.inbound.scheme().proof() {
        Proof::Nothing => return receive,
        Proof::Body => return answers::refusals(receive, &[401]),
        Proof::Query(name) => {
            let about = "Secret of the webhook.";
            return answers::refusals(receive.parameter(parameters::secret(&name, about)), &[401]);
        }
        Proof::Headers(headers) => {
            let each = |receive, (name, about): &(String, &str)| {
                OperationBuilder::parameter(receive, parameters::required(name, about))
            };
            return answers::refusals(headers.iter().fold(receive, each), &[401]);
        }
        Proof::Bearer => (HttpAuthScheme::Bearer, "Secret of the webhook."),
        Proof::Basic => (HttpAuthScheme::Basic, "User and password of the webhook."),
    };
    let scheme = HttpBuilder::new().scheme(scheme).description(Some(about));
    let name = format!("webhook_{}", hook.name);
    api.securities.insert(name.clone(), SecurityScheme::Http(scheme.build()));
    let no_scopes: [&str; 0] = [];
    let receive = receive.securities(Some([SecurityRequirement::new(name, no_scopes)]));
    answers::refusals(receive, &[401])
}

fn change() -> AnyOfBuilder {
    // Numbers out of these bounds are not valid ids.
    let bounded = |id: ObjectBuilder| id.min_length(Some(1)).minimum(Some(isize::MIN)).maximum(Some(usize::MAX));
    let id = || bounded(ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::String, Type::Integer])));
    let common = |change: ObjectBuilder| {
        let version = ObjectBuilder::new();
        let version = version.schema_type(SchemaType::from_iter([Type::Number, Type::String, Type::Null]));
        change
            .property(
                "version",
                version
                    .description(Some("Version of the row. A change with an older version than the row is ignored.")),
            )
            .property("partial", flag().description(Some("True if `new` contains only the changed columns.")))
            .property(
                "delivery",
                id().description(Some("Id of the delivery. Changes with the same delivery are applied once.")),
            )
    };
    let put = object([
        ("op", word(&["insert", "inserted", "update", "updated", "upsert", "upserted"]).into()),
        ("id", id().into()),
    ]);
    let row = ObjectBuilder::new().description(Some("The row. If it is absent, it is read from the source."));
    let put = common(put.property("new", row));
    let delete = common(object([("op", word(&["delete", "deleted"]).into()), ("id", id().into())]));
    let invalidate = object([("op", word(&["invalidate", "invalidated"]).into())]).property("id", any());
    AnyOfBuilder::new().item(put).item(delete).item(common(invalidate))
}

/// Removes the requirement of a token from `operation`.
fn unguarded(api: &Api, operation: OperationBuilder) -> OperationBuilder {
    match api.guarded {
        true => operation.securities(Some(Vec::<SecurityRequirement>::new())),
        false => operation,
    }
}
