//! The paths that are no Dio's: health, operations, problems, webhooks, this document.

use utoipa::IntoParams as _;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::path::{HttpMethod, OperationBuilder};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{AnyOfBuilder, ObjectBuilder, SchemaType, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Required, ResponseBuilder, Tag};

use super::shapes::{any, array, count, derived, flag, named, object, text, word};
use super::{Api, answers, parameters};
use crate::admin::health::{Alive, Readiness};
use crate::admin::operations::{OperationFilter, WaitParameters};
use crate::http::problem::Code;
use crate::pages::index::Index;
use crate::router::Meaning;
use crate::state::GatewayState;
use crate::webhook::Hook;
use diorama_inbound::Proof;

const SERVER: &str = "server";
pub(super) const WEBHOOKS: &str = "webhooks";

pub(super) fn tag() -> Tag {
    let mut tag = Tag::new(SERVER);
    tag.description = Some("The server itself, and the writes it has accepted.".to_string());
    tag
}

pub(super) fn add(api: &mut Api, gateway: &GatewayState) {
    server(api);
    documents(api);
    events(api);
    operations(api, gateway);
    backup(api);
}

fn backup(api: &mut Api) {
    let backup = api.operation("makeBackup", SERVER, "Cache and journal of one moment", &HttpMethod::Post);
    let about = "A tar file of copies, as `diorama backup` unpacks it. Put back in place of the files of a stopped server, they begin \
        a new epoch. One is made at a time; pages of other origins get none.";
    let files = answers::content(answers::empty("The copies."), "application/x-tar", text());
    let backup = backup.description(Some(about)).response("200", files.build());
    api.add("/_backup", HttpMethod::Post, answers::refusals(backup, &[403, 404, 503, 507]));
}

fn get(api: &Api, id: &str, summary: &str) -> OperationBuilder {
    api.operation(id, SERVER, summary, &HttpMethod::Get)
}

fn server(api: &mut Api) {
    let links = answers::content(answers::json("Links.", derived::<Index>()), "text/html", text());
    let root = get(api, "listResources", "The resources and where they are");
    api.add("/", HttpMethod::Get, root.response("200", links.build()));

    // Nobody is asked for a token here: no 401.
    let open = Api { guarded: false, hosts: api.hosts, ..Api::default() };
    let live = open.operation("isAlive", SERVER, "Whether the process runs", &HttpMethod::Get);
    let live = live.response("200", answers::json("It does.", derived::<Alive>()).build());
    api.add("/healthz", HttpMethod::Get, unguarded(api, live));

    api.derived::<Readiness>();
    let not_yet = answers::json("Not yet, or not any more.", named("Readiness"));
    let not_yet = answers::content(not_yet, answers::PROBLEM, named("Problem"));
    let not_yet = answers::header(not_yet, "Retry-After", "Seconds.", count());
    let ready = get(api, "isReady", "Whether every resource can be read");
    let ready = ready.response("200", answers::json("All can.", named("Readiness")).build());
    api.add("/readyz", HttpMethod::Get, ready.response("503", not_yet.build()));

    let metrics = get(api, "readMetrics", "Counters and gauges in Prometheus' text format");
    let samples = answers::content(answers::empty("The samples."), "text/plain; version=0.0.4", text());
    api.add("/metrics", HttpMethod::Get, metrics.response("200", samples.build()));
}

fn documents(api: &mut Api) {
    let this = get(api, "readOpenApi", "This document").parameter(parameters::if_none_match());
    let docs = get(api, "readDocs", "This document as a page, which can try the operations");
    let page = answers::content(answers::empty("The page."), "text/html; charset=utf-8", text());
    api.add("/docs", HttpMethod::Get, docs.response("200", page.build()));

    let version = |response| answers::header(response, "ETag", "The document's version.", text()).build();
    let this = this.response("200", version(answers::json("The document.", ObjectBuilder::new())));
    api.add(
        "/openapi.json",
        HttpMethod::Get,
        this.response("304", version(answers::empty("It is what the client has."))),
    );
    let events = get(api, "readAsyncApi", "Events and live queries, as AsyncAPI 3.0");
    let events = events.parameter(parameters::if_none_match());
    let events = events.response("200", version(answers::json("The document.", ObjectBuilder::new())));
    let events = events.response("304", version(answers::empty("It is what the client has.")));
    api.add("/asyncapi.json", HttpMethod::Get, events);

    let open = Api { guarded: false, hosts: api.hosts, ..Api::default() };
    let file = open.operation("getFile", SERVER, "The browser client, and the files of the pages", &HttpMethod::Get);
    let name = text().pattern(Some(r"^[a-z-]+\.(js|css)$"));
    let file = file.parameter(parameters::path("file", "The file's name.", name));
    let sent = answers::content(answers::empty("The file."), "text/javascript; charset=utf-8", text());
    let sent = answers::content(sent, "text/css; charset=utf-8", text());
    let file = file.parameter(parameters::if_none_match()).response("200", version(sent));
    let file = file.response("304", version(answers::empty("It is what the client has.")));
    let file = unguarded(api, answers::refusals(file, &[404]));
    api.add("/static/{file}", HttpMethod::Get, file);

    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    let problem = get(api, "explainProblem", "What a code means");
    let problem = problem.parameter(parameters::path("code", "The code of a problem.", word(&codes)));
    let problem = problem.response("200", answers::json("Its meaning.", derived::<Meaning>()).build());
    api.add("/problems/{code}", HttpMethod::Get, answers::refusals(problem, &[404]));
}

