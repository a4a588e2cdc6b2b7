//! Feed of a table's changes from the change feed of its database.
//!
//! The server stores the changes of a transaction under a number, its versionstamp, which it takes shortly before the transaction is
//! visible. So a change can appear after others with a higher number, though never after a later change of the same row: the last
//! seconds are read again, and what was seen there before is left out. The position in the mark is the list of the numbers of these
//! seconds. If the server no longer has the newest of them, it has deleted changes, or is another database.
//!
//! The changes of all tables of a database are one sequence, and a page of it is cut before those of other tables are left out. Hence
//! the feed reads the changes of the database, and leaves the other tables out itself.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};

use super::cbor::{items, member, number, object, take, text};
use super::errors::{Failure, Refusal};
use super::place::{LATENESS, Place, USUAL_LATENESS};
use super::record_id::parts;
use super::rpc::Session;
use super::shared::Shared;
use super::table::{Table, changefeed, is_refused};
use super::value::identifier;
use crate::feed::Intake;
use diorama_core::dio::{FeedLag, Inbound};
use diorama_core::record::CborValue;
use diorama_core::state::Origin;
use diorama_core::vista::ChangeEvent;

/// Pause between two rounds that read the last seconds again.
const SWEEP: Duration = Duration::from_secs(1);
/// Number of such rounds after which the definition of the table is read again.
const DEFINITION: u32 = 10;
/// Number of entries in one page.
const PAGE: u64 = 1_000;
/// Maximum number of changes that are applied together.
const MAX_CHANGES: usize = 1_000;
/// Time for which reads and writes wait for a feed that is not connected. It is no longer than the default of `head_patience`.
const LONGEST_AWAY: Duration = Duration::from_secs(60);

/// Feed of one table.
pub(super) struct Changefeed {
    shared: Arc<Shared>,
    /// Changes that are applied, `None` before the first connection of a feed without a stored position.
    place: Option<Place>,
    /// Number of entries in one page, which is smaller after an answer that was too large.
    page: u64,
    /// Time since which a feed with a position is not connected.
    away: Option<Instant>,
}

/// Connection of a feed.
pub(super) struct Stream {
    session: Session,
    /// True if the server reports at once that there are changes.
    wakes: bool,
}

/// Transactions of a page.
#[derive(Debug, Default)]
struct Page {
    sets: Vec<(u64, Vec<CborValue>)>,
    /// First number of the next page; `None` after the last one.
    next: Option<u64>,
}

impl Changefeed {
    pub(super) fn new(shared: Arc<Shared>) -> Changefeed {
        Changefeed { shared, place: None, page: PAGE, away: None }
    }

    /// Continues from a stored position; returns false if it cannot be read.
    pub(super) fn resume(&mut self, position: &[u8]) -> bool {
        self.place = Place::parse(position);
        if self.place.is_some() {
            self.shared.progress.hold_at_position();
        }
        self.place.is_some()
    }

    /// Forgets the position: changes arrive in another way.
    pub(super) fn give_up(&mut self) {
        self.place = None;
        self.shared.progress.release();
    }

    /// Lets reads and writes go on without the feed if it cannot connect: at once if it has no position to continue from, else
    /// after some time.
    pub(super) async fn note_failure(&mut self, intake: &mut Intake) {
        if self.place.is_some() {
            let since = *self.away.get_or_insert_with(Instant::now);
            if since.elapsed() < LONGEST_AWAY || !intake.store_gap().await {
                return;
            }
            self.place = None;
        }
        self.shared.progress.release();
    }

    /// Begins where the feed has stopped, or with a refresh.
    ///
    /// # Errors
    /// The reason, and what to do.
    pub(super) async fn connect(&mut self, mut session: Session, intake: &mut Intake) -> Result<Stream, String> {
        let live = format!("LIVE SELECT id FROM {}", identifier(&self.shared.name));
        let wakes = match session.last(&live, object([]), None).await {
            Ok(_) => true,
            Err(Failure::Refused(refusal)) => {
                tracing::debug!(error = refusal.message, "no live query; changes are asked for every second");
                false
            }
            Err(failure) => return Err(failure.to_string()),
        };
        self.shared.progress.hold_at_position();
        let strayed = self.shared.progress.take_strayed();
        let continues = match &self.place {
            Some(place) if !strayed => self.has(&mut session, place).await.map_err(|failure| self.failed(&failure))?,
            _ => false,
        };
        if continues {
            // A refresh that is owed may have begun before the feed was lost.
            if intake.owes_refresh() {
                intake.note_gap();
            }
        } else {
            if self.place.is_some() {
                let feed = &self.shared.name;
                tracing::warn!(feed, strayed, "the change feed does not have the position; the source is read again");
            }
            intake.note_gap();
            let place = self.current(&mut session).await.map_err(|failure| self.failed(&failure))?;
            self.place = Some(place);
        }
        self.away = None;
        self.shared.progress.set_following(true);
        Ok(Stream { session, wakes })
    }

