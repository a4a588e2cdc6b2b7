//! [`SendTask`]: reads the events of a Dio and sends them, as long as the Dio is open.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::health::Health;
use super::mark::{Disabled, SendMark};
use super::message::{Message, NotifyEvent, envelope, headers};
use super::notification::{Command, Notification, NotifyState};
use super::queue::{Attempt, Job, Lane, SendQueue};
use super::reader::{Batch, EventReader, Gap};
use super::receiver::{Posted, Verdict};
use crate::events::frame::{self, Encoding, Reset};
use crate::events::view::EventView;
use crate::state::Resource;
use diorama_core::dio::{Backoff, Dio, Position, RingItem, now};
use diorama_core::journal::{
    Delivery, DeliveryId, DeliveryQuery, DeliveryState, Outgoing, RawRequest, Seq, StoredDelivery,
};
use diorama_core::vista::{Error, LogLimit, Result};

/// Time for which messages that are under way may take when the Dio closes.
const FAREWELL: Duration = Duration::from_secs(3);
/// Size in bytes that a delivery counts beside its message.
const OVERHEAD: u64 = 256;
/// Shortest and longest pause while the journal cannot be written or read.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

/// Task of one notification.
pub(super) struct SendTask {
    notification: Arc<Notification>,
    dio: Dio,
    view: EventView,
    reader: EventReader,
    queue: SendQueue,
    health: Health,
    disabled: Option<Disabled>,
    epoch: Arc<str>,
    /// Position up to which rows were purged when the messages in memory were built.
    erased: Seq,
    attempts: JoinSet<(Job, Option<Posted>)>,
    /// True if the last read found no events.
    is_caught_up: bool,
    /// Commands that are answered once their effect is stored.
    replies: Vec<oneshot::Sender<()>>,
    lines: LogLimit<&'static str>,
}

/// Starts the task of a notification, which its Dio owns.
pub(super) fn start(notification: &Arc<Notification>, resource: &Arc<Resource>, view: EventView) {
    let Some(commands) = notification.inbox.lock().take() else { return };
    let (notification, dio) = (Arc::clone(notification), resource.dio.clone());
    // The Dio waits for its tasks when it closes.
    drop(resource.dio.run(async move {
        let begun = tokio::select! {
            ready = dio.ready() => match ready {
                Ok(()) => SendTask::begin(Arc::clone(&notification), dio.clone(), view).await,
                Err(error) => Err(error),
            },
            () = dio.closing() => Err(Error::Closed),
        };
        let ended = match begun {
            Ok(task) => task.run(commands).await,
            Err(error) => Err(error),
        };
        if let Err(error) = ended
            && !matches!(error, Error::Closed)
        {
            tracing::error!(notify = notification.name, %error, "a notification has ended; it continues after a restart");
        }
    }));
}

/// Stored progress of a notification, and a queue and a reader that continue from there.
struct Progress {
    queue: SendQueue,
    reader: EventReader,
    epoch: Arc<str>,
    disabled: Option<Disabled>,
    erased: Seq,
}

impl Progress {
    async fn load(notification: &Notification, dio: &Dio) -> Result<Progress> {
        let name = &notification.name;
        let log = dio.log();
        let erased = log.ring().erased();
        let stored = dio.sent_mark(name).await?.as_deref().and_then(SendMark::decode);
        let mark = match stored {
            Some(mark) => mark,
            None => {
                let now = log.position();
                let seq = if notification.options.from_earliest { log.earliest().await } else { now.seq };
                let mark = SendMark { epoch: now.epoch, seq, settled: Vec::new(), disabled: None };
                dio.store_sent(name, mark.encode(), Vec::new(), erased).await?;
                mark
            }
        };
        let mut queue = SendQueue::after(&mark);
        let query = DeliveryQuery {
            hook: Some(name.clone()),
            states: vec![DeliveryState::Pending],
            limit: usize::MAX,
            outgoing: true,
            ..DeliveryQuery::default()
        };
        let (waiting, _) = dio.deliveries(&query).await?;
        waiting.into_iter().rev().filter(|delivery| *delivery.dio == *dio.name()).for_each(|own| queue.resume(own));
        let url = notification.receiver.url();
        let disabled = mark.disabled.filter(|disabled| disabled.url == url);
        let reader = EventReader::new(log, Arc::clone(&mark.epoch), mark.seq);
        Ok(Progress { queue, reader, epoch: mark.epoch, disabled, erased })
    }
}

