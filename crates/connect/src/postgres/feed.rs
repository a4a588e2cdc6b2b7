//! Feed of a table's changes by logical replication.
//!
//! Changes arrive in the order of their commits and none is missed, so each is the newest state of its row. They are applied in
//! batches, each in one append with its position: the transactions that are applied, and how many changes of the next one. The
//! server is told a position only when it is stored, and keeps everything after it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use pgwire_replication::{PgWireError, ReplicationClient, ReplicationConfig};
use tokio::time::{Instant, timeout};

use super::address::{Address, PostgresTls, SESSION_OPTIONS};
use super::batch::Batch;
use super::bridge::Bridge;
use super::errors::message_of;
use super::position::Position;
use super::progress::Snapshot;
use super::shared::Shared;
use super::slot::{self, Slot};
use crate::feed::Intake;

/// Number of messages that are received in advance.
const BUFFER: usize = 1_024;
/// Maximum size of one message in bytes, which has one row.
const MAX_MESSAGE: usize = 256 << 20;
/// Time within which the server must accept the feed.
const START: Duration = Duration::from_secs(20);
/// Time for which reads and writes wait for a feed that is not connected. It is no longer than the default of `head_patience`.
const LONGEST_AWAY: Duration = Duration::from_secs(60);

/// Feed of one table.
pub(super) struct Replication {
    pub(super) shared: Arc<Shared>,
    /// Name of slot and publication.
    pub(super) slot: String,
    /// Position that is applied, `None` before the first connection of a feed without a stored one.
    position: Option<Position>,
    /// Time since which a feed with a position is not connected.
    away: Option<Instant>,
}

/// Connection of a feed.
pub(super) struct Stream {
    client: ReplicationClient,
    _bridge: Option<Bridge>,
}