    /// Returns the message of a failure. An answer that is too large is asked for in smaller parts when the feed connects again.
    fn failed(&mut self, failure: &Failure) -> String {
        if let Failure::TooLarge = failure {
            if self.page == 1 {
                // One transaction is too large. It is passed by a refresh.
                self.place = None;
            }
            self.page = (self.page / 8).max(1);
        }
        failure.to_string()
    }

    /// Returns true if the server has every change after `place`.
    async fn has(&self, session: &mut Session, place: &Place) -> Result<bool, Failure> {
        let Some(newest) = place.newest() else { return Ok(false) };
        let page = show(session, &newest.to_string(), 1).await?;
        Ok(page.sets.first().is_some_and(|(first, _)| *first == newest))
    }

    /// Returns the place of the changes that are visible now.
    async fn current(&self, session: &mut Session) -> Result<Place, Failure> {
        let lateness = LATENESS.as_secs();
        let now = session.last(&format!("RETURN <string>(time::now() - {lateness}s)"), object([]), None).await?;
        let since = format!("d\"{}\"", now.as_text().unwrap_or("1970-01-01T00:00:00Z"));
        let mut place = Place::since(since.clone());
        let mut next = Some(since);
        while let Some(since) = next {
            let page = show(session, &since, self.page).await?;
            page.sets.iter().for_each(|(number, _)| place.see(*number));
            next = page.next.map(|number| number.to_string());
        }
        Ok(place)
    }

    /// Receives changes until the connection is lost; returns `Ok` if the Dio has closed.
    pub(super) async fn listen(&mut self, mut stream: Stream, intake: &mut Intake) -> Result<(), String> {
        let ended = self.receive(&mut stream, intake).await;
        self.away = Some(Instant::now());
        self.shared.progress.set_following(false);
        ended
    }

    async fn receive(&mut self, stream: &mut Stream, intake: &mut Intake) -> Result<(), String> {
        let (mut sweep, mut sweeps) = (Instant::now(), 0);
        loop {
            if !intake.begin_refresh() {
                return Ok(());
            }
            let progress = &self.shared.progress;
            let mut lateness = USUAL_LATENESS;
            tokio::select! {
                told = stream.session.notification(), if stream.wakes => drop(told.map_err(|failure| failure.to_string())?),
                () = progress.asked() => {}
                () = sleep_until(sweep) => lateness = LATENESS,
                () = intake.refreshed() => {}
            }
            stream.session.drop_notifications();
            let round = self.shared.progress.begin_round();
            if lateness == LATENESS {
                self.check_table(&mut stream.session, intake, sweeps % DEFINITION == 0).await?;
                sweeps = sweeps.wrapping_add(1);
            }
            if !self.round(&mut stream.session, intake, lateness).await? {
                return Ok(());
            }
            self.shared.progress.end_round(round, !intake.owes_refresh());
            intake.set_lag(FeedLag { messages: Some(0), ..FeedLag::default() });
            if lateness == LATENESS {
                sweep = Instant::now() + SWEEP;
            }
        }
    }

    /// Checks that the table exists, and with `has_feed` that its changes are kept. Neither end is a change.
    async fn check_table(&mut self, session: &mut Session, intake: &mut Intake, has_feed: bool) -> Result<(), String> {
        let name = &self.shared.name;
        let sql = format!("SELECT VALUE id FROM {} LIMIT 1", identifier(name));
        let problem = match session.last(&sql, object([]), None).await {
            Ok(_) if !has_feed || changefeed(session, name).await?.is_some() => return Ok(()),
            Ok(_) => format!("the table {name} no longer has a change feed"),
            Err(failure) if is_refused(&failure, Refusal::is_missing_table) => failure.to_string(),
            Err(failure) => return Err(failure.to_string()),
        };
        self.place = None;
        intake.note_gap();
        Err(problem)
    }