impl SendTask {
    /// Continues from the stored progress.
    async fn begin(notification: Arc<Notification>, dio: Dio, view: EventView) -> Result<SendTask> {
        let Progress { queue, reader, epoch, disabled, erased } = Progress::load(&notification, &dio).await?;
        Ok(SendTask {
            notification,
            dio,
            view,
            reader,
            queue,
            health: Health::default(),
            disabled,
            epoch,
            erased,
            attempts: JoinSet::new(),
            is_caught_up: false,
            replies: Vec::new(),
            lines: LogLimit::default(),
        })
    }

    /// Drops the messages in memory, which may contain rows that were purged, and continues from the stored progress as after a restart.
    /// Requests whose effect is not stored get an error.
    async fn reload(&mut self) -> Result<()> {
        self.attempts = JoinSet::new();
        self.replies.clear();
        let mut backoff = Backoff::new(PAUSE.0, PAUSE.1);
        let progress = loop {
            match Progress::load(&self.notification, &self.dio).await {
                Ok(progress) => break progress,
                Err(Error::Closed) => return Err(Error::Closed),
                Err(error) => self.pause("the progress cannot be read", &error, &mut backoff).await?,
            }
        };
        let Progress { queue, reader, epoch, erased, .. } = progress;
        (self.queue, self.reader, self.epoch, self.erased) = (queue, reader, epoch, erased);
        self.is_caught_up = false;
        // What the receiver has said since counts.
        self.queue.note_change();
        Ok(())
    }

    async fn run(mut self, mut commands: mpsc::Receiver<Command>) -> Result<()> {
        let closing = self.dio.clone();
        loop {
            if self.reader.erased() != self.erased {
                self.reload().await?;
            }
            self.read().await?;
            self.send();
            self.store().await?;
            self.publish();
            let may_read = self.may_read();
            let wake = self.next_wake();
            tokio::select! {
                Some(ended) = self.attempts.join_next() => {
                    self.finish_all(ended.ok());
                }
                () = self.reader.changed(), if may_read && self.is_caught_up => self.is_caught_up = false,
                () = sleep(wake), if wake < Duration::MAX => {}
                Some(command) = commands.recv() => self.obey(command),
                () = closing.closing() => break,
            }
        }
        // What is under way may still be answered; what is not will be sent again.
        let attempts = async {
            while let Some(ended) = self.attempts.join_next().await {
                self.finish_all(ended.ok());
            }
        };
        let _ = timeout(FAREWELL, attempts).await;
        self.store().await
    }

    fn may_send(&self) -> bool {
        self.disabled.is_none() && self.health.may_send(now(), self.queue.sending())
    }

    fn may_read(&self) -> bool {
        self.may_send() && self.queue.has_room()
    }

    /// Time until a delivery is due or the receiver has rested; [`Duration::MAX`] if only events can change anything.
    fn next_wake(&self) -> Duration {
        let is_busy = self.queue.sending() >= self.notification.options.concurrency;
        if self.disabled.is_some() || is_busy {
            return Duration::MAX;
        }
        let rest = self.health.rests_until();
        if rest.is_some() && self.queue.sending() > 0 {
            return Duration::MAX;
        }
        let due = match (rest, self.queue.next_due()) {
            // A receiver that has rested is tried with the next event, if nothing is due.
            (Some(rest), _) if rest > now() => rest,
            (_, Some(due)) => due,
            _ => return Duration::MAX,
        };
        Duration::from_millis(due.saturating_sub(now()).max(1))
    }

    // --- events ------------------------------------------------------------------------------------------------------

    /// Reads events as long as there are any and the queue has room.
    async fn read(&mut self) -> Result<()> {
        let mut backoff = Backoff::new(PAUSE.0, PAUSE.1);
        while self.may_read() && !self.is_caught_up {
            match self.reader.next().await {
                Ok(Ok(batch)) => self.take(&batch),
                Ok(Err(gap)) => self.skip(gap),
                Err(Error::Closed) => return Err(Error::Closed),
                Err(error) => self.pause("events cannot be read", &error, &mut backoff).await?,
            }
        }
        Ok(())
    }

    fn take(&mut self, batch: &Batch) {
        self.is_caught_up = batch.items.is_empty() && batch.reached == self.queue.position();
        for item in &batch.items {
            if self.view.lacks_prior_row(item) {
                return self.skip(Gap::Trimmed);
            }
            if let Some((seq, message)) = self.message(item) {
                self.push(seq, message);
            }
        }
        self.queue.advance(batch.reached);
    }

