//! CloudEvents 1.0 over HTTP: one in headers and body (binary), one in the body (structured), several in the body (batch).
//!
//! The event's type says what happened (`com.example.order.updated`), its subject which row, its data what the row is.

use http::HeaderMap;

use super::body::{Documents, json, member, unescape};
use super::native::record;
use super::{Change, DecodeError, DecodedDelivery, ItemError, MOST_CHANGES};
use diorama_core::record::{CborValue, Record, id_from_value};
use diorama_core::vista::{ChangeEvent, Coercion};

const BATCH: &str = "application/cloudevents-batch";
const STRUCTURED: &str = "application/cloudevents";

/// What one event says.
#[derive(Default)]
struct Event {
    specversion: Option<String>,
    id: Option<String>,
    source: Option<String>,
    kind: Option<String>,
    subject: Option<String>,
    version: Option<CborValue>,
    time: Option<CborValue>,
    data: Option<CborValue>,
}

pub(super) fn decode(
    documents: Documents,
    kind: &str,
    batches: bool,
    headers: &HeaderMap,
    id_column: &str,
) -> Result<DecodedDelivery, DecodeError> {
    let mut decoded = DecodedDelivery::default();
    let one = |value| match value {
        Documents::One(value) => Ok(value),
        _ => Err(DecodeError::Syntax("the body is to be one JSON value".into())),
    };
    if kind.starts_with(BATCH) {
        if !batches {
            return Err(DecodeError::MediaType("this webhook takes no batches of events"));
        }
        let CborValue::Array(events) = one(documents)? else {
            return Err(DecodeError::Syntax("a batch is an array of events".into()));
        };
        if events.len() > MOST_CHANGES {
            return Err(DecodeError::TooMany);
        }
        for (at, event) in events.iter().enumerate() {
            decoded.take(at + 1, structured(event), id_column);
        }
        return Ok(decoded);
    }
    let event = match kind.starts_with(STRUCTURED) {
        true => structured(&one(documents)?),
        false => binary(headers, documents)?,
    };
    decoded.take(1, event, id_column);
    // The only event's id is the delivery's.
    if let Some(Ok(change)) = decoded.changes.first_mut() {
        decoded.delivery = change.delivery.take();
    }
    Ok(decoded)
}

impl DecodedDelivery {
    fn take(&mut self, number: usize, event: Result<Event, String>, id_column: &str) {
        match event.and_then(|event| event.change(id_column)) {
            Ok(Ok(change)) => self.changes.push(Ok(change)),
            Ok(Err(why)) => self.ignore(why),
            Err(detail) => self.changes.push(Err(ItemError { number, detail })),
        }
    }
}

impl Event {
    fn attribute(&mut self, name: &str, value: CborValue) {
        let text = || id_from_value(&value);
        match name {
            "specversion" => self.specversion = text(),
            "id" => self.id = text(),
            "source" => self.source = text(),
            "type" => self.kind = text(),
            "subject" => self.subject = text(),
            "sequence" => {
                let number = value.as_text().and_then(|text| text.parse::<i64>().ok());
                self.version = number.map(CborValue::from).or(Some(value));
            }
            "time" => self.time = Some(value),
            _ => {}
        }
    }

