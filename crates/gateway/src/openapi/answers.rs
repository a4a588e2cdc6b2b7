//! Answers: refusals by status, and the headers of what succeeds.

use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::path::OperationBuilder;
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{HeaderBuilder, Ref};

use super::shapes::{Shape, count, named, of, text, word};
use crate::http::problem::Code;

/// The form of refusals.
pub(super) const PROBLEM: &str = "application/problem+json";

/// Every status that a refusal can have, as a component.
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
    let response = header(response, "X-Request-Id", "As the server's log has it.", text());
    match status {
        401 => header(response, "WWW-Authenticate", "What is asked for; not where signatures are.", text()),
        405 => header(response, "Allow", "Methods that would do.", text()),
        415 => header(response, "Accept", "Types that are understood.", text()),
        426 => header(response, "Upgrade", "What to change to.", text()),
        429 | 502..=504 | 507 => header(response, "Retry-After", "Seconds, if it is known.", count()),
        _ => response,
    }
    .build()
}

/// `operation` with refusals of these statuses.
pub(super) fn refusals(operation: OperationBuilder, statuses: &[u16]) -> OperationBuilder {
    let all = statuses.iter();
    all.fold(operation, |operation, status| {
        operation.response(status.to_string(), Ref::from_response_name(name(*status)))
    })
}

pub(super) fn header(response: ResponseBuilder, name: &str, about: &str, schema: ObjectBuilder) -> ResponseBuilder {
    response.header(name, HeaderBuilder::new().description(Some(about)).schema(Some(schema)).build())
}

/// An answer with a document.
pub(super) fn json(about: &str, schema: impl Into<Shape>) -> ResponseBuilder {
    content(ResponseBuilder::new().description(about), "application/json", schema)
}

pub(super) fn content(response: ResponseBuilder, media: &str, schema: impl Into<Shape>) -> ResponseBuilder {
    let schema: Shape = schema.into();
    response.content(media, ContentBuilder::new().schema(Some(schema)).build())
}

/// Frames, on every transport.
pub(super) fn events(operation: OperationBuilder, frame: impl Into<Shape>) -> OperationBuilder {
    let frame: Shape = frame.into();
    let socket = json("Frames follow, each of this form.", frame.clone());
    let stream = |about: &'static str| text().description(Some(about));
    let body = json("Frames.", super::shapes::array(frame));
    let body = content(body, "application/x-ndjson", stream("A frame per line."));
    let body = content(body, "text/event-stream", stream("A frame per event; its id is the position."));
    let operation = operation.response("101", socket.build()).response("200", body.build());
    refusals(operation, &[400, 404, 406, 426, 429, 503])
}

/// An answer without a body.
pub(super) fn empty(about: &str) -> ResponseBuilder {
    ResponseBuilder::new().description(about)
}

/// What readers are told beside the rows.
pub(super) fn read(response: ResponseBuilder) -> ResponseBuilder {
    let response = header(response, "ETag", "The version of what is shown.", text());
    let response = header(response, "Dio-Position", "The position that was read at, as `since` takes it.", position());
    let response = header(response, "Age", "Seconds since the rows were compared with their source.", count());
    header(response, "Cache-Status", "Whether the copy is as fresh as it should be (RFC 9211).", text())
}

/// What readers of lists are told on top.
pub(super) fn listed(response: ResponseBuilder) -> ResponseBuilder {
    let response = header(read(response), "X-Total-Count", "Rows that match, on all pages.", count());
    let response = header(response, "Content-Range", "Which of them these are: `0-49/1042`.", text());
    header(response, "Link", "Other pages: first, prev, next, last (RFC 8288).", text())
}

/// What writers are told.
pub(super) fn written(response: ResponseBuilder) -> ResponseBuilder {
    let response = durable(response);
    let response = header(response, "Dio-Operation", "Where the write can be followed.", text());
    let response = header(response, "Location", "The row, where it is new.", text());
    let replayed = word(&["true"]);
    let response = header(response, "Idempotency-Replayed", "The request was answered before.", replayed);
    let response = header(response, "Preference-Applied", "What was followed of Prefer.", text());
    header(response, "ETag", "The row's version, once the source has it.", text())
}

/// What writers of many rows are told.
pub(super) fn durable(response: ResponseBuilder) -> ResponseBuilder {
    let response = header(response, "Dio-Position", "The position after the write, as `since` takes it.", position());
    header(response, "Dio-Durable", "Where it is safe: the journal on disk or in memory, or the source.", {
        word(&["disk", "memory", "master"])
    })
}

fn position() -> ObjectBuilder {
    of(Type::String).pattern(Some("^[0-9A-Za-z]+:[0-9]+$"))
}
