//! What feeds share: attempts to connect with backoff and jitter, changes that are applied in order, and gaps, each of which is owed
//! one reading of the source.
//!
//! A feed is a task of its Dio, which joins it when it is closed. It is at least once: after every gap that the sender cannot fill
//! the source is read again, so a lost message is a late one.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method};
use jiff::Timestamp;
use tokio::time::{Instant, sleep, sleep_until};

use diorama_core::dio::{Backoff, DeliveryBatch, Dio, FeedMeter, Inbound, WeakDio};
use diorama_core::journal::{Changes, Delivery, DeliveryId, DeliveryState};
use diorama_core::state::Origin;
use diorama_core::vista::{Error, LogLimit};
use diorama_inbound::{self as inbound, Request};

/// Between two readings of the source that gaps ask for.
const REST: Duration = Duration::from_secs(2);
/// Attempts to apply messages, unless it is the journal that fails.
const ATTEMPTS: u32 = 5;
/// The clock of a feed's versions, unless it is set up to have another.
const CLOCK: &str = "feed";

/// How the messages of a feed are understood.
#[derive(Clone, Debug)]
pub enum FeedFormat {
    /// As the events of another Diorama, which is asked for what was missed.
    Diorama,
    /// As the bodies of a webhook.
    Inbound(Box<inbound::Hook>),
}

/// A sender: how it is reached, and how its messages are taken.
#[async_trait]
pub(crate) trait Channel: Send + 'static {
    /// A connection to it.
    type Connection: Send;

    /// Connects; an error is for people.
    async fn connect(&mut self, intake: &mut Intake) -> Result<Self::Connection, String>;

    /// Takes messages until the connection is lost; `Ok` if the Dio is gone.
    async fn listen(&mut self, connection: Self::Connection, intake: &mut Intake) -> Result<(), String>;
}

