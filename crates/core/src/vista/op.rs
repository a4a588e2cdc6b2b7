//! Writes: the units of work on the write queue.

use crate::record::Record;

/// A write as it travels from the facade to `on_write` or the master.
///
/// Its serde form is an object whose `op` is the kind: `{"op":"patch","id":"muffin","record":{"price":175}}`,
/// `{"op":"delete","id":"muffin"}`. Other members are ignored.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", try_from = "Form")]
pub enum WriteOp {
    /// Adds a row.
    Insert {
        /// The row's id.
        id: String,
        /// The whole row.
        record: Record,
    },
    /// Writes a whole row, whether or not it exists.
    Replace {
        /// The row's id.
        id: String,
        /// The whole row.
        record: Record,
    },
    /// Changes some columns of an existing row.
    Patch {
        /// The row's id.
        id: String,
        /// The changed columns only; merged as in RFC 7396, see [`merge_patch`](crate::record::merge_patch).
        record: Record,
    },
    /// Deletes a row.
    Delete {
        /// The row's id.
        id: String,
    },
    /// Deletes every row.
    DeleteAll,
}

/// The kind of a [`WriteOp`], for logs, metrics and routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WriteKind {
    /// [`WriteOp::Insert`]
    Insert,
    /// [`WriteOp::Replace`]
    Replace,
    /// [`WriteOp::Patch`]
    Patch,
    /// [`WriteOp::Delete`]
    Delete,
    /// [`WriteOp::DeleteAll`]
    DeleteAll,
}

/// Wire form of a write. Read by hand because serde's internally tagged enums cannot carry tagged CBOR cells.
#[derive(serde::Deserialize)]
struct Form {
    op: WriteKind,
    id: Option<String>,
    record: Option<Record>,
}

impl TryFrom<Form> for WriteOp {
    type Error = String;

    fn try_from(form: Form) -> Result<WriteOp, String> {
        let op = form.op.as_str();
        let id = || form.id.ok_or_else(|| format!("{op} needs an id"));
        let record = || form.record.ok_or_else(|| format!("{op} needs a record"));
        Ok(match form.op {
            WriteKind::Insert => WriteOp::Insert { id: id()?, record: record()? },
            WriteKind::Replace => WriteOp::Replace { id: id()?, record: record()? },
            WriteKind::Patch => WriteOp::Patch { id: id()?, record: record()? },
            WriteKind::Delete => WriteOp::Delete { id: id()? },
            WriteKind::DeleteAll => WriteOp::DeleteAll,
        })
    }
}

impl WriteKind {
    /// Name of the kind in HTTP answers, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            WriteKind::Insert => "insert",
            WriteKind::Replace => "replace",
            WriteKind::Patch => "patch",
            WriteKind::Delete => "delete",
            WriteKind::DeleteAll => "delete_all",
        }
    }
}

impl WriteOp {
    /// Kind of the write.
    pub fn kind(&self) -> WriteKind {
        match self {
            WriteOp::Insert { .. } => WriteKind::Insert,
            WriteOp::Replace { .. } => WriteKind::Replace,
            WriteOp::Patch { .. } => WriteKind::Patch,
            WriteOp::Delete { .. } => WriteKind::Delete,
            WriteOp::DeleteAll => WriteKind::DeleteAll,
        }
    }

    /// Id of the row, `None` for [`WriteOp::DeleteAll`].
    pub fn id(&self) -> Option<&str> {
        match self {
            WriteOp::Insert { id, .. }
            | WriteOp::Replace { id, .. }
            | WriteOp::Patch { id, .. }
            | WriteOp::Delete { id } => Some(id),
            WriteOp::DeleteAll => None,
        }
    }

    /// Columns to write, `None` for deletes.
    pub fn record(&self) -> Option<&Record> {
        match self {
            WriteOp::Insert { record, .. } | WriteOp::Replace { record, .. } | WriteOp::Patch { record, .. } => {
                Some(record)
            }
            WriteOp::Delete { .. } | WriteOp::DeleteAll => None,
        }
    }
}

/// A master's answer to a write.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Written {
    /// The row's id, if the master assigned another than the one requested.
    pub id: Option<String>,
    /// The row as the master stored it, if it returned the row.
    pub record: Option<Record>,
    /// True if the Dio has received the write from the master's feed already: see [`Inbound::in_order`](crate::dio::Inbound).
    pub reported: bool,
}
