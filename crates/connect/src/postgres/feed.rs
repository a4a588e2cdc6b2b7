//! Feed of a table's changes by logical replication.
//!
//! Changes arrive in the order of their commits and none is missed, so each is the newest state of its row. They are applied in
//! batches, each in one append with its position: the transactions that are applied, and how many changes of the next one. The
//! server is told a position only when it is stored, and keeps everything after it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use pgwire_replication::{Lsn, PgWireError, ReplicationClient, ReplicationConfig, ReplicationEvent};
use tokio::time::{Instant, timeout};
use tokio_postgres::types::Type;

use super::address::{Address, PostgresTls, SESSION_OPTIONS};
use super::bridge::Bridge;
use super::errors::message_of;
use super::pgoutput::{self, Cell, Message, RelationColumn, Tuple};
use super::position::Position;
use super::progress::{Progress, Snapshot};
use super::shared::Shared;
use super::slot::{self, Slot};
use super::table::Table;
use super::value::Codec;
use super::write::MESSAGE_PREFIX;
use crate::feed::Intake;
use diorama_core::dio::Inbound;
use diorama_core::record::{CborValue, Record};
use diorama_core::state::Origin;
use diorama_core::vista::ChangeEvent;

/// Maximum number of changes that are applied together: those of one append.
const BATCH: usize = 256;
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
    /// Transactions whose changes the Dio has, or will have when the refresh that is owed has ended.
    seen: Option<Snapshot>,
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
        Replication { shared, slot, position: None, seen: None, away: None }
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
    /// What prevents it, and what to do.
    pub(super) async fn connect(&mut self, intake: &mut Intake) -> Result<Stream, String> {
        let table = self.shared.table().ok_or("the source is not open yet")?;
        let client = self.shared.address.connect().await.map_err(|error| error.to_string())?;
        let slot = slot::prepare(&client, &table, &self.slot).await?;
        let now = client.query_one(Snapshot::SQL, &[]).await.map_err(|error| message_of(&error))?;
        let now = Snapshot::parse(now.get(0), now.get(1)).ok_or("the server's snapshot cannot be read")?;
        drop(client);
        self.begin(&slot, now, intake);
        let stream = self.open_stream().await?;
        self.away = None;
        self.shared.progress.set_following(true);
        Ok(stream)
    }

    /// Decides whether the slot continues where this feed has stopped. If not, a refresh is owed, and changes before it are not
    /// applied: rows may be newer than they are.
    fn begin(&mut self, slot: &Slot, now: Snapshot, intake: &mut Intake) {
        let progress = &self.shared.progress;
        progress.hold_at_position();
        let (listed, strayed) = (progress.take_listed(), progress.take_strayed());
        let is_overtaken = strayed || listed.is_some();
        let continues = |position: &Position| {
            !slot.is_new && position.system == slot.system && slot.confirmed <= position.applied && !is_overtaken
        };
        match &self.position {
            Some(position) if continues(position) => {}
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
                self.position = None;
            }
            // The first copy was read after the slot was made.
            None if !slot.is_new && self.shared.takes_first_list() && listed.is_some() && !strayed => {
                self.seen = listed;
                intake.close_gap();
            }
            None => intake.note_gap(),
        }
        if intake.owes_refresh() {
            // Also if one is running, which may have begun before.
            intake.note_gap();
            self.seen = Some(now);
        }
        let begin = || Position { system: slot.system.clone(), applied: slot.confirmed, within: None };
        self.position.get_or_insert_with(begin);
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
                ": the user needs ALTER ROLE ... REPLICATION, or use feed = \"notify\""
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
        let mut batch = Batch::new(table, start, self.seen.clone());
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
                batch.take(event, intake, &self.shared)?;
                next = if batch.is_full() { None } else { stream.client.recv().now_or_never() };
            }
            if !batch.apply(intake, &self.shared.progress).await {
                return Ok(());
            }
            self.position = Some(batch.position());
            acknowledge(stream, intake);
        }
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
        .with_status_interval(Duration::from_secs(1))
        .with_options(SESSION_OPTIONS)
        .with_application_name("diorama")
}

fn plain(error: &PgWireError) -> String {
    let text = error.to_string();
    text.strip_prefix("server error: ").map_or(text.clone(), str::to_string)
}

/// Changes that are applied together.
struct Batch {
    table: Arc<Table>,
    changes: Vec<Inbound>,
    /// Messages of this program that were received behind the changes.
    passed: Vec<String>,
    /// The columns of the table as the feed sends them.
    relation: Option<Relation>,
    /// Position before the open transaction, which becomes that after it when it ends.
    base: Position,
    transaction: Option<Transaction>,
    seen: Option<Snapshot>,
}

/// A transaction that is being received.
struct Transaction {
    commit: Lsn,
    /// Number of its changes so far.
    count: u64,
    /// Number of its changes that were applied before; all if it is known as a whole.
    known: u64,
}