    /// The change, or why the event is of no concern.
    fn change(self, id_column: &str) -> Result<Result<Change, String>, String> {
        let missing = |name: &str| format!("the event has no {name}");
        match self.specversion.as_deref() {
            Some("1.0") => {}
            Some(other) => return Err(format!("CloudEvents {other:?} is not known: 1.0 is")),
            None => return Err(missing("specversion")),
        }
        let (own, source) = (self.id.ok_or_else(|| missing("id"))?, self.source.ok_or_else(|| missing("source"))?);
        let kind = self.kind.ok_or_else(|| missing("type"))?;
        let new = || match &self.data {
            None | Some(CborValue::Null) => Ok(None),
            Some(CborValue::Map(members)) => Ok(Some(record(members))),
            Some(_) => Err("the event's data is the row, an object".to_string()),
        };
        let id = |new: Option<&Record>| {
            let told = self.subject.clone().filter(|subject| !subject.is_empty());
            let id = told.or_else(|| id_from_value(new?.get(id_column)?));
            id.ok_or_else(|| format!("the event has no subject, and its data no {id_column}"))
        };
        let event = match kind.rsplit('.').next().unwrap_or_default() {
            "created" | "inserted" => {
                let new = new()?;
                ChangeEvent::Inserted { id: id(new.as_ref())?, new }
            }
            "updated" | "changed" => {
                let new = new()?;
                ChangeEvent::Updated { id: id(new.as_ref())?, new }
            }
            "deleted" | "removed" => ChangeEvent::Deleted { id: id(new().unwrap_or_default().as_ref())? },
            "truncated" | "invalidated" => ChangeEvent::Invalidated,
            _ => return Ok(Err(format!("type {kind:?} says nothing of a row"))),
        };
        // A blank is in no source: no two pairs look alike.
        let delivery = Some(format!("{source} {own}"));
        let version = match event {
            ChangeEvent::Invalidated => None,
            _ => self.version.or(self.time),
        };
        Ok(Ok(Change { event, version, partial: false, delivery, coercion: Coercion::Typed }))
    }
}

fn structured(value: &CborValue) -> Result<Event, String> {
    let members = value.as_map().ok_or("an event is an object")?;
    let mut event = Event::default();
    for (name, value) in members {
        match name.as_text() {
            Some("data") => event.data = Some(value.clone()),
            Some(name) if !value.is_null() => event.attribute(name, value.clone()),
            _ => {}
        }
    }
    if let Some(encoded) = member(value, "data_base64").and_then(CborValue::as_text) {
        if event.data.is_some() {
            return Err("an event has data or data_base64, not both".into());
        }
        use base64::Engine as _;
        let bytes = base64::engine::general_purpose::STANDARD.decode(encoded);
        let bytes = bytes.map_err(|_| "data_base64 is no base64")?;
        event.data = Some(json(&bytes).map_err(|error| format!("data_base64: {error}"))?);
    }
    Ok(event)
}

/// The event of headers and body.
fn binary(headers: &HeaderMap, documents: Documents) -> Result<Result<Event, String>, DecodeError> {
    if !headers.contains_key("ce-specversion") {
        return Err(DecodeError::MediaType("this webhook takes CloudEvents: in ce- headers or in the body"));
    }
    let mut event = Event::default();
    for (name, value) in headers {
        let Some(name) = name.as_str().strip_prefix("ce-") else { continue };
        match value.to_str().ok().and_then(header) {
            Some(value) => event.attribute(name, CborValue::Text(value)),
            None => return Ok(Err(format!("the header ce-{name} is not percent-encoded UTF-8"))),
        }
    }
    event.data = match documents {
        Documents::Nothing => None,
        Documents::One(value) => Some(value),
        Documents::Lines(_) => return Err(DecodeError::MediaType("the data of an event is one value")),
    };
    Ok(Ok(event))
}