fn events(api: &mut Api) {
    let about = "The events of several resources on one connection; every frame says in `sub` whose it is. On a WebSocket, \
        `SubscribeFrame` and `UnsubscribeFrame` change what is followed, also with several filters of one resource, and live queries.";
    let frames = super::frames::tagged(api);
    let watch = get(api, "watchMany", "Events of several resources").description(Some(about));
    let watch = answers::events(watch.parameters(Some(parameters::many_events())), frames);
    let watch = if api.origins { answers::refusals(watch, &[403]) } else { watch };
    api.add("/events", HttpMethod::Get, watch);
}

fn operations(api: &mut Api, gateway: &GatewayState) {
    let dios: Vec<&str> = gateway.dios.keys().map(|name| &**name).collect();
    let list = get(api, "listOperations", "Accepted writes, newest first");
    let list = list.parameters(Some(OperationFilter::parameters(&dios)));
    let found = answers::json("The operations.", array(named("Operation")));
    let found = answers::content(found, "application/x-ndjson", text().description(Some("An operation per line.")));
    let found = answers::header(found, "X-Total-Count", "Operations that fit, on all pages.", count());
    let found = answers::header(found, "Link", "The next page, where there is one (RFC 8288).", text());
    let list = list.response("200", found.build());
    api.add("/operations", HttpMethod::Get, answers::refusals(list, &[400, 404, 406]));

    let many = api.operation("retryOperations", SERVER, "Give parked writes another try", &HttpMethod::Post);
    let many = many.parameters(Some(parameters::retries(&dios)));
    let told = answers::json("What became of each, in the order of their acceptance.", array(named("Retried")));
    let told = answers::header(told, "X-Total-Count", "Operations that were parked before.", count());
    let many = many.response("200", told.build());
    api.add("/operations/_retry", HttpMethod::Post, answers::refusals(many, &[400, 404, 503, 507]));

    let id = || parameters::path("id", "The operation's id.", OperationFilter::id());
    let one = get(api, "getOperation", "One write; `wait=N` waits for its end");
    let one =
        one.parameter(id()).parameters(Some(WaitParameters::into_params(|| None))).parameter(parameters::prefer());
    let found = answers::json("The operation.", named("Operation"));
    let found = answers::header(found, "Retry-After", "Seconds; it has not ended.", count());
    let found = answers::header(found, "Preference-Applied", "What was followed of Prefer.", text());
    let one = one.response("200", found.build());
    api.add("/operations/{id}", HttpMethod::Get, answers::refusals(one, &[400, 404]));

    let discard = api.operation("discardOperation", SERVER, "Give a parked write up", &HttpMethod::Delete);
    let discard = discard.parameter(id()).response("204", answers::empty("It is given up.").build());
    api.add("/operations/{id}", HttpMethod::Delete, answers::refusals(discard, &[404, 409, 503, 507]));

    let retry = api.operation("retryOperation", SERVER, "Give a parked write another try", &HttpMethod::Post);
    let again = answers::json("A new operation at the end of the queue.", named("Operation"));
    let again = answers::header(again, "Location", "The new operation.", text());
    let retry = retry.parameter(id()).response("202", again.build());
    api.add("/operations/{id}/retry", HttpMethod::Post, answers::refusals(retry, &[404, 409, 503, 507]));
}

