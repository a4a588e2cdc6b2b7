//! Conversion of MariaDB's and MySQL's errors, by their numbers.
//!
//! Numbers: MySQL documentation, "Server Error Message Reference"; MariaDB documentation, "MariaDB Error Code Reference".

use mysql_async::{DriverError, Error as MyError, IoError, ServerError};

use crate::rows::field_error;
use diorama_core::vista::{Error, ErrorKind};

/// Number for a value that a unique key has already.
pub(super) const DUPLICATE: u16 = 1062;

/// Number for a column that the table does not have any more: the columns of a request are checked before.
const UNKNOWN_COLUMN: u16 = 1054;

/// Numbers for a statement that the user may not execute.
const DENIED: [u16; 7] = [1044, 1045, 1142, 1143, 1227, 1370, 1698];

/// Converts the error of a statement that does not write, or of a transaction that has not begun to commit.
pub(super) fn failed(error: MyError) -> Error {
    let kind = kind_of(&error);
    with_message(kind, error)
}

/// Converts the error of a COMMIT. A connection that ends before the answer leaves the outcome unknown.
pub(super) fn not_committed(error: MyError) -> Error {
    match error {
        MyError::Server(_) => failed(error),
        _ => with_message(ErrorKind::Unknown, error),
    }
}

/// Converts the error of a write of row `id` in a transaction that had no effect.
pub(super) fn refused(id: &str, error: MyError) -> Error {
    let MyError::Server(refusal) = &error else { return failed(error) };
    let column = column_of(&refusal.message);
    let detail = refusal.message.as_str();
    match (refusal.code, column) {
        (DUPLICATE | 1022 | 1169 | 1586, _) => {
            Error::Conflict { id: id.to_string(), detail: format!("conflicts with another row: {detail}") }
        }
        (1048, Some(column)) => field_error(column, "must not be null"),
        (1364, Some(column)) => field_error(column, "must be given: it has no default"),
        (1021 | 1114, _) => Error::Storage { detail: detail.to_string(), full: true },
        _ if !is_invalid(refusal) => failed(error),
        (_, Some(column)) => field_error(column, detail),
        (_, None) => Error::invalid(detail),
    }
}

/// Returns true if the values of a write are the reason for its refusal.
fn is_invalid(refusal: &ServerError) -> bool {
    // Classes of SQLSTATE: data, constraints, and the errors that triggers raise.
    let of_state = ["22", "23", "45"].iter().any(|class| refusal.state.starts_with(class));
    let of_code = matches!(
        refusal.code,
        1048 | 1216
            | 1217
            | 1264
            | 1265
            | 1292
            | 1300
            | 1364
            | 1365
            | 1366
            | 1367
            | 1406
            | 1411
            | 1416
            | 1451
            | 1452
            | 1525
            | 1690
            | 1906
            | 3105
            | 3140
            | 3819
            | 3988
            | 4025
    );
    of_state || of_code
}

/// Returns the column that a message names: `for column 'n'`, `` for column `db`.`t`.`n` ``, `Column 'n'`, `Field 'n'`.
fn column_of(message: &str) -> Option<&str> {
    let rest = ["for column ", "Column ", "Field "].iter().find_map(|word| Some(message.rsplit_once(word)?.1))?;
    let quote = rest.chars().next().filter(|quote| matches!(quote, '\'' | '`'))?;
    // The last name of a path follows ".".
    let mut name = rest;
    let separator = format!("{quote}.{quote}");
    let end = rest.find(&format!("{quote} ")).unwrap_or(rest.len());
    if let Some(at) = rest[..end].rfind(&separator) {
        name = &rest[at + 2..];
    }
    name[1..].split(quote).next().filter(|name| !name.is_empty())
}

/// Returns true if the server does not let the user execute the statement.
pub(super) fn is_denied(error: &MyError) -> bool {
    matches!(error, MyError::Server(refusal) if DENIED.contains(&refusal.code))
}

/// Returns true if the table does not have the columns any more that it was described with.
pub(super) fn is_other_shape(error: &Error) -> bool {
    let Error::Source { cause: Some(cause), .. } = error else { return false };
    matches!(cause.downcast_ref::<MyError>(), Some(MyError::Server(refusal)) if refusal.code == UNKNOWN_COLUMN)
}

/// Returns true if a unique key has the value already.
pub(super) fn is_duplicate(error: &MyError) -> bool {
    matches!(error, MyError::Server(refusal) if refusal.code == DUPLICATE)
}

