//! serde of [`Record`] and [`Rows`]: the JSON of HTTP answers in text formats, exact values in binary formats.

use std::collections::HashSet;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::json::{NOT_UTF8, Seed, not_finite, value_to_json};
use super::{CborValue, Record, Rows, bignum};

/// Maximum nesting depth of a cell; formats have their own limits too.
const DEPTH: usize = 120;

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = serializer.is_human_readable();
        let mut map = serializer.serialize_map(Some(self.len()))?;
        for (column, value) in self {
            match text {
                true => map.serialize_entry(column, &Readable(value))?,
                false => map.serialize_entry(column, value)?,
            }
        }
        map.end()
    }
}

/// Text is kept as text: texts that encode bytes or integers beyond 64 bits are not converted back.
impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Record, D::Error> {
        let text = deserializer.is_human_readable();
        deserializer.deserialize_map(RecordVisitor { text })
    }
}

/// Visitor of a record.
struct RecordVisitor {
    text: bool,
}

impl<'de> Visitor<'de> for RecordVisitor {
    type Value = Record;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record: an object of column name to value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Record, A::Error> {
        let (mut record, mut budget) = (Record::new(), usize::MAX);
        while let Some(column) = map.next_key::<String>()? {
            if record.contains(&column) {
                return Err(de::Error::custom(format!("duplicate column {column:?}")));
            }
            let value = match self.text {
                true => map.next_value_seed(Seed { budget: &mut budget, depth: DEPTH })?,
                false => map.next_value::<CborValue>()?,
            };
            record.insert(column, value);
        }
        Ok(record)
    }
}

/// A value in the form of [`value_to_json`], except that integers beyond 64 bits are text, because serde has no number for them.
struct Readable<'a>(&'a CborValue);

impl Serialize for Readable<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            CborValue::Bool(value) => serializer.serialize_bool(*value),
            CborValue::Integer(number) => {
                let number = i128::from(*number);
                match (i64::try_from(number), u64::try_from(number)) {
                    (Ok(number), _) => serializer.serialize_i64(number),
                    (_, Ok(number)) => serializer.serialize_u64(number),
                    _ => serializer.collect_str(&number),
                }
            }
            CborValue::Float(number) if number.is_finite() => serializer.serialize_f64(*number),
            CborValue::Float(number) => serializer.serialize_str(not_finite(*number)),
            CborValue::Text(text) => serializer.serialize_str(text),
            CborValue::Bytes(bytes) => serializer.serialize_str(&URL_SAFE_NO_PAD.encode(bytes)),
            CborValue::Array(items) => serializer.collect_seq(items.iter().map(Readable)),
            CborValue::Map(members) => {
                let mut named: Vec<(String, Readable<'_>)> =
                    members.iter().map(|(key, value)| (name(key), Readable(value))).collect();
                named.sort_by(|a, b| a.0.cmp(&b.0));
                serializer.collect_map(named)
            }
            CborValue::Tag(tag, inner) => match (bignum::digits_of(self.0), &**inner) {
                (Some((digits, _)), _) => serializer.serialize_str(&digits),
                (None, CborValue::Bytes(text)) if *tag == NOT_UTF8 => {
                    serializer.serialize_str(&String::from_utf8_lossy(text))
                }
                (None, inner) => Readable(inner).serialize(serializer),
            },
            _ => serializer.serialize_unit(),
        }
    }
}

/// Member name for a key of any kind.
fn name(key: &CborValue) -> String {
    match key {
        CborValue::Text(text) => text.clone(),
        other => String::from_utf8_lossy(&value_to_json(other)).into_owned(),
    }
}

/// A row with its id.
#[derive(serde::Serialize, serde::Deserialize)]
struct Row<'a> {
    id: std::borrow::Cow<'a, str>,
    record: Record,
}

