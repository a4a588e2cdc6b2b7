//! [`Notification`]: a receiver of a Dio's events, its options and its state.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::message::{NotifyEvent, envelope, headers};
use super::receiver::{Posted, Receiver};
use crate::access::{Grant, Principal, Verb, Verbs};
use crate::events::view::EventView;
use crate::scope::Scope;
use crate::state::Resource;
use diorama_core::dio::{Position, now};
use diorama_core::journal::Delivery;
use diorama_core::vista::query::url::{self, ParamOptions};
use diorama_core::vista::{Error, Query, Result, Schema};
use diorama_inbound::signature::Signer;

/// Maximum number of requests to replay, enable or test that wait for the notification's task.
const MOST_COMMANDS: usize = 64;

/// Sends the events of one Dio to a receiver.
#[derive(Debug)]
pub struct Notification {
    /// Name of the notification.
    pub name: String,
    /// Name of the Dio.
    pub dio: String,
    pub(super) receiver: Arc<dyn Receiver>,
    pub(super) signer: Signer,
    pub(super) options: NotifyOptions,
    pub(super) status: Mutex<NotifyStatus>,
    commands: mpsc::Sender<Command>,
    /// Taken by the task.
    pub(super) inbox: Mutex<Option<mpsc::Receiver<Command>>>,
}

/// Choice of events, and pace of a notification.
#[derive(Clone, Debug)]
pub struct NotifyOptions {
    /// Filter in the grammar of query strings (default: all rows).
    pub filter: String,
    /// Columns of rows to send (default: all).
    pub select: Vec<String>,
    /// Events to send (default: those of rows).
    pub events: Vec<NotifyEvent>,
    /// Maximum number of messages that are sent at the same time, of different rows (default: 8).
    pub concurrency: usize,
    /// Delays before the second and later attempts (default: 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 10 h).
    pub retry: Vec<Duration>,
    /// True to begin with the oldest stored event, instead of the next one.
    pub from_earliest: bool,
}

impl Default for NotifyOptions {
    fn default() -> Self {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        let first = Duration::from_secs(5);
        NotifyOptions {
            filter: String::new(),
            select: Vec::new(),
            events: NotifyEvent::USUAL.to_vec(),
            concurrency: 8,
            retry: vec![first, minutes(5), minutes(30), hours(2), hours(5), hours(10), hours(10)],
            from_earliest: false,
        }
    }
}

/// State of a notification, for people.
#[derive(Clone, Debug, Default)]
pub(crate) struct NotifyStatus {
    pub(crate) state: NotifyState,
    /// Position up to which every event is delivered or stored as a delivery.
    pub(crate) position: Option<Position>,
    /// Number of deliveries that are not settled.
    pub(crate) waiting: usize,
    /// Numbers since the start.
    pub(crate) delivered: u64,
    pub(crate) failed_attempts: u64,
    pub(crate) given_up: u64,
    /// Unix milliseconds of the last success.
    pub(crate) last_delivered: Option<u64>,
    /// The last failure, with its time in Unix milliseconds.
    pub(crate) last_failure: Option<(u64, String)>,
}

/// Activity of a notification.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum NotifyState {
    /// It has not begun, because its Dio has not.
    #[default]
    Starting,
    Active,
    /// The receiver fails and is left alone until this time in Unix milliseconds.
    Resting(u64),
    /// The outbox has no room for deliveries that have failed; no more events are read.
    Full,
    /// The receiver is gone. The text says what it has answered.
    Disabled(String),
}

impl NotifyState {
    /// Word of the state, as in JSON.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            NotifyState::Starting => "starting",
            NotifyState::Active => "active",
            NotifyState::Resting(_) => "resting",
            NotifyState::Full => "full",
            NotifyState::Disabled(_) => "disabled",
        }
    }
}

/// Request to the task of a notification. The answer is sent once its effect is stored.
pub(super) enum Command {
    Replay(Box<Delivery>, oneshot::Sender<()>),
    Enable(oneshot::Sender<()>),
}