/// Converts an error of connecting into one that says what to do. `server` is the address without secrets.
pub(super) fn not_connected(server: &str, error: MyError) -> Error {
    let hint = match &error {
        MyError::Server(refusal) => match refusal.code {
            1045 => ": check user and password of the URL",
            1044 | 1049 => ": check the name of the database in the URL, and that the user may use it",
            1129 | 1130 | 1698 => {
                ": the server admits no such user from here; see CREATE USER 'name'@'host' on the server"
            }
            1040 | 1203 | 1226 => ": all connections of the server or the user are in use",
            _ => "",
        },
        MyError::Io(error) if is_tls(error) => {
            ": set ca to a PEM file with the authority of the server's certificate, or tls = \"off\" in a network that you trust"
        }
        MyError::Driver(DriverError::NoClientSslFlagFromServer) => {
            ": the server does not encrypt; set tls = \"off\" in a network that you trust"
        }
        _ => "",
    };
    let kind = kind_of(&error);
    let message = format!("cannot connect to {server}: {}{hint}", message_of(&error));
    Error::Source { message, kind, retry_after: None, cause: Some(std::sync::Arc::new(error)) }
}

/// Returns true if the TLS handshake failed.
fn is_tls(error: &IoError) -> bool {
    match error {
        IoError::Io(error) => error.get_ref().is_some_and(|cause| cause.is::<tokio_rustls::rustls::Error>()),
        IoError::Tls(_) => true,
    }
}

fn with_message(kind: ErrorKind, error: MyError) -> Error {
    let message = message_of(&error);
    Error::Source { message, kind, retry_after: None, cause: Some(std::sync::Arc::new(error)) }
}

/// Returns the server's own words, or those of the failed connection.
fn message_of(error: &MyError) -> String {
    match error {
        MyError::Server(refusal) if DENIED.contains(&refusal.code) && refusal.code != 1045 => {
            format!("{}; docs/connect/mysql.md lists what the database user must be allowed", refusal.message)
        }
        MyError::Server(refusal) => refusal.message.clone(),
        MyError::Driver(DriverError::PacketTooLarge) => too_large("the statement is too large"),
        MyError::Driver(error) => error.to_string(),
        MyError::Io(IoError::Io(error)) => error.to_string(),
        MyError::Io(error) => error.to_string(),
        MyError::Other(error) => error.to_string(),
        MyError::Url(error) => error.to_string(),
    }
}

fn too_large(message: &str) -> String {
    format!("{message}: max_allowed_packet of the server must be more than twice the size of a row")
}

fn kind_of(error: &MyError) -> ErrorKind {
    match error {
        MyError::Server(refusal) => kind_of_refusal(refusal),
        MyError::Driver(
            DriverError::ConnectionClosed | DriverError::UnexpectedPacket { .. } | DriverError::PacketOutOfOrder,
        ) => ErrorKind::Transient,
        MyError::Io(_) => ErrorKind::Transient,
        MyError::Driver(_) | MyError::Other(_) | MyError::Url(_) => ErrorKind::Permanent,
    }
}

fn kind_of_refusal(refusal: &ServerError) -> ErrorKind {
    match refusal.code {
        // Locks and lost races; a table that is being changed.
        1205 | 1213 | 1020 | 1180 | 1412 | 1614 | 1615 | 1637 | 3058 | 3572 => ErrorKind::Transient,
        // Connections, memory, shutdown, interruption, time limits.
        1037
        | 1038
        | 1040
        | 1041
        | 1053
        | 1077
        | 1129
        | 1130
        | 1152
        | 1158..=1161
        | 1184
        | 1203
        | 1226
        | 1317
        | 1927
        | 1969
        | 2006
        | 2013
        | 3024
        | 4031 => ErrorKind::Transient,
        // Full disks are emptied, and a read-only server may become the primary.
        1021 | 1114 | 1290 | 1792 | 1836 => ErrorKind::Transient,
        // Rights and tables may be restored, and columns that have changed are described again; the waiting writes are not at fault.
        1049 | 1146 | UNKNOWN_COLUMN => ErrorKind::Transient,
        code if DENIED.contains(&code) => ErrorKind::Transient,
        _ => ErrorKind::Permanent,
    }
}

#[cfg(test)]
mod tests {
    use super::column_of;

    #[test]
    fn messages_name_their_column() {
        for (message, column) in [
            ("Column 'name' cannot be null", Some("name")),
            ("Field 'name' doesn't have a default value", Some("name")),
            ("Data too long for column 'short' at row 1", Some("short")),
            ("Incorrect integer value: 'x' for column `shop`.`t`.`n` at row 1", Some("n")),
            ("Incorrect datetime value: 'Column' for column `d`.`t`.`a b` at row 1", Some("a b")),
            ("Duplicate entry 'x' for key 'sku'", None),
            ("CONSTRAINT `t.n` failed for `d`.`t`", None),
        ] {
            assert_eq!(column_of(message), column, "{message}");
        }
    }
}
