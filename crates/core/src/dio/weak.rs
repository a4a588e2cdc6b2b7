//! [`WeakDio`]: a reference that does not keep its Dio alive.

use std::sync::{Arc, Weak};

use tokio_util::sync::CancellationToken;

use super::handle::{Dio, Handle};

/// Reference to a [`Dio`] that does not keep it alive; see [`Dio::downgrade`].
///
/// A task that runs as long as the program, such as a consumer of a queue or a timer, holds one and upgrades it for each
/// piece of work. With a [`Dio`] it would keep the Dio open after all other handles are dropped.
///
/// ```
/// # async fn each_news(_: impl AsyncFnMut(String) -> bool) {}
/// # async fn consume(products: diorama_core::Dio) {
/// let products = products.downgrade();
/// each_news(async move |id| {
///     let Some(products) = products.upgrade() else { return false }; // the Dio has closed
///     products.invalidate_record(id);
///     true
/// })
/// .await;
/// # }
/// ```
#[derive(Clone)]
pub struct WeakDio {
    name: Arc<str>,
    handle: Weak<Handle>,
    closing: CancellationToken,
}

impl std::fmt::Debug for WeakDio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let alive = self.upgrade().is_some();
        f.debug_struct("WeakDio").field("name", &self.name).field("alive", &alive).finish()
    }
}

impl Dio {
    /// Makes a reference that does not keep this Dio alive.
    pub fn downgrade(&self) -> WeakDio {
        let core = &self.0.core;
        let closing = core.tasks.closing().clone();
        WeakDio { name: Arc::clone(&core.name), handle: Arc::downgrade(&self.0), closing }
    }
}

impl WeakDio {
    /// The Dio, as long as it can be used.
    ///
    /// `None` once its last handle (a [`Dio`], a facade Vista or a Scenery) is dropped, or once [`Dio::close`] was
    /// called, although its queue may still be draining.
    pub fn upgrade(&self) -> Option<Dio> {
        let handle = self.handle.upgrade()?;
        let closing = handle.core.tasks.closing().is_cancelled();
        (!closing).then(|| Dio(handle))
    }

    /// Waits until the Dio begins to close. A task that [`Dio::run`] has started may then end its work.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn closing(&self) {
        self.closing.cancelled().await;
    }

    /// Name of the Dio, also after it has closed.
    pub fn name(&self) -> &str {
        &self.name
    }
}
