//! The announcement of rows that changed without row events, whatever becomes of the refresh or list that changed them.

use std::sync::Arc;

use crate::dio::core::Core;
use crate::dio::scope::scope_of;

/// Publishes `Invalidated` when it is dropped, if rows are still to be announced.
///
/// Until they are, subscribers get no events of these rows. A refresh or list that has failed, or was dropped, has not announced
/// them.
#[derive(Debug)]
pub(super) struct Announcement(Option<Arc<Core>>);

impl Announcement {
    /// The announcement of a list that begins now. One in a callback that makes the copy belongs to that callback.
    pub(super) fn of(core: &Arc<Core>) -> Announcement {
        let in_callback = scope_of(&core.name).is_some_and(|scope| scope.makes_copy());
        Announcement((!in_callback).then(|| Arc::clone(core)))
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        if let Some(core) = self.0.as_ref().filter(|core| core.state().has_untold()) {
            core.invalidate(None);
        }
    }
}
