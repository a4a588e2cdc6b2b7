//! Responses: errors by status, and the headers of successful responses.

use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::path::OperationBuilder;
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{HeaderBuilder, Ref};

use super::shapes::{Shape, count, named, of, text, word};
use crate::http::problem::Code;

/// Media type of errors.
pub(super) const PROBLEM: &str = "application/problem+json";

/// Returns a component for every status of an error.
pub(super) fn problems() -> Vec<(String, Response)> {
    let mut statuses: Vec<u16> = Code::ALL.iter().map(|code| code.status().as_u16()).collect();
    statuses.sort_unstable();
    statuses.dedup();
    statuses.into_iter().map(|status| (name(status), problem(status))).collect()
}

fn name(status: u16) -> String {
    format!("Problem{status}")
}

fn problem(status: u16) -> Response {
    let codes = Code::ALL.iter().filter(|code| code.status().as_u16() == status);
    let meanings: Vec<String> = codes.map(|code| format!("`{}`: {}", code.as_str(), code.title())).collect();
    let response = ResponseBuilder::new().description(meanings.join(". ") + ".");
    let response = response.content(PROBLEM, ContentBuilder::new().schema(Some(named("Problem"))).build());
    let response = header(response, "X-Request-Id", "Id of the request, which the server's log has too.", text());
    match status {
        401 => header(
            response,
            "WWW-Authenticate",
            "Required authentication scheme; absent for webhooks with a signature.",
            text(),
        ),
        405 => header(response, "Allow", "Supported methods.", text()),
        415 => header(response, "Accept", "Supported media types.", text()),
        426 => header(response, "Upgrade", "Protocol to upgrade to.", text()),
        429 | 502..=504 | 507 => {
            header(response, "Retry-After", "Seconds to wait before the request is repeated, if known.", count())
        }
        _ => response,
    }
    .build()
}

/// Adds errors with these statuses to `operation`.
pub(super) fn refusals(operation: OperationBuilder, statuses: &[u16]) -> OperationBuilder {
    let all = statuses.iter();
    all.fold(operation, |operation, status| {
        operation.response(status.to_string(), Ref::from_response_name(name(*status)))
    })
}

pub(super) fn header(response: ResponseBuilder, name: &str, about: &str, schema: ObjectBuilder) -> ResponseBuilder {
    response.header(name, HeaderBuilder::new().description(Some(about)).schema(Some(schema)).build())
}

/// Returns a response with a JSON document.
pub(super) fn json(about: &str, schema: impl Into<Shape>) -> ResponseBuilder {
    content(ResponseBuilder::new().description(about), "application/json", schema)
}

pub(super) fn content(response: ResponseBuilder, media: &str, schema: impl Into<Shape>) -> ResponseBuilder {
    let schema: Shape = schema.into();
    response.content(media, ContentBuilder::new().schema(Some(schema)).build())
}

/// Adds the responses with frames, for all transports, to `operation`.
pub(super) fn events(operation: OperationBuilder, frame: impl Into<Shape>) -> OperationBuilder {
    let frame: Shape = frame.into();
    let socket = json("The WebSocket is open; each message is a frame of this schema.", frame.clone());
    let stream = |about: &'static str| text().description(Some(about));
    let body = json("The frames.", super::shapes::array(frame));
    let body = content(body, "application/x-ndjson", stream("One frame per line."));
    let body = content(body, "text/event-stream", stream("One frame per event; the id of the event is the position."));
    let operation = operation.response("101", socket.build()).response("200", body.build());
    refusals(operation, &[400, 404, 406, 426, 429, 503])
}

/// Returns a response without a body.
pub(super) fn empty(about: &str) -> ResponseBuilder {
    ResponseBuilder::new().description(about)
}

/// Adds the headers of a read to `response`.
pub(super) fn read(response: ResponseBuilder) -> ResponseBuilder {
    let response = header(response, "ETag", "Version of the content.", text());
    let about = "Position of the rows, for the parameter `since`; with related rows `NAME=EPOCH:SEQ` of each resource, with semicolons.";
    let positions = of(Type::String)
        .pattern(Some("^([0-9A-Za-z]+:[0-9]+|[^=;]+=[0-9A-Za-z]+:[0-9]+(;[^=;]+=[0-9A-Za-z]+:[0-9]+)*)$"));
    let response = header(response, "Dio-Position", about, positions);
    let response = header(response, "Age", "Seconds since the rows were last compared with their source.", count());
    header(response, "Cache-Status", "State of the copy: fresh or stale (RFC 9211).", text())
}

/// Adds the headers of a list to `response`.
pub(super) fn listed(response: ResponseBuilder) -> ResponseBuilder {
    let response = header(read(response), "X-Total-Count", "Number of matching rows on all pages.", count());
    let response = header(
        response,
        "Content-Range",
        "Range of the returned rows among the matching ones, such as `0-49/1042`.",
        text(),
    );
    header(response, "Link", "URLs of the first, prev, next and last page (RFC 8288).", text())
}

/// Adds the headers of a write to `response`.
pub(super) fn written(response: ResponseBuilder) -> ResponseBuilder {
    let response = durable(response);
    let response = header(response, "Dio-Operation", "URL of the operation that shows the state of the write.", text());
    let response = header(response, "Location", "URL of the row, if it is new.", text());
    let replayed = word(&["true"]);
    let response = header(
        response,
        "Idempotency-Replayed",
        "The request is a repetition, and this is the outcome of the first one.",
        replayed,
    );
    let response = header(response, "Preference-Applied", "Preferences in `Prefer` that were applied.", text());
    header(response, "ETag", "Version of the row, once the source has it.", text())
}

/// Adds the headers of a write of several rows to `response`.
pub(super) fn durable(response: ResponseBuilder) -> ResponseBuilder {
    let response = header(response, "Dio-Position", "Position after the write, for the parameter `since`.", position());
    header(
        response,
        "Dio-Durable",
        "Storage of the write: the journal on disk (`disk`) or in memory (`memory`), or the source (`master`).",
        word(&["disk", "memory", "master"]),
    )
}

fn position() -> ObjectBuilder {
    of(Type::String).pattern(Some("^[0-9A-Za-z]+:[0-9]+$"))
}
