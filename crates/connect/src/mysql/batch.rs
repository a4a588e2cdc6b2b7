//! Batch of a feed: received changes that are not applied yet, and the position behind them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use mysql_async::binlog::EventType;
use mysql_async::binlog::events::{Event, EventData, QueryEvent, RotateEvent, RowsEventData, TableMapEvent};

use super::changes::{changes_of, inbound};
use super::layout::Layout;
use super::position::{Place, Position};
use super::progress::Progress;
use super::query::Meaning;
use super::server::{Parent, Server};
use super::table::Table;
use crate::feed::Intake;
use diorama_core::dio::Inbound;
use diorama_core::vista::ChangeEvent;

/// Maximum number of changes that are applied together: those of one append.
const BATCH: usize = 256;

/// Maximum number of prepared transactions that are remembered.
const MAX_PREPARED: usize = 1_000;

/// Types of events of MariaDB, which the library does not name.
mod mariadb {
    pub(super) const GTID: u8 = 162;
    pub(super) const QUERY_COMPRESSED: u8 = 165;
    pub(super) const WRITE_ROWS_COMPRESSED_V1: u8 = 166;
    pub(super) const DELETE_ROWS_COMPRESSED: u8 = 171;
    /// Flag of a GTID whose only event is a statement that is a transaction by itself.
    pub(super) const STANDALONE: u8 = 1;
    /// Place of the flags in a GTID: after its number and domain.
    pub(super) const FLAGS: usize = 12;
}

/// Changes that are applied together.
pub(super) struct Batch {
    table: Arc<Table>,
    server: Server,
    rows: Vec<Row>,
    /// Number of their changes.
    size: usize,
    /// Position before the open transaction, which becomes that after it when it ends.
    base: Position,
    transaction: Option<Transaction>,
    /// The table as the log has it.
    logged: Option<Logged>,
    /// Numbers of the tables whose changes reach rows of this one.
    parents: HashMap<u64, Parent>,
    /// The prepared transactions that wait, and whether they have changes of the table.
    prepared: HashMap<String, bool>,
    /// Begin of the newest transaction that concerns the table.
    begun: Option<Place>,
    /// True if the table is to be described again.
    pub(super) is_redefined: bool,
    /// Second in which the newest transaction was committed; `None` if nothing has happened since.
    pub(super) committed: Option<u32>,
    /// First and last number of a table since the connection began.
    numbers: Option<(u64, u64)>,
}

/// The table as the log has it.
struct Logged {
    map: TableMapEvent<'static>,
    /// Its columns; `None` if rows cannot be read.
    layout: Option<Layout>,
}

/// Changes of one row, at most two.
struct Row {
    changes: Vec<Inbound>,
    /// Position before their transaction, and their number in it; `None` if there is no position behind them.
    position: Option<(Arc<Position>, u64)>,
}

/// A transaction that is being received.
struct Transaction {
    begin: Place,
    /// Position before it.
    base: Arc<Position>,
    /// True if it ends with an event of its own, and not with its only statement.
    has_end: bool,
    /// Number of its rows so far.
    count: u64,
    /// Number of its rows that were applied before.
    known: u64,
    /// Name of a transaction that is only prepared: its changes follow when it is committed.
    prepared: Option<String>,
}

impl Batch {
    pub(super) fn new(table: Arc<Table>, server: Server, base: Position) -> Batch {
        Batch {
            table,
            server,
            rows: Vec::new(),
            size: 0,
            base,
            transaction: None,
            logged: None,
            parents: HashMap::new(),
            prepared: HashMap::new(),
            begun: None,
            is_redefined: false,
            committed: None,
            numbers: None,
        }
    }

    /// Returns true if there is enough for an append.
    pub(super) fn is_full(&self) -> bool {
        self.size + 1 >= BATCH
    }

    /// The position behind everything that was taken.
    pub(super) fn position(&self) -> Position {
        let within = match &self.transaction {
            Some(open) if open.count > 0 => open.count.max(open.known),
            _ => self.base.within,
        };
        Position { within, ..self.base.clone() }
    }

    /// Number of tables that the connection has named, which its library remembers.
    pub(super) fn named_tables(&self) -> u64 {
        self.numbers.map_or(0, |(first, last)| last - first)
    }

