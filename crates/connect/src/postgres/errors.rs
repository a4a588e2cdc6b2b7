//! Conversion of PostgreSQL's errors, by their SQLSTATE.
//!
//! Codes: PostgreSQL documentation, appendix A, "PostgreSQL Error Codes".

use tokio_postgres::error::{DbError, SqlState};

use crate::rows::field_error;
use diorama_core::vista::{Error, ErrorKind};

/// Converts the error of a statement that does not write.
pub(super) fn failed(error: tokio_postgres::Error) -> Error {
    let kind = kind_of(&error);
    with_message(kind, error)
}

/// Converts the error of a write of row `id`. A connection that ends before the answer leaves the outcome unknown.
pub(super) fn refused(id: &str, error: tokio_postgres::Error) -> Error {
    let Some(refusal) = error.as_db_error() else {
        let kind = if error.is_closed() || is_io(&error) { ErrorKind::Unknown } else { ErrorKind::Permanent };
        return with_message(kind, error);
    };
    let detail = text_of(refusal);
    match refusal.code() {
        &SqlState::UNIQUE_VIOLATION | &SqlState::EXCLUSION_VIOLATION => {
            Error::Conflict { id: id.to_string(), detail: format!("conflicts with another row: {detail}") }
        }
        &SqlState::NOT_NULL_VIOLATION => match refusal.column() {
            Some(column) => field_error(column, "must not be null"),
            None => Error::invalid(detail),
        },
        // Triggers of the database refuse writes with P0001.
        code if code.code().starts_with("22") || code.code().starts_with("23") || code.code() == "P0001" => {
            match refusal.column() {
                Some(column) => field_error(column, &detail),
                None => Error::invalid(detail),
            }
        }
        &SqlState::DISK_FULL => Error::Storage { detail, full: true },
        _ => failed(error),
    }
}

/// Returns true if the value in a statement is not one of its type: no row has such a value.
pub(super) fn is_bad_value(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| code.code().starts_with("22"))
}

/// Returns true if the table's columns are no longer those that statements were made for.
pub(super) fn is_other_shape(error: &tokio_postgres::Error) -> bool {
    let changed = |refusal: &DbError| {
        matches!(*refusal.code(), SqlState::UNDEFINED_COLUMN | SqlState::UNDEFINED_TABLE | SqlState::DATATYPE_MISMATCH)
            // "cached plan must not change result type"
            || *refusal.code() == SqlState::FEATURE_NOT_SUPPORTED && refusal.message().contains("cached plan")
    };
    error.as_db_error().is_some_and(changed)
}

/// Converts an error of connecting into one that says what to do. `server` is the address without secrets.
pub(super) fn not_connected(server: &str, error: tokio_postgres::Error) -> Error {
    let hint = match error.code() {
        Some(&SqlState::INVALID_PASSWORD) => ": check user and password of the URL",
        Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION) => {
            ": the server admits no such user from here; see pg_hba.conf on the server"
        }
        Some(&SqlState::INVALID_CATALOG_NAME) => ": check the name of the database in the URL",
        Some(&SqlState::TOO_MANY_CONNECTIONS) => ": all connections of the server are in use",
        _ => "",
    };
    let kind = kind_of(&error);
    let message = format!("cannot connect to {server}: {}{hint}", message_of(&error));
    Error::Source { message, kind, retry_after: None, cause: Some(std::sync::Arc::new(error)) }
}

fn with_message(kind: ErrorKind, error: tokio_postgres::Error) -> Error {
    let message = message_of(&error);
    Error::Source { message, kind, retry_after: None, cause: Some(std::sync::Arc::new(error)) }
}

/// Returns the server's own words, or those of the failed connection.
pub(super) fn message_of(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(refusal) => text_of(refusal),
        None => {
            let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
            format!("{error}{}", cause.filter(|cause| !error.to_string().ends_with(cause.as_str())).unwrap_or_default())
        }
    }
}

fn text_of(refusal: &DbError) -> String {
    let hint = match *refusal.code() {
        SqlState::INSUFFICIENT_PRIVILEGE => "; docs/connect/postgres.md lists what the database user must be allowed",
        _ => "",
    };
    match refusal.detail() {
        Some(detail) => format!("{}: {detail}{hint}", refusal.message()),
        None => format!("{}{hint}", refusal.message()),
    }
}

fn is_io(error: &tokio_postgres::Error) -> bool {
    std::error::Error::source(error).is_some_and(|cause| cause.is::<std::io::Error>())
}

fn kind_of(error: &tokio_postgres::Error) -> ErrorKind {
    let Some(code) = error.code() else {
        // Without a code it is the connection that failed.
        return ErrorKind::Transient;
    };
    match (code.code().get(..2), code) {
        // Connections, resources, shutdown, lost races, locks.
        (Some("08" | "53" | "57" | "58" | "40" | "55"), _) => ErrorKind::Transient,
        // A standby that has not become the primary yet.
        (_, &SqlState::READ_ONLY_SQL_TRANSACTION) => ErrorKind::Transient,
        // Rights and tables may be restored; the waiting writes are not at fault.
        (_, &SqlState::INSUFFICIENT_PRIVILEGE | &SqlState::UNDEFINED_TABLE) => ErrorKind::Transient,
        (Some("28" | "3D"), _) => ErrorKind::Transient,
        _ => ErrorKind::Permanent,
    }
}
