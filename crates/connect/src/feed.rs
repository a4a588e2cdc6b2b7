//! Code shared by feeds: reconnection with backoff and jitter, changes applied in order, positions stored with them, and gaps,
//! each of which requires one refresh of the source.
//!
//! A feed is a task of its Dio, which joins it on close. One that acknowledges messages has time then for those that it has applied.
//! Delivery is at least once: after every gap that the sender cannot fill,
//! the source is read again, so a lost message is only delayed.
//!
//! A feed whose sender can resend from a position stores that position as a mark ([`FeedMark`]) in the append of the changes
//! before it, and continues from there after a restart. Without a valid mark a feed begins with a gap.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep, sleep_until};

#[cfg(any(feature = "mysql", feature = "postgres", feature = "stream", feature = "surrealdb"))]
use diorama_core::dio::FeedLag;
use diorama_core::dio::{Backoff, DeliveryBatch, Dio, FeedMark, FeedMeter, Inbound, WeakDio};
use diorama_core::journal::{Changes, Delivery, DeliveryId, DeliveryState};
#[cfg(any(feature = "mysql", feature = "postgres", feature = "surrealdb"))]
use diorama_core::vista::ChangeEvent;
use diorama_core::vista::{Error, LogLimit};

mod failures;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod known_rows;
#[cfg(any(feature = "stream", feature = "ws"))]
mod message;

use self::failures::Failures;
#[cfg(any(feature = "mysql", feature = "postgres"))]
pub(crate) use self::known_rows::KnownRows;
#[cfg(any(feature = "kafka", feature = "nats"))]
pub(crate) use self::message::LogPlace;
#[cfg(any(feature = "stream", feature = "ws"))]
pub(crate) use self::message::Message;

/// Minimum pause between two refreshes caused by gaps.
const REST: Duration = Duration::from_secs(2);
/// Pause between two marks that pass no change.
const MARK_REST: Duration = Duration::from_secs(10);
/// Maximum number of rows that wait to be read one by one; if there are more, the source is read again.
#[cfg(any(feature = "mysql", feature = "postgres", feature = "surrealdb"))]
const MAX_READS: usize = 1_000;
/// Attempts to apply messages, unless the journal fails, in which case there is no limit.
const ATTEMPTS: u32 = 5;

/// A sender of changes: how to connect to it and receive its messages.
#[async_trait]
pub(crate) trait Channel: Send + 'static {
    /// A connection to the sender.
    type Connection: Send;

    /// Continues from `position`, which an earlier process passed to [`Intake::apply`]. Called at most once, before the first
    /// connection. Returns `false` if the feed cannot continue from there and begins anew.
    fn resume(&mut self, position: &Bytes) -> bool;

    /// Connects to the sender; an error is text for people.
    async fn connect(&mut self, intake: &mut Intake) -> Result<Self::Connection, String>;

    /// Receives messages until the connection is lost; returns `Ok` if the Dio has closed.
    async fn listen(&mut self, connection: Self::Connection, intake: &mut Intake) -> Result<(), String>;
}

