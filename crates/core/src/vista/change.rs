//! Change events from upstream.

use crate::record::Record;

/// A change on the master that this program did not make. Pass it to `dio.handle_event`.
///
/// Its serde form is the object that webhooks accept, with the kind of change as `op`:
/// `{"op":"updated","id":"7","new":{"name":"Tart"}}`, `{"op":"deleted","id":"7"}`, `{"op":"invalidated"}`. Other members are
/// ignored, except `"partial":true`, which is an error: a partial row needs an [`Inbound`](crate::dio::Inbound).
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", try_from = "Form")]
pub enum ChangeEvent {
    /// A row was inserted. Without `new` it is read from the master.
    Inserted {
        /// The row's id.
        id: String,
        /// The whole row, if the sender gave it.
        #[serde(skip_serializing_if = "Option::is_none")]
        new: Option<Record>,
    },
    /// A row was changed. Without `new` it is read from the master.
    Updated {
        /// The row's id.
        id: String,
        /// The whole row, if the sender gave it.
        #[serde(skip_serializing_if = "Option::is_none")]
        new: Option<Record>,
    },
    /// A row was deleted.
    Deleted {
        /// The row's id.
        id: String,
    },
    /// Any row may have changed: everything is read again.
    Invalidated,
}

/// Wire form of a change. Read by hand because serde's internally tagged enums cannot carry tagged CBOR cells.
#[derive(serde::Deserialize)]
struct Form {
    op: ChangeKind,
    id: Option<String>,
    new: Option<Record>,
    #[serde(default)]
    partial: bool,
}

/// Kind of change, in the words that webhooks accept.
#[derive(serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum ChangeKind {
    #[serde(alias = "insert")]
    Inserted,
    #[serde(alias = "update", alias = "upsert", alias = "upserted")]
    Updated,
    #[serde(alias = "delete")]
    Deleted,
    #[serde(alias = "invalidate")]
    Invalidated,
}

impl TryFrom<Form> for ChangeEvent {
    type Error = &'static str;

    fn try_from(form: Form) -> Result<ChangeEvent, &'static str> {
        if form.partial {
            return Err("a ChangeEvent must have the whole row; use an Inbound for a partial row");
        }
        let id = || form.id.ok_or("id is missing");
        Ok(match form.op {
            ChangeKind::Inserted => ChangeEvent::Inserted { id: id()?, new: form.new },
            ChangeKind::Updated => ChangeEvent::Updated { id: id()?, new: form.new },
            ChangeKind::Deleted => ChangeEvent::Deleted { id: id()? },
            ChangeKind::Invalidated => ChangeEvent::Invalidated,
        })
    }
}

impl ChangeEvent {
    /// Id of the changed row, `None` for [`ChangeEvent::Invalidated`].
    pub fn id(&self) -> Option<&str> {
        match self {
            ChangeEvent::Inserted { id, .. } | ChangeEvent::Updated { id, .. } | ChangeEvent::Deleted { id } => {
                Some(id)
            }
            ChangeEvent::Invalidated => None,
        }
    }
}
