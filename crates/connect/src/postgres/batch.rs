//! Batch of a feed: received changes that are not applied yet, and the position behind them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use pgwire_replication::{Lsn, ReplicationEvent};
use tokio_postgres::types::Type;

use super::pgoutput::{self, Cell, Message, RelationColumn, Tuple};
use super::position::Position;
use super::progress::Progress;
use super::table::{Field, Table};
use super::value::Codec;
use super::write::MESSAGE_PREFIX;
use crate::feed::Intake;
use diorama_core::dio::{FeedLag, Inbound};
use diorama_core::record::{CborValue, Record};
use diorama_core::state::Origin;
use diorama_core::vista::ChangeEvent;

/// The year 2000 in microseconds since 1970: the beginning of the server's times.
const EPOCH_2000: i64 = 946_684_800_000_000;
/// Maximum number of changes that are applied together: those of one append.
const BATCH: usize = 512;
/// Size of their messages in bytes from which no more are added.
const BATCH_BYTES: usize = 4 << 20;

/// Changes that are applied together.
pub(super) struct Batch {
    table: Arc<Table>,
    changes: Vec<Inbound>,
    /// Size of their messages.
    bytes: usize,
    /// The transactions of the changes, by commit and number.
    transactions: Vec<(Lsn, u32)>,
    /// Messages of this program that were received behind the changes.
    passed: Vec<String>,
    /// The columns of the table as the feed sends them.
    relation: Option<Relation>,
    /// Position before the open transaction, which becomes that after it when it ends.
    base: Position,
    transaction: Option<Transaction>,
    /// True if all rows are to be removed after the changes.
    is_truncated: bool,
    /// End of the server's log as it was last told.
    server: Lsn,
    /// Commit of the newest transaction, in microseconds since 2000; `None` if nothing has happened since.
    committed: Option<i64>,
    /// True if the server waits for an answer, as it does before it stops.
    is_asked: bool,
}

/// A transaction that is being received.
struct Transaction {
    commit: Lsn,
    xid: u32,
    /// Number of its changes so far.
    count: u64,
    /// Number of its changes that were applied before; all if it is known as a whole.
    known: u64,
}

/// The columns of the table as the feed sends them.
struct Relation {
    /// Names and types.
    sent: Vec<(String, u32)>,
    /// Field and conversion of each, `None` for a column that the source does not have.
    columns: Vec<Option<(usize, Codec)>>,
    /// True if they are not those of the description, which may be older or newer.
    differs: bool,
    /// True if rows have columns that are not sent: generated ones, or those of a newer description. Rows are read from the source then.
    lacks: bool,
}

impl Relation {
    fn new(sent: Vec<(String, u32)>, table: &Table) -> Relation {
        let is_like = |(name, oid): &(String, u32)| table.field(name).is_some_and(|field| field.type_oid == *oid);
        let is_sent = |field: &Field| sent.iter().any(|(name, _)| *name == field.name);
        let differs =
            !sent.iter().all(is_like) || table.fields.iter().any(|field| !field.is_generated && !is_sent(field));
        let lacks = !table.fields.iter().all(is_sent);
        let field = |(name, oid): &(String, u32)| {
            let at = table.fields.iter().position(|field| field.name == *name)?;
            let codec = match Type::from_oid(*oid) {
                _ if table.fields[at].type_oid == *oid => table.fields[at].codec.clone(),
                Some(ty) => Codec::of(&ty),
                None => Codec::Other,
            };
            Some((at, codec))
        };
        Relation { columns: sent.iter().map(field).collect(), sent, differs, lacks }
    }
}

impl Batch {
    pub(super) fn new(table: Arc<Table>, base: Position) -> Batch {
        Batch {
            table,
            changes: Vec::new(),
            bytes: 0,
            transactions: Vec::new(),
            passed: Vec::new(),
            relation: None,
            server: base.applied,
            base,
            transaction: None,
            is_truncated: false,
            committed: None,
            is_asked: false,
        }
    }

    /// Returns true if the next event, which has at most two changes, might not fit, or comes after the removal of all rows.
    pub(super) fn is_full(&self) -> bool {
        self.is_truncated || self.changes.len() + 1 >= BATCH || self.bytes >= BATCH_BYTES
    }