    /// Returns the message of an event, if it concerns the notification.
    fn message(&self, item: &RingItem) -> Option<(u64, Message)> {
        let (entry, seq) = (item.entry.as_ref()?, item.seq?);
        let event = self.view.frame_of(item, None)?;
        let word = NotifyEvent::of(event.kind);
        if !self.notification.options.events.contains(&word) {
            return None;
        }
        let body = envelope(self.dio.name(), word.as_str(), entry.at, &event.frame);
        let key = Position { epoch: Arc::clone(&self.epoch), seq }.to_string();
        Some((seq, Message { key, row: entry.id.clone(), at: entry.at, body }))
    }

    /// Continues at the present position, and tells the receiver that it has missed events.
    fn skip(&mut self, gap: Gap) {
        let position = self.reader.now();
        let reason = match gap {
            Gap::Epoch => Reset::Epoch,
            Gap::Trimmed => Reset::Trimmed,
        };
        let (notify, from, to) = (&self.notification.name, self.queue.position(), position.seq);
        tracing::warn!(notify, ?gap, from, to, "events were missed; the receiver is told to read the rows again");
        let data = frame::reset(Encoding::Json, reason, &position);
        let at = now();
        let body = envelope(self.dio.name(), "reset", at, &data);
        self.reader.skip_to(&position);
        self.epoch = Arc::clone(&position.epoch);
        self.queue.skip_to(position.seq);
        self.is_caught_up = false;
        self.push(position.seq, Message { key: format!("{position}:reset"), row: None, at, body });
    }

    fn push(&mut self, seq: u64, message: Message) {
        let raw = RawRequest {
            uri: self.notification.receiver.url().to_string(),
            headers: vec![
                ("content-type".into(), "application/json".into()),
                ("webhook-id".into(), message.key.clone()),
            ],
            body: message.body,
        };
        let delivery = Delivery {
            id: DeliveryId::new(),
            hook: self.notification.name.as_str().into(),
            dio: self.dio.name().into(),
            key: Some(message.key),
            state: DeliveryState::Pending,
            changes: Default::default(),
            detail: None,
            attempts: 0,
            received: message.at,
            updated: message.at,
            size: raw.size() + OVERHEAD,
            outgoing: Some(Box::new(Outgoing { row: message.row, due: 0 })),
        };
        let room = self.dio.outbox().room;
        self.queue.push(seq, delivery, raw, room);
    }

    // --- attempts ----------------------------------------------------------------------------------------------------

    /// Starts attempts as long as something is due and the receiver takes it.
    fn send(&mut self) {
        while self.may_send() && self.queue.sending() < self.notification.options.concurrency {
            let Some(job) = self.queue.start(now()) else { return };
            let (notification, dio) = (Arc::clone(&self.notification), self.dio.clone());
            self.attempts.spawn(async move {
                let posted = attempt(&notification, &dio, &job).await;
                (job, posted)
            });
        }
    }

    /// Notes the results of all attempts that have ended. A task that panicked gives none; its delivery is sent after a restart.
    fn finish_all(&mut self, first: Option<(Job, Option<Posted>)>) {
        let mut next = first;
        loop {
            if let Some((job, posted)) = next {
                self.finish(&job, posted);
            }
            match self.attempts.try_join_next() {
                Some(ended) => next = ended.ok(),
                None => return,
            }
        }
    }

    fn finish(&mut self, job: &Job, posted: Option<Posted>) {
        let (now, room) = (now(), self.dio.outbox().room);
        let attempt = match posted.map(Posted::verdict) {
            None => Attempt::Erased,
            Some(Verdict::Taken) => {
                if self.health.succeeded() {
                    self.queue.hurry_all(now);
                }
                let mut status = self.notification.status.lock();
                (status.delivered, status.last_delivered) = (status.delivered + 1, Some(now));
                Attempt::Delivered
            }
            Some(Verdict::Gone(detail)) => {
                let url = self.notification.receiver.url();
                tracing::error!(
                    notify = self.notification.name,
                    url,
                    "the receiver is gone (410): nothing is sent until the notification is enabled"
                );
                self.disabled = Some(Disabled { at: now, detail: detail.clone(), url: url.to_string() });
                self.queue.note_change();
                self.note_failure(now, &detail);
                Attempt::Failed { detail, next: Some(now) }
            }
            Some(Verdict::Failed { detail, retry_after }) => {
                self.health.failed(now, retry_after);
                self.note_failure(now, &detail);
                let next = self.next_attempt(&job.lane, retry_after).map(|pause| now + pause);
                self.notification.status.lock().given_up += u64::from(next.is_none());
                Attempt::Failed { detail, next }
            }
        };
        self.queue.finish(&job.lane, attempt, now, room);
    }

