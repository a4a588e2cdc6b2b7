//! Reading and writing the marks of feeds.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::dio::commit::mark::{FeedMark, StoredMark, mark_key};
use crate::dio::core::Core;
use crate::dio::handle::Dio;
use crate::dio::submission::Submission;
use crate::vista::Result;

impl Core {
    /// The stored mark of a feed, if it belongs to the log's present epoch.
    async fn stored_mark(self: &Arc<Self>, feed: &str) -> Result<Option<StoredMark>> {
        let stored = self.journal.mark(&mark_key(&self.name, feed)).await;
        let stored = stored.inspect_err(|error| self.committer.journal_failed(self, error))?;
        let stored = stored.as_ref().and_then(StoredMark::decode);
        Ok(stored.filter(|stored| stored.epoch == *self.state().epoch()))
    }

    /// Returns true if the log has `mark`, so that the changes of its append are applied, and visible when this returns.
    pub(super) async fn has_reached(self: &Arc<Self>, mark: &FeedMark) -> Result<bool> {
        let stored = self.stored_mark(&mark.feed).await?;
        let reached = stored.is_some_and(|stored| stored.position == mark.position);
        if reached {
            self.wait_until_published().await?;
        }
        Ok(reached)
    }

    /// Returns true if every change before a mark of the present epoch is in the copy.
    fn is_resumable(&self) -> bool {
        self.sync.opened_whole.load(Ordering::Acquire) && self.sync.last_list.lock().complete
    }
}

impl Dio {
    /// Mark from which a feed may continue. `None` if there is none, if the log has begun a new epoch since, or if the Dio was
    /// opened without a whole copy: the feed then begins anew, with a refresh of the source.
    ///
    /// Rows that were in doubt at the mark are put in doubt again, so that they are read from the source.
    ///
    /// # Errors
    /// [`Error::Storage`](crate::Error::Storage), [`Error::Closed`](crate::Error::Closed).
    pub async fn resume_feed(&self, feed: &str) -> Result<Option<FeedMark>> {
        let core = &self.0.core;
        let Some(stored) = core.stored_mark(feed).await?.filter(|_| core.is_resumable()) else { return Ok(None) };
        core.doubt_rows(stored.doubts).await?;
        Ok(Some(FeedMark { feed: feed.into(), position: stored.position, owes_refresh: stored.owes_refresh }))
    }

    /// Waits until the Dio has a feed that has connected. Returns true if the feed continues where an earlier process has stopped,
    /// so that it reports every change since.
    pub async fn feed_resumed(&self) -> bool {
        let sync = &self.0.core.sync;
        let meter = loop {
            let mut added = std::pin::pin!(sync.feed_added.notified());
            added.as_mut().enable();
            if let Some(meter) = sync.feeds.lock().first().cloned() {
                break meter;
            }
            added.await;
        };
        meter.resumed().await
    }

    /// Notes that the copy of an earlier process needs no list, because a feed reports every change since.
    pub async fn confirm_copy(&self) {
        self.0.core.mark_complete().await;
    }

    /// Stores the position of a feed that has advanced without a change. It is durable when this returns.
    ///
    /// With changes, pass the mark in [`DeliveryBatch::mark`](super::super::DeliveryBatch::mark) instead.
    ///
    /// # Errors
    /// [`Error::Storage`](crate::Error::Storage), [`Error::Closed`](crate::Error::Closed).
    pub async fn advance_feed(&self, mark: FeedMark) -> Result<()> {
        let core = &self.0.core;
        let mut submission = Submission::all(core, Vec::new());
        submission.mark = Some(mark);
        core.send(submission).await.map(drop)
    }
}