/// The path of one webhook. Senders prove themselves to the hook; the server's tokens are not asked for.
pub(super) fn hook(api: &mut Api, hook: &Hook) {
    if !api.schemas.contains_key("Change") {
        api.schema("Change", change());
    }
    let open = Api::default();
    let id = format!("receive_{}", hook.name);
    let receive = open.operation(id, WEBHOOKS, "What the source says has changed", &HttpMethod::Post);
    let told = match hook.inbound.is_native() {
        true => "in Diorama's own form",
        false => "in the form of its sender, as the configuration describes it",
    };
    let about = format!(
        "Feeds `{}` {told}. A delivery with an id counts once for a week; without one the same bytes count once for five \
         minutes, as long as all that they say is still so.",
        hook.dio
    );
    let receive = receive.description(Some(about));
    let receive = if api.hosts { answers::refusals(receive, &[421]) } else { receive };
    let either = AnyOfBuilder::new().item(named("Change")).item(array(named("Change")).max_items(Some(10_000)));
    let lines = text().description(Some("A change per line."));
    let body = RequestBodyBuilder::new().required(Some(Required::True));
    let body = match hook.inbound.is_native() {
        true => body
            .content("application/json", ContentBuilder::new().schema(Some(either)).build())
            .content("application/x-ndjson", ContentBuilder::new().schema(Some(lines)).build()),
        // What it looks like is its sender's affair.
        false => body.content("application/json", ContentBuilder::new().schema(Some(any())).build()),
    };
    let receive = receive.request_body(Some(body.build()));
    let done = answers::json("It is applied, was so already, or is of no concern here; durable.", named("Received"));
    let safe = "`disk`, or `memory` where it ends with the process.";
    let done = answers::header(done, "Dio-Durable", safe, word(&["disk", "memory"]));
    let kept = "It is in the journal: being applied still, or kept for a person because it cannot be understood.";
    let kept = answers::header(answers::json(kept, named("Received")), "Dio-Durable", safe, word(&["disk", "memory"]));
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

/// The challenge of senders that ask by `GET`.
fn challenge(api: &mut Api, hook: &Hook, path: &str) {
    let id = format!("challenge_{}", hook.name);
    let operation = Api::default().operation(id, WEBHOOKS, "Answer a challenge of the sender", &HttpMethod::Get);
    let echoed = ResponseBuilder::new().description("The challenge, given back.");
    let operation = operation.response("200", answers::content(echoed, "text/plain", text()).build());
    let operation = answers::refusals(operation, &[401, 405]);
    let operation = if api.hosts { answers::refusals(operation, &[421]) } else { operation };
    let operation = unguarded(api, operation);
    api.add(path, HttpMethod::Get, operation);
}

/// What the hook's senders must send to be believed.
fn proof(api: &mut Api, hook: &Hook, receive: OperationBuilder) -> OperationBuilder {
    let (scheme, about) = match hook.inbound.scheme().proof() {
        Proof::Nothing => return receive,
        Proof::Body => return answers::refusals(receive, &[401]),
        Proof::Query(name) => {
            let about = "The webhook's secret.";
            return answers::refusals(receive.parameter(parameters::secret(&name, about)), &[401]);
        }
        Proof::Headers(headers) => {
            let each = |receive, (name, about): &(String, &str)| {
                OperationBuilder::parameter(receive, parameters::required(name, about))
            };
            return answers::refusals(headers.iter().fold(receive, each), &[401]);
        }
        Proof::Bearer => (HttpAuthScheme::Bearer, "The webhook's secret."),
        Proof::Basic => (HttpAuthScheme::Basic, "The webhook's user and password."),
    };
    let scheme = HttpBuilder::new().scheme(scheme).description(Some(about));
    let name = format!("webhook_{}", hook.name);
    api.securities.insert(name.clone(), SecurityScheme::Http(scheme.build()));
    let no_scopes: [&str; 0] = [];
    let receive = receive.securities(Some([SecurityRequirement::new(name, no_scopes)]));
    answers::refusals(receive, &[401])
}

fn change() -> AnyOfBuilder {
    // Numbers beyond these are no ids.
    let bounded = |id: ObjectBuilder| id.min_length(Some(1)).minimum(Some(isize::MIN)).maximum(Some(usize::MAX));
    let id = || bounded(ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::String, Type::Integer])));
    let common = |change: ObjectBuilder| {
        let version = ObjectBuilder::new();
        let version = version.schema_type(SchemaType::from_iter([Type::Number, Type::String, Type::Null]));
        change
            .property("version", version.description(Some("Newer ones win over older ones.")))
            .property("partial", flag().description(Some("Whether `new` has only what changed.")))
            .property("delivery", id().description(Some("A change with the same delivery is applied once.")))
    };
    let put = object([
        ("op", word(&["insert", "inserted", "update", "updated", "upsert", "upserted"]).into()),
        ("id", id().into()),
    ]);
    let row = ObjectBuilder::new().description(Some("The row; without it the source is read."));
    let put = common(put.property("new", row));
    let delete = common(object([("op", word(&["delete", "deleted"]).into()), ("id", id().into())]));
    let invalidate = object([("op", word(&["invalidate", "invalidated"]).into())]).property("id", any());
    AnyOfBuilder::new().item(put).item(delete).item(common(invalidate))
}

/// No token is needed, whatever the others need.
fn unguarded(api: &Api, operation: OperationBuilder) -> OperationBuilder {
    match api.guarded {
        true => operation.securities(Some(Vec::<SecurityRequirement>::new())),
        false => operation,
    }
}
