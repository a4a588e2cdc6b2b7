//! Subscriptions of one connection.

use std::fmt::Write as _;
use std::future::pending;
use std::sync::Arc;

use futures_util::future::select_all;

use super::cursor::{CursorEnd, EventCursor, OutgoingFrame};
use super::frame::{self, Encoding};
use super::live::LiveCursor;
use super::request::{LiveSubscription, Subscription};
use crate::access::{Grant, Principal, Verb};
use crate::http::bounds::Bounds;
use crate::http::extract::check_ready;
use crate::http::problem::{ApiError, Code};
use crate::metrics::OpenSocket;
use crate::scope::Scope;
use crate::state::GatewayState;
use diorama_core::dio::Position;

/// Maximum number of subscriptions on one connection.
pub(super) const MOST_SUBS: usize = 64;

/// Open subscription.
struct OpenSubscription {
    /// Name in its frames; `None` if the connection has a single subscription.
    name: Option<Arc<str>>,
    source: FrameSource,
    open: OpenSocket,
    /// Permissions by which it was opened.
    grant: Arc<Grant>,
}

/// Source of the frames of a subscription.
enum FrameSource {
    /// Event log.
    Log(Box<EventCursor>),
    /// Live query.
    Live(Box<LiveCursor>),
}

impl FrameSource {
    fn bookmark(&self) -> Option<Position> {
        match self {
            FrameSource::Log(cursor) => cursor.bookmark(),
            FrameSource::Live(cursor) => cursor.bookmark(),
        }
    }

    fn is_ready(&self) -> bool {
        match self {
            FrameSource::Log(cursor) => cursor.is_ready(),
            FrameSource::Live(cursor) => cursor.is_ready(),
        }
    }

    async fn ready(&mut self) {
        match self {
            FrameSource::Log(cursor) => cursor.ready().await,
            FrameSource::Live(cursor) => cursor.ready().await,
        }
    }

    async fn batch(&mut self) -> Result<Vec<OutgoingFrame>, CursorEnd> {
        match self {
            FrameSource::Log(cursor) => cursor.batch().await,
            FrameSource::Live(cursor) => cursor.batch(),
        }
    }
}

/// Subscriptions of one connection, served round-robin.
pub(super) struct Subscriptions {
    pub(super) encoding: Encoding,
    heartbeat: u64,
    /// Bounds of the caller.
    bounds: Bounds,
    all: Vec<OpenSubscription>,
    turn: usize,
}

impl Subscriptions {
    pub(super) fn new(encoding: Encoding, heartbeat: u64, bounds: Bounds) -> Subscriptions {
        Subscriptions { encoding, heartbeat, bounds, all: Vec::new(), turn: 0 }
    }

    /// Returns the principal of the connection.
    pub(super) fn principal(&self) -> &Principal {
        &self.bounds.principal
    }

    /// Sets the principal of later commands. Open subscriptions are not affected.
    pub(super) fn authenticate(&mut self, principal: Principal) {
        self.bounds.principal = principal;
    }

    /// Returns bounds for one more command.
    pub(super) fn bounds(&self) -> Bounds {
        self.bounds.again()
    }

    /// Adds a subscription, with a name if the connection can have several.
    pub(super) async fn add(
        &mut self,
        name: Option<&str>,
        scope: &Scope,
        subscription: Subscription,
    ) -> Result<(), ApiError> {
        check_ready(&scope.dio)?;
        if subscription.snapshot != super::request::SnapshotMode::None && !scope.dio.is_complete() {
            let detail = format!("{} caches only a part of its rows and does not support snapshots", scope.dio.name());
            return Err(ApiError::new(Code::InvalidParameter, detail).hint("subscribe without snapshot"));
        }
        let cursor = EventCursor::open(scope, subscription, self.encoding, self.heartbeat, &self.bounds()).await?;
        self.push(name, scope, FrameSource::Log(Box::new(cursor)));
        Ok(())
    }

    /// Adds a subscription to a live query, with a name if the connection can have several.
    pub(super) async fn add_live(
        &mut self,
        name: Option<&str>,
        scope: &Scope,
        subscription: LiveSubscription,
    ) -> Result<(), ApiError> {
        check_ready(&scope.dio)?;
        if !scope.dio.is_complete() {
            let detail =
                format!("{} caches only a part of its rows and does not support live queries", scope.dio.name());
            return Err(ApiError::new(Code::InvalidParameter, detail).hint("subscribe to its events"));
        }
        let cursor = LiveCursor::open(scope, subscription, self.encoding, self.heartbeat, &self.bounds()).await?;
        self.push(name, scope, FrameSource::Live(Box::new(cursor)));
        Ok(())
    }

    fn push(&mut self, name: Option<&str>, scope: &Scope, source: FrameSource) {
        let (name, grant) = (name.map(Arc::from), Arc::clone(&scope.grant));
        self.all.push(OpenSubscription { name, source, open: scope.sockets.enter(), grant });
    }

