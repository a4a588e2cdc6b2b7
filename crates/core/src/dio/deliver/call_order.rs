//! Order of the calls of deliveries that overlap: one is prepared while another is with the master, and a third is settled.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::oneshot;

/// The latest delivery of an ordered queue, as the next one sees it.
#[derive(Debug)]
pub(super) struct LastCall {
    begun: Arc<AtomicBool>,
    ended: oneshot::Receiver<()>,
}

impl LastCall {
    /// Returns true if the call has begun, so that another delivery may be prepared.
    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }
}

/// Turn of a delivery to call the master. The next one waits until it ends.
#[derive(Debug)]
pub(crate) struct CallTurn {
    before: Option<LastCall>,
    begun: Arc<AtomicBool>,
    ended: Option<oneshot::Sender<()>>,
}

impl CallTurn {
    /// Returns the turn of a delivery that no other one waits for.
    pub(super) fn alone() -> CallTurn {
        CallTurn { before: None, begun: Arc::default(), ended: None }
    }

    /// Returns the turn after `before`, and what the next delivery waits for.
    pub(super) fn after(before: Option<LastCall>) -> (CallTurn, LastCall) {
        let (ended, waits) = oneshot::channel();
        let begun: Arc<AtomicBool> = Arc::default();
        (CallTurn { before, begun: Arc::clone(&begun), ended: Some(ended) }, LastCall { begun, ended: waits })
    }

    /// Waits for the call before. Returns false if one of its operations has to be delivered again, and so before this delivery.
    pub(super) async fn begin(&mut self) -> bool {
        let may = match self.before.take() {
            Some(before) => before.ended.await.is_ok(),
            None => true,
        };
        self.begun.store(may, Ordering::Release);
        may
    }

    /// Lets the next delivery begin. Without it, a dropped turn tells the next one not to.
    pub(super) fn end(&mut self) {
        if let Some(ended) = self.ended.take() {
            // The next delivery may not exist.
            let _ = ended.send(());
        }
    }

    /// Returns true if another delivery can wait for this one.
    pub(super) fn has_next(&self) -> bool {
        self.ended.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn calls_begin_in_order_and_not_after_one_that_is_to_be_repeated() {
        let (mut first, last) = CallTurn::after(None);
        assert!(!last.has_begun());
        assert!(first.begin().await);
        assert!(last.has_begun());
        let (mut second, last) = CallTurn::after(Some(last));
        let (mut third, _) = CallTurn::after(Some(last));
        let waits = tokio::time::timeout(std::time::Duration::ZERO, second.begin()).await;
        assert!(waits.is_err(), "the first call has not ended");
        drop(first);
        drop(second);
        assert!(!third.begin().await, "the one before it was not called");

        let (mut first, last) = CallTurn::after(None);
        let (mut second, _) = CallTurn::after(Some(last));
        first.end();
        assert!(second.begin().await);
    }
}
