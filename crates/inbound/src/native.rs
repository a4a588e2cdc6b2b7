//! The native form of changes: `{"op":"update","id":"7","new":{..}}`, one, an array of them, or one per line; in JSON or CBOR.
//!
//! Members that are not known are ignored, so that senders may say more; an operation that is not known is an error, because
//! ignoring it would lose a change.

use super::body::Documents;
use super::{Change, DecodeError, DecodedDelivery, ItemError, MOST_CHANGES};
use diorama_core::record::{CborValue, Record, id_from_value};
use diorama_core::vista::{ChangeEvent, Coercion};

/// The changes in a body.
pub(super) fn decode(documents: Documents) -> Result<DecodedDelivery, DecodeError> {
    let values = match documents {
        Documents::Nothing => return Err(DecodeError::Syntax("the body is empty".into())),
        Documents::One(CborValue::Array(values)) | Documents::Lines(values) => values,
        Documents::One(value) => vec![value],
    };
    if values.len() > MOST_CHANGES {
        return Err(DecodeError::TooMany);
    }
    let changes = values.into_iter().enumerate();
    let changes = changes.map(|(at, value)| change(value).map_err(|detail| ItemError { number: at + 1, detail }));
    Ok(DecodedDelivery { changes: changes.collect(), ..DecodedDelivery::default() })
}

/// The members that are known.
#[derive(Default)]
struct Members {
    op: Option<CborValue>,
    id: Option<CborValue>,
    new: Option<CborValue>,
    version: Option<CborValue>,
    partial: Option<CborValue>,
    delivery: Option<CborValue>,
}