impl Replication {
    pub(super) fn new(shared: Arc<Shared>, slot: String) -> Replication {
        Replication { shared, slot, position: None, away: None }
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

    /// Forgets the position, because changes arrive in another way.
    pub(super) fn give_up(&mut self) {
        self.position = None;
        self.shared.progress.release();
        self.shared.progress.stray();
    }

    /// Makes publication and slot if necessary, and connects.
    ///
    /// # Errors
    /// The reason, and what to do.
    pub(super) async fn connect(&mut self, intake: &mut Intake) -> Result<Stream, String> {
        let table = self.shared.table().ok_or("the source is not open yet")?;
        let client = self.shared.address.connect().await.map_err(|error| error.to_string())?;
        let slot = slot::prepare(&client, &table, &self.slot).await?;
        let now = client.query_one(Snapshot::SQL, &[]).await.map_err(|error| message_of(&error))?;
        // A server that has just become a standby has no position.
        let until = now.get::<_, Option<&str>>(1).ok_or("the server is a standby")?;
        let now = Snapshot::parse(now.get(0), until).ok_or("the server's snapshot cannot be read")?;
        drop(client);
        self.begin(&slot, &table.identity(), now, intake);
        let stream = self.open_stream().await?;
        self.away = None;
        self.shared.progress.set_following(true);
        Ok(stream)
    }

    /// Decides whether the slot continues where this feed has stopped. If not, a refresh is owed, and changes before it are not
    /// applied: rows may be newer than they are.
    fn begin(&mut self, slot: &Slot, table: &str, now: Snapshot, intake: &mut Intake) {
        let progress = &self.shared.progress;
        progress.hold_at_position();
        let (listed, strayed) = (progress.take_listed(), progress.take_strayed());
        let mut seen = None;
        let is_overtaken = strayed || listed.is_some();
        let continues = |position: &Position| {
            !slot.is_new && position.system == slot.system && slot.confirmed <= position.applied && !is_overtaken
        };
        match &self.position {
            Some(position) if continues(position) => {
                if position.table.as_deref() != Some(table) {
                    // The copy is of another table, or was made with other columns.
                    intake.note_gap();
                }
            }
            Some(position) => {
                tracing::warn!(
                    slot = self.slot,
                    applied = %position.applied,
                    confirmed = %slot.confirmed,
                    strayed,
                    listed = listed.is_some(),
                    "the slot does not begin where the feed has stopped; the source is read again"
                );
                intake.note_gap();
                progress.forget_applied();
                self.position = None;
            }
            // The first copy was read after the slot was made.
            None if !slot.is_new && self.shared.takes_first_list() && listed.is_some() && !strayed => {
                seen = listed;
                intake.close_gap();
            }
            None => intake.note_gap(),
        }
        if intake.owes_refresh() {
            // Also if one is running, which may have begun before.
            intake.note_gap();
            seen = Some(now);
        }
        let (system, applied) = (slot.system.clone(), slot.confirmed);
        let begin = || Position { system, applied, within: None, table: None, seen: None };
        let position = self.position.get_or_insert_with(begin);
        position.table = Some(table.to_string());
        position.seen = seen.or(position.seen.take());
    }

    async fn open_stream(&self) -> Result<Stream, String> {
        let address = &self.shared.address;
        let (host, port) = address.host();
        let bridge = match address.tls {
            PostgresTls::Off => None,
            _ if host.starts_with('/') => None,
            tls => {
                let config = address.client_config().map_err(|error| error.to_string())?;
                let bridge = Bridge::open(host.clone(), port, config, tls == PostgresTls::Prefer);
                Some(bridge.map_err(|error| format!("no socket for the encrypted connection: {error}"))?)
            }
        };
        let host = bridge.as_ref().map_or(host, |bridge| bridge.folder().display().to_string());
        let config = replication(address, &self.slot, host).with_port(port);
        let mut client = ReplicationClient::connect(config).await.map_err(|error| plain(&error))?;
        match timeout(START, client.wait_started()).await {
            Ok(started) => started.map_err(|error| self.refused(&error))?,
            Err(_) => return Err(format!("replication did not start within {} s", START.as_secs())),
        }
        Ok(Stream { client, _bridge: bridge })
    }

    fn refused(&self, error: &PgWireError) -> String {
        let error = plain(error);
        let hint = match () {
            () if error.contains("is active for PID") => {
                ": another Diorama follows the same table; give one of them another feed.slot"
            }
            () if error.contains("must be superuser or replication role")
                || error.contains("replication") && error.contains("permission") =>
            {
                return slot::no_right(self.shared.address.config.get_user().unwrap_or("of the URL"));
            }
            () if error.contains("no pg_hba.conf entry for replication") => {
                ": pg_hba.conf must admit the user to its database also for replication"
            }
            () => "",
        };
        format!("{error}{hint}")
    }

    /// Receives changes until the connection is lost; returns `Ok` if the Dio has closed.
    pub(super) async fn listen(&mut self, mut stream: Stream, intake: &mut Intake) -> Result<(), String> {
        let ended = self.receive(&mut stream, intake).await;
        self.away = Some(Instant::now());
        self.shared.progress.set_following(false);
        stream.client.stop();
        ended
    }

    async fn receive(&mut self, stream: &mut Stream, intake: &mut Intake) -> Result<(), String> {
        let Some(start) = self.position.clone() else { return Err("the feed has no position".into()) };
        let table = self.shared.table().ok_or("the source is not open yet")?;
        let mut batch = Batch::new(table, start);
        loop {
            if !intake.begin_refresh() {
                return Ok(());
            }
            let event = tokio::select! {
                event = stream.client.recv() => event,
                () = intake.refreshed() => {
                    acknowledge(stream, intake);
                    continue;
                }
            };
            let mut next = Some(event);
            while let Some(event) = next {
                let event = event.map_err(|error| plain(&error))?.ok_or("the server has ended the feed")?;
                batch.take(event, intake)?;
                if batch.has_other_columns() {
                    self.describe_again(&mut batch, intake).await?;
                }
                next = if batch.is_full() { None } else { stream.client.recv().now_or_never() };
            }
            if !batch.apply(intake, &self.shared.progress).await {
                return Ok(());
            }
            self.position = Some(batch.position());
            acknowledge(stream, intake);
        }
    }

    /// Describes the table again, whose columns are no longer those that were described. The source is read again with them.
    async fn describe_again(&self, batch: &mut Batch, intake: &mut Intake) -> Result<(), String> {
        let client = self.shared.address.connect().await.map_err(|error| error.to_string())?;
        self.shared.describe_again(&client).await.map_err(|error| error.to_string())?;
        batch.set_table(self.shared.table().ok_or("the source is not open yet")?);
        intake.note_gap();
        Ok(())
    }
}

/// Tells the server the position that is stored.
fn acknowledge(stream: &Stream, intake: &Intake) {
    let stored = intake.stored_position().and_then(|position| Position::parse(position));
    if let Some(position) = stored {
        stream.client.update_applied_lsn(position.applied);
    }
}

fn replication(address: &Address, slot: &str, host: String) -> ReplicationConfig {
    let config = &address.config;
    let password = String::from_utf8_lossy(config.get_password().unwrap_or_default()).into_owned();
    let user = config.get_user().unwrap_or_default();
    let database = config.get_dbname().unwrap_or(user);
    ReplicationConfig::new(host, user, password, database, slot, slot)
        .with_buffer_size(BUFFER)
        .with_max_message_size(MAX_MESSAGE)
        .with_status_interval(Duration::from_millis(200))
        .with_options(SESSION_OPTIONS)
        .with_application_name("diorama")
}

fn plain(error: &PgWireError) -> String {
    let text = error.to_string();
    text.strip_prefix("server error: ").map_or(text.clone(), str::to_string)
}