/// Follows `channel` until the future is dropped or the Dio has closed. A connection is left to [`Channel::listen`] to end.
pub(crate) async fn follow(mut channel: impl Channel, mut intake: Intake) {
    let dio = intake.dio.clone();
    let mut backoff = intake.backoff();
    let mut failures = Failures::default();
    // Changes before the first copy could not be compared with anything.
    while intake.dio.upgrade().is_some_and(|dio| !dio.is_ready()) {
        pause(&dio, intake.backoff.0).await;
    }
    if let Some(position) = intake.resume().await
        && !channel.resume(&position)
    {
        intake.note_gap();
    }
    loop {
        let connected = tokio::select! {
            () = dio.closing() => return,
            connected = channel.connect(&mut intake) => connected,
        };
        let error = match connected {
            Ok(connection) => {
                intake.meter.connected();
                intake.meter.began(!intake.owes_refresh());
                let began = Instant::now();
                let ended = channel.listen(connection, &mut intake).await;
                if std::mem::take(&mut intake.has_applied) || began.elapsed() > backoff.most() {
                    backoff.reset();
                }
                match ended {
                    Ok(()) => return,
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        match failures.is_new(&error) {
            true => tracing::warn!(feed = %intake.name, error, "a feed is not connected; retrying"),
            false => tracing::debug!(feed = %intake.name, error, "a feed is not connected; retrying"),
        }
        intake.meter.lost(error);
        pause(&dio, backoff.rest_jittered()).await;
    }
}

/// Waits for `time`, or until the Dio begins to close.
async fn pause(dio: &WeakDio, time: Duration) {
    tokio::select! {
        () = dio.closing() => {}
        () = sleep(time) => {}
    }
}

/// The Dio's side of a feed: applies received messages and refreshes the source after gaps.
pub(crate) struct Intake {
    /// For messages and `/metrics`; without secrets.
    name: String,
    /// Weak: a feed does not keep its Dio alive.
    dio: WeakDio,
    meter: Arc<FeedMeter>,
    /// Pause between two attempts: initial and maximum.
    backoff: (Duration, Duration),
    /// True if the source must be refreshed, because messages may have been missed.
    gap_pending: bool,
    refreshing: Option<BoxFuture<'static, bool>>,
    next_refresh: Instant,
    /// Rate limiter for log lines that the sender can cause.
    lines: LogLimit<&'static str>,
    /// Name of the feed's mark.
    key: Arc<str>,
    /// The newest mark that is durable.
    stored: Option<FeedMark>,
    /// Position up to which all changes are applied.
    reached: Option<Bytes>,
    /// True if the stored mark may contain rows in doubt.
    doubtful: bool,
    /// Time of the next mark that passes no change.
    next_mark: Instant,
    /// True if changes were applied since the feed has connected.
    has_applied: bool,
}

impl Intake {
    /// Creates the intake of a feed of `dio`. `key` names the feed's mark: it is unique among the feeds of the Dio, and the same
    /// after a restart. It is stored, so it contains no secrets. The feed begins with a gap, unless it has a valid mark.
    pub(crate) fn new(dio: &Dio, name: String, key: &str, backoff: (Duration, Duration)) -> Intake {
        let meter = FeedMeter::new(name.clone());
        dio.add_feed(Arc::clone(&meter));
        Intake {
            name,
            dio: dio.downgrade(),
            meter,
            backoff,
            gap_pending: true,
            refreshing: None,
            next_refresh: Instant::now(),
            lines: LogLimit::default(),
            key: key.into(),
            stored: None,
            reached: None,
            doubtful: false,
            next_mark: Instant::now(),
            has_applied: false,
        }
    }

    /// Reads the stored mark. Returns the position to continue from, if the mark is valid.
    async fn resume(&mut self) -> Option<Bytes> {
        let dio = self.dio.upgrade()?;
        let mark = match dio.resume_feed(&self.key).await {
            Ok(mark) => mark?,
            Err(error) => {
                tracing::warn!(feed = %self.name, %error, "the position of a feed cannot be read; the source is read again");
                return None;
            }
        };
        self.gap_pending = mark.owes_refresh;
        self.doubtful = dio.rows_in_doubt() > 0;
        self.reached = Some(mark.position.clone());
        let position = mark.position.clone();
        self.stored = Some(mark);
        Some(position)
    }

    /// The newest position that is durable. The sender need not keep anything before it.
    pub(crate) fn stored_position(&self) -> Option<&Bytes> {
        self.stored.as_ref().map(|mark| &mark.position)
    }

    /// The Dio, for a signal of its end.
    #[cfg(feature = "stream")]
    pub(crate) fn dio(&self) -> WeakDio {
        self.dio.clone()
    }

    /// Tells that the sender may repeat messages that are stored, because it has not confirmed their acknowledgement.
    #[cfg(feature = "stream")]
    pub(crate) fn note_repeats(&self, error: &str) {
        let feed = &self.name;
        tracing::warn!(
            feed,
            error,
            "a feed has closed before its last acknowledgements were confirmed; messages may come again"
        );
    }

    /// Returns a fresh backoff.
    fn backoff(&self) -> Backoff {
        Backoff::new(self.backoff.0, self.backoff.1)
    }

    /// Records a gap: messages may have been missed.
    pub(crate) fn note_gap(&mut self) {
        self.gap_pending = true;
    }

    /// Notes that nothing is missing: the feed begins where the first copy ends.
    #[cfg(any(feature = "mysql", feature = "postgres"))]
    pub(crate) fn close_gap(&mut self) {
        self.gap_pending = false;
    }

    /// Returns the confirmed rows as of now, all of which were removed; `None` if the Dio has closed. A read that is under way may
    /// show others that were removed, too, so the source is read again after it.
    #[cfg(any(feature = "mysql", feature = "postgres"))]
    pub(crate) fn known_rows(&mut self) -> Option<KnownRows> {
        let dio = self.dio.upgrade()?;
        self.gap_pending |= self.refreshing.is_some() || dio.rows_in_doubt() > 0;
        Some(KnownRows::new(dio.state()))
    }

    /// Leaves changes without a row to a refresh, if reading their rows one by one would take longer.
    #[cfg(any(feature = "mysql", feature = "postgres", feature = "surrealdb"))]
    pub(crate) fn bounded(&mut self, mut changes: Vec<Inbound>) -> Vec<Inbound> {
        let has_row = |change: &Inbound| {
            !matches!(change.event, ChangeEvent::Inserted { new: None, .. } | ChangeEvent::Updated { new: None, .. })
        };
        let count = changes.iter().filter(|change| !has_row(change)).count();
        let in_doubt = self.dio.upgrade().map_or(0, |dio| dio.rows_in_doubt());
        if count > 0 && count + in_doubt > MAX_READS {
            self.note_gap();
            changes.retain(has_row);
        }
        changes
    }

    /// Notes how far the feed is behind its sender.
    #[cfg(any(feature = "mysql", feature = "postgres", feature = "stream", feature = "surrealdb"))]
    pub(crate) fn set_lag(&self, lag: FeedLag) {
        self.meter.set_lag(lag);
    }

    /// Replaces the warnings about the sender, and logs new ones.
    #[cfg(feature = "stream")]
    pub(crate) fn set_warnings(&self, warnings: Vec<String>) {
        for warning in self.meter.set_warnings(warnings) {
            tracing::warn!(feed = %self.name, "{warning}");
        }
    }

    /// Counts a row that cannot be decoded and is read from the source instead.
    #[cfg(feature = "postgres")]
    pub(crate) fn count_undecodable(&mut self, error: &str) {
        self.meter.undecodable();
        if let Some(left_out) = self.lines.pass("row") {
            let feed = &self.name;
            tracing::warn!(feed, error, left_out, "a row of a feed cannot be decoded; it is read from the source");
        }
    }

    /// Starts the pending refresh if it is due; returns `false` if the Dio has closed.
    pub(crate) fn begin_refresh(&mut self) -> bool {
        if !self.gap_pending || self.refreshing.is_some() || Instant::now() < self.next_refresh {
            return true;
        }
        let Some(dio) = self.dio.upgrade() else { return false };
        // A gap during the refresh requires another one.
        self.gap_pending = false;
        self.refreshing = Some(async move { dio.refresh_from_now().await.is_ok() }.boxed());
        true
    }

    /// Waits for the running refresh to end, or until the next one is due. Then stores the position that was reached without
    /// changes.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(crate) async fn refreshed(&mut self) {
        match &mut self.refreshing {
            Some(running) => {
                let done = running.await;
                self.refreshing = None;
                self.next_refresh = Instant::now() + REST;
                // The stored mark says that a refresh is owed. The next start need not refresh again.
                self.next_mark = Instant::now();
                self.gap_pending |= !done;
            }
            None if self.gap_pending => sleep_until(self.next_refresh).await,
            None => match self.mark_due() {
                Some(due) => {
                    sleep_until(due).await;
                    self.store_mark().await;
                }
                None => std::future::pending().await,
            },
        }
    }

    /// Returns true if rows may be missing until a refresh has ended.
    pub(crate) fn owes_refresh(&self) -> bool {
        self.gap_pending || self.refreshing.is_some()
    }

    /// Mark at `position`, as of now.
    fn mark(&self, position: Bytes) -> FeedMark {
        FeedMark { feed: Arc::clone(&self.key), position, owes_refresh: self.owes_refresh() }
    }

    /// Time at which the stored mark is to be replaced without a change.
    fn mark_due(&self) -> Option<Instant> {
        let owed = self.stored.as_ref().is_some_and(|mark| mark.owes_refresh);
        let current = self.stored_position() == self.reached.as_ref() && !owed;
        let idle = self.reached.is_none() || current && !self.doubtful;
        (!idle).then_some(self.next_mark)
    }

    /// Stores the position that was reached, if the stored mark differs from it or contains doubts that have ended.
    async fn store_mark(&mut self) {
        let (Some(dio), Some(reached)) = (self.dio.upgrade(), self.reached.clone()) else { return };
        let mark = self.mark(reached);
        let doubtful = dio.rows_in_doubt() > 0;
        if doubtful && self.stored.as_ref() == Some(&mark) {
            self.next_mark = Instant::now() + MARK_REST;
            return;
        }
        let stored = dio.advance_feed(mark.clone()).await;
        self.next_mark = Instant::now() + MARK_REST;
        match stored {
            Ok(()) => (self.stored, self.doubtful) = (Some(mark), doubtful),
            Err(error) => tracing::debug!(feed = %self.name, %error, "the position of a feed cannot be stored yet"),
        }
    }

    /// Stores the position that was reached now, because the sender waits for it.
    #[cfg(feature = "postgres")]
    pub(crate) async fn store_position(&mut self) {
        if self.mark_due().is_some() {
            self.store_mark().await;
        }
    }

    /// Stores that a refresh is owed: a feed that continues from the stored position will begin with one. Returns true if it is
    /// stored, or nothing was.
    #[cfg(any(feature = "mysql", feature = "postgres", feature = "surrealdb"))]
    pub(crate) async fn store_gap(&mut self) -> bool {
        self.gap_pending = true;
        self.store_mark().await;
        self.stored.as_ref().is_none_or(|mark| mark.owes_refresh)
    }

    /// Counts a message.
    pub(crate) fn count_message(&self) {
        self.meter.heard();
    }

    /// Records a message that could not be decoded. The source is refreshed instead.
    pub(crate) fn undecodable(&mut self, error: &str) {
        self.gap_pending = true;
        self.meter.undecodable();
        if let Some(left_out) = self.lines.pass("message") {
            let feed = &self.name;
            tracing::warn!(feed, error, left_out, "a message of a feed cannot be decoded; the source is read again");
        }
    }

    /// Applies changes, with retries, and stores `position` in the same append; returns `false` if the Dio has closed.
    ///
    /// `position` is where the sender is to continue after a restart: behind all of these changes, and another one than before
    /// them. `None` if there is no such place, for example inside of a transaction. Without changes it is stored some time
    /// later; see [`Intake::stored_position`].
    pub(crate) async fn apply(&mut self, changes: Vec<Inbound>, position: Option<Bytes>) -> bool {
        if changes.is_empty() {
            self.reached = position.or_else(|| self.reached.take());
            return true;
        }
        let position = position.filter(|position| self.reached.as_ref() != Some(position));
        let mark = position.clone().map(|position| self.mark(position));
        let mut batch = batch(changes, mark);
        let mut backoff = self.backoff();
        loop {
            let Some(dio) = self.dio.upgrade() else { return false };
            let error = match dio.deliver(&batch).await {
                Ok(delivery) => {
                    self.has_applied = true;
                    self.note_refused(&delivery);
                    if let Some(mark) = batch.mark {
                        self.reached = Some(mark.position.clone());
                        self.stored = Some(mark);
                        self.doubtful = dio.rows_in_doubt() > 0;
                        self.next_mark = Instant::now() + MARK_REST;
                    }
                    return true;
                }
                Err(Error::Closed) => return false,
                Err(error) => error,
            };
            drop(dio);
            batch.delivery.attempts += 1;
            let stored = !matches!(error, Error::Storage { .. } | Error::OutcomeUnknown { .. });
            if stored && batch.delivery.attempts >= ATTEMPTS {
                if let Some(left_out) = self.lines.pass("unapplied") {
                    tracing::warn!(%error, left_out, "messages of a feed could not be applied; the source is read again");
                }
                self.gap_pending = true;
                // The stored mark is to say that a refresh is owed.
                self.reached = position.or_else(|| self.reached.take());
                return true;
            }
            // Nothing more is received meanwhile: backpressure holds the sender up, or it disconnects and the feed reconnects.
            sleep(backoff.rest()).await;
        }
    }

    /// Counts changes whose rows do not match the schema. These rows are read from the source, so no refresh is needed.
    fn note_refused(&self, delivery: &Delivery) {
        let feed = &self.name;
        for _ in 0..refused(delivery) {
            self.meter.undecodable();
            if let Some(left_out) = self.lines.pass("row") {
                let error = delivery.detail.as_deref().unwrap_or_default();
                tracing::warn!(
                    feed,
                    error,
                    left_out,
                    "a row of a feed does not match the schema; it is read from the source"
                );
            }
        }
    }
}

/// Number of changes of a delivery that were refused.
fn refused(delivery: &Delivery) -> u64 {
    if delivery.state == DeliveryState::Undecodable {
        delivery.changes.skipped.max(1)
    } else {
        delivery.changes.skipped
    }
}

/// Wraps changes in a delivery that is not stored, because a feed's message cannot be sent again.
fn batch(changes: Vec<Inbound>, mark: Option<FeedMark>) -> DeliveryBatch {
    let delivery = Delivery {
        id: DeliveryId::new(),
        hook: "feed".into(),
        dio: "".into(),
        key: None,
        state: DeliveryState::Received,
        changes: Changes::default(),
        detail: None,
        attempts: 0,
        received: 0,
        updated: 0,
        size: 0,
        outgoing: None,
    };
    DeliveryBatch { delivery, raw: None, changes, abort: false, again: false, same: None, mark }
}

#[cfg(test)]
mod tests;
