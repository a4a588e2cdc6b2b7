//! Feed of a table's changes from the binary log.
//!
//! Changes arrive in the order of their commits and none is missed, so each is the newest state of its row. They are applied in
//! batches, each in one append with its position: the transactions that are applied, and how many rows of the next one. The server
//! keeps its log for a time of its own; a position that it no longer has is a gap.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use jiff::Timestamp;
use mysql_async::binlog::EventType;
use mysql_async::binlog::events::Event;
use mysql_async::prelude::Queryable as _;
use mysql_async::{BinlogStream, BinlogStreamRequest, Error as MyError};
use tokio::time::{Instant, timeout};

use super::batch::Batch;
use super::pool::Session;
use super::position::{Place, Position};
use super::server::{self, Server};
use super::shared::Shared;
use crate::feed::Intake;
use diorama_core::dio::FeedLag;

/// Pause after which a server without events says so.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Time without an event after which the connection counts as lost.
const SILENCE: Duration = Duration::from_secs(20);
/// Time for which reads and writes wait for a feed that is not connected. It is no longer than the default of `head_patience`.
const LONGEST_AWAY: Duration = Duration::from_secs(60);
/// Pause between two looks at how much of the log is left.
const LOOK: Duration = Duration::from_secs(2);
/// Maximum number of events that are taken before their changes are applied.
const MAX_EVENTS: usize = 1_024;
/// Number of tables that a connection may name. Its library remembers each until the next file of the log.
const MAX_TABLES: u64 = 20_000;
/// Error number: the log does not have the requested place, or not any more.
const NO_SUCH_PLACE: u16 = 1236;

/// Feed of one table.
pub(super) struct Replication {
    shared: Arc<Shared>,
    /// Identity towards the server, which closes an older connection with the same one.
    replica: u32,
    /// Position that is applied, `None` before the first connection of a feed without a stored one.
    position: Option<Position>,
    /// Time since which a feed with a position is not connected.
    away: Option<Instant>,
}

/// Connection of a feed.
pub(super) struct Stream {
    events: BinlogStream,
    /// Connection for questions about the server.
    control: Session,
    server: Server,
}

/// Reason why the log cannot be read from a position.
enum Failure {
    /// The log does not have it.
    Gap(String),
    Other(String),
}

impl Replication {
    pub(super) fn new(shared: Arc<Shared>) -> Replication {
        // Numbers that people choose for their servers are smaller.
        let replica = uuid::Uuid::new_v4().as_fields().0 | 1 << 31;
        Replication { shared, replica, position: None, away: None }
    }

    /// Continues from a stored position; returns false if it cannot be read.
    pub(super) fn resume(&mut self, position: &[u8]) -> bool {
        self.position = Position::parse(position);
        if self.position.is_some() {
            self.shared.progress.hold_at_position();
        }
        self.position.is_some()
    }

    /// Lets reads and writes go on without the feed if it cannot connect: at once if it has no position to continue from, else
    /// after some time.
    pub(super) async fn note_failure(&mut self, intake: &mut Intake) {
        if self.position.is_some() {
            let since = *self.away.get_or_insert_with(Instant::now);
            if since.elapsed() < LONGEST_AWAY || !intake.store_gap().await {
                return;
            }
            self.position = None;
        }
        self.shared.progress.release();
    }

    /// Connects to the log.
    ///
    /// # Errors
    /// The reason, and what to do.
    pub(super) async fn connect(&mut self, intake: &mut Intake) -> Result<Stream, String> {
        let table = self.shared.table().ok_or("the source is not open yet")?;
        let address = &self.shared.address;
        let mut control = Session::new(address.connect().await.map_err(|error| error.to_string())?);
        let server = Server::check(&mut control, &table, address.user()).await?;
        let now = server::current_place(&mut control).await.map_err(|error| error.to_string())?;
        self.begin(&server, now, intake);
        let events = match self.open().await {
            Ok(events) => events,
            Err(Failure::Other(error)) => return Err(error),
            Err(Failure::Gap(error)) => {
                tracing::warn!(error, "the binary log does not have the feed's position; the source is read again");
                let now = server::current_place(&mut control).await.map_err(|error| error.to_string())?;
                self.begin_anew(&server, now, intake);
                self.open().await.map_err(|(Failure::Gap(error) | Failure::Other(error))| error)?
            }
        };
        self.away = None;
        self.shared.progress.set_following(true);
        Ok(Stream { events, control, server })
    }

