//! Table into which triggers write the ids of changed rows, so that none is lost while this program is away.
//!
//! Its rows are read in order, and deleted when the position behind them is stored: the position is stored with the rows that are
//! then in doubt. The last of them is left in the table. A feed that does not find it there has missed changes.

use std::collections::HashSet;

use tokio_postgres::{Client, Error as PgError};

use super::errors::message_of;
use super::table::Place;
use super::trigger::Triggers;
use super::value::Param;
use crate::sql::quote;

/// Maximum number of rows of the outbox that are read together. Each has at most about 7,500 bytes.
const ROWS: usize = 256;
/// Number of ids from which no more are taken together.
const IDS: usize = 1_024;
/// End of an outbox's name, which begins with its channel.
const SUFFIX: &str = "_outbox";
/// First half of the number of the lock that the reader of an outbox has: `dior`.
const LOCK: i64 = 0x6469_6f72;

/// Outbox of a resource on a connection that has its lock.
#[derive(Debug)]
pub(super) struct Outbox {
    /// Its quoted name.
    table: String,
    position: Position,
}

/// Position of a feed that reads an outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Position {
    /// Server, outbox and triggers.
    identity: String,
    /// Number of the last row that was applied, which is still there; 0 if there was none.
    last: i64,
}

/// Rows of an outbox.
#[derive(Debug)]
pub(super) struct Rows {
    numbers: Vec<i64>,
    /// Arrays of ids as the triggers write them, each once.
    pub(super) ids: Vec<String>,
}

/// Returns the name of the outbox of a channel.
pub(super) fn name(channel: &str) -> String {
    format!("{channel}{SUFFIX}")
}

/// Returns the quoted name of the outbox of a channel, beside the table at `place`.
pub(super) fn table(place: &Place, channel: &str) -> String {
    format!("{}.{}", quote(&place.schema), quote(&name(channel)))
}

/// Returns the statements that create the outbox and let `reader` read it.
pub(super) fn create(place: &Place, channel: &str, reader: &str) -> String {
    let table = table(place, channel);
    format!(
        "CREATE TABLE IF NOT EXISTS {table} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, ids text NOT NULL);
GRANT SELECT, DELETE ON {table} TO {};
",
        quote(reader)
    )
}

/// An outbox on the server.
pub(super) struct FoundOutbox {
    schema: String,
    /// Its name, which ends with `_outbox`.
    pub(super) name: String,
    /// True if somebody reads it.
    pub(super) active: bool,
    /// Its size in bytes.
    pub(super) size: i64,
}

/// Returns the outboxes in the database.
pub(super) async fn list(client: &Client) -> Result<Vec<FoundOutbox>, PgError> {
    let sql = format!(
        "SELECT n.nspname::text, c.relname::text, pg_total_relation_size(c.oid), EXISTS (
            SELECT FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND granted
                AND classid = {LOCK}::oid AND objid = c.oid)
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind = 'r' AND c.relname LIKE 'diorama\\_%\\{SUFFIX}' ORDER BY 1, 2"
    );
    let rows = client.query(&sql, &[]).await?;
    let found = |row: &tokio_postgres::Row| FoundOutbox {
        schema: row.get(0),
        name: row.get(1),
        size: row.get(2),
        active: row.get(3),
    };
    Ok(rows.iter().map(found).collect())
}

/// Drops an outbox with the triggers that write into it. Returns false if there is none of this name.
pub(super) async fn drop(client: &Client, name: &str) -> Result<bool, PgError> {
    let Some(found) = list(client).await?.into_iter().find(|found| found.name == name) else { return Ok(false) };
    let (schema, channel) = (quote(&found.schema), name.strip_suffix(SUFFIX).unwrap_or(name));
    let (of_rows, of_updates) = (quote(channel), quote(&format!("{channel}_both")));
    let sql = format!(
        "BEGIN; DROP FUNCTION IF EXISTS {schema}.{of_rows}() CASCADE; DROP FUNCTION IF EXISTS {schema}.{of_updates}() CASCADE;
        DROP TABLE {schema}.{}; COMMIT",
        quote(name)
    );
    client.batch_execute(&sql).await.map(|()| true)
}

/// Returns true if `position` is that of an outbox.
pub(super) fn is_position(position: &[u8]) -> bool {
    Position::parse(position).is_some()
}

impl Position {
    fn parse(bytes: &[u8]) -> Option<Position> {
        let rest = std::str::from_utf8(bytes).ok()?.strip_prefix("outbox ")?;
        let (identity, last) = rest.split_once(' ')?;
        Some(Position { identity: identity.to_string(), last: last.parse().ok()? })
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "outbox {} {}", self.identity, self.last)
    }
}