    /// The position behind everything that was taken.
    pub(super) fn position(&self) -> Position {
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
    pub(super) fn take(&mut self, event: ReplicationEvent, intake: &mut Intake) -> Result<(), String> {
        match event {
            ReplicationEvent::Begin { final_lsn, xid, commit_time_micros } => {
                self.server = self.server.max(final_lsn);
                self.committed = Some(commit_time_micros);
                let known = self.known_of(final_lsn, xid);
                self.transaction = Some(Transaction { commit: final_lsn, xid, count: 0, known });
            }
            ReplicationEvent::Commit { end_lsn, commit_time_micros, .. } => {
                self.transaction = None;
                self.committed = Some(commit_time_micros);
                self.server = self.server.max(end_lsn);
                self.base.advance(end_lsn);
            }
            ReplicationEvent::Message { prefix, content, .. } if prefix == MESSAGE_PREFIX => {
                self.passed.push(String::from_utf8_lossy(&content).into_owned());
            }
            // Nothing of this table happened before it.
            ReplicationEvent::KeepAlive { wal_end, reply_requested, .. } if self.transaction.is_none() => {
                self.is_asked |= reply_requested;
                self.server = self.server.max(wal_end);
                self.committed = None;
                self.base.advance(wal_end);
            }
            ReplicationEvent::XLogData { data, wal_end, .. } => {
                self.server = self.server.max(wal_end);
                intake.count_message();
                self.bytes += data.len();
                self.change(&data, intake)?;
            }
            ReplicationEvent::KeepAlive { .. }
            | ReplicationEvent::Message { .. }
            | ReplicationEvent::StoppedAt { .. } => {}
        }
        Ok(())
    }

    /// Returns how many changes of a transaction are known already.
    fn known_of(&self, commit: Lsn, xid: u32) -> u64 {
        if commit < self.base.applied || self.base.seen.as_ref().is_some_and(|seen| seen.sees(commit, xid)) {
            return u64::MAX;
        }
        match self.base.within {
            Some((within, count)) if within == commit => count,
            _ => 0,
        }
    }

    fn change(&mut self, data: &[u8], intake: &mut Intake) -> Result<(), String> {
        let table = Arc::clone(&self.table);
        match pgoutput::decode(data)? {
            Message::Relation { oid, columns } if is_of(&table, oid) => self.relate(&columns),
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
                self.truncate();
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes the table's columns.
    fn relate(&mut self, columns: &[RelationColumn<'_>]) {
        let sent = columns.iter().map(|column| (column.name.to_string(), column.type_oid)).collect();
        self.relation = Some(Relation::new(sent, &self.table));
    }

    /// Returns true if the table's columns are not those of its description, which has not been read again since.
    pub(super) fn has_other_columns(&self) -> bool {
        self.relation.as_ref().is_some_and(|relation| relation.differs)
    }

    /// Takes a new description of the table. Changes from before the columns changed may follow; they have null in columns that they
    /// do not know.
    pub(super) fn set_table(&mut self, table: Arc<Table>) {
        if let Some(relation) = self.relation.take() {
            self.relation = Some(Relation { differs: false, ..Relation::new(relation.sent, &table) });
        }
        self.base.table = Some(table.identity());
        self.table = table;
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
        if let (true, Some(id)) = (self.relation.as_ref().is_some_and(|relation| relation.lacks), self.id(tuple)) {
            return self.push(ChangeEvent::Updated { id, new: None }, false);
        }
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
                Cell::Text(text) => cells[*at] = codec.read_text(text)?,
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
                cells[*at] = codec.read_text(text)?;
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
            let transaction = (transaction.commit, transaction.xid);
            self.note(transaction);
            self.changes.push(inbound(event, partial));
        }
    }

    /// Takes the removal of all rows, which does not count: a removal that is repeated changes nothing.
    fn truncate(&mut self) {
        if let Some(transaction) = &self.transaction
            && transaction.count >= transaction.known
        {
            self.note((transaction.commit, transaction.xid));
            self.is_truncated = true;
        }
    }

    /// Notes that changes of a transaction were taken.
    fn note(&mut self, transaction: (Lsn, u32)) {
        if self.transactions.last() != Some(&transaction) {
            self.transactions.push(transaction);
        }
    }

    /// Applies what was taken. Returns false if the Dio has closed.
    pub(super) async fn apply(&mut self, intake: &mut Intake, progress: &Progress) -> bool {
        let position = Bytes::from(self.position().to_string());
        progress.note_applied(self.transactions.drain(..));
        let changes = intake.bounded(std::mem::take(&mut self.changes));
        self.bytes = 0;
        if !intake.apply(changes, Some(position)).await {
            return false;
        }
        // The position is before the removal, which is repeated after a crash.
        if std::mem::take(&mut self.is_truncated) && !remove_all(intake).await {
            return false;
        }
        let whole = !intake.owes_refresh();
        self.passed.drain(..).for_each(|text| progress.pass(&text, whole));
        intake.set_lag(self.lag());
        if std::mem::take(&mut self.is_asked) {
            intake.store_position().await;
        }
        true
    }

    /// How far the feed is behind the server, after everything that was taken is applied.
    fn lag(&self) -> FeedLag {
        let now = Timestamp::now().as_microsecond() - EPOCH_2000;
        let micros = self.committed.map_or(0, |committed| now.saturating_sub(committed).max(0));
        let bytes = self.server.0.saturating_sub(self.base.applied.0);
        FeedLag { time: Duration::from_micros(micros.unsigned_abs()), bytes: Some(bytes), ..FeedLag::default() }
    }
}

/// Removes all rows, in appends of bounded size. Returns false if the Dio has closed.
async fn remove_all(intake: &mut Intake) -> bool {
    let Some(mut rows) = intake.known_rows() else { return false };
    while !rows.is_at_end() {
        let removed = rows.next(BATCH).into_iter().map(|id| inbound(ChangeEvent::Deleted { id }, false)).collect();
        if !intake.apply(removed, None).await {
            return false;
        }
    }
    true
}

fn is_of(table: &Table, oid: u32) -> bool {
    table.place.as_ref().is_some_and(|place| place.oid == oid)
}

fn inbound(event: ChangeEvent, partial: bool) -> Inbound {
    let in_order = !matches!(event, ChangeEvent::Inserted { new: None, .. } | ChangeEvent::Updated { new: None, .. });
    Inbound { partial, origin: Origin::Feed, in_order, ..Inbound::from(event) }
}
