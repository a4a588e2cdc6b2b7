//! Formats of writes as messages.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use uuid::Uuid;

use diorama_core::record::{CborValue, Record, id_to_value, value_to_json};
use diorama_core::vista::{Schema, WriteOp};

/// Header with the id of the operation, by which a receiver recognizes a repeated message.
pub(crate) const OPERATION_HEADER: &str = "diorama-operation";

/// Form of the messages of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteFormat {
    /// `{"op":"update","id":"7","new":{..},"partial":true}`, as webhooks receive it.
    Native,
    /// The whole row; no value for a delete.
    Row,
    /// Envelope of Debezium with whole rows.
    Debezium,
    /// CloudEvents in binary mode: attributes in headers, the whole row as data.
    CloudEvents,
}

/// The resource whose writes are sent.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) schema: Arc<Schema>,
}

impl Target {
    /// Returns the id column with `id`, which is a number in a column of numbers.
    fn id_cell(&self, id: &str) -> (CborValue, CborValue) {
        (self.schema.id_column().into(), id_to_value(id, self.schema.layout()))
    }
}

/// A message to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OutMessage {
    /// The row's id.
    pub(crate) key: String,
    /// The value; `None` for a delete in the form of rows.
    pub(crate) value: Option<Bytes>,
    /// Headers. Those of CloudEvents begin with `ce-`, and have values that are not encoded.
    pub(crate) headers: Vec<(&'static str, String)>,
    /// The operation's id; empty for writes that nobody repeats.
    pub(crate) operation: String,
}

impl WriteFormat {
    /// The words of the configuration.
    pub(crate) const WORDS: [&'static str; 4] = ["native", "row", "debezium", "cloudevents"];

    /// Returns the format that one of [`WriteFormat::WORDS`] selects.
    pub(crate) fn of(word: &str) -> WriteFormat {
        match word {
            "row" => WriteFormat::Row,
            "debezium" => WriteFormat::Debezium,
            "cloudevents" => WriteFormat::CloudEvents,
            _ => WriteFormat::Native,
        }
    }

    /// True if changes of columns are sent as whole rows.
    pub(crate) fn has_whole_rows(self) -> bool {
        self != WriteFormat::Native
    }

    /// Returns the message for a write; `None` for one that has no row.
    pub(crate) fn message(self, target: &Target, operation: &str, op: &WriteOp) -> Option<OutMessage> {
        let id = op.id()?;
        let row = op.record().map(|record| row(record, target, id));
        let mut headers = Vec::new();
        let value = match self {
            WriteFormat::Native => Some(native(op, id, operation)),
            WriteFormat::Row => row,
            WriteFormat::Debezium => Some(debezium(target, op, id, row)),
            WriteFormat::CloudEvents => {
                headers = attributes(target, op, id, operation);
                Some(row.unwrap_or(CborValue::Null))
            }
        };
        headers.push(("content-type", "application/json".into()));
        if !operation.is_empty() {
            headers.push((OPERATION_HEADER, operation.to_string()));
        }
        let value = value.map(|value| value_to_json(&value).into());
        Some(OutMessage { key: id.to_string(), value, headers, operation: operation.to_string() })
    }
}

/// Returns an object with these members.
fn object<const N: usize>(members: [(&str, CborValue); N]) -> CborValue {
    CborValue::Map(members.into_iter().map(|(name, value)| (name.into(), value)).collect())
}

fn columns(record: &Record) -> impl Iterator<Item = (CborValue, CborValue)> {
    record.iter().map(|(column, cell)| (column.as_str().into(), cell.clone()))
}

/// The row, with its id.
fn row(record: &Record, target: &Target, id: &str) -> CborValue {
    let own_id = (!record.contains(target.schema.id_column())).then(|| target.id_cell(id));
    CborValue::Map(own_id.into_iter().chain(columns(record)).collect())
}

fn native(op: &WriteOp, id: &str, operation: &str) -> CborValue {
    let word = match op {
        WriteOp::Insert { .. } => "insert",
        WriteOp::Replace { .. } => "upsert",
        WriteOp::Patch { .. } => "update",
        WriteOp::Delete { .. } | WriteOp::DeleteAll => "delete",
    };
    let mut members: Vec<(CborValue, CborValue)> = vec![("op".into(), word.into()), ("id".into(), id.into())];
    if let Some(record) = op.record() {
        members.push(("new".into(), CborValue::Map(columns(record).collect())));
    }
    if matches!(op, WriteOp::Patch { .. }) {
        members.push(("partial".into(), true.into()));
    }
    if !operation.is_empty() {
        members.push(("delivery".into(), operation.into()));
    }
    CborValue::Map(members)
}

/// Envelope as Debezium's connectors write it without a schema:
/// <https://debezium.io/documentation/reference/stable/connectors/postgresql.html#postgresql-events>.
fn debezium(target: &Target, op: &WriteOp, id: &str, row: Option<CborValue>) -> CborValue {
    let word = match op {
        WriteOp::Insert { .. } => "c",
        WriteOp::Replace { .. } | WriteOp::Patch { .. } => "u",
        WriteOp::Delete { .. } | WriteOp::DeleteAll => "d",
    };
    let before = if row.is_none() { CborValue::Map(vec![target.id_cell(id)]) } else { CborValue::Null };
    let source = object([
        ("connector", "diorama".into()),
        ("name", "diorama".into()),
        ("db", "diorama".into()),
        ("table", target.name.as_str().into()),
    ]);
    object([
        ("before", before),
        ("after", row.unwrap_or(CborValue::Null)),
        ("source", source),
        ("op", word.into()),
        ("ts_ms", Timestamp::now().as_millisecond().into()),
    ])
}

/// Attributes of a CloudEvent: <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md>.
fn attributes(target: &Target, op: &WriteOp, id: &str, operation: &str) -> Vec<(&'static str, String)> {
    let word = match op {
        WriteOp::Insert { .. } => "created",
        WriteOp::Replace { .. } | WriteOp::Patch { .. } => "updated",
        WriteOp::Delete { .. } | WriteOp::DeleteAll => "deleted",
    };
    let event = if operation.is_empty() { Uuid::now_v7().to_string() } else { operation.to_string() };
    vec![
        ("ce-specversion", "1.0".into()),
        ("ce-id", event),
        ("ce-source", format!("/{}", target.name)),
        ("ce-type", format!("diorama.{}.{word}", target.name)),
        ("ce-subject", id.to_string()),
        ("ce-time", Timestamp::now().to_string()),
    ]
}

#[cfg(test)]
mod tests;