    /// Decides whether the feed continues where it has stopped. If not, a refresh is owed, and changes before it are not applied.
    fn begin(&mut self, server: &Server, now: Place, intake: &mut Intake) {
        let progress = &self.shared.progress;
        progress.hold_at_position();
        let (listed, strayed) = (progress.take_listed(), progress.take_strayed());
        match (&self.position, listed) {
            (Some(position), None) if position.server == server.id && !strayed => {
                // A refresh that is owed may have begun before the feed was lost.
                if intake.owes_refresh() {
                    intake.note_gap();
                }
            }
            // The feed begins where the first copy ends.
            (None, Some(listed)) if !strayed => {
                self.position = Some(Position { server: server.id, created: 0, applied: listed, within: 0 });
                intake.close_gap();
            }
            (position, listed) => {
                if let Some(position) = position {
                    let listed = listed.is_some();
                    tracing::warn!(%position, strayed, listed, "the feed cannot continue; the source is read again");
                }
                self.begin_anew(server, now, intake);
            }
        }
    }

    /// Begins at `now`. A refresh is owed, which shows everything before.
    fn begin_anew(&mut self, server: &Server, now: Place, intake: &mut Intake) {
        intake.note_gap();
        self.shared.progress.forget_begun();
        self.position = Some(Position { server: server.id, created: 0, applied: now, within: 0 });
    }

    /// Opens the log at the position.
    async fn open(&mut self) -> Result<BinlogStream, Failure> {
        let Some(position) = &mut self.position else { return Err(Failure::Other("the feed has no position".into())) };
        let address = &self.shared.address;
        let Place { file, offset } = &position.applied;
        if u32::try_from(*offset).is_err() {
            return Err(Failure::Gap(format!("{} is too far in its file", position.applied)));
        }
        let refused = |error: MyError| match server::code_of(&error) {
            Some(NO_SUCH_PLACE) => Failure::Gap(server::plain_error(&error)),
            _ => Failure::Other(server::not_followed(&error, address.user())),
        };
        let mut conn = address.connect_to_log().await.map_err(|error| Failure::Other(error.to_string()))?;
        // The server is to send its own events, not older ones in their place, and a sign of life.
        let settings =
            format!("SET @mariadb_slave_capability = 4, @master_heartbeat_period = {}", HEARTBEAT.as_nanos());
        conn.query_drop(settings).await.map_err(refused)?;
        let request = BinlogStreamRequest::new(self.replica).with_filename(file.as_bytes()).with_pos(*offset);
        let mut events = conn.get_binlog_stream(request).await.map_err(refused)?;
        loop {
            let event = timeout(SILENCE, events.next()).await;
            let event = event.map_err(|_| Failure::Other("the server does not send its binary log".into()))?;
            let event =
                event.ok_or_else(|| Failure::Other("the server has ended the feed".into()))?.map_err(refused)?;
            let header = event.header();
            match header.event_type() {
                Ok(EventType::FORMAT_DESCRIPTION_EVENT) => {
                    if position.created != 0 && position.created != header.timestamp() {
                        return Err(Failure::Gap(format!("{file} is another file of the same name")));
                    }
                    position.created = header.timestamp();
                    return Ok(events);
                }
                Ok(EventType::ROTATE_EVENT | EventType::HEARTBEAT_EVENT) => {}
                _ => return Err(Failure::Other("the binary log does not begin with its format".into())),
            }
        }
    }