    /// Applies all changes that are visible and were not seen. Returns false if the Dio has closed.
    async fn round(&mut self, session: &mut Session, intake: &mut Intake, lateness: Duration) -> Result<bool, String> {
        let table = self.shared.table().ok_or("the source is not open yet")?;
        let mut next = self.place.as_ref().map(|place| place.first(lateness));
        while let Some(since) = next {
            let page = show(session, &since, self.page).await.map_err(|failure| self.failed(&failure))?;
            let Some(place) = &mut self.place else { return Err("the feed has no position".into()) };
            let mut changes = Vec::new();
            for (number, set) in page.sets {
                if place.has_seen(number) {
                    continue;
                }
                place.see(number);
                if read(set, &table, intake, &mut changes) {
                    // The table was defined again.
                    changefeed(session, &table.name).await?;
                    intake.note_gap();
                }
            }
            let position = place.position();
            if !apply(changes, position, intake).await {
                return Ok(false);
            }
            next = page.next.map(|number| number.to_string());
        }
        self.page = (self.page * 2).min(PAGE);
        Ok(true)
    }
}

/// Applies the changes of some transactions, in parts. Returns false if the Dio has closed.
async fn apply(mut changes: Vec<Inbound>, position: Option<Bytes>, intake: &mut Intake) -> bool {
    while changes.len() > MAX_CHANGES {
        let rest = changes.split_off(MAX_CHANGES);
        if !intake.apply(std::mem::replace(&mut changes, rest), None).await {
            return false;
        }
    }
    intake.apply(changes, position).await
}

/// Returns the transactions from `since` in a page of `limit` entries.
async fn show(session: &mut Session, since: &str, limit: u64) -> Result<Page, Failure> {
    let sql = format!("SHOW CHANGES FOR DATABASE SINCE {since} LIMIT {limit}");
    let mut page = Page::default();
    let mut entries = 0;
    for mut set in items(session.last(&sql, object([]), None).await?) {
        let Some(number) = number(&set, "versionstamp") else {
            return Err(Failure::lost("the server has sent changes without a versionstamp"));
        };
        let changes = take(&mut set, "changes").map(items).unwrap_or_default();
        entries += tables(&changes);
        page.sets.push((number, changes));
    }
    if entries >= limit {
        // The last transaction may be cut: it is read again, unless it is the only one.
        page.next = match page.sets.len() {
            0 => None,
            1 => page.sets.last().map(|(number, _)| number.saturating_add(1)),
            _ => page.sets.pop().map(|(number, _)| number),
        };
    }
    Ok(page)
}

/// Returns the number of tables with changes, each of which is an entry of the server.
fn tables(changes: &[CborValue]) -> u64 {
    let mut names: Vec<&str> = changes.iter().filter_map(table_of).collect();
    names.sort_unstable();
    names.dedup();
    names.len() as u64
}

/// Returns the record that a change has left, or the id of one that it has deleted.
fn record_of(change: &CborValue) -> Option<&CborValue> {
    let record = ["current", "update", "create", "delete"].into_iter().find_map(|name| member(change, name));
    record.filter(|record| record.is_map())
}

fn table_of(change: &CborValue) -> Option<&str> {
    match member(change, "define_table") {
        Some(table) => text(table, "name"),
        None => parts(member(record_of(change)?, "id")?).map(|(table, _)| table),
    }
}

/// Reads the changes of a transaction. Returns true if the table was defined again.
fn read(set: Vec<CborValue>, table: &Table, intake: &mut Intake, changes: &mut Vec<Inbound>) -> bool {
    let mut is_defined = false;
    for mut change in set {
        match table_of(&change) {
            Some(name) if name == table.name => {}
            Some(_) => continue,
            None => {
                intake.undecodable("a change without a record");
                continue;
            }
        }
        if member(&change, "define_table").is_some() {
            is_defined = true;
            continue;
        }
        intake.count_message();
        let event = match take(&mut change, "delete") {
            Some(deleted) => {
                let id = member(&deleted, "id").and_then(|id| table.id_of(id));
                id.map(|id| ChangeEvent::Deleted { id }).ok_or_else(|| "a deleted record without an id".to_string())
            }
            None => {
                let record = ["current", "update", "create"].into_iter().find_map(|name| take(&mut change, name));
                let row = table.row(record.unwrap_or(CborValue::Null));
                row.map(|(id, row)| ChangeEvent::Updated { id, new: Some(row) })
            }
        };
        match event {
            Ok(event) => changes.push(Inbound { origin: Origin::Feed, in_order: true, ..Inbound::from(event) }),
            Err(problem) => intake.undecodable(&problem),
        }
    }
    is_defined
}
