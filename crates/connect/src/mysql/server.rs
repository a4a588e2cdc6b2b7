//! Server of a feed: its settings, the rights of the user, and places in its binary log.

use mysql_async::{Error as MyError, Row};

use super::describe::catalog;
use super::errors::{failed, is_denied};
use super::pool::Session;
use super::position::Place;
use super::query::quoted;
use super::table::{Place as TablePlace, Table, quote};
use diorama_core::vista::{Error, Result};

/// Statement that returns the place up to which the session's transaction shows everything, or where the last commit ended.
const SHOWN: &str = "SHOW STATUS LIKE 'binlog\\_snapshot\\_%'";

/// Attempts to learn a place. The server has one variable for all connections, and another one may just have set it.
const ATTEMPTS: usize = 20;

/// A server whose log can be followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) id: u32,
    /// True if names of tables differ in more than case.
    pub(super) ignores_case: bool,
    /// Tables whose changes the server carries over to rows of this one, without a word in the log.
    pub(super) parents: Vec<Parent>,
}

/// A table that is referenced with an action, perhaps over several tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parent {
    pub(super) place: TablePlace,
    pub(super) on_update: bool,
    pub(super) on_delete: bool,
}

impl Server {
    /// Checks that the changes of `table` can be followed.
    ///
    /// # Errors
    /// The missing part, and what to do about it.
    pub(super) async fn check(session: &mut Session, table: &Table, user: &str) -> std::result::Result<Server, String> {
        let place = check_table(table)?;
        let settings = settings(session).await.map_err(|error| error.to_string())?;
        let has = |name: &str| settings.iter().find(|row| row[0] == name).map_or("", |row| row[1].as_str());
        if has("log_bin") != "ON" {
            return Err("the server has no binary log: start it with log_bin (--log-bin)".into());
        }
        if has("binlog_format") != "ROW" {
            let format = has("binlog_format");
            return Err(format!(
                "the server's binlog_format is {format}: SET GLOBAL binlog_format = ROW, and set it in the server's configuration; \
                 connections that are open keep the former format"
            ));
        }
        if has("log_bin_compress") == "ON" {
            return Err("the server's log_bin_compress is ON: SET GLOBAL log_bin_compress = OFF".into());
        }
        check_filters(session, place, user).await?;
        if shown_place(session).await.map_err(|error| error.to_string())?.is_none() {
            return Err(
                "the server does not tell the place in its binary log up to which a read shows everything, as MariaDB \
                        does: use refresh_every"
                    .into(),
            );
        }
        let parents = parents(session, place).await.map_err(|error| error.to_string())?;
        let id = has("server_id").parse().map_err(|_| "the server has no server_id: set one and restart it")?;
        Ok(Server { id, ignores_case: has("lower_case_table_names") != "0", parents })
    }

    /// Returns true if a table of the log is the one at `place`.
    pub(super) fn is_named(&self, place: &TablePlace, database: &str, table: &str) -> bool {
        match self.ignores_case {
            true => place.database.eq_ignore_ascii_case(database) && place.table.eq_ignore_ascii_case(table),
            false => place.database == database && place.table == table,
        }
    }
}

fn check_table(table: &Table) -> std::result::Result<&TablePlace, String> {
    let name = &table.name;
    match &table.place {
        Some(place) if table.is_table && !table.is_versioned => Ok(place),
        Some(_) if table.is_versioned => Err(format!(
            "{name} keeps former rows (SYSTEM VERSIONING), whose changes cannot be followed: use refresh_every"
        )),
        _ => Err(format!(
            "{name} is not a table of an engine with transactions: only the changes of such tables can be followed; use \
             refresh_every"
        )),
    }
}

async fn settings(session: &mut Session) -> Result<Vec<Vec<String>>> {
    let sql = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('log_bin', 'binlog_format', 'log_bin_compress', 'server_id', \
               'lower_case_table_names')";
    catalog(session, sql, &[]).await
}

