use proptest::prelude::*;

use super::*;
use crate::feed::Message;
use crate::stream::attribute;
use diorama_core::record::CborValue;
use diorama_core::vista::{ChangeEvent, Column, ColumnType, Schema};
use diorama_inbound::{Format, Hook, Request, Scheme, preset};
use http::Method;

fn target() -> Target {
    target_of(ColumnType::String)
}

fn target_of(id: ColumnType) -> Target {
    Target { name: "products".into(), schema: Arc::new(Schema::new("id", vec![Column::new("id", id)])) }
}

fn cells<const N: usize>(cells: [(&str, CborValue); N]) -> Record {
    cells.into_iter().map(|(column, value)| (column.to_string(), value)).collect()
}

fn text(message: &OutMessage) -> String {
    let value = message.value.as_ref().map_or("-", |value| std::str::from_utf8(value).unwrap());
    let headers: Vec<String> = message.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    format!("{} = {value} [{}]", message.key, headers.join(", "))
}

#[test]
fn native_messages_are_those_of_webhooks() {
    let message = |op: WriteOp| text(&WriteFormat::Native.message(&target(), "op_1", &op).unwrap());
    let record = cells([("name", "Muffin".into()), ("price", 175.into())]);
    let headers = "[content-type: application/json, diorama-operation: op_1]";
    assert_eq!(
        message(WriteOp::Insert { id: "7".into(), record: record.clone() }),
        format!(r#"7 = {{"delivery":"op_1","id":"7","new":{{"name":"Muffin","price":175}},"op":"insert"}} {headers}"#)
    );
    assert_eq!(
        message(WriteOp::Replace { id: "7".into(), record }),
        format!(r#"7 = {{"delivery":"op_1","id":"7","new":{{"name":"Muffin","price":175}},"op":"upsert"}} {headers}"#)
    );
    assert_eq!(
        message(WriteOp::Patch { id: "7".into(), record: cells([("price", CborValue::Null)]) }),
        format!(r#"7 = {{"delivery":"op_1","id":"7","new":{{"price":null}},"op":"update","partial":true}} {headers}"#)
    );
    assert_eq!(
        message(WriteOp::Delete { id: "7".into() }),
        format!(r#"7 = {{"delivery":"op_1","id":"7","op":"delete"}} {headers}"#)
    );
    assert_eq!(WriteFormat::Native.message(&target(), "op_1", &WriteOp::DeleteAll), None);
}

#[test]
fn rows_carry_their_id_and_deletes_no_value() {
    let message = |op: WriteOp| text(&WriteFormat::Row.message(&target(), "", &op).unwrap());
    let record = cells([("name", "Muffin".into())]);
    let kind = "[content-type: application/json]";
    assert_eq!(
        message(WriteOp::Replace { id: "7".into(), record }),
        format!(r#"7 = {{"id":"7","name":"Muffin"}} {kind}"#)
    );
    let record = cells([("id", 7.into()), ("name", "Muffin".into())]);
    assert_eq!(
        message(WriteOp::Replace { id: "7".into(), record }),
        format!(r#"7 = {{"id":7,"name":"Muffin"}} {kind}"#)
    );
    assert_eq!(message(WriteOp::Delete { id: "7".into() }), format!("7 = - {kind}"));
}

#[test]
fn an_id_of_a_column_of_numbers_is_a_number() {
    let target = target_of(ColumnType::Integer);
    let op = WriteOp::Replace { id: "7".into(), record: cells([("name", "Muffin".into())]) };
    let row = text(&WriteFormat::Row.message(&target, "", &op).unwrap());
    assert!(row.starts_with(r#"7 = {"id":7,"name":"Muffin"}"#), "{row}");
    let gone = text(&WriteFormat::Debezium.message(&target, "", &WriteOp::Delete { id: "7".into() }).unwrap());
    assert!(gone.contains(r#""before":{"id":7}"#), "{gone}");
}

/// Decodes `message` as a feed does.
fn decoded(format: WriteFormat, message: OutMessage) -> (ChangeEvent, bool) {
    let received = Message {
        key: Some(message.key.into_bytes().into()),
        value: message.value,
        // As Kafka's feed reads them.
        headers: message
            .headers
            .into_iter()
            .map(|(name, value)| (name.to_string(), attribute::encode(value.as_bytes()).into()))
            .collect(),
        place: None,
        delivery: None,
    };
    if received.value.is_none() {
        return (ChangeEvent::Deleted { id: received.id("id").unwrap() }, false);
    }
    let map = |name: &str, only| Format::Map(preset(name, only, "", &[]).unwrap());
    let hook = Hook::new(Scheme::None).format(match format {
        WriteFormat::Native => Format::Native,
        WriteFormat::Row => map("row", None),
        WriteFormat::Debezium => map("debezium", Some("products")),
        WriteFormat::CloudEvents => Format::CloudEvents { batches: false },
    });
    let schema = Schema::new("id", vec![Column::new("id", ColumnType::String)]);
    let headers = received.header_map(&hook);
    let (method, path, now) = (&Method::POST, "/", Timestamp::now());
    let body = received.value.as_deref().unwrap();
    let request = Request { method, path, query: None, headers: &headers, body, now };
    let change = hook.decode(&request, &schema).unwrap().changes.remove(0).unwrap();
    (change.event, change.partial)
}

fn value() -> impl Strategy<Value = CborValue> {
    prop_oneof![
        any::<i64>().prop_map(CborValue::from),
        any::<u64>().prop_map(CborValue::from),
        any::<f64>().prop_filter("JSON has no NaN", |float| float.is_finite()).prop_map(CborValue::from),
        any::<bool>().prop_map(CborValue::from),
        any::<String>().prop_map(CborValue::from),
        Just(CborValue::Null),
    ]
}

proptest! {
    /// A feed reads what a route of the same format has written: the same row, to the last digit.
    #[test]
    fn feeds_read_what_routes_write(
        format in proptest::sample::select(&[WriteFormat::Native, WriteFormat::Row, WriteFormat::Debezium, WriteFormat::CloudEvents][..]),
        id in "[a-zA-Z0-9 _.:é-]{1,20}",
        columns in proptest::collection::btree_map("[a-z]{3,8}", value(), 0..5),
        kind in 0..4,
    ) {
        let record: Record = columns.into_iter().collect();
        let op = match kind {
            0 => WriteOp::Insert { id: id.clone(), record: record.clone() },
            1 => WriteOp::Replace { id: id.clone(), record: record.clone() },
            2 => WriteOp::Delete { id: id.clone() },
            _ if format.has_whole_rows() => WriteOp::Replace { id: id.clone(), record: record.clone() },
            _ => WriteOp::Patch { id: id.clone(), record: record.clone() },
        };
        let (event, partial) = decoded(format, format.message(&target(), "op_1", &op).unwrap());
        prop_assert_eq!(partial, matches!(op, WriteOp::Patch { .. }));
        let mut expected = record;
        if format.has_whole_rows() {
            expected.insert("id", CborValue::from(id.as_str()));
        }
        match event {
            ChangeEvent::Deleted { id: deleted } => {
                prop_assert!(op.record().is_none());
                prop_assert_eq!(deleted, id);
            }
            ChangeEvent::Inserted { id: written, new } | ChangeEvent::Updated { id: written, new } => {
                prop_assert!(op.record().is_some());
                prop_assert_eq!(written, id);
                let new = new.unwrap();
                prop_assert_eq!(new.len(), expected.len());
                for (column, cell) in expected.iter() {
                    prop_assert_eq!(value_to_json(&new[column.as_str()]), value_to_json(cell));
                }
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }
}
