//! The subscriptions of one connection.

use std::fmt::Write as _;
use std::future::pending;
use std::sync::Arc;

use futures_util::future::select_all;

use super::cursor::{CursorEnd, EventCursor, OutgoingFrame};
use super::frame::{self, Encoding};
use super::live::LiveCursor;
use super::request::{LiveSubscription, Subscription};
use crate::http::auth::Principal;
use crate::http::bounds::Bounds;
use crate::http::extract::check_ready;
use crate::http::problem::{ApiError, Code};
use crate::metrics::OpenSocket;
use crate::scope::Scope;
use crate::state::GatewayState;
use diorama_core::dio::Position;

/// Subscriptions of one connection, at most.
pub(super) const MOST_SUBS: usize = 64;

/// One subscription.
struct OpenSubscription {
    /// What its frames bear, where there can be several.
    name: Option<Arc<str>>,
    source: FrameSource,
    open: OpenSocket,
}

/// Where frames come from.
enum FrameSource {
    /// Events.
    Log(Box<EventCursor>),
    /// A live query.
    Live(Box<LiveCursor>),
}

impl FrameSource {
    fn bookmark(&self) -> Option<Position> {
        match self {
            FrameSource::Log(cursor) => cursor.bookmark(),
            FrameSource::Live(follow) => follow.bookmark(),
        }
    }

    fn is_ready(&self) -> bool {
        match self {
            FrameSource::Log(cursor) => cursor.is_ready(),
            FrameSource::Live(follow) => follow.is_ready(),
        }
    }

    async fn ready(&mut self) {
        match self {
            FrameSource::Log(cursor) => cursor.ready().await,
            FrameSource::Live(follow) => follow.ready().await,
        }
    }

    async fn batch(&mut self) -> Result<Vec<OutgoingFrame>, CursorEnd> {
        match self {
            FrameSource::Log(cursor) => cursor.batch().await,
            FrameSource::Live(follow) => follow.batch(),
        }
    }
}

/// The subscriptions of one connection, served in turn.
pub(super) struct Subscriptions {
    pub(super) encoding: Encoding,
    heartbeat: u64,
    /// The caller's.
    bounds: Bounds,
    all: Vec<OpenSubscription>,
    turn: usize,
}

impl Subscriptions {
    pub(super) fn new(encoding: Encoding, heartbeat: u64, bounds: Bounds) -> Subscriptions {
        Subscriptions { encoding, heartbeat, bounds, all: Vec::new(), turn: 0 }
    }

    /// Who the next commands are of: a token was taken. Subscriptions that are open stay as they are.
    pub(super) fn authenticate(&mut self, principal: Principal) {
        self.bounds.principal = principal;
    }

    /// Bounds of one more command.
    pub(super) fn bounds(&self) -> Bounds {
        self.bounds.again()
    }

    /// Adds one, under a name where there can be several.
    pub(super) async fn add(
        &mut self,
        name: Option<&str>,
        scope: &Scope,
        subscription: Subscription,
    ) -> Result<(), ApiError> {
        check_ready(&scope.dio)?;
        if subscription.snapshot != super::request::SnapshotMode::None && !scope.dio.is_complete() {
            let detail = format!("{} holds a part of its rows only: there is no snapshot of it", scope.dio.name());
            return Err(ApiError::new(Code::InvalidParameter, detail).hint("subscribe without snapshot"));
        }
        let cursor = EventCursor::open(scope, subscription, self.encoding, self.heartbeat, &self.bounds()).await?;
        self.push(name, scope, FrameSource::Log(Box::new(cursor)));
        Ok(())
    }

    /// Adds a live query, under a name where there can be several.
    pub(super) async fn add_live(
        &mut self,
        name: Option<&str>,
        scope: &Scope,
        subscription: LiveSubscription,
    ) -> Result<(), ApiError> {
        check_ready(&scope.dio)?;
        if !scope.dio.is_complete() {
            let detail = format!("{} holds a part of its rows only: they have no places", scope.dio.name());
            return Err(ApiError::new(Code::InvalidParameter, detail).hint("follow its events"));
        }
        let follow = LiveCursor::open(scope, subscription, self.encoding, self.heartbeat, &self.bounds()).await?;
        self.push(name, scope, FrameSource::Live(Box::new(follow)));
        Ok(())
    }

    fn push(&mut self, name: Option<&str>, scope: &Scope, source: FrameSource) {
        self.all.push(OpenSubscription { name: name.map(Arc::from), source, open: scope.sockets.enter() });
    }

    /// Takes one away; whether there was one.
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

    /// Whether something can be sent at once.
    pub(super) fn is_ready(&self) -> bool {
        self.all.iter().any(|sub| sub.source.is_ready())
    }

    /// What the next subscription has that has something, each frame with the place to go on from after it.
    pub(super) async fn batch(&mut self) -> Result<Vec<OutgoingFrame>, CursorEnd> {
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
            // The others go on.
            Err(CursorEnd::Closed) => {
                self.all.remove(at);
                let gone = frame::tagged(encoding, &name, &frame::word(encoding, "unsubscribed"));
                Ok(vec![OutgoingFrame::word(gone, None)])
            }
            Err(CursorEnd::Slow) => Err(CursorEnd::Slow),
        }
    }

    /// A bookmark for each that has one.
    pub(super) fn heartbeats(&self) -> impl Iterator<Item = bytes::Bytes> + '_ {
        self.all.iter().filter_map(|sub| {
            let beat = frame::heartbeat(self.encoding, &sub.source.bookmark()?);
            Some(match &sub.name {
                Some(name) => frame::tagged(self.encoding, name, &beat),
                None => beat,
            })
        })
    }

    /// Where a client is that has got everything so far, where there is one subscription without a name.
    pub(super) fn position(&self) -> Option<Position> {
        match &self.all[..] {
            [OpenSubscription { name: None, source, .. }] => source.bookmark(),
            _ => None,
        }
    }

    /// The epoch of positions, where there is one subscription without a name.
    pub(super) fn epoch(&self) -> Option<Arc<str>> {
        match &self.all[..] {
            [OpenSubscription { name: None, source: FrameSource::Log(cursor), .. }] => Some(cursor.epoch()),
            [OpenSubscription { name: None, source: FrameSource::Live(follow), .. }] => Some(follow.epoch()),
            _ => None,
        }
    }

    /// Where a client may go on, as `since` takes it, `None` if nowhere.
    pub(super) fn bookmark(&self) -> Option<String> {
        let mut places = String::new();
        for sub in &self.all {
            let Some(position) = sub.source.bookmark() else { continue };
            let Some(name) = &sub.name else { return Some(position.to_string()) };
            let and = if places.is_empty() { "" } else { ";" };
            // Text takes every write.
            let _ = write!(places, "{and}{name}={position}");
        }
        (!places.is_empty()).then_some(places)
    }

    /// The connection has ended with this code, `None` if the client went.
    pub(super) fn closed(self, code: Option<u16>) {
        self.all.into_iter().for_each(|sub| sub.open.closed(code));
    }
}

/// What `principal` may see of the resource `name`, to be subscribed to.
pub(super) fn find_scope(gateway: &GatewayState, name: &str, principal: Principal) -> Result<Scope, ApiError> {
    if gateway.closing.is_cancelled() {
        return Err(ApiError::new(Code::ShuttingDown, "the server is stopping"));
    }
    Scope::of(gateway, name, principal)
}