/// Checks that changes of the table's database are in the log, and that the user may know where the log ends.
async fn check_filters(session: &mut Session, place: &TablePlace, user: &str) -> std::result::Result<(), String> {
    let end = session.rows("SHOW MASTER STATUS").await.map_err(|error| not_followed(&error, user))?;
    let Some(row) = end.into_iter().next() else { return Ok(()) };
    let listed = |column: &str| {
        let names: String = row.get_opt(column).and_then(std::result::Result::ok).unwrap_or_default();
        names.split(',').map(|name| name.trim().to_string()).filter(|name| !name.is_empty()).collect::<Vec<_>>()
    };
    let (only, without) = (listed("Binlog_Do_DB"), listed("Binlog_Ignore_DB"));
    if without.contains(&place.database) || !only.is_empty() && !only.contains(&place.database) {
        let database = &place.database;
        return Err(format!(
            "changes of the database {database} are not in the server's binary log: see binlog_do_db and binlog_ignore_db in \
             the server's configuration"
        ));
    }
    Ok(())
}

/// Converts the error of a statement about the binary log into one that says what to do.
pub(super) fn not_followed(error: &MyError, user: &str) -> String {
    let text = plain_error(error);
    match is_denied(error) {
        true => format!(
            "{text}: GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO {user} (MariaDB 10.5 and newer call the second one \
             BINLOG MONITOR)"
        ),
        false => text,
    }
}

pub(super) fn plain_error(error: &MyError) -> String {
    match error {
        MyError::Server(refusal) => refusal.message.clone(),
        error => error.to_string(),
    }
}

/// Returns the tables whose changes reach rows of the table at `place` by actions of foreign keys, over any number of tables that the
/// user may read.
async fn parents(session: &mut Session, place: &TablePlace) -> Result<Vec<Parent>> {
    let mut parents: Vec<Parent> = Vec::new();
    let mut children = vec![place.clone()];
    while let Some(child) = children.pop() {
        let sql = format!("SHOW CREATE TABLE {}.{}", quote(&child.database), quote(&child.table));
        let rows = match session.rows(&sql).await {
            Err(error) if is_denied(&error) => continue,
            rows => rows.map_err(failed)?,
        };
        let definition: String = rows.first().and_then(|row| row.get(1)).unwrap_or_default();
        for parent in definition.lines().filter_map(|line| parent_of(line, &child.database)) {
            match parents.iter_mut().find(|known| known.place == parent.place) {
                Some(known) => {
                    known.on_update |= parent.on_update;
                    known.on_delete |= parent.on_delete;
                }
                None => {
                    children.push(parent.place.clone());
                    parents.push(parent);
                }
            }
        }
    }
    Ok(parents)
}

/// Returns the referenced table of a line of a table's definition, if the line is a foreign key with an action. The rules are in no
/// catalog that a user who only reads can see.
fn parent_of(line: &str, database: &str) -> Option<Parent> {
    let key = line.trim_start();
    let (_, mut rest) = key.split_once(" REFERENCES ").filter(|_| key.starts_with("CONSTRAINT "))?;
    let mut place = TablePlace { database: database.to_string(), table: quoted(&mut rest, '`') };
    if let Some(second) = rest.strip_prefix('.') {
        rest = second;
        place = TablePlace { database: place.table, table: quoted(&mut rest, '`') };
    }
    let acts = |event: &str| {
        ["CASCADE", "SET NULL", "SET DEFAULT"].iter().any(|action| rest.contains(&format!("{event} {action}")))
    };
    let (on_update, on_delete) = (acts("ON UPDATE"), acts("ON DELETE"));
    (on_update || on_delete).then_some(Parent { place, on_update, on_delete })
}

