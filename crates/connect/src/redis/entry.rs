//! Entries of a stream, and the messages in their fields.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

use crate::feed::{LogPlace, Message};
use crate::stream::attribute;

/// Field with the row's id.
pub(super) const KEY: &str = "key";
/// Field with the message.
pub(super) const VALUE: &str = "value";
/// Key and value that Debezium Server writes for none:
/// <https://debezium.io/documentation/reference/stable/operations/debezium-server.html#_redis_stream>.
const NONE: &[u8] = b"default";
/// First millisecond of 2001. An id below has no time.
const FIRST_TIME: u64 = 978_307_200_000;

/// Id of an entry, written `MILLISECONDS-NUMBER`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EntryId {
    time: u64,
    number: u64,
}

impl EntryId {
    /// Time at which the entry was added, in milliseconds; `None` for an id that the producer has chosen otherwise.
    pub(super) fn added(self) -> Option<u64> {
        (self.time >= FIRST_TIME).then_some(self.time)
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.time, self.number)
    }
}

impl FromStr for EntryId {
    type Err = ();

    fn from_str(text: &str) -> Result<EntryId, ()> {
        let (time, number) = text.split_once('-').ok_or(())?;
        Ok(EntryId { time: time.parse().map_err(drop)?, number: number.parse().map_err(drop)? })
    }
}

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: EntryId,
    /// Names and values, one behind the other.
    pub(super) fields: Vec<Bytes>,
}

impl Entry {
    /// Size of names and values in bytes.
    pub(super) fn size(&self) -> usize {
        self.fields.iter().map(Bytes::len).sum()
    }

    /// Returns the message in the fields. An entry with one field has the key as its name.
    pub(super) fn into_message(self, place: LogPlace) -> Message {
        let mut message = Message { place: Some(place), ..Message::default() };
        let is_compact = self.fields.len() == 2 && ![KEY, VALUE].map(str::as_bytes).contains(&&*self.fields[0]);
        let mut fields = self.fields.into_iter();
        while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
            match &*name {
                _ if is_compact => (message.key, message.value) = (Some(name), Some(value)),
                b"key" => message.key = Some(value),
                b"value" => message.value = Some(value),
                _ => message.headers.push(header(&name, &value)),
            }
        }
        message.key = message.key.filter(|key| !key.is_empty() && &**key != NONE);
        // An event may be about a deleted row and have no data.
        let is_event = message.headers.iter().any(|(name, _)| name == "ce-specversion");
        message.value = message.value.filter(|value| is_event || !value.is_empty() && &**value != NONE);
        message.value = message.value.or_else(|| is_event.then(Bytes::new));
        message
    }
}

/// A field as a header. Attributes of CloudEvents have values that are not encoded.
fn header(name: &[u8], value: &Bytes) -> (String, Bytes) {
    let name = String::from_utf8_lossy(name).into_owned();
    let value = if name.starts_with("ce-") { attribute::encode(value).into() } else { value.clone() };
    (name, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(fields: &[&str]) -> Message {
        let fields = fields.iter().map(|field| Bytes::copy_from_slice(field.as_bytes())).collect();
        let place = LogPlace { log: "log".into(), number: 1 };
        Entry { id: EntryId::default(), fields }.into_message(place)
    }

    fn read(fields: &[&str]) -> (Option<String>, Option<String>, usize) {
        let message = message(fields);
        let text = |bytes: Option<Bytes>| bytes.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
        (text(message.key), text(message.value), message.headers.len())
    }

    #[test]
    fn fields_are_key_value_and_headers() {
        let some = |text: &str| Some(text.to_string());
        assert_eq!(read(&["key", "7", "value", "{}"]), (some("7"), some("{}"), 0));
        assert_eq!(read(&["value", "{}", "trace", "x", "key", "7"]), (some("7"), some("{}"), 1));
        assert_eq!(read(&["key", "7"]), (some("7"), None, 0), "a delete");
        assert_eq!(read(&["key", "7", "value", ""]), (some("7"), None, 0));
        assert_eq!(read(&["value", "{}"]), (None, some("{}"), 0));
    }

    #[test]
    fn both_forms_of_debezium_server_are_read() {
        let some = |text: &str| Some(text.to_string());
        assert_eq!(read(&[r#"{"id":7}"#, "{}"]), (some(r#"{"id":7}"#), some("{}"), 0));
        assert_eq!(read(&["key", r#"{"id":7}"#, "value", "default"]), (some(r#"{"id":7}"#), None, 0));
        assert_eq!(read(&["default", "{}"]), (None, some("{}"), 0));
    }

    #[test]
    fn attributes_of_events_are_encoded_as_in_http() {
        let message = message(&["ce-specversion", "1.0", "ce-subject", "a b%é", "key", "7"]);
        let subject = message.headers.iter().find(|(name, _)| name == "ce-subject").map(|(_, value)| value.clone());
        assert_eq!(subject.unwrap(), "a%20b%25%C3%A9");
        assert_eq!(message.value.as_deref(), Some(&b""[..]));
    }

    #[test]
    fn ids_are_ordered_by_time_and_number() {
        let id = |text: &str| text.parse::<EntryId>().unwrap();
        assert!(id("9-10") > id("9-9") && id("10-0") > id("9-99"));
        assert_eq!(id("1700000000000-3").to_string(), "1700000000000-3");
        assert_eq!((id("1700000000000-3").added(), id("5-1").added()), (Some(1_700_000_000_000), None));
        for text in ["", "5", "-1", "1-", "a-1", "1-99999999999999999999"] {
            assert!(text.parse::<EntryId>().is_err(), "{text}");
        }
    }
}