/// Follows `channel` until the future is dropped or the Dio is gone.
pub(crate) async fn follow(mut channel: impl Channel, mut intake: Intake) {
    let mut backoff = intake.backoff();
    // What comes before the first copy could not be judged.
    while intake.dio.upgrade().is_some_and(|dio| !dio.is_ready()) {
        sleep(intake.backoff.0).await;
    }
    loop {
        let error = match channel.connect(&mut intake).await {
            Ok(connection) => {
                intake.meter.connected();
                let began = Instant::now();
                let ended = channel.listen(connection, &mut intake).await;
                if began.elapsed() > backoff.most() {
                    backoff.reset();
                }
                match ended {
                    Ok(()) => return,
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        tracing::warn!(feed = %intake.name, error, "a feed is not connected; trying again");
        intake.meter.lost(error);
        sleep(backoff.rest_jittered()).await;
    }
}

/// The Dio's side of a feed: what is heard becomes changes, what is missed becomes a reading of the source.
pub(crate) struct Intake {
    /// For messages and `/metrics`; without secrets.
    name: String,
    /// Weak: a feed does not keep its Dio alive.
    dio: WeakDio,
    meter: Arc<FeedMeter>,
    /// Between two attempts, at first and at most.
    backoff: (Duration, Duration),
    /// Whether the source is to be read again, because something may have been missed.
    owes: bool,
    refreshing: Option<BoxFuture<'static, bool>>,
    next_refresh: Instant,
    /// Bounds the lines that the sender can cause.
    lines: LogLimit<&'static str>,
}

impl Intake {
    /// A feed of `dio` under `name`, which begins with a gap.
    pub(crate) fn new(dio: &Dio, name: String, backoff: (Duration, Duration)) -> Intake {
        let meter = FeedMeter::new(name.clone());
        dio.add_feed(Arc::clone(&meter));
        Intake {
            name,
            dio: dio.downgrade(),
            meter,
            backoff,
            owes: true,
            refreshing: None,
            next_refresh: Instant::now(),
            lines: LogLimit::default(),
        }
    }

    /// Rests between attempts, from the first on.
    fn backoff(&self) -> Backoff {
        Backoff::new(self.backoff.0, self.backoff.1)
    }

    /// Notes a gap: something may have been missed.
    pub(crate) fn owe(&mut self) {
        self.owes = true;
    }

    /// Begins the reading that is owed, if it is time; `false` if the Dio is gone.
    pub(crate) fn begin_refresh(&mut self) -> bool {
        if !self.owes || self.refreshing.is_some() || Instant::now() < self.next_refresh {
            return true;
        }
        let Some(dio) = self.dio.upgrade() else { return false };
        // What is missed while it runs is owed anew.
        self.owes = false;
        self.refreshing = Some(async move { dio.refresh_from_now().await.is_ok() }.boxed());
        true
    }

    /// Waits for the end of the reading under way, or until the next one may begin.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(crate) async fn refreshed(&mut self) {
        match &mut self.refreshing {
            Some(running) => {
                let done = running.await;
                self.refreshing = None;
                self.next_refresh = Instant::now() + REST;
                self.owes |= !done;
            }
            None if self.owes => sleep_until(self.next_refresh).await,
            None => std::future::pending().await,
        }
    }

    /// Counts a message.
    pub(crate) fn heard(&self) {
        self.meter.heard();
    }

    /// Notes a message that was not understood. Whatever it was to say, the source knows it.
    pub(crate) fn undecodable(&mut self, error: &str) {
        self.owes = true;
        self.meter.undecodable();
        if let Some(left_out) = self.lines.pass("message") {
            let feed = &self.name;
            tracing::warn!(feed, error, left_out, "a message of a feed cannot be understood; the source is read again");
        }
    }

    /// Adds the changes of a message that is written as the body of a webhook. Gives whether a part of it could not be read.
    ///
    /// # Errors
    /// Why none of it could.
    pub(crate) fn read_body(
        &self,
        hook: &inbound::Hook,
        body: &[u8],
        changes: &mut Vec<Inbound>,
    ) -> Result<bool, String> {
        let Some(dio) = self.dio.upgrade() else { return Ok(false) };
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let (path, now) = ("/", Timestamp::now());
        let request = Request { method: &Method::POST, path, query: None, headers: &headers, body, now };
        let decoded = hook.decode(&request, &dio.schema()).map_err(|error| error.to_string())?;
        let several = decoded.changes.len() > 1;
        let mut gap = false;
        for (at, change) in decoded.changes.into_iter().enumerate() {
            let Ok(change) = change else {
                gap = true;
                continue;
            };
            let all = decoded.delivery.as_ref().map(|key| if several { format!("{key}#{at}") } else { key.clone() });
            changes.push(Inbound {
                event: change.event,
                version: change.version,
                clock: Some(hook.clock().map_or_else(|| CLOCK.into(), Arc::clone)),
                partial: change.partial,
                delivery: change.delivery.or(all),
                origin: Origin::Feed,
                coercion: change.coercion,
            });
        }
        Ok(gap)
    }

    /// Applies changes, however often that takes; `false` if the Dio is gone.
    pub(crate) async fn apply(&mut self, changes: Vec<Inbound>) -> bool {
        let mut parcel = parcel(changes);
        let mut backoff = self.backoff();
        loop {
            let Some(dio) = self.dio.upgrade() else { return false };
            let error = match dio.deliver(&parcel).await {
                Ok(delivery) => {
                    self.note_refused(&delivery);
                    return true;
                }
                Err(Error::Closed) => return false,
                Err(error) => error,
            };
            drop(dio);
            parcel.delivery.attempts += 1;
            let stored = !matches!(error, Error::Storage { .. } | Error::OutcomeUnknown { .. });
            if stored && parcel.delivery.attempts >= ATTEMPTS {
                if let Some(left_out) = self.lines.pass("unapplied") {
                    tracing::warn!(%error, left_out, "messages of a feed could not be applied; the source is read again");
                }
                self.owes = true;
                return true;
            }
            // Meanwhile nothing more is read: the sender is held up, or gives up and is asked again.
            sleep(backoff.rest()).await;
        }
    }

    /// Counts changes whose rows are not as the schema says. Their rows are read from the source, so nothing is owed.
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
                    "a row of a feed is not as the schema says; it is read from the source"
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

/// Changes as a delivery that nobody keeps: it cannot be sent again.
fn parcel(changes: Vec<Inbound>) -> DeliveryBatch {
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
    };
    DeliveryBatch { delivery, raw: None, changes, abort: false, again: false, same: None }
}
