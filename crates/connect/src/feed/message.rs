//! Messages of a feed, and what a webhook's decoder makes of them.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Method};
use jiff::Timestamp;
use serde_json::Value;

use super::Intake;
use diorama_core::dio::Inbound;
use diorama_core::state::Origin;
use diorama_core::vista::ChangeEvent;
use diorama_inbound::{self as inbound, Request};

/// Default clock of a feed's versions.
const CLOCK: &str = "feed";

/// Header under which a mapping finds the key of a message.
const KEY_HEADER: HeaderName = HeaderName::from_static("message-key");

/// A message of a broker, or of a socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    /// The key: the row's id, by which brokers keep messages in order.
    pub(crate) key: Option<Bytes>,
    /// The value; `None` for a message that says that the row of the key is deleted.
    pub(crate) value: Option<Bytes>,
    /// Headers. Those of CloudEvents begin with `ce-`, and have values as in HTTP.
    pub(crate) headers: Vec<(String, Bytes)>,
    /// The message's place, if the broker keeps the messages of a key in order.
    pub(crate) place: Option<LogPlace>,
    /// Id by which a repeated message is recognized, unless its content states one; `None` if its sender gave it none.
    pub(crate) delivery: Option<String>,
}

/// Place of a message among those of its log: the version of the row that it describes, unless it states one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogPlace {
    /// The log: a partition, or a stream. One that was made anew has another name.
    pub(crate) log: Arc<str>,
    /// Number that rises from message to message.
    pub(crate) number: i64,
}

impl Message {
    /// Message without key and headers.
    #[cfg(feature = "ws")]
    pub(crate) fn of_value(value: &[u8]) -> Message {
        Message { value: Some(Bytes::copy_from_slice(value)), ..Message::default() }
    }

    /// Returns the id in the key: a text, a number, a JSON text, or the column `id_column`, or the only one, of a JSON object, which
    /// may be the payload of an object with a schema.
    pub(crate) fn id(&self, id_column: &str) -> Option<String> {
        let text = std::str::from_utf8(self.key.as_ref()?).ok().filter(|text| !text.is_empty())?;
        match serde_json::from_str(text) {
            Ok(Value::String(id)) => Some(id).filter(|id| !id.is_empty()),
            Ok(Value::Object(mut members)) => {
                let mut payload = match members.remove("payload") {
                    Some(Value::Object(payload)) => payload,
                    Some(other) => return id_of(&other),
                    None => members,
                };
                match (payload.remove(id_column), payload.len()) {
                    (Some(id), _) => id_of(&id),
                    (None, 1) => payload.values().next().and_then(id_of),
                    (None, _) => None,
                }
            }
            Ok(Value::Null | Value::Array(_)) => None,
            // Numbers as they are written.
            Ok(Value::Bool(_) | Value::Number(_)) | Err(_) => Some(text.to_string()),
        }
    }

    /// Returns the headers for the decoder. Names and values that HTTP does not permit are left out.
    pub(crate) fn header_map(&self, hook: &inbound::Hook) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let name = HeaderName::from_bytes(name.to_ascii_lowercase().as_bytes());
            if let (Ok(name), Ok(value)) = (name, HeaderValue::from_maybe_shared(value.clone())) {
                headers.append(name, value);
            }
        }
        if let Some(key) = self.key.clone().and_then(|key| HeaderValue::from_maybe_shared(key).ok()) {
            headers.insert(KEY_HEADER, key);
        }
        if !headers.contains_key(CONTENT_TYPE) {
            let is_binary = headers.contains_key("ce-specversion");
            let kind =
                if hook.is_cloudevents() && !is_binary { "application/cloudevents+json" } else { "application/json" };
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        headers
    }
}

impl Intake {
    /// Adds the changes of a message, whose value is as the body of a webhook. Returns true if a part of it could not be decoded.
    ///
    /// # Errors
    /// The reason if the whole message could not be decoded.
    pub(crate) fn read_message(
        &self,
        hook: &inbound::Hook,
        message: &Message,
        changes: &mut Vec<Inbound>,
    ) -> Result<bool, String> {
        let Some(dio) = self.dio.upgrade() else { return Ok(false) };
        let schema = dio.schema();
        let Some(body) = &message.value else {
            let id = message.id(schema.id_column()).ok_or("a message without a value has no key that is a row's id")?;
            let (version, clock) =
                message.place.as_ref().map(|place| (place.number.into(), Arc::clone(&place.log))).unzip();
            let event = Inbound::from(ChangeEvent::Deleted { id });
            changes.push(Inbound {
                version,
                clock: Some(clock.unwrap_or_else(|| CLOCK.into())),
                delivery: message.delivery.clone(),
                origin: Origin::Feed,
                ..event
            });
            return Ok(false);
        };
        let headers = message.header_map(hook);
        let (path, now) = ("/", Timestamp::now());
        let request = Request { method: &Method::POST, path, query: None, headers: &headers, body, now };
        let decoded = hook.decode(&request, &schema).map_err(|error| error.to_string())?;
        let several = decoded.changes.len() > 1;
        let delivery = decoded.delivery.or_else(|| message.delivery.clone());
        let mut gap = false;
        for (at, change) in decoded.changes.into_iter().enumerate() {
            let Ok(change) = change else {
                gap = true;
                continue;
            };
            // Two changes of a row in one message have no order by its place.
            let place = message.place.as_ref().filter(|_| !several && change.version.is_none());
            let (version, clock) = match place {
                Some(place) => (Some(place.number.into()), Arc::clone(&place.log)),
                None => (change.version, hook.clock().map_or_else(|| CLOCK.into(), Arc::clone)),
            };
            let all = delivery.as_ref().map(|key| if several { format!("{key}#{at}") } else { key.clone() });
            changes.push(Inbound {
                event: change.event,
                version,
                clock: Some(clock),
                partial: change.partial,
                delivery: change.delivery.or(all),
                origin: Origin::Feed,
                coercion: change.coercion,
                in_order: false,
            });
        }
        Ok(gap)
    }
}

fn id_of(value: &Value) -> Option<String> {
    match value {
        Value::String(id) if !id.is_empty() => Some(id.clone()),
        Value::Number(id) => Some(id.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(key: &str) -> Option<String> {
        let key = Some(Bytes::copy_from_slice(key.as_bytes()));
        Message { key, ..Message::default() }.id("id")
    }

    #[test]
    fn the_key_of_a_message_is_the_id_of_its_row() {
        for (key, expected) in [
            ("7", "7"),
            ("muffin", "muffin"),
            ("00012", "00012"),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
            ("\"7\"", "7"),
            (r#"{"id":7}"#, "7"),
            (r#"{"id":"a","shop":3}"#, "a"),
            (r#"{"number":12}"#, "12"),
            (r#"{"schema":{"type":"struct"},"payload":{"id":1001}}"#, "1001"),
            (r#"{"schema":{"type":"int32"},"payload":1001}"#, "1001"),
            ("{not json", "{not json"),
        ] {
            assert_eq!(id(key).as_deref(), Some(expected), "{key}");
        }
        for key in ["", "null", "[1]", r#"{"a":1,"b":2}"#, r#"{"id":null}"#, r#"{"id":[]}"#, "\"\""] {
            assert_eq!(id(key), None, "{key}");
        }
        assert_eq!(Message::default().id("id"), None);
        assert_eq!(Message { key: Some(Bytes::from_static(b"\xff")), ..Message::default() }.id("id"), None);
    }
}
