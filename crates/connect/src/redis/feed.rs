//! Feed of a stream: its entries from an id on, which is stored with the changes before it. The server keeps nothing for it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use redis::{Cmd, FromRedisValue, Value, cmd, pipe};

use super::address::RedisAddress;
use super::entry::{Entry, EntryId};
use super::errors::Failure;
use super::safety;
use super::session::Session;
use super::watermark::{Counters, Missed, Position};
use crate::feed::{LogPlace, Message};
use crate::stream::{Broker, Place, Subscription};
use diorama_core::dio::FeedLag;

/// Time for which the server holds a request for entries that are not there yet.
const WAIT: Duration = Duration::from_secs(1);
/// Number of entries of the first request. Later ones are for as many as [`ANSWER`] holds.
const FIRST: usize = 100;
/// Size of an answer in bytes, if entries are as large as those before. A single entry may be larger.
const ANSWER: usize = 1 << 20;

/// A stream as a feed reads it.
#[derive(Clone, Debug)]
pub(super) struct RedisBroker {
    pub(super) address: RedisAddress,
    pub(super) stream: String,
}

#[async_trait]
impl Broker for RedisBroker {
    type Subscription = RedisSubscription;

    async fn subscribe(&mut self, position: Option<&Bytes>) -> Result<(RedisSubscription, Place), String> {
        let asked = position.and_then(|position| Position::parse(position));
        let (session, warnings, counters) = self.look().await.map_err(|failure| failure.message)?;
        let is_missing = counters.is_none();
        let counters = counters.unwrap_or_default();
        let (position, place) = match asked.filter(|asked| asked.check(counters) == Missed::Nothing) {
            Some(asked) => (asked, Place::Asked),
            None => (Position::at_end(counters, Timestamp::now().as_millisecond()), Place::Elsewhere),
        };
        let subscription = RedisSubscription {
            session: Arc::new(session),
            stream: self.stream.clone(),
            log: position.log(),
            position,
            counters,
            is_missing,
            has_gap: false,
            warnings,
            most: FIRST,
            is_idle: false,
            newest: None,
            reading: None,
        };
        Ok((subscription, place))
    }
}

impl RedisBroker {
    /// Connects, and returns the warnings about the server and the counters of the stream, if it exists.
    pub(super) async fn look(&self) -> Result<(Session, Vec<String>, Option<Counters>), Failure> {
        let session = self.address.connect().await?;
        let warnings = safety::warnings(&session).await?;
        let counters = match session.run(&info(&self.stream)).await {
            Ok(info) => Some(self.counters(info)?),
            Err(failure) if failure.is_missing => None,
            Err(failure) => {
                return Err(Failure { message: format!("stream {}: {}", self.stream, failure.message), ..failure });
            }
        };
        Ok((session, warnings, counters))
    }

    fn counters(&self, info: Value) -> Result<Counters, Failure> {
        let old = || Failure::refused(format!("{}: a feed requires Redis 7.0, or Valkey", self.address));
        counters(info).ok_or_else(old)
    }
}

/// The command for the counters of a stream.
fn info(stream: &str) -> Cmd {
    let mut info = cmd("XINFO");
    info.arg("STREAM").arg(stream);
    info
}

