//! Errors of the client as errors of a feed or a route.

use rskafka::BackoffError;
use rskafka::client::error::{Error as ClientError, ProtocolError};

use diorama_core::vista::{Error, ErrorKind};

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
        let (kind, reason) = match cause(error) {
            ClientError::Connection(error) => (ErrorKind::Transient, error.to_string()),
            ClientError::ServerError { protocol_error, error_message, .. } => {
                let reason = error_message.clone().unwrap_or_else(|| reason(protocol_error));
                (kind(protocol_error), reason)
            }
            other => (ErrorKind::Unknown, other.to_string()),
        };
        Failure { kind, message: format!("{address}: {reason}") }
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

/// The error of the last attempt.
fn cause(error: &ClientError) -> &ClientError {
    match error {
        ClientError::RetryFailed(BackoffError::DeadlineExceded { source, .. }) => {
            source.downcast_ref::<ClientError>().map_or(error, cause)
        }
        error => error,
    }
}

/// Returns the meaning of a refusal for the message's operation. Permissions and settings of a topic can be mended, so that a retry succeeds.
fn kind(error: &ProtocolError) -> ErrorKind {
    use ProtocolError::{
        CorruptMessage, InvalidRecord, InvalidTimestamp, MessageTooLarge, NetworkException,
        NotEnoughReplicasAfterAppend, RecordListTooLarge, RequestTimedOut, UnknownServerError,
        UnsupportedForMessageFormat,
    };
    match error {
        CorruptMessage
        | InvalidRecord
        | InvalidTimestamp
        | MessageTooLarge
        | RecordListTooLarge
        | UnsupportedForMessageFormat => ErrorKind::Permanent,
        NetworkException | NotEnoughReplicasAfterAppend | RequestTimedOut | UnknownServerError => ErrorKind::Unknown,
        _ => ErrorKind::Transient,
    }
}

fn reason(error: &ProtocolError) -> String {
    match error {
        ProtocolError::TopicAuthorizationFailed => "the user may not use this topic".into(),
        ProtocolError::SaslAuthenticationFailed => "the user or the password is wrong".into(),
        ProtocolError::UnknownTopicOrPartition => "there is no such topic, or no permission to see it".into(),
        ProtocolError::MessageTooLarge => "the message is larger than max.message.bytes of the topic".into(),
        ProtocolError::NotEnoughReplicas => "fewer replicas are in sync than min.insync.replicas".into(),
        other => other.to_string(),
    }
}
