//! Errors of the client as errors of a feed or a route.

use lapin::{Error as ClientError, ErrorKind as ClientErrorKind};

use diorama_core::vista::{Error, ErrorKind};

/// Reply codes of AMQP: <https://www.rabbitmq.com/amqp-0-9-1-reference#constants>.
pub(super) mod code {
    pub(crate) const CONNECTION_FORCED: u16 = 320;
    pub(crate) const ACCESS_REFUSED: u16 = 403;
    pub(crate) const NOT_FOUND: u16 = 404;
    pub(crate) const RESOURCE_LOCKED: u16 = 405;
    pub(crate) const PRECONDITION_FAILED: u16 = 406;
    pub(crate) const NOT_ALLOWED: u16 = 530;
}

/// A failed request.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    /// Conclusion of a route about the message that was to be sent.
    pub(super) kind: ErrorKind,
    /// The reason, for people.
    pub(super) message: String,
}

impl Failure {
    /// Failure without an effect.
    pub(super) fn unreachable(message: String) -> Failure {
        Failure { kind: ErrorKind::Transient, message }
    }

    /// Failure of a request to `address`.
    pub(super) fn of(address: &str, error: &ClientError) -> Failure {
        let (kind, reason) = match reply(error) {
            Some((code, text)) => (kind(code, text), format!("{}{}", said(text), advice(code, text))),
            None => (ErrorKind::Unknown, reason(error)),
        };
        Failure { kind, message: format!("{address}: {reason}") }
    }

    /// The same, of a request that was not sent.
    pub(super) fn before_sending(self) -> Failure {
        Failure { kind: ErrorKind::Transient, ..self }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        match failure.kind {
            ErrorKind::Transient => Error::transient(failure.message),
            ErrorKind::Permanent => Error::permanent(failure.message),
            ErrorKind::Unknown => Error::unknown(failure.message),
        }
    }
}

/// Returns the code and the text with which the broker has closed a channel or a connection.
pub(super) fn reply(error: &ClientError) -> Option<(u16, &str)> {
    match error.kind() {
        ClientErrorKind::ProtocolError(error) => Some((error.get_id(), error.get_message().as_str())),
        _ => None,
    }
}

fn reason(error: &ClientError) -> String {
    match error.kind() {
        ClientErrorKind::IOError(error) => error.to_string(),
        ClientErrorKind::MissingHeartbeatError => "the broker does not answer any more".into(),
        ClientErrorKind::InvalidConnectionState(_) | ClientErrorKind::InvalidChannelState(..) => {
            "the connection was lost".into()
        }
        _ => error.to_string(),
    }
}

/// Text of the broker without the name of its code.
fn said(text: &str) -> &str {
    text.split_once(" - ").map_or(text, |(_, text)| text)
}

/// Returns the meaning of a refusal for the message's operation. What is missing can be made, and rights can be given, so that a
/// retry succeeds.
fn kind(code: u16, text: &str) -> ErrorKind {
    match code {
        code::PRECONDITION_FAILED if text.contains("message size") => ErrorKind::Permanent,
        code::ACCESS_REFUSED | code::NOT_FOUND | code::NOT_ALLOWED | code::RESOURCE_LOCKED => ErrorKind::Transient,
        _ => ErrorKind::Unknown,
    }
}

/// Returns what people can do about a refusal, to be put behind it.
fn advice(code: u16, text: &str) -> &'static str {
    match code {
        code::ACCESS_REFUSED if text.contains("Login was refused") => {
            ": the user or the password is wrong; the user guest may log in only from the broker's own machine"
        }
        code::ACCESS_REFUSED if text.contains("in exclusive use") => {
            ": another consumer reads this queue, and a feed needs a queue of its own"
        }
        code::ACCESS_REFUSED => ": `rabbitmqctl set_permissions` gives a user the right",
        code::NOT_FOUND if text.contains("no queue") => {
            ": declare it, or name the exchange whose messages it is to have (exchange = \"NAME\")"
        }
        code::NOT_FOUND if text.contains("no exchange") => ": declare it",
        code::NOT_ALLOWED if text.contains("vhost") => {
            ": the virtual host is the path of the URL; `rabbitmqctl add_vhost` makes one, `rabbitmqctl set_permissions` gives a user the right"
        }
        code::RESOURCE_LOCKED => {
            ": the queue belongs to another connection, with which it ends; declare one that is not exclusive"
        }
        code::CONNECTION_FORCED => ": the broker closes its connections",
        _ => "",
    }
}