    /// Receives changes until the connection is lost; returns `Ok` if the Dio has closed.
    pub(super) async fn listen(&mut self, mut stream: Stream, intake: &mut Intake) -> Result<(), String> {
        let ended = self.receive(&mut stream, intake).await;
        self.away = Some(Instant::now());
        self.shared.progress.set_following(false);
        ended
    }

    async fn receive(&mut self, stream: &mut Stream, intake: &mut Intake) -> Result<(), String> {
        loop {
            let Some(start) = self.position.clone() else { return Err("the feed has no position".into()) };
            let table = self.shared.table().ok_or("the source is not open yet")?;
            self.shared.progress.reach(&start.applied, !intake.owes_refresh());
            let batch = Batch::new(table, stream.server.clone(), start);
            if !self.receive_some(stream, batch, intake).await? {
                return Ok(());
            }
            stream.events = self.open().await.map_err(|(Failure::Gap(error) | Failure::Other(error))| error)?;
        }
    }

    /// Receives changes until the connection has named too many tables. Returns false if the Dio has closed.
    async fn receive_some(
        &mut self,
        stream: &mut Stream,
        mut batch: Batch,
        intake: &mut Intake,
    ) -> Result<bool, String> {
        let mut next_look = Instant::now();
        loop {
            if !intake.begin_refresh() {
                return Ok(false);
            }
            let event = tokio::select! {
                event = timeout(SILENCE, stream.events.next()) => event.map_err(|_| "the server is silent")?,
                () = intake.refreshed() => {
                    self.shared.progress.reach(&batch.position().applied, !intake.owes_refresh());
                    continue;
                }
            };
            let (mut next, mut taken) = (Some(event), 0);
            while let Some(event) = next {
                let event: Event =
                    event.ok_or("the server has ended the feed")?.map_err(|error| server::plain_error(&error))?;
                batch.take(&event, intake)?;
                if batch.is_redefined {
                    self.describe_again(&mut batch, &mut stream.control).await?;
                }
                taken += 1;
                let is_enough = batch.is_full() || taken >= MAX_EVENTS;
                next = if is_enough { None } else { stream.events.next().now_or_never() };
            }
            if !batch.apply(intake, &self.shared.progress).await {
                return Ok(false);
            }
            self.position = Some(batch.position());
            if batch.committed.is_none() {
                intake.set_lag(FeedLag { bytes: Some(0), ..FeedLag::default() });
            } else if Instant::now() >= next_look {
                let lag = lag(&mut stream.control, &batch).await?;
                intake.set_lag(lag);
                next_look = Instant::now() + LOOK;
            }
            if batch.is_between() && batch.named_tables() > MAX_TABLES {
                return Ok(true);
            }
        }
    }

    /// Describes the table again, which may have other columns.
    async fn describe_again(&self, batch: &mut Batch, control: &mut Session) -> Result<(), String> {
        self.shared.describe_again(control).await.map_err(|error| error.to_string())?;
        batch.set_table(self.shared.table().ok_or("the source is not open yet")?);
        Ok(())
    }
}

/// Returns how far the feed is behind the server, after everything that was taken is applied.
async fn lag(control: &mut Session, batch: &Batch) -> Result<FeedLag, String> {
    let behind = timeout(SILENCE, server::bytes_behind(control, &batch.position().applied)).await;
    let bytes = behind.map_err(|_| "the server does not answer")?.map_err(|error| error.to_string())?;
    let committed = batch.committed.map(i64::from).unwrap_or_default();
    let seconds = (Timestamp::now().as_second() - committed).max(0).unsigned_abs();
    let time = if bytes == 0 { Duration::ZERO } else { Duration::from_secs(seconds) };
    Ok(FeedLag { time, bytes: Some(bytes), ..FeedLag::default() })
}
