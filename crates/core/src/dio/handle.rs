//! `Dio` and the handle that its clones share. Dropping the last one closes the Dio.

use std::sync::Arc;

use tokio::runtime;

use super::core::Core;

/// A Vista bound to a Lens: reads from its own copy, writes through a queue, events from a log.
///
/// A Dio is a handle: clones are cheap (one `Arc`) and share everything. Dropping the last one drains the queue and stops
/// the tasks in the background; [`Dio::close`] waits for that.
#[derive(Clone)]
pub struct Dio(pub(crate) Arc<Handle>);

impl std::fmt::Debug for Dio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dio").field("name", &self.name()).finish_non_exhaustive()
    }
}

/// Handle that the clones of a Dio share. Dropping it closes the Dio.
pub(crate) struct Handle {
    pub(crate) core: Arc<Core>,
    pub(super) runtime: runtime::Handle,
}

impl Handle {
    pub(super) fn new(core: Arc<Core>) -> Handle {
        Handle { core, runtime: runtime::Handle::current() }
    }

    /// Starts a refresh in the background if the rows are older than `cache_ttl`.
    pub(crate) fn refresh_if_stale(self: &Arc<Self>) {
        if self.core.settings.cache_ttl.is_some() && self.core.callbacks.on_refresh.is_some() && self.core.is_stale() {
            let handle = Arc::clone(self);
            self.core.tasks.spawn(async move { handle.core.refresh_changes(&handle).await });
        }
    }
}

impl Handle {
    /// Closes the Dio in the background.
    pub(super) fn end(&self) {
        let core = Arc::clone(&self.core);
        core.tasks.closing().cancel();
        self.runtime.spawn(async move { core.finish().await });
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.end();
    }
}

impl Core {
    /// Refuses new writes, drains the queue, flushes the cache and closes the ring. Safe to call more than once.
    pub(crate) async fn finish(self: Arc<Self>) {
        self.close_writes();
        self.tasks.closing().cancel();
        self.tasks.join().await;
        self.store.flush_or_log(&self.name).await;
        self.ring.close();
        self.ended.cancel();
    }
}