/// Undoes quoting, then one percent-encoding.
fn header(value: &str) -> Option<String> {
    let inner = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    let plain = match inner {
        None => value.to_string(),
        Some(inner) => {
            let mut out = String::with_capacity(inner.len());
            let mut letters = inner.chars();
            while let Some(letter) = letters.next() {
                out.push(if letter == '\\' { letters.next()? } else { letter });
            }
            out
        }
    };
    String::from_utf8(unescape(plain.as_bytes(), false)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::form::Forms;

    fn headers(of: &[(&'static str, &str)]) -> HeaderMap {
        of.iter().map(|(name, value)| (http::header::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn read(body: &str, kind: &str, batches: bool, given: &HeaderMap) -> Result<DecodedDelivery, DecodeError> {
        decode(Documents::read(body.as_bytes(), kind, Forms::Refused)?, kind, batches, given, "id")
    }

    const ATTRIBUTES: [(&str, &str); 4] =
        [("ce-specversion", "1.0"), ("ce-id", "e-1"), ("ce-source", "/shop"), ("ce-type", "shop.product.updated")];

    #[test]
    fn the_three_modes_say_the_same() {
        let mut attributes = ATTRIBUTES.to_vec();
        attributes.extend([("ce-subject", "7"), ("ce-sequence", "42")]);
        let binary = read(r#"{"name":"Bun"}"#, "application/json", false, &headers(&attributes)).unwrap();
        let event = r#"{"specversion":"1.0","id":"e-1","source":"/shop","type":"shop.product.updated","subject":"7",
            "sequence":"42","data":{"name":"Bun"}}"#;
        let structured = read(event, "application/cloudevents+json", false, &HeaderMap::new()).unwrap();
        assert_eq!(binary, structured);
        let row = Record::from_iter([("name".to_string(), "Bun".into())]);
        let change = structured.changes[0].clone().unwrap();
        assert_eq!(change.event, ChangeEvent::Updated { id: "7".into(), new: Some(row) });
        assert_eq!((change.version, structured.delivery.as_deref()), (Some(42.into()), Some("/shop e-1")));
        let batch = format!("[{event},{event}]");
        let kind = "application/cloudevents-batch+json";
        assert!(matches!(read(&batch, kind, false, &HeaderMap::new()), Err(DecodeError::MediaType(_))));
        let batch = read(&batch, kind, true, &HeaderMap::new()).unwrap();
        assert_eq!(batch.changes.len(), 2);
        assert_eq!(batch.changes[1].as_ref().unwrap().delivery.as_deref(), Some("/shop e-1"));
        assert_eq!(read("[]", kind, true, &HeaderMap::new()).unwrap().changes, []);
    }

    #[test]
    fn the_type_says_what_happened_and_the_data_which_row_if_the_subject_does_not() {
        let change = |kind: &str, data: &str| {
            let event = format!(r#"{{"specversion":"1.0","id":"1","source":"s","type":"{kind}","data":{data}}}"#);
            read(&event, "application/cloudevents+json", false, &HeaderMap::new()).unwrap()
        };
        let event = |kind: &str| change(kind, r#"{"id":7}"#).changes.remove(0).unwrap().event;
        assert!(matches!(event("a.created"), ChangeEvent::Inserted { id, .. } if id == "7"));
        assert!(matches!(event("a.changed"), ChangeEvent::Updated { id, .. } if id == "7"));
        assert_eq!(event("removed"), ChangeEvent::Deleted { id: "7".into() });
        assert_eq!(event("a.truncated"), ChangeEvent::Invalidated);
        assert_eq!((change("a.shipped", "{}").ignored, change("a.shipped", "{}").changes.len()), (1, 0));
        assert!(change("a.updated", "{}").changes[0].is_err());
        assert!(change("a.updated", "[1]").changes[0].is_err());
    }

    #[test]
    fn headers_are_unquoted_and_decoded_once() {
        assert_eq!(header("Euro%20%E2%82%AC%20%F0%9F%98%80").unwrap(), "Euro € 😀");
        assert_eq!(header(r#""a \"b\" %25""#).unwrap(), "a \"b\" %");
        assert_eq!(header("%C0%A0"), None);
        assert_eq!(header("%2"), None);
        let mut attributes = ATTRIBUTES.to_vec();
        attributes.push(("ce-subject", "%C0%A0"));
        assert!(read("{}", "application/json", false, &headers(&attributes)).unwrap().changes[0].is_err());
    }

    #[test]
    fn what_is_no_event_is_refused() {
        let error = read("{}", "application/json", false, &HeaderMap::new()).unwrap_err();
        assert!(matches!(error, DecodeError::MediaType(_)));
        for (at, missing) in ATTRIBUTES.iter().enumerate().skip(1) {
            let mut attributes = ATTRIBUTES.to_vec();
            attributes.remove(at);
            let decoded = read(r#"{"id":1}"#, "application/json", false, &headers(&attributes)).unwrap();
            assert!(decoded.changes[0].is_err(), "without {missing:?}");
        }
    }
}
