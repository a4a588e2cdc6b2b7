//! What upstream says has changed.

use crate::record::Record;

/// A change on the master that this program did not make: fed into `dio.handle_event`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ChangeEvent {
    /// A row is new. Without `new` it is read from the master.
    Inserted {
        /// The row's id.
        id: String,
        /// The whole row, if the sender gave it.
        new: Option<Record>,
    },
    /// A row is different. Without `new` it is read from the master.
    Updated {
        /// The row's id.
        id: String,
        /// The whole row, if the sender gave it.
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
