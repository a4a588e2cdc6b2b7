//! Storage of notifications, which send the events of a Dio to receivers: their progress, and the deliveries that wait or have ended.

use bytes::Bytes;

use crate::dio::handle::Dio;
use crate::dio::submission::Submission;
use crate::journal::{Mark, OutboxUse, Seq, StoredDelivery};
use crate::vista::Result;

/// Progress of a notification, stored in one append.
#[derive(Clone, Debug)]
pub(crate) struct SendProgress {
    pub(crate) mark: Mark,
    /// New deliveries, and new states of stored ones.
    pub(crate) deliveries: Vec<StoredDelivery>,
}

/// Key of a notification's mark in the journal, which several Dios may share.
fn mark_key(dio: &str, notification: &str) -> String {
    format!("n/{dio}/{notification}")
}

impl Dio {
    /// Stores the progress of a notification: its mark, in the notification's own format, with deliveries that wait or have ended. All
    /// of it is durable when this returns true.
    ///
    /// `erased` is what [`Ring::erased`](crate::dio::Ring::erased) was before the messages of `deliveries` were built. Returns false, and
    /// stores nothing, if rows were purged since, which the messages may contain.
    ///
    /// # Errors
    /// [`Error::Storage`](crate::Error::Storage), [`Error::Closed`](crate::Error::Closed).
    pub async fn store_sent(
        &self,
        notification: &str,
        mark: Bytes,
        deliveries: Vec<StoredDelivery>,
        erased: Seq,
    ) -> Result<bool> {
        let core = &self.0.core;
        // A purge that begins later finds the deliveries.
        let _purging = core.commit.purging.lock().await;
        if !deliveries.is_empty() && core.ring.erased() != erased {
            return Ok(false);
        }
        let mark = Mark { key: mark_key(&core.name, notification), value: mark };
        let mut submission = Submission::all(core, Vec::new());
        submission.sending = Some(SendProgress { mark, deliveries });
        core.send(submission).await.map(|_| true)
    }

    /// Newest mark of a notification; `None` if it has never stored one.
    ///
    /// # Errors
    /// [`Error::Storage`](crate::Error::Storage) if the journal cannot be read.
    pub async fn sent_mark(&self, notification: &str) -> Result<Option<Bytes>> {
        let core = &self.0.core;
        let mark = core.journal.mark(&mark_key(&core.name, notification)).await;
        Ok(mark.inspect_err(|error| core.committer.journal_failed(core, error))?)
    }

    /// Use of the outbox by all Dios of the Lens.
    pub fn outbox(&self) -> OutboxUse {
        self.0.core.journal.outbox()
    }
}