    /// Removes a subscription; returns false if there is none of this name.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        let before = self.all.len();
        self.all.retain(|sub| sub.name.as_deref() != Some(name));
        self.all.len() < before
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.all.iter().any(|sub| sub.name.as_deref() == Some(name))
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Waits until [`Subscriptions::batch`] has something to do.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(super) async fn ready(&mut self) {
        match &mut self.all[..] {
            [] => pending().await,
            [one] => one.source.ready().await,
            all if all.iter().any(|sub| sub.source.is_ready()) => {}
            all => drop(select_all(all.iter_mut().map(|sub| Box::pin(sub.source.ready()))).await),
        }
    }

    /// Returns true if something can be sent.
    pub(super) fn is_ready(&self) -> bool {
        self.all.iter().any(|sub| sub.source.is_ready())
    }

    /// Returns false once other access rules apply than those by which a subscription was opened.
    pub(super) fn are_permitted(&self) -> bool {
        self.all.iter().all(|sub| sub.grant.is_current())
    }

    /// Returns the next batch of the next subscription that is ready, each frame with the position after it.
    pub(super) async fn batch(&mut self) -> Result<Vec<OutgoingFrame>, CursorEnd> {
        if !self.are_permitted() {
            return Err(CursorEnd::Rules);
        }
        let count = self.all.len();
        let Some(at) = (0..count).map(|n| (self.turn + n) % count).find(|at| self.all[*at].source.is_ready()) else {
            return Ok(Vec::new());
        };
        self.turn = at + 1;
        let (encoding, sub) = (self.encoding, &mut self.all[at]);
        let Some(name) = sub.name.clone() else { return sub.source.batch().await };
        match sub.source.batch().await {
            Ok(mut sent) => {
                for sent in &mut sent {
                    sent.frame = frame::tagged(encoding, &name, &sent.frame);
                }
                Ok(sent)
            }
            // The other subscriptions continue.
            Err(CursorEnd::Closed) => {
                self.all.remove(at);
                let gone = frame::tagged(encoding, &name, &frame::type_only(encoding, "unsubscribed"));
                Ok(vec![OutgoingFrame::control(gone, None)])
            }
            Err(end) => Err(end),
        }
    }

    /// Returns a bookmark frame of each subscription that has a resume position.
    pub(super) fn heartbeats(&self) -> impl Iterator<Item = bytes::Bytes> + '_ {
        self.all.iter().filter_map(|sub| {
            let beat = frame::heartbeat(self.encoding, &sub.source.bookmark()?);
            Some(match &sub.name {
                Some(name) => frame::tagged(self.encoding, name, &beat),
                None => beat,
            })
        })
    }

    /// Position of a caught-up client, for a connection with a single unnamed subscription.
    pub(super) fn position(&self) -> Option<Position> {
        match &self.all[..] {
            [OpenSubscription { name: None, source, .. }] => source.bookmark(),
            _ => None,
        }
    }

    /// Epoch of positions, for a connection with a single unnamed subscription.
    pub(super) fn epoch(&self) -> Option<Arc<str>> {
        match &self.all[..] {
            [OpenSubscription { name: None, source: FrameSource::Log(cursor), .. }] => Some(cursor.epoch()),
            [OpenSubscription { name: None, source: FrameSource::Live(cursor), .. }] => Some(cursor.epoch()),
            _ => None,
        }
    }

    /// Resume positions in the format of `since`; `None` if no subscription has one.
    pub(super) fn bookmark(&self) -> Option<String> {
        let mut bookmarks = String::new();
        for sub in &self.all {
            let Some(position) = sub.source.bookmark() else { continue };
            let Some(name) = &sub.name else { return Some(position.to_string()) };
            let and = if bookmarks.is_empty() { "" } else { ";" };
            // Writing to a String does not fail.
            let _ = write!(bookmarks, "{and}{name}={position}");
        }
        (!bookmarks.is_empty()).then_some(bookmarks)
    }

    /// Counts the end of all subscriptions with this close code; `None` if the client closed.
    pub(super) fn closed(self, code: Option<u16>) {
        self.all.into_iter().for_each(|sub| sub.open.closed(code));
    }
}

/// Returns the scope of `principal` in the resource `name`, for a subscription to its events. Fails while the server is stopping.
pub(super) fn find_scope(gateway: &GatewayState, name: &str, principal: &Principal) -> Result<Scope, ApiError> {
    check_open(gateway)?;
    Scope::of(gateway, name, principal, Verb::Events)
}

/// Returns the scope of `principal` in the resource `name`, for a live query. Fails while the server is stopping.
pub(super) fn find_live_scope(gateway: &GatewayState, name: &str, principal: &Principal) -> Result<Scope, ApiError> {
    check_open(gateway)?;
    Scope::live(gateway, name, principal)
}

fn check_open(gateway: &GatewayState) -> Result<(), ApiError> {
    match gateway.closing.is_cancelled() {
        true => Err(ApiError::new(Code::ShuttingDown, "the server is stopping")),
        false => Ok(()),
    }
}