/// The command for at most `most` entries of a stream behind `id`.
fn read(stream: &str, id: EntryId, most: usize, wait: Option<Duration>) -> Cmd {
    let mut read = cmd("XREAD");
    read.arg("COUNT").arg(most);
    if let Some(wait) = wait {
        read.arg("BLOCK").arg(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
    }
    read.arg("STREAMS").arg(stream).arg(id.to_string());
    read
}

/// Reads the answer to [`info`]; `None` if the server does not count entries.
fn counters(info: Value) -> Option<Counters> {
    let Value::Array(members) = info else { return None };
    let mut counters = (None, None, None, None);
    for pair in members.chunks_exact(2) {
        let name = String::from_redis_value_ref(&pair[0]).ok()?;
        let number = || u64::from_redis_value_ref(&pair[1]).ok();
        let id = || String::from_redis_value_ref(&pair[1]).ok()?.parse().ok();
        match name.as_str() {
            "length" => counters.0 = number(),
            "entries-added" => counters.1 = number(),
            "recorded-first-entry-id" => counters.2 = id(),
            "last-generated-id" => counters.3 = id(),
            _ => {}
        }
    }
    Some(Counters { length: counters.0?, added: counters.1?, first: counters.2?, last: counters.3? })
}

/// Streams, each with its entries, each with its fields, as `XREAD` returns them.
type Answer = Option<Vec<(String, Vec<(String, Vec<Bytes>)>)>>;

/// Reads the answer to [`read`]; `None` if it has another form.
fn entries(answer: Value) -> Option<Vec<Entry>> {
    let streams = Answer::from_redis_value(answer).ok()?.unwrap_or_default();
    let entry = |(id, fields): (String, Vec<Bytes>)| Some(Entry { id: id.parse().ok()?, fields });
    streams.into_iter().flat_map(|(_, entries)| entries).map(entry).collect()
}

/// Entries, and the counters of their stream at the same time.
struct Reading {
    entries: Vec<Entry>,
    counters: Counters,
}

/// Waits for entries if `is_idle`, then reads at most `most` behind `id`.
async fn next(
    session: Arc<Session>,
    stream: String,
    id: EntryId,
    most: usize,
    is_idle: bool,
) -> Result<Reading, Failure> {
    if is_idle {
        let arrived = session.run_waiting::<Value>(&read(&stream, id, 1, Some(WAIT)), WAIT).await?;
        drop(arrived);
    }
    let mut both = pipe();
    both.atomic().add_command(read(&stream, id, most, None)).add_command(info(&stream));
    let (answer, info): (Value, Value) = session.run_all(&both).await?;
    let odd = || Failure::refused(format!("{}: an answer that is not one of Redis", session.address()));
    Ok(Reading { entries: entries(answer).ok_or_else(odd)?, counters: counters(info).ok_or_else(odd)? })
}

/// A subscription to a stream.
pub(super) struct RedisSubscription {
    session: Arc<Session>,
    stream: String,
    /// Name of the stream as a [log](LogPlace).
    log: Arc<str>,
    position: Position,
    counters: Counters,
    /// True if the stream does not exist yet.
    is_missing: bool,
    /// True if entries were removed before they could be read.
    has_gap: bool,
    /// Warnings about the server.
    warnings: Vec<String>,
    /// Number of entries of the next request.
    most: usize,
    /// True if all entries were read.
    is_idle: bool,
    /// Time of the newest entry that was read, in milliseconds.
    newest: Option<u64>,
    /// The request that is under way: dropping [`Subscription::receive`] does not end it.
    reading: Option<BoxFuture<'static, Result<Reading, Failure>>>,
}

impl RedisSubscription {
    fn wrong(&self, problem: &str) -> String {
        format!("{} stream {}: {problem}", self.session.address(), self.stream)
    }

    /// Messages of a reading.
    fn take(&mut self, Reading { entries, counters }: Reading) -> Result<Vec<Message>, String> {
        let is_all = entries.len() < self.most;
        let before = self.position.count;
        let last = entries.last().map(|entry| entry.id);
        match self.position.advance(entries.len() as u64, last, is_all, counters) {
            Missed::Nothing => {}
            Missed::Entries => self.has_gap = true,
            Missed::Stream => return Err(self.wrong("the stream was made anew, or the server has lost entries")),
        }
        (self.counters, self.is_idle, self.is_missing) = (counters, is_all, false);
        if let Some(last) = last {
            self.newest = last.added();
            let size = entries.iter().map(Entry::size).sum::<usize>() / entries.len();
            self.most = ANSWER / size.max(1);
        }
        let message = |(number, entry): (u64, Entry)| {
            let number = i64::try_from(number).unwrap_or(i64::MAX);
            entry.into_message(LogPlace { log: Arc::clone(&self.log), number })
        };
        Ok((before + 1..).zip(entries).map(message).collect())
    }
}

#[async_trait]
impl Subscription for RedisSubscription {
    async fn receive(&mut self, most: usize) -> Result<Vec<Message>, String> {
        loop {
            let reading = match &mut self.reading {
                Some(reading) => reading,
                None => {
                    self.most = self.most.clamp(1, most);
                    let (session, stream) = (Arc::clone(&self.session), self.stream.clone());
                    let next = next(session, stream, self.position.id, self.most, self.is_idle);
                    self.reading.insert(next.boxed())
                }
            };
            let read = reading.await;
            self.reading = None;
            match read {
                Ok(read) => {
                    let messages = self.take(read)?;
                    if !messages.is_empty() || self.has_gap {
                        return Ok(messages);
                    }
                }
                Err(failure) if failure.is_missing && self.position.count == 0 => self.is_idle = true,
                Err(failure) if failure.is_missing => return Err(self.wrong("the stream was removed")),
                Err(failure) => return Err(failure.message),
            }
        }
    }

    fn position(&self) -> Option<Bytes> {
        Some(self.position.write().into())
    }

    fn take_gap(&mut self) -> bool {
        std::mem::take(&mut self.has_gap)
    }

    fn warnings(&self) -> Vec<String> {
        let missing = self.is_missing.then(|| self.wrong("there is no such stream yet; XADD makes it"));
        self.warnings.iter().cloned().chain(missing).collect()
    }

    fn lag(&self) -> Option<FeedLag> {
        let behind = self.counters.added.saturating_sub(self.position.count);
        let now = Timestamp::now().as_millisecond().unsigned_abs();
        let age = self.newest.filter(|_| behind > 0).map_or(0, |newest| now.saturating_sub(newest));
        Some(FeedLag { time: Duration::from_millis(age), messages: Some(behind), ..FeedLag::default() })
    }
}
