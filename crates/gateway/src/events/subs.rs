//! The subscriptions of one connection.

use std::fmt::Write as _;
use std::future::pending;
use std::sync::Arc;

use futures_util::future::select_all;

use super::feed::{Ended, Feed, Sent};
use super::frame::{self, Encoding};
use super::live::Follow;
use super::wish::{LiveWish, Wish};
use crate::http::budget::Bounds;
use crate::http::extract::check_ready;
use crate::http::problem::{ApiError, Code};
use crate::metrics::OpenSocket;
use crate::state::{Mounted, Shared};
use diorama_core::dio::Position;

/// Subscriptions of one connection, at most.
pub(super) const MOST_SUBS: usize = 64;

/// One subscription.
struct Sub {
    /// What its frames bear, where there can be several.
    name: Option<Arc<str>>,
    source: Source,
    open: OpenSocket,
}

/// Where frames come from.
enum Source {
    /// Events.
    Log(Box<Feed>),
    /// A live query.
    Live(Box<Follow>),
}

impl Source {
    fn bookmark(&self) -> Option<Position> {
        match self {
            Source::Log(feed) => feed.bookmark(),
            Source::Live(follow) => follow.bookmark(),
        }
    }

    fn is_ready(&self) -> bool {
        match self {
            Source::Log(feed) => feed.is_ready(),
            Source::Live(follow) => follow.is_ready(),
        }
    }

    async fn ready(&mut self) {
        match self {
            Source::Log(feed) => feed.ready().await,
            Source::Live(follow) => follow.ready().await,
        }
    }

    async fn batch(&mut self) -> Result<Vec<Sent>, Ended> {
        match self {
            Source::Log(feed) => feed.batch().await,
            Source::Live(follow) => follow.batch(),
        }
    }
}

/// The subscriptions of one connection, served in turn.
pub(super) struct Subs {
    pub(super) encoding: Encoding,
    heartbeat: u64,
    /// The caller's.
    bounds: Bounds,
    all: Vec<Sub>,
    turn: usize,
}

impl Subs {
    pub(super) fn new(encoding: Encoding, heartbeat: u64, bounds: Bounds) -> Subs {
        Subs { encoding, heartbeat, bounds, all: Vec::new(), turn: 0 }
    }

    /// Bounds of one more command.
    pub(super) fn bounds(&self) -> Bounds {
        self.bounds.again()
    }

    /// Adds one, under a name where there can be several.
    pub(super) async fn add(&mut self, name: Option<&str>, at: &Mounted, wish: Wish) -> Result<(), ApiError> {
        check_ready(&at.dio)?;
        if wish.snapshot != super::wish::Snapshot::None && !at.dio.is_complete() {
            let detail = format!("{} holds a part of its rows only: there is no snapshot of it", at.dio.name());
            return Err(ApiError::new(Code::InvalidParameter, detail).hint("subscribe without snapshot"));
        }
        let feed = Feed::open(at, wish, self.encoding, self.heartbeat, &self.bounds()).await?;
        self.push(name, at, Source::Log(Box::new(feed)));
        Ok(())
    }

    /// Adds a live query, under a name where there can be several.
    pub(super) async fn add_live(&mut self, name: Option<&str>, at: &Mounted, wish: LiveWish) -> Result<(), ApiError> {
        check_ready(&at.dio)?;
        if !at.dio.is_complete() {
            let detail = format!("{} holds a part of its rows only: they have no places", at.dio.name());
            return Err(ApiError::new(Code::InvalidParameter, detail).hint("follow its events"));
        }
        let follow = Follow::open(at, wish, self.encoding, self.heartbeat, &self.bounds()).await?;
        self.push(name, at, Source::Live(Box::new(follow)));
        Ok(())
    }

    fn push(&mut self, name: Option<&str>, at: &Mounted, source: Source) {
        self.all.push(Sub { name: name.map(Arc::from), source, open: at.sockets.enter() });
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

    /// Waits until [`Subs::batch`] has something to do.
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
    pub(super) async fn batch(&mut self) -> Result<Vec<Sent>, Ended> {
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
            Err(Ended::Closed) => {
                self.all.remove(at);
                let gone = frame::tagged(encoding, &name, &frame::word(encoding, "unsubscribed"));
                Ok(vec![Sent::word(gone, None)])
            }
            Err(Ended::Slow) => Err(Ended::Slow),
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
            [Sub { name: None, source, .. }] => source.bookmark(),
            _ => None,
        }
    }

    /// The epoch of positions, where there is one subscription without a name.
    pub(super) fn epoch(&self) -> Option<Arc<str>> {
        match &self.all[..] {
            [Sub { name: None, source: Source::Log(feed), .. }] => Some(feed.epoch()),
            [Sub { name: None, source: Source::Live(follow), .. }] => Some(follow.epoch()),
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

/// The resource `name`, to be subscribed to.
pub(super) fn resource<'a>(shared: &'a Shared, name: &str) -> Result<&'a Arc<Mounted>, ApiError> {
    if shared.closing.is_cancelled() {
        return Err(ApiError::new(Code::ShuttingDown, "the server is stopping"));
    }
    shared.dio(name)
}