/// Returns the place up to which the open transaction shows everything, and nothing after it. Without a transaction, that of the last
/// commit. `None` if the server does not tell.
///
/// # Errors
/// [`Error::Source`] if the server fails.
pub(super) async fn shown_place(session: &mut Session) -> Result<Option<Place>> {
    for _ in 0..ATTEMPTS {
        let [one, two] = session.two(&format!("{SHOWN}; {SHOWN}")).await.map_err(failed)?;
        let (one, two) = (place_of(one), place_of(two));
        if one == two {
            return Ok(one);
        }
    }
    Err(Error::transient("the server does not tell the place of a read in its binary log"))
}

fn place_of(rows: Vec<Row>) -> Option<Place> {
    let (mut file, mut offset) = (String::new(), None);
    for row in rows {
        let (name, value) = mysql_async::from_row_opt::<(String, String)>(row).ok()?;
        match name.to_ascii_lowercase().as_str() {
            "binlog_snapshot_file" => file = value,
            "binlog_snapshot_position" => offset = value.parse().ok(),
            _ => {}
        }
    }
    offset.filter(|_| !file.is_empty()).map(|offset| Place { file, offset })
}

/// Begins a transaction whose reads show one moment.
pub(super) const SNAPSHOT: &str = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";

/// Returns a place up to which every read that begins later shows everything.
///
/// # Errors
/// [`Error::Source`] if the server fails or does not tell.
pub(super) async fn current_place(session: &mut Session) -> Result<Place> {
    session.run(SNAPSHOT).await.map_err(failed)?;
    let place = shown_place(session).await?;
    session.run("COMMIT").await.map_err(failed)?;
    place.ok_or_else(|| Error::transient("the server does not tell the place of its last commit"))
}

/// Returns the end of the log, which has everything that is committed.
///
/// # Errors
/// [`Error::Source`] if the server fails or the user may not know.
pub(super) async fn end_of_log(session: &mut Session) -> Result<Place> {
    let rows = session.rows("SHOW MASTER STATUS").await.map_err(failed)?;
    let place = rows.first().and_then(|row| Some(Place { file: row.get(0)?, offset: row.get(1)? }));
    place.ok_or_else(|| Error::transient("the server does not tell the end of its binary log"))
}

/// Returns the number of bytes of the log behind `place`.
///
/// # Errors
/// [`Error::Source`] if the server fails or the user may not know.
pub(super) async fn bytes_behind(session: &mut Session, place: &Place) -> Result<u64> {
    let mut bytes: u64 = 0;
    for row in session.rows("SHOW BINARY LOGS").await.map_err(failed)? {
        let (Some(file), Some(size)) = (row.get::<String, _>(0), row.get::<u64, _>(1)) else { continue };
        let whole = Place { file, offset: size };
        bytes += match whole.file == place.file {
            true => size.saturating_sub(place.offset),
            false if whole > *place => size,
            false => 0,
        };
    }
    Ok(bytes)
}

/// Returns the error number of the server; `None` for other errors.
pub(super) fn code_of(error: &MyError) -> Option<u16> {
    match error {
        MyError::Server(refusal) => Some(refusal.code),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_keys_with_actions_are_found() {
        let parent = |line: &str| {
            parent_of(line, "shop")
                .map(|parent| (parent.place.database, parent.place.table, parent.on_update, parent.on_delete))
        };
        let found = |database: &str, table: &str, on_update, on_delete| {
            Some((database.into(), table.into(), on_update, on_delete))
        };
        let line = "  CONSTRAINT `a` FOREIGN KEY (`p`) REFERENCES `parents` (`id`) ON DELETE CASCADE,";
        assert_eq!(parent(line), found("shop", "parents", false, true));
        let line = "  CONSTRAINT `a` FOREIGN KEY (`p`, `q`) REFERENCES `other`.`p``s` (`id`, `x`) ON DELETE NO ACTION ON UPDATE SET NULL";
        assert_eq!(parent(line), found("other", "p`s", true, false));
        assert_eq!(parent("  CONSTRAINT `a` FOREIGN KEY (`p`) REFERENCES `parents` (`id`)"), None);
        assert_eq!(parent("  `x` int(11) COMMENT ' REFERENCES `t` (`id`) ON DELETE CASCADE',"), None);
    }
}