    /// Returns true between two transactions.
    pub(super) fn is_between(&self) -> bool {
        self.transaction.is_none()
    }

    /// Takes a new description of the table.
    pub(super) fn set_table(&mut self, table: Arc<Table>) {
        if let Some(logged) = &mut self.logged {
            logged.layout = Layout::new(&logged.map, &table);
        }
        (self.table, self.is_redefined) = (table, false);
    }

    /// Takes an event of the log.
    ///
    /// # Errors
    /// The problem, if the log cannot be understood.
    pub(super) fn take(&mut self, event: &Event, intake: &mut Intake) -> Result<(), String> {
        let header = event.header();
        let place = (header.log_pos() > 0).then(|| self.base.applied.at(header.log_pos()));
        match header.event_type_raw() {
            mariadb::GTID => {
                let flags = event.data().get(mariadb::FLAGS).copied().unwrap_or_default();
                self.begin(event, flags & mariadb::STANDALONE == 0);
            }
            mariadb::QUERY_COMPRESSED..=mariadb::DELETE_ROWS_COMPRESSED => self.compressed(event, intake),
            _ => match header.event_type() {
                Ok(ty) => self.take_typed(ty, event, place, intake)?,
                // Nothing of the table.
                Err(_) => self.pass(place),
            },
        }
        Ok(())
    }

