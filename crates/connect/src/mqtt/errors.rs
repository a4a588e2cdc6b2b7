//! Errors of the client as errors of a feed or a route.

use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, DisconnectReasonCode, PubAckReason, SubscribeReasonCode};
use rumqttc::v5::{ConnectionError, StateError};

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

    /// Failure of a connection to `address`, before any message was sent.
    pub(super) fn of(address: &str, error: &ConnectionError) -> Failure {
        Failure::unreachable(format!("{address}: {}", reason(error)))
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

/// Describes an error of a connection.
pub(super) fn reason(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ConnectionRefused(code)
        | ConnectionError::MqttState(StateError::ConnFail { reason: code }) => refused(*code),
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, reason_string }) => {
            let said = reason_string.clone().unwrap_or_else(|| format!("{reason_code:?}"));
            format!("the broker has ended the connection: {said}{}", advice(*reason_code))
        }
        ConnectionError::MqttState(StateError::AwaitPingResp) => "the broker does not answer any more".into(),
        ConnectionError::MqttState(StateError::ConnectionAborted) => "the connection was lost".into(),
        ConnectionError::MqttState(StateError::Io(error)) | ConnectionError::Io(error) => error.to_string(),
        ConnectionError::Timeout(_) => "no answer".into(),
        other => other.to_string(),
    }
}

fn refused(code: ConnectReturnCode) -> String {
    use ConnectReturnCode::{
        BadClientId, BadUserNamePassword, ClientIdentifierNotValid, NotAuthorized, RefusedProtocolVersion,
        UnsupportedProtocolVersion,
    };
    match code {
        BadUserNamePassword => "the user or the password is wrong".into(),
        NotAuthorized => "the user or the password is wrong, or the user may not connect".into(),
        RefusedProtocolVersion | UnsupportedProtocolVersion => "the broker does not speak MQTT 5".into(),
        BadClientId | ClientIdentifierNotValid => "the broker does not accept the client_id".into(),
        other => format!("the broker refuses the connection: {other:?}"),
    }
}

fn advice(code: DisconnectReasonCode) -> &'static str {
    match code {
        DisconnectReasonCode::SessionTakenOver => {
            ": another client has connected with the same client_id; each instance needs one of its own"
        }
        DisconnectReasonCode::PacketTooLarge => ": a message is too large",
        _ => "",
    }
}

/// Returns the meaning of the broker's answer to a message; `None` if it has it.
pub(super) fn refused_message(reason: PubAckReason) -> Option<(ErrorKind, &'static str)> {
    Some(match reason {
        PubAckReason::Success | PubAckReason::NoMatchingSubscribers => return None,
        PubAckReason::NotAuthorized => (ErrorKind::Permanent, "the user may not write to this topic"),
        PubAckReason::TopicNameInvalid => (ErrorKind::Permanent, "the broker does not accept this topic"),
        PubAckReason::PayloadFormatInvalid => (ErrorKind::Permanent, "the broker does not accept this content"),
        PubAckReason::QuotaExceeded => (ErrorKind::Transient, "a quota of the broker is exceeded"),
        PubAckReason::UnspecifiedError
        | PubAckReason::ImplementationSpecificError
        | PubAckReason::PacketIdentifierInUse => (ErrorKind::Transient, "the broker has not accepted the message"),
    })
}

/// Returns the reason why a broker does not subscribe a client.
pub(super) fn refused_subscription(reason: SubscribeReasonCode) -> Option<&'static str> {
    Some(match reason {
        SubscribeReasonCode::Success(_) => return None,
        SubscribeReasonCode::NotAuthorized => "the user may not subscribe to it",
        SubscribeReasonCode::TopicFilterInvalid => "the broker does not accept this topic filter",
        SubscribeReasonCode::WildcardSubscriptionsNotSupported => "the broker has no wildcards",
        SubscribeReasonCode::QuotaExceeded => "a quota of the broker is exceeded",
        _ => "the broker refuses the subscription",
    })
}