impl Notification {
    /// Creates a notification named `name` of the events of `dio`.
    pub fn new(
        name: impl Into<String>,
        dio: impl Into<String>,
        receiver: Arc<dyn Receiver>,
        signer: Signer,
    ) -> Notification {
        let (commands, inbox) = mpsc::channel(MOST_COMMANDS);
        Notification {
            name: name.into(),
            dio: dio.into(),
            receiver,
            signer,
            options: NotifyOptions::default(),
            status: Mutex::default(),
            commands,
            inbox: Mutex::new(Some(inbox)),
        }
    }

    /// Replaces the options.
    #[must_use]
    pub fn with(self, options: NotifyOptions) -> Notification {
        Notification { options, ..self }
    }

    /// Parses filter and columns.
    ///
    /// # Errors
    /// [`Error::Config`] that names what is wrong.
    pub(super) fn query(&self, schema: &Schema) -> Result<Query> {
        let named = |detail: &dyn fmt::Display| Error::Config(format!("[notify.{}] {detail}", self.name));
        let parsed = url::parse(&self.options.filter, schema, &ParamOptions::default());
        let parsed = parsed.map_err(|error| named(&format!("where: {error}")))?;
        let is_filter = parsed.query.order.is_empty() && parsed.query.limit.is_none() && parsed.query.offset == 0;
        if !is_filter || !parsed.query.select.is_empty() {
            return Err(named(&"where takes conditions only; columns belong into select"));
        }
        if self.options.select.is_empty() {
            return Ok(parsed.query);
        }
        let columns: Vec<_> = self.options.select.iter().map(|column| url::segment(column)).collect();
        let selected = url::parse(&format!("select={}", columns.join(",")), schema, &ParamOptions::default());
        let select = selected.map_err(|error| named(&format!("select: {error}")))?.query.select;
        Ok(Query { select, ..parsed.query })
    }

    /// Returns the view of the notification on the events of its resource.
    ///
    /// # Errors
    /// As [`Notification::query`].
    pub(super) fn view(&self, resource: &Arc<Resource>) -> Result<EventView> {
        let query = self.query(&resource.schema)?;
        let grant = Arc::new(Grant::unrestricted(&resource.schema, Verbs::ALL));
        let view = Arc::clone(grant.view(Verb::Events));
        let scope = Scope::new(Arc::clone(resource), Principal::anonymous(), grant, view);
        EventView::unshared(&scope.rows, &query)
            .map_err(|error| Error::Config(format!("[notify.{}] {}", self.name, error.detail())))
    }

    /// URL of the receiver, without credentials and query.
    pub fn url(&self) -> &str {
        self.receiver.url()
    }

    /// Sends a message of the type `NAME.test`, which is about no row. Returns its `webhook-id` and the answer.
    pub async fn test(&self) -> (String, Posted) {
        let (key, at) = (format!("test_{}", uuid::Uuid::now_v7().simple()), now());
        let data = serde_json::json!({ "type": "test", "notification": self.name }).to_string();
        let body = envelope(&self.dio, "test", at, data.as_bytes());
        let headers = headers(&self.signer, &key, at / 1_000, &body);
        let posted = self.receiver.post(headers, body).await;
        (key, posted)
    }

    /// Copy of the present state.
    pub(crate) fn status(&self) -> NotifyStatus {
        self.status.lock().clone()
    }

    /// Has a stored delivery sent again. It is stored as pending when this returns.
    ///
    /// # Errors
    /// [`Error::Closed`] if the notification has ended or not begun.
    pub(crate) async fn replay(&self, delivery: Delivery) -> Result<()> {
        self.ask(|reply| Command::Replay(Box::new(delivery), reply)).await
    }

    /// Continues after the receiver has said that it is gone; else tries a receiver that rests at once.
    ///
    /// # Errors
    /// As [`Notification::replay`].
    pub(crate) async fn enable(&self) -> Result<()> {
        self.ask(Command::Enable).await
    }

    async fn ask(&self, command: impl FnOnce(oneshot::Sender<()>) -> Command) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)
    }
}