/// The columns of the table as the feed sends them: field and conversion of each, `None` for a column that the source does not
/// have.
struct Relation {
    oid: u32,
    columns: Vec<Option<(usize, Codec)>>,
}

impl Batch {
    fn new(table: Arc<Table>, base: Position, seen: Option<Snapshot>) -> Batch {
        Batch { table, changes: Vec::new(), passed: Vec::new(), relation: None, base, transaction: None, seen }
    }

    /// Returns true if the next event, which has at most two changes, might not fit.
    fn is_full(&self) -> bool {
        self.changes.len() + 1 >= BATCH
    }

    /// The position behind everything that was taken.
    fn position(&self) -> Position {
        let within = match &self.transaction {
            // One that is known as a whole changes nothing: the server sends it again.
            Some(open) if open.count > 0 && open.known != u64::MAX => Some((open.commit, open.count.max(open.known))),
            _ => self.base.within,
        };
        Position { within, ..self.base.clone() }
    }

    /// Takes an event of the stream.
    ///
    /// # Errors
    /// The problem, if the stream cannot be understood.
    fn take(&mut self, event: ReplicationEvent, intake: &mut Intake, shared: &Shared) -> Result<(), String> {
        match event {
            ReplicationEvent::Begin { final_lsn, xid, .. } => {
                let known = self.known_of(final_lsn, xid);
                self.transaction = Some(Transaction { commit: final_lsn, count: 0, known });
            }
            ReplicationEvent::Commit { end_lsn, .. } => {
                self.transaction = None;
                self.base.advance(end_lsn);
            }
            ReplicationEvent::Message { prefix, content, .. } if prefix == MESSAGE_PREFIX => {
                self.passed.push(String::from_utf8_lossy(&content).into_owned());
            }
            // Nothing of this table happened before it.
            ReplicationEvent::KeepAlive { wal_end, .. } if self.transaction.is_none() => self.base.advance(wal_end),
            ReplicationEvent::XLogData { data, .. } => {
                intake.count_message();
                self.change(&data, intake, shared)?;
            }
            ReplicationEvent::KeepAlive { .. }
            | ReplicationEvent::Message { .. }
            | ReplicationEvent::StoppedAt { .. } => {}
        }
        Ok(())
    }

    /// Returns how many changes of a transaction are known already.
    fn known_of(&self, commit: Lsn, xid: u32) -> u64 {
        if commit < self.base.applied || self.seen.as_ref().is_some_and(|seen| seen.sees(commit, xid)) {
            return u64::MAX;
        }
        match self.base.within {
            Some((within, count)) if within == commit => count,
            _ => 0,
        }
    }