fn change(value: CborValue) -> Result<Change, String> {
    let CborValue::Map(given) = value else {
        return Err(r#"a change is an object like {"op":"update","id":"7","new":{..}}"#.into());
    };
    let mut members = Members::default();
    for (name, value) in given {
        let member = match name.as_text() {
            Some("op") => &mut members.op,
            Some("id") => &mut members.id,
            Some("new") => &mut members.new,
            Some("version") => &mut members.version,
            Some("partial") => &mut members.partial,
            Some("delivery") => &mut members.delivery,
            _ => continue,
        };
        *member = (!value.is_null()).then_some(value);
    }
    members.read()
}

impl Members {
    fn read(self) -> Result<Change, String> {
        let op = match &self.op {
            Some(CborValue::Text(op)) => op.as_str(),
            Some(_) => return Err("op is a text".into()),
            None => return Err("op is missing: insert, update, upsert, delete or invalidate".into()),
        };
        let id = || match &self.id {
            Some(id) => id_from_value(id).ok_or_else(|| "id is a text that is not empty, or an integer".to_string()),
            None => Err("id is missing".to_string()),
        };
        let new = || match &self.new {
            None => Ok(None),
            Some(CborValue::Map(members)) => Ok(Some(record(members))),
            Some(_) => Err("new is the row, an object".to_string()),
        };
        // Whether a row is new is for the receiver to see: it tells the truth in any case.
        let event = match op {
            "insert" | "inserted" => ChangeEvent::Inserted { id: id()?, new: new()? },
            "update" | "updated" | "upsert" | "upserted" => ChangeEvent::Updated { id: id()?, new: new()? },
            "delete" | "deleted" => ChangeEvent::Deleted { id: id()? },
            "invalidate" | "invalidated" => ChangeEvent::Invalidated,
            other => return Err(format!("op {other:?} is not known: insert, update, upsert, delete or invalidate")),
        };
        let partial = match self.partial {
            None => false,
            Some(CborValue::Bool(partial)) => partial,
            Some(_) => return Err("partial is true or false".into()),
        };
        let delivery = match &self.delivery {
            None => None,
            Some(delivery) => Some(id_from_value(delivery).ok_or("delivery is a text or an integer")?),
        };
        if !matches!(self.version, None | Some(CborValue::Integer(_) | CborValue::Float(_) | CborValue::Text(_))) {
            return Err("version is a number or a text".into());
        }
        Ok(Change { event, version: self.version, partial, delivery, coercion: Coercion::Typed })
    }
}

pub(super) fn record(members: &[(CborValue, CborValue)]) -> Record {
    members.iter().filter_map(|(name, value)| Some((name.as_text()?.to_string(), value.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::form::Forms;

    const JSON: &str = "application/json";

    fn all(body: &[u8], kind: &str) -> Result<Vec<Result<Change, ItemError>>, DecodeError> {
        Ok(decode(Documents::read(body, kind, Forms::Refused)?)?.changes)
    }

    fn one(json: &str) -> Result<Change, DecodeError> {
        all(json.as_bytes(), JSON)?.remove(0).map_err(DecodeError::Item)
    }

    fn muffin() -> Record {
        Record::from_iter([("name".to_string(), "Muffin".into()), ("price".to_string(), 175.into())])
    }

    #[test]
    fn a_change_is_read_with_all_it_says() {
        let change = one(
            r#"{"op":"insert","id":"7","new":{"name":"Muffin","price":175},"version":1042,"partial":false,"delivery":"d-1","more":[]}"#,
        );
        let event = ChangeEvent::Inserted { id: "7".into(), new: Some(muffin()) };
        let (version, delivery) = (Some(1042.into()), Some("d-1".into()));
        let expected = Change { event, version, partial: false, delivery, coercion: Coercion::Typed };
        assert_eq!(change.unwrap(), expected);
    }

    #[test]
    fn every_operation_is_known_in_both_forms() {
        let id = || "7".to_string();
        for (op, event) in [
            ("insert", ChangeEvent::Inserted { id: id(), new: None }),
            ("inserted", ChangeEvent::Inserted { id: id(), new: None }),
            ("update", ChangeEvent::Updated { id: id(), new: None }),
            ("updated", ChangeEvent::Updated { id: id(), new: None }),
            ("upsert", ChangeEvent::Updated { id: id(), new: None }),
            ("delete", ChangeEvent::Deleted { id: id() }),
            ("deleted", ChangeEvent::Deleted { id: id() }),
            ("invalidate", ChangeEvent::Invalidated),
        ] {
            assert_eq!(one(&format!(r#"{{"op":"{op}","id":7}}"#)).unwrap().event, event);
        }
        assert_eq!(one(r#"{"op":"invalidated"}"#).unwrap().event, ChangeEvent::Invalidated);
    }

    #[test]
    fn arrays_and_lines_keep_their_order() {
        let ids = |changes: Vec<Result<Change, ItemError>>| -> Vec<String> {
            changes.into_iter().map(|change| change.unwrap().event.id().unwrap().to_string()).collect()
        };
        let array = br#"[{"op":"delete","id":"b"},{"op":"delete","id":9007199254740993}]"#;
        assert_eq!(ids(all(array, JSON).unwrap()), ["b", "9007199254740993"]);
        let lines = b"{\"op\":\"delete\",\"id\":\"b\"}\r\n\n{\"op\":\"delete\",\"id\":\"a\"}\n";
        assert_eq!(ids(all(lines, "application/x-ndjson").unwrap()), ["b", "a"]);
        assert_eq!(all(b"[]", JSON).unwrap(), []);
    }

    #[test]
    fn what_cannot_be_understood_is_refused_with_its_number() {
        for wrong in [
            r#"{"op":"frobnicate","id":"7"}"#,
            r#"{"id":"7"}"#,
            r#"{"op":"update"}"#,
            r#"{"op":"update","id":1.5}"#,
            r#"{"op":"update","id":true}"#,
            r#"{"op":"update","id":""}"#,
            r#"{"op":"update","id":"7","new":[1]}"#,
            r#"{"op":"update","id":"7","partial":"yes"}"#,
            r#"{"op":"update","id":"7","version":{}}"#,
            "7",
        ] {
            let array = format!(r#"[{{"op":"delete","id":"1"}},{wrong}]"#);
            let changes = all(array.as_bytes(), JSON).unwrap();
            assert!(changes[0].is_ok());
            assert_eq!(changes[1].as_ref().unwrap_err().number, 2, "{wrong}");
        }
        for wrong in ["", "{", "{\"op\":\"delete\",\"op\":\"insert\"}", "[1] 2"] {
            assert!(matches!(one(wrong), Err(DecodeError::Syntax(_))), "{wrong}");
        }
        let many = format!("[{}]", vec!["{}"; MOST_CHANGES + 1].join(","));
        assert_eq!(one(&many), Err(DecodeError::TooMany));
    }
}
