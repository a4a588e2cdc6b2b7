//! Messages that go together: those that arrive while a batch is under way make the next one.

use std::future::Future;

use parking_lot::Mutex;
use tokio::sync::{Mutex as Turn, oneshot};

use diorama_core::vista::{Error, Result};

/// Messages for one partition.
#[derive(Debug)]
pub(super) struct Batches<T> {
    waiting: Mutex<Vec<(T, oneshot::Sender<Result<()>>)>>,
    /// Held by the caller whose batch is under way.
    turn: Turn<()>,
}

impl<T> Default for Batches<T> {
    fn default() -> Batches<T> {
        Batches { waiting: Mutex::default(), turn: Turn::default() }
    }
}

impl<T> Batches<T> {
    /// Sends `message` with the others that wait, at most `most` in one call of `send`. Returns the result of its batch.
    ///
    /// # Errors
    /// The error of `send`; an unknown outcome if the caller that sends the batch is dropped.
    pub(super) async fn add<F>(&self, message: T, most: usize, send: impl Fn(Vec<T>) -> F) -> Result<()>
    where
        F: Future<Output = Result<()>>,
    {
        let (answer, mut answered) = oneshot::channel();
        self.waiting.lock().push((message, answer));
        loop {
            let turn = tokio::select! {
                biased;
                result = &mut answered => return result.unwrap_or_else(|_| Err(dropped())),
                turn = self.turn.lock() => turn,
            };
            let batch: Vec<_> = {
                let mut waiting = self.waiting.lock();
                let count = waiting.len().min(most.max(1));
                waiting.drain(..count).collect()
            };
            // A caller that was dropped while it waited does not want its message sent.
            let (messages, answers): (Vec<T>, Vec<_>) =
                batch.into_iter().filter(|(_, answer)| !answer.is_closed()).unzip();
            if !messages.is_empty() {
                let sent = send(messages).await;
                for answer in answers {
                    let _gone = answer.send(sent.clone());
                }
            }
            drop(turn);
        }
    }
}

fn dropped() -> Error {
    Error::unknown("the batch of this message was given up")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn messages_that_wait_go_together_and_in_order() {
        let (batches, sent, calls) = (Batches::default(), Mutex::new(Vec::new()), AtomicUsize::new(0));
        let send = |messages: Vec<usize>| {
            calls.fetch_add(1, Ordering::Relaxed);
            assert!(messages.len() <= 100);
            sent.lock().extend(messages);
            async {
                tokio::task::yield_now().await;
                Ok(())
            }
        };
        let results = join_all((0..1_000).map(|n| batches.add(n, 100, send))).await;
        assert!(results.iter().all(Result::is_ok));
        assert_eq!(*sent.lock(), (0..1_000).collect::<Vec<_>>());
        assert_eq!(calls.load(Ordering::Relaxed), 11, "the first alone, the others by the hundred");
    }

    #[tokio::test]
    async fn a_caller_that_is_dropped_leaves_nobody_waiting() {
        let batches = Arc::new(Batches::default());
        let (open, sent) = (Arc::new(Semaphore::new(0)), Arc::new(Mutex::new(Vec::new())));
        let add = |n: usize| {
            let (batches, open, sent) = (Arc::clone(&batches), Arc::clone(&open), Arc::clone(&sent));
            async move {
                let send = |messages: Vec<usize>| {
                    let (open, sent) = (Arc::clone(&open), Arc::clone(&sent));
                    async move {
                        let _permit = open.acquire().await;
                        sent.lock().extend(messages);
                        Ok(())
                    }
                };
                batches.add(n, 2, send).await
            }
        };
        let mut first = Box::pin(add(1));
        assert!(futures_util::poll!(&mut first).is_pending());
        let mut others: Vec<_> = (2..=5).map(|n| Box::pin(add(n))).collect();
        for other in &mut others {
            assert!(futures_util::poll!(other).is_pending());
        }
        // The one that sends, and one that waits.
        drop((first, others.remove(0)));
        open.add_permits(1);
        assert!(join_all(others).await.iter().all(Result::is_ok));
        assert_eq!(*sent.lock(), [3, 4, 5]);
    }
}
