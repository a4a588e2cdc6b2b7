//! One unit of work on the write queue.

use crate::record::Record;

/// A write as it travels from the facade to `on_write` or the master.
///
/// With serde it is an object whose `op` is its kind: `{"op":"patch","id":"muffin","record":{"price":175}}`,
/// `{"op":"delete","id":"muffin"}`. Other members are ignored.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", try_from = "Form")]
pub enum WriteOp {
    /// A new row.
    Insert {
        /// Its id.
        id: String,
        /// The whole row.
        record: Record,
    },
    /// The whole row, new or not.
    Replace {
        /// Its id.
        id: String,
        /// The whole row.
        record: Record,
    },
    /// Some columns of a row that exists.
    Patch {
        /// Its id.
        id: String,
        /// Only the columns that were given; merged as RFC 7396 says, see
        /// [`merge_patch`](crate::record::merge_patch).
        record: Record,
    },
    /// A row goes.
    Delete {
        /// Its id.
        id: String,
    },
    /// Every row goes.
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

/// Members of a write that is read. A form of its own: what serde makes of the tag would not let tagged cells of CBOR through.
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
    /// The kind's name as HTTP answers, logs and metrics spell it.
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
    /// Its kind.
    pub fn kind(&self) -> WriteKind {
        match self {
            WriteOp::Insert { .. } => WriteKind::Insert,
            WriteOp::Replace { .. } => WriteKind::Replace,
            WriteOp::Patch { .. } => WriteKind::Patch,
            WriteOp::Delete { .. } => WriteKind::Delete,
            WriteOp::DeleteAll => WriteKind::DeleteAll,
        }
    }

    /// The id it is about, `None` for [`WriteOp::DeleteAll`].
    pub fn id(&self) -> Option<&str> {
        match self {
            WriteOp::Insert { id, .. }
            | WriteOp::Replace { id, .. }
            | WriteOp::Patch { id, .. }
            | WriteOp::Delete { id } => Some(id),
            WriteOp::DeleteAll => None,
        }
    }

    /// The columns it carries.
    pub fn record(&self) -> Option<&Record> {
        match self {
            WriteOp::Insert { record, .. } | WriteOp::Replace { record, .. } | WriteOp::Patch { record, .. } => {
                Some(record)
            }
            WriteOp::Delete { .. } | WriteOp::DeleteAll => None,
        }
    }
}

/// What a master says after a write.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Written {
    /// The id the row has now, if the master gave it another than was asked.
    pub id: Option<String>,
    /// The row as the master stores it, if it says.
    pub record: Option<Record>,
}