    fn change(&mut self, data: &[u8], intake: &mut Intake, shared: &Shared) -> Result<(), String> {
        let table = Arc::clone(&self.table);
        match pgoutput::decode(data)? {
            Message::Relation { oid, columns } if is_of(&table, oid) => self.relate(oid, &columns, intake, shared),
            Message::Insert { oid, new } if is_of(&table, oid) => self.row(&new, intake, true),
            Message::Update { oid, old, new } if is_of(&table, oid) => {
                if let Some(old) = &old {
                    self.leave(old, &new, intake);
                }
                self.row(&new, intake, false);
            }
            Message::Delete { oid, old } if is_of(&table, oid) => match self.id(&old) {
                Some(id) => self.push(ChangeEvent::Deleted { id }, false),
                None => self.undecodable(None, intake),
            },
            Message::Truncate { oids } if oids.iter().any(|oid| is_of(&table, *oid)) => {
                let taken = self.changes.iter().filter_map(|change| change.event.id().map(str::to_string));
                let ids: BTreeSet<String> = taken.chain(intake.known_ids()).collect();
                for id in ids {
                    self.push_uncounted(ChangeEvent::Deleted { id });
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes the table's columns. If they are not those of the source, the source is read again with its new ones.
    fn relate(&mut self, oid: u32, columns: &[RelationColumn<'_>], intake: &mut Intake, shared: &Shared) {
        let same = columns.len() == self.table.fields.len()
            && columns
                .iter()
                .all(|column| self.table.field(column.name).is_some_and(|field| field.type_oid == column.type_oid));
        if !same {
            shared.note_other_columns();
            intake.note_gap();
        }
        let field = |column: &RelationColumn<'_>| {
            let at = self.table.fields.iter().position(|field| field.name == column.name)?;
            let field = &self.table.fields[at];
            let codec = match Type::from_oid(column.type_oid) {
                _ if field.type_oid == column.type_oid => field.codec.clone(),
                Some(ty) => Codec::of(&ty),
                None => Codec::Other,
            };
            Some((at, codec))
        };
        self.relation = Some(Relation { oid, columns: columns.iter().map(field).collect() });
    }

    /// Takes the deletion of a row whose key has changed.
    fn leave(&mut self, old: &Tuple<'_>, new: &Tuple<'_>, intake: &mut Intake) {
        match (self.id(old), self.id(new)) {
            (Some(before), after) if Some(&before) != after.as_ref() => {
                self.push(ChangeEvent::Deleted { id: before }, false);
            }
            (Some(_), _) => {}
            (None, _) => self.undecodable(None, intake),
        }
    }

    /// Takes a new or changed row.
    fn row(&mut self, tuple: &Tuple<'_>, intake: &mut Intake, is_new: bool) {
        let Some((cells, partial)) = self.cells(tuple) else { return self.undecodable(self.id(tuple), intake) };
        match self.table.record(cells) {
            Ok((id, mut record)) => {
                if partial {
                    self.remove_unchanged(&mut record, tuple);
                }
                let event = match is_new {
                    true => ChangeEvent::Inserted { id, new: Some(record) },
                    false => ChangeEvent::Updated { id, new: Some(record) },
                };
                self.push(event, partial);
            }
            Err(_) => self.undecodable(None, intake),
        }
    }

    /// Removes the columns whose values were not sent.
    fn remove_unchanged(&self, record: &mut Record, tuple: &Tuple<'_>) {
        let Some(relation) = &self.relation else { return };
        for (cell, column) in tuple.iter().zip(&relation.columns) {
            if let (Cell::Unchanged, Some((at, _))) = (cell, column) {
                record.remove(&self.table.fields[*at].name);
            }
        }
    }

    /// Returns the cells of a row, one for each field, and true if some were not sent. `None` if one cannot be decoded.
    fn cells(&self, tuple: &Tuple<'_>) -> Option<(Vec<CborValue>, bool)> {
        let relation = self.relation.as_ref()?;
        let mut cells = vec![CborValue::Null; self.table.fields.len()];
        let mut partial = false;
        for (cell, column) in tuple.iter().zip(&relation.columns) {
            let Some((at, codec)) = column else { continue };
            match cell {
                Cell::Null => {}
                Cell::Unchanged => partial = true,
                Cell::Text(text) => cells[*at] = codec.from_text(text)?,
            }
        }
        Some((cells, partial))
    }

    fn id(&self, tuple: &Tuple<'_>) -> Option<String> {
        let relation = self.relation.as_ref()?;
        let mut cells = vec![CborValue::Null; self.table.fields.len()];
        for (cell, column) in tuple.iter().zip(&relation.columns) {
            if let (Cell::Text(text), Some((at, codec))) = (cell, column)
                && self.table.key.contains(at)
            {
                cells[*at] = codec.from_text(text)?;
            }
        }
        self.table.id_of(&cells)
    }

    /// Takes a row that cannot be decoded: it is read from the source, or all rows if its id is not known.
    fn undecodable(&mut self, id: Option<String>, intake: &mut Intake) {
        match id {
            Some(id) => {
                intake.count_undecodable("a row has a value that cannot be decoded");
                self.push(ChangeEvent::Updated { id, new: None }, false);
            }
            None => intake.undecodable("a row has no id, or a value that cannot be decoded"),
        }
    }

    fn push(&mut self, event: ChangeEvent, partial: bool) {
        let Some(transaction) = &mut self.transaction else { return };
        transaction.count += 1;
        if transaction.count > transaction.known {
            self.changes.push(inbound(event, partial));
        }
    }

    /// Takes a change whose number differs between two receptions of the same transaction.
    fn push_uncounted(&mut self, event: ChangeEvent) {
        let known = self.transaction.as_ref().is_none_or(|transaction| transaction.count < transaction.known);
        if !known {
            self.changes.push(inbound(event, false));
        }
    }

    /// Applies what was taken. Returns false if the Dio has closed.
    async fn apply(&mut self, intake: &mut Intake, progress: &Progress) -> bool {
        let position = Bytes::from(self.position().to_string());
        let changes = std::mem::take(&mut self.changes);
        let mut chunks = changes.into_iter().peekable();
        loop {
            let chunk: Vec<Inbound> = chunks.by_ref().take(BATCH).collect();
            let last = chunks.peek().is_none();
            if !intake.apply(chunk, last.then(|| position.clone())).await {
                return false;
            }
            if last {
                break;
            }
        }
        let whole = !intake.owes_refresh();
        self.passed.drain(..).for_each(|text| progress.pass(&text, whole));
        true
    }
}

fn is_of(table: &Table, oid: u32) -> bool {
    table.place.as_ref().is_some_and(|place| place.oid == oid)
}

fn inbound(event: ChangeEvent, partial: bool) -> Inbound {
    let in_order = !matches!(event, ChangeEvent::Inserted { new: None, .. } | ChangeEvent::Updated { new: None, .. });
    Inbound { partial, origin: Origin::Feed, in_order, ..Inbound::from(event) }
}