    fn take_typed(
        &mut self,
        ty: EventType,
        event: &Event,
        place: Option<Place>,
        intake: &mut Intake,
    ) -> Result<(), String> {
        match ty {
            EventType::ROTATE_EVENT => {
                let rotation = event.read_event::<RotateEvent<'_>>().map_err(|error| unreadable(&error))?;
                let (file, offset) = (rotation.name().into_owned(), rotation.position());
                self.base.advance(Place { file, offset });
            }
            EventType::FORMAT_DESCRIPTION_EVENT => {
                self.base.created = event.header().timestamp();
                // Numbers of tables begin anew with the server.
                (self.logged, self.transaction) = (None, None);
                self.parents.clear();
                self.pass(place);
            }
            EventType::GTID_EVENT | EventType::ANONYMOUS_GTID_EVENT | EventType::GTID_TAGGED_LOG_EVENT => {
                self.begin(event, false);
            }
            EventType::QUERY_EVENT => self.query(event, place, intake)?,
            EventType::XID_EVENT | EventType::XA_PREPARE_LOG_EVENT => self.end(event, place),
            EventType::TABLE_MAP_EVENT => {
                self.map(&event.read_event::<TableMapEvent<'_>>().map_err(|error| unreadable(&error))?, intake);
            }
            EventType::PARTIAL_UPDATE_ROWS_EVENT
            | EventType::WRITE_ROWS_EVENT
            | EventType::WRITE_ROWS_EVENT_V1
            | EventType::UPDATE_ROWS_EVENT
            | EventType::UPDATE_ROWS_EVENT_V1
            | EventType::DELETE_ROWS_EVENT
            | EventType::DELETE_ROWS_EVENT_V1 => {
                if let Some(EventData::RowsEvent(rows)) = event.read_data().map_err(|error| unreadable(&error))? {
                    self.rows_event(&rows, intake);
                }
            }
            EventType::INCIDENT_EVENT | EventType::BEGIN_LOAD_QUERY_EVENT | EventType::EXECUTE_LOAD_QUERY_EVENT => {
                self.gap(intake)
            }
            EventType::HEARTBEAT_EVENT => {
                self.committed = None;
                self.pass(place);
            }
            _ => self.pass(place),
        }
        Ok(())
    }

    /// Notes an event outside of transactions.
    fn pass(&mut self, place: Option<Place>) {
        if let (Some(place), None) = (place, &self.transaction) {
            self.base.advance(place);
        }
    }

    fn begin(&mut self, event: &Event, has_end: bool) {
        let header = event.header();
        let end = self.base.applied.at(header.log_pos());
        let begin = Place { offset: end.offset.saturating_sub(u64::from(header.event_size())), ..end };
        let (base, known) = (Arc::new(self.base.clone()), self.base.within);
        self.committed = Some(header.timestamp());
        self.transaction = Some(Transaction { begin, base, has_end, count: 0, known, prepared: None });
    }

    fn end(&mut self, event: &Event, place: Option<Place>) {
        if let Some(Transaction { prepared: Some(name), count, .. }) = self.transaction.take() {
            if self.prepared.len() >= MAX_PREPARED {
                // Those that are not known count as changing the table.
                self.prepared.clear();
            }
            self.prepared.insert(name, count > 0);
        }
        self.base.within = 0;
        self.committed = Some(event.header().timestamp());
        self.pass(place);
    }

    /// Takes a statement.
    fn query(&mut self, event: &Event, place: Option<Place>, intake: &mut Intake) -> Result<(), String> {
        let query = event.read_event::<QueryEvent<'_>>().map_err(|error| unreadable(&error))?;
        let Some(table) = &self.table.place else { return Ok(()) };
        let meaning = Meaning::of(&query.query(), &query.schema(), table, self.server.ignores_case);
        if self.transaction.is_none() {
            self.begin(event, false);
        }
        let ends = matches!(meaning, Meaning::Commit | Meaning::Rollback | Meaning::Settle { .. });
        let has_rows = self.transaction.as_ref().is_some_and(|open| open.count > 0);
        match meaning {
            Meaning::Begin => {
                self.transaction.iter_mut().for_each(|open| open.has_end = true);
                return Ok(());
            }
            Meaning::Prepare(name) => {
                self.transaction.iter_mut().for_each(|open| {
                    open.has_end = true;
                    open.prepared = Some(name.clone());
                });
                return Ok(());
            }
            Meaning::Rollback | Meaning::RollbackToSavepoint if has_rows => self.gap(intake),
            Meaning::Settle { name, is_commit } => {
                let changes = self.prepared.remove(&name).unwrap_or(true);
                if is_commit && changes {
                    self.gap(intake);
                }
            }
            Meaning::Truncate => self.truncate(intake),
            Meaning::Define => {
                self.is_redefined = true;
                self.gap(intake);
            }
            Meaning::Write => self.gap(intake),
            Meaning::Commit | Meaning::Rollback | Meaning::RollbackToSavepoint | Meaning::Other => {}
        }
        if ends || self.transaction.as_ref().is_some_and(|open| !open.has_end) {
            self.end(event, place);
        }
        Ok(())
    }

    /// Takes the name and columns of a table whose rows follow.
    fn map(&mut self, map: &TableMapEvent<'_>, intake: &mut Intake) {
        let number = map.table_id();
        let (first, last) = self.numbers.unwrap_or((number, number));
        self.numbers = Some((first.min(number), last.max(number)));
        let (database, name) = (map.database_name(), map.table_name());
        match self.server.parents.iter().find(|parent| self.server.is_named(&parent.place, &database, &name)) {
            Some(parent) => drop(self.parents.insert(number, parent.clone())),
            None => drop(self.parents.remove(&number)),
        }
        let is_known = self.logged.as_ref().is_some_and(|logged| logged.map.table_id() == number);
        let is_ours = self.table.place.as_ref().is_some_and(|place| self.server.is_named(place, &database, &name));
        if !is_ours && is_known {
            self.logged = None;
        }
        if is_ours && !is_known {
            let layout = Layout::new(map, &self.table);
            if layout.as_ref().is_some_and(|layout| layout.differs) {
                self.is_redefined = true;
                self.gap(intake);
            }
            self.logged = Some(Logged { map: map.clone().into_owned(), layout });
        }
    }

    /// Takes changed rows.
    fn rows_event(&mut self, event: &RowsEventData<'_>, intake: &mut Intake) {
        let number = event.table_id();
        let (before, after) = (event.columns_before_image(), event.columns_after_image());
        if let Some(parent) = self.parents.get(&number)
            && (before.is_some() && after.is_none() && parent.on_delete
                || before.is_some() && after.is_some() && parent.on_update)
        {
            self.gap(intake);
        }
        if self.logged.as_ref().is_none_or(|logged| logged.map.table_id() != number) {
            return;
        }
        let Some(logged) = self.logged.take() else { return };
        let layout = logged.layout.as_ref().filter(|_| !matches!(event, RowsEventData::PartialUpdateRowsEvent(_)));
        match layout {
            Some(layout) => {
                let present = [before, after].map(|bits| bits.map(|bits| bits.iter().by_vals().collect()));
                self.images(layout, event.rows_data(), &present, intake);
            }
            None => self.unreadable(intake),
        }
        self.logged = Some(logged);
    }

    /// Takes the rows of an event, each with the images that it has: before and after the change.
    fn images(&mut self, layout: &Layout, mut data: &[u8], present: &[Option<Vec<bool>>; 2], intake: &mut Intake) {
        let table = Arc::clone(&self.table);
        while !data.is_empty() {
            intake.count_message();
            let mut image = |present: &Option<Vec<bool>>| match present {
                Some(present) => layout.take(&mut data, present, &table).map(Some),
                None => Some(None),
            };
            let images = image(&present[0]).and_then(|before| Some((before, image(&present[1])?)));
            let Some((before, after)) = images else { return self.unreadable(intake) };
            match changes_of(&table, before, after) {
                Some(changes) => self.push(changes, intake),
                None => self.unreadable(intake),
            }
        }
    }

    /// Takes compressed changes, which are not read.
    fn compressed(&mut self, event: &Event, intake: &mut Intake) {
        let is_rows = event.header().event_type_raw() >= mariadb::WRITE_ROWS_COMPRESSED_V1;
        let number =
            event.data().first_chunk::<6>().map(|&[a, b, c, d, e, f]| u64::from_le_bytes([a, b, c, d, e, f, 0, 0]));
        let is_ours = self.logged.as_ref().is_some_and(|logged| Some(logged.map.table_id()) == number);
        if !is_rows || is_ours {
            self.unreadable(intake);
        }
    }

    /// Notes a row that cannot be read and whose id is not known: the source is read again.
    fn unreadable(&mut self, intake: &mut Intake) {
        intake.undecodable("a row in the binary log cannot be read");
        self.push(Vec::new(), intake);
    }

    /// Notes that changes are missing: the source is read again, and shows this transaction.
    fn gap(&mut self, intake: &mut Intake) {
        intake.note_gap();
        self.begun = self.transaction.as_ref().map(|open| open.begin.clone()).or(self.begun.take());
    }

    /// Takes the changes of a row.
    fn push(&mut self, changes: Vec<Inbound>, intake: &mut Intake) {
        let Some(open) = &mut self.transaction else { return intake.note_gap() };
        open.count += 1;
        if open.count > open.known && open.prepared.is_none() {
            let position = Some((Arc::clone(&open.base), open.count));
            self.begun = Some(open.begin.clone());
            self.size += changes.len();
            self.rows.push(Row { changes, position });
        }
    }

    /// Takes the deletion of all rows.
    fn truncate(&mut self, intake: &mut Intake) {
        let taken = self.rows.iter().flat_map(|row| &row.changes);
        let taken = taken.filter_map(|change| change.event.id().map(str::to_string));
        let mut ids: BTreeSet<String> = taken.collect();
        if let Some(mut known) = intake.known_rows() {
            while !known.is_at_end() {
                ids.extend(known.next(BATCH));
            }
        }
        let deleted = |id| Row { changes: vec![inbound(ChangeEvent::Deleted { id }, false)], position: None };
        self.rows.extend(ids.into_iter().map(deleted));
        self.begun = self.transaction.as_ref().map(|open| open.begin.clone());
    }

    /// Applies what was taken. Returns false if the Dio has closed.
    pub(super) async fn apply(&mut self, intake: &mut Intake, progress: &Progress) -> bool {
        if let Some(begun) = self.begun.take() {
            progress.note_begun(begun);
        }
        let mut rows = std::mem::take(&mut self.rows).into_iter().peekable();
        self.size = 0;
        loop {
            let (mut changes, mut behind) = (Vec::new(), None);
            while let Some(row) = rows.next_if(|row| changes.len() + row.changes.len() <= BATCH) {
                changes.extend(row.changes);
                behind = row.position;
            }
            let is_last = rows.peek().is_none();
            let position = match behind {
                _ if is_last => Some(self.position()),
                Some((base, within)) => Some(Position { within, ..Position::clone(&base) }),
                None => None,
            };
            let changes = intake.bounded(changes);
            if !intake.apply(changes, position.map(|position| Bytes::from(position.to_string()))).await {
                return false;
            }
            if is_last {
                break;
            }
        }
        progress.reach(&self.base.applied, !intake.owes_refresh());
        true
    }
}

fn unreadable(error: &std::io::Error) -> String {
    format!("the binary log cannot be read: {error}")
}