impl Serialize for Rows {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::{Error, SerializeSeq};
        let mut list = serializer.serialize_seq(Some(self.len()))?;
        for (id, body) in self.bodies() {
            let record = body.decode().map_err(S::Error::custom)?;
            list.serialize_element(&Row { id: id.into(), record })?;
        }
        list.end()
    }
}

impl<'de> Deserialize<'de> for Rows {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Rows, D::Error> {
        deserializer.deserialize_seq(RowsVisitor)
    }
}

/// Visitor of a list of rows.
struct RowsVisitor;

impl<'de> Visitor<'de> for RowsVisitor {
    type Value = Rows;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(r#"rows: a list of {"id": "7", "record": {..}}"#)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Rows, A::Error> {
        let (mut rows, mut seen) = (Rows::new(), HashSet::new());
        while let Some(Row { id, record }) = list.next_element::<Row<'_>>()? {
            if !seen.insert(id.to_string()) {
                return Err(de::Error::custom(format!("duplicate id {id:?}")));
            }
            rows.push(&*id, &record);
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::json::write_value;
    use crate::record::testing::{cells, value};
    use crate::vista::{ChangeEvent, WriteOp};

    fn cbor<T: Serialize>(value: &T) -> Vec<u8> {
        let mut bytes = Vec::new();
        ciborium::into_writer(value, &mut bytes).unwrap();
        bytes
    }

    /// True if JSON represents the value exactly.
    fn is_exact(value: &CborValue) -> bool {
        write_value(&mut Vec::new(), value)
    }

    /// Values that `value_to_json` represents exactly, with nested members in order.
    fn plain() -> impl Strategy<Value = Record> {
        cells().prop_map(|record| {
            let exact = |(column, value): (String, CborValue)| {
                let text = value_to_json(&value);
                let value = if is_exact(&value) { crate::record::json::from_json(&text).unwrap() } else { 7.into() };
                (column, value)
            };
            record.into_iter().map(exact).collect()
        })
    }

    fn op(record: Record) -> impl Strategy<Value = WriteOp> {
        prop_oneof![
            ".*".prop_map({
                let record = record.clone();
                move |id| WriteOp::Insert { id, record: record.clone() }
            }),
            ".*".prop_map({
                let record = record.clone();
                move |id| WriteOp::Replace { id, record: record.clone() }
            }),
            ".*".prop_map(move |id| WriteOp::Patch { id, record: record.clone() }),
            ".*".prop_map(|id| WriteOp::Delete { id }),
            Just(WriteOp::DeleteAll),
        ]
    }

    fn event(record: Record) -> impl Strategy<Value = ChangeEvent> {
        let new = proptest::option::of(Just(record));
        prop_oneof![
            (".*", new.clone()).prop_map(|(id, new)| ChangeEvent::Inserted { id, new }),
            (".*", new).prop_map(|(id, new)| ChangeEvent::Updated { id, new }),
            ".*".prop_map(|id| ChangeEvent::Deleted { id }),
            Just(ChangeEvent::Invalidated),
        ]
    }

    fn ops(records: impl Strategy<Value = Record>) -> impl Strategy<Value = (WriteOp, ChangeEvent)> {
        records.prop_flat_map(|record| (op(record.clone()), event(record)))
    }

    proptest! {
        #[test]
        fn cbor_holds_every_record_exactly(record in cells()) {
            let back: Record = ciborium::from_reader(&cbor(&record)[..]).unwrap();
            prop_assert!(back.iter().eq(record.iter()), "{back:?}");
        }

        #[test]
                fn serde_json_equals_the_json_of_http_answers(record in cells()) {
            for (column, value) in &record {
                let json = serde_json::to_vec(&Record::from_iter([(column.clone(), value.clone())])).unwrap();
                let parsed = crate::record::json::from_json(&json);
                let mut wire = serde_json::to_vec(column).unwrap();
                wire = [&b"{"[..], &wire, b":", &value_to_json(value), b"}"].concat();
                                // Nested members with equal names in JSON cannot be read back in either form.
                prop_assert_eq!(parsed.ok(), crate::record::json::from_json(&wire).ok());
            }
        }

        #[test]
                fn json_round_trips_values_that_it_can_represent(record in plain()) {
            let json = serde_json::to_string(&record).unwrap();
            let back: Record = serde_json::from_str(&json).unwrap();
            prop_assert!(back.iter().eq(record.iter()), "{back:?}");
            prop_assert_eq!(serde_json::from_value::<Record>(serde_json::from_str(&json).unwrap()).unwrap(), record);
        }

        #[test]
                fn writes_and_changes_round_trip_through_json((op, event) in ops(plain())) {
            prop_assert_eq!(serde_json::from_str::<WriteOp>(&serde_json::to_string(&op).unwrap()).unwrap(), op);
            prop_assert_eq!(serde_json::from_str::<ChangeEvent>(&serde_json::to_string(&event).unwrap()).unwrap(), event);
        }

        #[test]
                fn writes_and_changes_round_trip_through_cbor((op, event) in ops(cells())) {
            prop_assert_eq!(ciborium::from_reader::<WriteOp, _>(&cbor(&op)[..]).unwrap(), op);
            prop_assert_eq!(ciborium::from_reader::<ChangeEvent, _>(&cbor(&event)[..]).unwrap(), event);
        }

        #[test]
                fn rows_round_trip_in_their_order(records in proptest::collection::vec(plain(), 0..4)) {
            let rows: Rows = records.into_iter().enumerate().map(|(at, record)| (format!("r{}", 9 - at), record)).collect();
            prop_assert_eq!(&serde_json::from_str::<Rows>(&serde_json::to_string(&rows).unwrap()).unwrap(), &rows);
            prop_assert_eq!(&ciborium::from_reader::<Rows, _>(&cbor(&rows)[..]).unwrap(), &rows);
        }

        #[test]
                fn rows_of_any_cells_round_trip_through_cbor(value in value()) {
            let rows: Rows = [("7".to_string(), Record::from_iter([("cell".to_string(), value)]))].into_iter().collect();
            prop_assert_eq!(&ciborium::from_reader::<Rows, _>(&cbor(&rows)[..]).unwrap(), &rows);
        }
    }

    fn muffin() -> Record {
        Record::from_iter([
            ("name".to_string(), "Muffin".into()),
            ("price".to_string(), 175.into()),
            ("big".to_string(), ((1_i64 << 53) + 1).into()),
            ("bigger".to_string(), u64::MAX.into()),
            ("beyond".to_string(), CborValue::Integer((-(1_i128 << 64)).try_into().unwrap())),
            ("weight".to_string(), 1.0.into()),
            ("raw".to_string(), CborValue::Bytes(vec![251, 255])),
            ("tagged".to_string(), CborValue::Tag(0, Box::new("2026-11-05T06:00:00Z".into()))),
            ("none".to_string(), CborValue::Null),
            ("nested".to_string(), CborValue::Map(vec![("b".into(), true.into()), ("a".into(), f64::NAN.into())])),
        ])
    }

    #[test]
    fn a_record_is_an_object() {
        assert_eq!(
            serde_json::to_string(&muffin()).unwrap(),
            concat!(
                r#"{"name":"Muffin","price":175,"big":9007199254740993,"bigger":18446744073709551615,"#,
                r#""beyond":"-18446744073709551616","weight":1.0,"raw":"-_8","tagged":"2026-11-05T06:00:00Z","#,
                r#""none":null,"nested":{"a":"NaN","b":true}}"#
            )
        );
        let wrong = |json: &str| serde_json::from_str::<Record>(json).unwrap_err().to_string();
        assert!(wrong("[1]").contains("an object of column name to value"), "{}", wrong("[1]"));
        assert!(wrong(r#"{"a":1,"a":2}"#).contains("duplicate column \"a\""));
        assert!(wrong(r#"{"a":{"b":1,"b":2}}"#).contains("duplicate member \"b\""));
    }

    #[test]
    fn rows_are_a_list() {
        let row = |n: i64| Record::from_iter([("n".to_string(), n.into())]);
        let rows: Rows = [("b".to_string(), row(1)), ("a".to_string(), row(2))].into_iter().collect();
        let json = r#"[{"id":"b","record":{"n":1}},{"id":"a","record":{"n":2}}]"#;
        assert_eq!(serde_json::to_string(&rows).unwrap(), json);
        assert_eq!(serde_json::from_str::<Rows>(json).unwrap(), rows);
        let twice = r#"[{"id":"b","record":{}},{"id":"b","record":{}}]"#;
        assert!(serde_json::from_str::<Rows>(twice).unwrap_err().to_string().contains("duplicate id \"b\""));
    }

    #[test]
    fn a_write_is_tagged_by_its_kind() {
        let record = Record::from_iter([("price".to_string(), 175.into())]);
        let id = || "muffin".to_string();
        for (op, json) in [
            (
                WriteOp::Insert { id: id(), record: record.clone() },
                r#"{"op":"insert","id":"muffin","record":{"price":175}}"#,
            ),
            (
                WriteOp::Replace { id: id(), record: record.clone() },
                r#"{"op":"replace","id":"muffin","record":{"price":175}}"#,
            ),
            (WriteOp::Patch { id: id(), record }, r#"{"op":"patch","id":"muffin","record":{"price":175}}"#),
            (WriteOp::Delete { id: id() }, r#"{"op":"delete","id":"muffin"}"#),
            (WriteOp::DeleteAll, r#"{"op":"delete_all"}"#),
        ] {
            assert_eq!(serde_json::to_string(&op).unwrap(), json);
            assert_eq!(serde_json::from_str::<WriteOp>(json).unwrap(), op);
        }
        let wrong = |json: &str| serde_json::from_str::<WriteOp>(json).unwrap_err().to_string();
        assert!(wrong(r#"{"op":"insert","id":"muffin"}"#).contains("record"));
        assert!(wrong(r#"{"op":"delete"}"#).contains("id"));
        assert!(wrong(r#"{"op":"bake","id":"muffin"}"#).contains("bake"));
        // The order of members is irrelevant, and other members are ignored.
        let mixed = r#"{"at":3,"record":{"price":175},"id":"muffin","op":"patch"}"#;
        assert_eq!(serde_json::from_str::<WriteOp>(mixed).unwrap().id(), Some("muffin"));
    }

    #[test]
    fn a_change_has_the_form_that_webhooks_accept() {
        let new = || Some(Record::from_iter([("price".to_string(), 175.into())]));
        let id = || "muffin".to_string();
        for (event, json) in [
            (ChangeEvent::Inserted { id: id(), new: new() }, r#"{"op":"inserted","id":"muffin","new":{"price":175}}"#),
            (ChangeEvent::Updated { id: id(), new: new() }, r#"{"op":"updated","id":"muffin","new":{"price":175}}"#),
            (ChangeEvent::Updated { id: id(), new: None }, r#"{"op":"updated","id":"muffin"}"#),
            (ChangeEvent::Deleted { id: id() }, r#"{"op":"deleted","id":"muffin"}"#),
            (ChangeEvent::Invalidated, r#"{"op":"invalidated"}"#),
        ] {
            assert_eq!(serde_json::to_string(&event).unwrap(), json);
            assert_eq!(serde_json::from_str::<ChangeEvent>(json).unwrap(), event);
        }
        let wrong = |json: &str| serde_json::from_str::<ChangeEvent>(json).unwrap_err().to_string();
        assert!(wrong(r#"{"op":"updated"}"#).contains("id"));
        assert!(wrong(r#"{"op":"updated","id":"7","new":{"price":1},"partial":true}"#).contains("Inbound"));
        let short = r#"{"op":"update","id":"muffin","partial":false}"#;
        assert_eq!(serde_json::from_str::<ChangeEvent>(short).unwrap(), ChangeEvent::Updated { id: id(), new: None });
    }
}