    fn note_failure(&self, now: u64, detail: &str) {
        if let Some(left_out) = self.lines.pass("failed") {
            tracing::warn!(notify = self.notification.name, detail, left_out, "a message was not delivered");
        }
        let mut status = self.notification.status.lock();
        (status.failed_attempts, status.last_failure) = (status.failed_attempts + 1, Some((now, detail.to_string())));
    }

    /// Milliseconds until the next attempt of the first delivery of a lane, with jitter; `None` after the last one.
    fn next_attempt(&self, lane: &Lane, retry_after: Option<Duration>) -> Option<u64> {
        let attempts = usize::try_from(self.queue.attempts(lane)).unwrap_or(usize::MAX);
        let pause = *self.notification.options.retry.get(attempts)?;
        let pause = Backoff::new(pause, pause).rest_jittered().max(retry_after.unwrap_or_default());
        Some(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX))
    }

    // --- state -------------------------------------------------------------------------------------------------------

    fn obey(&mut self, command: Command) {
        match command {
            Command::Replay(delivery, reply) => {
                self.queue.replay(*delivery, now());
                self.replies.push(reply);
            }
            Command::Enable(reply) => {
                self.disabled = None;
                self.health = Health::default();
                self.queue.hurry_all(now());
                self.queue.note_change();
                self.replies.push(reply);
            }
        }
    }

    /// Stores the progress since the last call. Waits while the journal cannot be written.
    async fn store(&mut self) -> Result<()> {
        if let Some((seq, settled, changes)) = self.queue.take_progress() {
            let epoch = Arc::clone(&self.epoch);
            let mark = SendMark { epoch, seq, settled, disabled: self.disabled.clone() }.encode();
            if !self.store_all(&mark, &changes).await? {
                return self.reload().await;
            }
        }
        self.replies.drain(..).for_each(|reply| {
            // The caller may have stopped waiting.
            let _ = reply.send(());
        });
        Ok(())
    }

    /// Returns false if rows were purged meanwhile: nothing is stored then.
    async fn store_all(&self, mark: &bytes::Bytes, changes: &[StoredDelivery]) -> Result<bool> {
        let mut backoff = Backoff::new(PAUSE.0, PAUSE.1);
        loop {
            match self.dio.store_sent(&self.notification.name, mark.clone(), changes.to_vec(), self.erased).await {
                Ok(is_stored) => return Ok(is_stored),
                Err(Error::Closed) => return Err(Error::Closed),
                Err(error) => self.pause("the progress cannot be stored", &error, &mut backoff).await?,
            }
        }
    }

    async fn pause(&self, what: &'static str, error: &Error, backoff: &mut Backoff) -> Result<()> {
        if let Some(left_out) = self.lines.pass(what) {
            tracing::warn!(notify = self.notification.name, %error, left_out, "{what}; it is tried again");
        }
        tokio::select! {
            () = sleep(backoff.rest()) => Ok(()),
            () = self.dio.closing() => Err(Error::Closed),
        }
    }

    /// Publishes the state for people.
    fn publish(&self) {
        let state = match (&self.disabled, self.health.rests_until()) {
            (Some(disabled), _) => NotifyState::Disabled(disabled.detail.clone()),
            (None, Some(until)) => NotifyState::Resting(until),
            (None, None) if !self.queue.has_room() && !self.dio.outbox().room => NotifyState::Full,
            (None, None) => NotifyState::Active,
        };
        let mut status = self.notification.status.lock();
        status.state = state;
        status.position = Some(Position { epoch: Arc::clone(&self.epoch), seq: self.queue.settled_up_to() });
        status.waiting = self.queue.len();
    }
}

/// Sends one message; `None` if it is no longer stored.
async fn attempt(notification: &Notification, dio: &Dio, job: &Job) -> Option<Posted> {
    let body = match &job.body {
        Some(body) => body.clone(),
        None => match dio.delivery(job.id).await {
            Ok(stored) => stored?.1.body,
            Err(error) => return Some(Posted::Unanswered(format!("the message cannot be read: {error}"))),
        },
    };
    let headers = headers(&notification.signer, &job.key, now() / 1_000, &body);
    Some(notification.receiver.post(headers, body).await)
}
