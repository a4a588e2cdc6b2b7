//! What upstream says has changed.

use crate::record::Record;

/// A change on the master that this program did not make: fed into `dio.handle_event`.
///
/// With serde it is the object that webhooks take, with what happened as `op`:
/// `{"op":"updated","id":"7","new":{"name":"Tart"}}`, `{"op":"deleted","id":"7"}`, `{"op":"invalidated"}`. Other members are
/// ignored, except `"partial":true`: such a row is for [`Inbound`](crate::dio::Inbound).
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", try_from = "Form")]
pub enum ChangeEvent {
    /// A row is new. Without `new` it is read from the master.
    Inserted {
        /// The row's id.
        id: String,
        /// The whole row, if the sender gave it.
        #[serde(skip_serializing_if = "Option::is_none")]
        new: Option<Record>,
    },
    /// A row is different. Without `new` it is read from the master.
    Updated {
        /// The row's id.
        id: String,
        /// The whole row, if the sender gave it.
        #[serde(skip_serializing_if = "Option::is_none")]
        new: Option<Record>,
    },
    /// A row is gone.
    Deleted {
        /// The row's id.
        id: String,
    },
    /// Anything may have changed: read everything again.
    Invalidated,
}

/// Members of a change that is read. A form of its own: what serde makes of the tag would not let tagged cells of CBOR through.
#[derive(serde::Deserialize)]
struct Form {
    op: ChangeKind,
    id: Option<String>,
    new: Option<Record>,
    #[serde(default)]
    partial: bool,
}

/// What happened, in the words that webhooks take.
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
            return Err("a ChangeEvent has the whole row; one with some of its columns is an Inbound");
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
    /// The id it is about, `None` for [`ChangeEvent::Invalidated`].
    pub fn id(&self) -> Option<&str> {
        match self {
            ChangeEvent::Inserted { id, .. } | ChangeEvent::Updated { id, .. } | ChangeEvent::Deleted { id } => {
                Some(id)
            }
            ChangeEvent::Invalidated => None,
        }
    }
}
