//! Errors of the server, and what they mean.

use super::cbor::{member, text};
use super::rpc::MAX_ANSWER;
use crate::rows::field_error;
use diorama_core::record::CborValue;
use diorama_core::vista::Error;

/// Message of a transaction that this program ends because the row does not exist.
pub(super) const MISSING: &str = "diorama: missing";
/// Message of a transaction that this program ends because the server has not made a row.
pub(super) const DENIED: &str = "diorama: denied";

/// A request that has failed.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// The server has refused it.
    Refused(Refusal),
    /// The connection was lost.
    Lost(String),
    /// The answer is larger than [`MAX_ANSWER`].
    TooLarge,
}

/// Refusal of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Kinds from the general to the particular: `NotAllowed/Auth/InvalidAuth`.
    pub(super) kind: String,
    pub(super) message: String,
    /// Id of the record that exists already.
    pub(super) record: Option<String>,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        Failure::Refused(refusal)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Refused(refusal) => f.write_str(&refusal.message),
            Failure::Lost(message) => f.write_str(message),
            Failure::TooLarge => write!(f, "the answer is larger than {} MiB", MAX_ANSWER >> 20),
        }
    }
}

impl Failure {
    pub(super) fn lost(message: impl Into<String>) -> Failure {
        Failure::Lost(message.into())
    }
}

impl Refusal {
    /// Reads an error of a request, or the result of a statement that has failed.
    pub(super) fn of(error: &CborValue) -> Refusal {
        let message = text(error, "message").or(text(error, "result")).unwrap_or("the server has refused the request");
        let mut kind = text(error, "kind").unwrap_or_default().to_string();
        let (mut details, mut record) = (member(error, "details"), None);
        while let Some(detail) = details {
            if let Some(own) = text(detail, "kind") {
                kind = format!("{kind}/{own}");
            }
            record = text(detail, "id").map(str::to_string).or(record);
            details = member(detail, "details");
        }
        Refusal { kind, message: message.to_string(), record }
    }

    /// Returns true if the statement has failed only because another one of its transaction has.
    pub(super) fn is_consequence(&self) -> bool {
        matches!(&*self.kind, "Query/NotExecuted" | "Query/Cancelled")
    }

    /// Returns true if another transaction has changed the same rows.
    pub(super) fn is_conflict(&self) -> bool {
        self.message.contains("can be retried") || self.message.contains("ransaction conflict")
    }

    /// Returns true if user or password are wrong.
    pub(super) fn is_login(&self) -> bool {
        self.kind.starts_with("NotAllowed/Auth") && !self.is_right() && !self.kind.ends_with("SessionExpired")
    }

    /// Returns true if the user lacks a right.
    pub(super) fn is_right(&self) -> bool {
        self.kind == "NotAllowed"
            || self.kind.ends_with("Auth/NotAllowed")
            || self.message.contains("Not enough permissions")
    }

    /// Returns true if the table does not exist.
    pub(super) fn is_missing_table(&self) -> bool {
        self.kind == "NotFound/Table"
    }

    fn is_passing(&self) -> bool {
        self.is_conflict()
            || self.kind.starts_with("Query/")
            || self.kind.ends_with("SessionExpired")
            || self.is_missing_table()
    }

    /// Returns the message with what to do about it.
    pub(super) fn advice(&self) -> String {
        let advice = match () {
            () if self.kind.starts_with("Query/TimedOut") => ": the server takes too long",
            () if self.is_right() => ": give the user the role EDITOR, or VIEWER if it only reads",
            () if self.is_login() => ": check user, password and level",
            () => "",
        };
        format!("{}{advice}", self.message)
    }
}

/// Error of a read, or of anything else that has no effect.
pub(super) fn failed(failure: impl Into<Failure>) -> Error {
    match failure.into() {
        Failure::Refused(refusal) if refusal.is_passing() => Error::transient(refusal.advice()),
        Failure::Refused(refusal) => Error::permanent(refusal.advice()),
        failure => Error::transient(failure.to_string()),
    }
}

/// Error of a write of the row `id`.
pub(super) fn refused(id: &str, failure: Failure) -> Error {
    let refusal = match failure {
        Failure::Refused(refusal) => refusal,
        failure => return Error::unknown(format!("the write was sent, but its outcome is unknown: {failure}")),
    };
    let message = &refusal.message;
    if message.ends_with(MISSING) {
        return Error::NotFound { id: id.to_string() };
    }
    if message.ends_with(DENIED) {
        return Error::permanent(
            "the server has made no row: give the user the role EDITOR, and look at the permissions and events of the table",
        );
    }
    if refusal.kind == "AlreadyExists/Record" {
        return Error::Conflict { id: id.to_string(), detail: "already exists".into() };
    }
    if message.contains("already contains") {
        return Error::Conflict { id: id.to_string(), detail: format!("has a value that must be unique: {message}") };
    }
    if refusal.is_passing() || refusal.is_right() {
        return failed(refusal);
    }
    match field_of(message) {
        Some(field) => field_error(field, &format!("is refused by the server: {message}")),
        None if refusal.kind.starts_with("Internal") || refusal.kind.starts_with("Validation") => {
            Error::invalid(message.clone())
        }
        None => failed(refusal),
    }
}

/// Returns the top-level field that a refusal names: "for field `a.b`", "Found field 'x'".
fn field_of(message: &str) -> Option<&str> {
    let rest = message.split_once("field `").or_else(|| message.split_once("ield '"))?.1;
    let field = rest.split(['`', '\'', '.', '[']).next()?;
    (!field.is_empty()).then_some(field)
}