impl Outbox {
    /// Opens the outbox of a channel for reading. Returns it and true if it has every change since the position `stored`.
    ///
    /// # Errors
    /// The reason, and what to do.
    pub(super) async fn open(
        client: &Client,
        place: &Place,
        channel: &str,
        triggers: &Triggers,
        stored: Option<&[u8]>,
    ) -> Result<(Outbox, bool), String> {
        let (table, failed) = (table(place, channel), |error: PgError| message_of(&error));
        let sql = "SELECT to_regclass($1)::oid, system_identifier::text FROM pg_control_system()";
        let row = client.query_one(sql, &[&Param::text(table.as_str())]).await.map_err(failed)?;
        let missing = || format!("{table} does not exist: run the statements that `diorama trigger --outbox` prints");
        let (oid, system): (u32, String) = (row.get::<_, Option<u32>>(0).ok_or_else(missing)?, row.get(1));
        let lock = Param::text((LOCK << 32 | i64::from(oid)).to_string());
        let locked = client.query_one("SELECT pg_try_advisory_lock($1::int8)", &[&lock]).await.map_err(failed)?;
        if !locked.get::<_, bool>(0) {
            return Err(format!(
                "another connection reads {table}: two Dioramas of one table need resources of different names, each with \
                 its triggers"
            ));
        }
        let identity = format!("{system}/{oid}/{}", triggers.oids);
        let stored = stored.and_then(Position::parse).filter(|position| position.identity == identity);
        let mut outbox = Outbox { table, position: Position { identity, last: 0 } };
        let Some(position) = stored else { return Ok((outbox, false)) };
        let continues = position.last == 0 || outbox.has(client, position.last).await?;
        if continues {
            outbox.position = position;
        }
        Ok((outbox, continues))
    }

    async fn has(&self, client: &Client, number: i64) -> Result<bool, String> {
        let sql = format!("SELECT EXISTS (SELECT FROM {} WHERE id = $1::int8)", self.table);
        let row = client.query_one(&sql, &[&Param::text(number.to_string())]).await;
        row.map(|row| row.get(0)).map_err(|error| message_of(&error))
    }

    /// Position behind everything that was applied.
    pub(super) fn position(&self) -> String {
        self.position.to_string()
    }

    /// Position behind `rows`.
    pub(super) fn position_after(&self, rows: &Rows) -> String {
        let last = rows.numbers.last().copied().unwrap_or(self.position.last);
        Position { identity: self.position.identity.clone(), last }.to_string()
    }

    /// Reads the next rows, in order; none if there are no more.
    pub(super) async fn read(&self, client: &Client) -> Result<Rows, String> {
        // A transaction that commits late may have lower numbers than others before it.
        let sql = format!("SELECT id, ids FROM {} WHERE id <> $1::int8 ORDER BY id LIMIT {ROWS}", self.table);
        let found = client.query(&sql, &[&Param::text(self.position.last.to_string())]).await;
        let (mut numbers, mut ids, mut known, mut size) = (Vec::new(), Vec::new(), HashSet::new(), 0);
        for row in found.map_err(|error| message_of(&error))? {
            numbers.push(row.get(0));
            let text: String = row.get(1);
            if known.insert(text.clone()) {
                // Each id has brackets of its own.
                size += text.bytes().filter(|byte| *byte == b'[').count();
                ids.push(text);
            }
            if size >= IDS {
                break;
            }
        }
        Ok(Rows { numbers, ids })
    }

    /// Deletes rows whose changes are stored with the position behind them, but leaves the last one.
    pub(super) async fn delete(&mut self, client: &Client, rows: &Rows) -> Result<(), String> {
        let Some((last, others)) = rows.numbers.split_last() else { return Ok(()) };
        let numbers: Vec<String> = others.iter().chain([&self.position.last]).map(i64::to_string).collect();
        let numbers = Param::text(format!("{{{}}}", numbers.join(",")));
        let sql = format!("DELETE FROM {} WHERE id = ANY ($1::int8[])", self.table);
        client.execute(&sql, &[&numbers]).await.map_err(|error| message_of(&error))?;
        self.position.last = *last;
        Ok(())
    }
}

impl Rows {
    pub(super) fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_was_written() {
        let position = Position { identity: "74/16385/1-2-3-4".into(), last: 12 };
        assert_eq!(Position::parse(position.to_string().as_bytes()), Some(position));
        for wrong in ["", "outbox", "outbox 74", "outbox 74 x", "74 0/1"] {
            assert_eq!(Position::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
