//! A gate that holds whoever comes.

use tokio::sync::watch;

use super::soon;

/// A gate that can be closed, and tells when somebody waits at it. Clones are the same gate.
#[derive(Clone)]
pub struct Gate {
    closed: watch::Sender<bool>,
    waiting: watch::Sender<usize>,
}

impl Default for Gate {
    fn default() -> Self {
        Gate { closed: watch::Sender::new(false), waiting: watch::Sender::new(0) }
    }
}

impl Gate {
    /// A gate that is closed.
    pub fn closed() -> Gate {
        let gate = Gate::default();
        gate.close();
        gate
    }

    /// Holds whoever comes.
    pub fn close(&self) {
        self.closed.send_replace(true);
    }

    /// Lets everybody through.
    pub fn open(&self) {
        self.closed.send_replace(false);
    }

    /// Goes through, or waits until that is possible.
    pub async fn pass(&self) {
        if !*self.closed.borrow() {
            return;
        }
        self.waiting.send_modify(|waiting| *waiting += 1);
        let _waiting = Waiting(self);
        let _ = self.closed.subscribe().wait_for(|closed| !closed).await;
    }

    /// Waits until `many` wait here.
    pub async fn waited_at(&self, many: usize) {
        let mut waiting = self.waiting.subscribe();
        soon(waiting.wait_for(|waiting| *waiting >= many)).await.unwrap();
    }

    /// Number of those who wait here.
    pub fn waiting(&self) -> usize {
        *self.waiting.borrow()
    }
}

/// Counts somebody out again, also when its future is dropped.
struct Waiting<'a>(&'a Gate);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.send_modify(|waiting| *waiting -= 1);
    }
}
