//! Publication and replication slot of a feed: made when missing, listed, dropped.

use pgwire_replication::Lsn;
use tokio_postgres::{Client, Error as PgError};

use super::errors::message_of;
use super::table::{Place, Table};
use super::value::Param;
use crate::sql::quote;

/// Oldest server whose logical replication carries the messages that this feed needs: 14.
const OLDEST: i32 = 140_000;

/// Time for making a slot, which waits for the transactions that are open.
const PATIENCE: &str = "30s";

/// A replication slot of this program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    /// Position up to which the server was told that changes are stored.
    pub(super) confirmed: Lsn,
    /// True if it was made just now, so that changes before it are not known.
    pub(super) is_new: bool,
    /// Identity of the server's data: a copy of it elsewhere has the same, another server has not.
    pub(super) system: String,
}

/// Returns the name of slot and publication for a resource: letters, digits and `_`, at most 63.
pub(super) fn name_of(dio: &str) -> String {
    let fit = |char: char| if char.is_ascii_alphanumeric() { char.to_ascii_lowercase() } else { '_' };
    let name: String = dio.chars().map(fit).take(55).collect();
    format!("diorama_{name}")
}

/// Checks that [`prepare`] can succeed, and leaves the server as it is.
///
/// # Errors
/// As [`prepare`].
pub(super) async fn check(client: &Client, table: &Table, name: &str) -> Result<(), String> {
    let failed = |error: PgError| message_of(&error);
    client.batch_execute("BEGIN").await.map_err(failed)?;
    let published = prepare_publication(client, table, name).await;
    client.batch_execute("ROLLBACK").await.map_err(failed)?;
    published?;
    if find(client, name).await.map_err(failed)?.is_some_and(|slot| !slot.lost) {
        return Ok(());
    }
    // The role of the users who may replicate on a managed server that gives nobody the attribute.
    let sql = "SELECT (SELECT rolsuper OR rolreplication FROM pg_catalog.pg_roles WHERE rolname = current_user)
        OR EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'rds_replication' AND pg_has_role(oid, 'MEMBER'))";
    match client.query_one(sql, &[]).await.map_err(failed)?.get(0) {
        true => Ok(()),
        false => Err(no_right(&user(client).await?)),
    }
}

/// Checks that the server can replicate changes of `table`, and makes publication and slot `name` if they do not exist.
///
/// # Errors
/// The missing part, and what to do about it.
pub(super) async fn prepare(client: &Client, table: &Table, name: &str) -> Result<Slot, String> {
    prepare_publication(client, table, name).await?;
    let system = "SELECT system_identifier::text FROM pg_control_system()";
    let system = client.query_one(system, &[]).await.map_err(|error| message_of(&error))?.get(0);
    let found = find(client, name).await.map_err(|error| message_of(&error))?;
    match found {
        Some(FoundSlot { lost: false, confirmed, .. }) => Ok(Slot { confirmed, is_new: false, system }),
        Some(FoundSlot { lost: true, .. }) => {
            tracing::warn!(
                slot = name,
                "the server has removed changes that this slot had not received (max_slot_wal_keep_size); the slot is made anew"
            );
            drop_slot(client, name).await.map_err(|error| message_of(&error))?;
            create(client, name, system).await
        }
        None => create(client, name, system).await,
    }
}

async fn prepare_publication(client: &Client, table: &Table, name: &str) -> Result<(), String> {
    let place = check_table(table)?;
    check_server(client).await?;
    check_identity(client, table, place).await?;
    publish(client, place, name).await
}

/// Returns the place of a table whose changes can be followed.
///
/// # Errors
/// It is a view or a query.
pub(super) fn check_table(table: &Table) -> Result<&Place, String> {
    match &table.place {
        Some(place) if place.is_table => Ok(place),
        _ => Err(format!("{} is not a table: only the changes of tables can be followed", table.name)),
    }
}

async fn check_server(client: &Client) -> Result<(), String> {
    let sql = "SELECT current_setting('server_version_num')::int, current_setting('wal_level'), pg_is_in_recovery(),
        current_setting('max_replication_slots')::int";
    let row = client.query_one(sql, &[]).await.map_err(|error| message_of(&error))?;
    let (version, level): (i32, String) = (row.get(0), row.get(1));
    if version < OLDEST {
        return Err(format!("the server is older than PostgreSQL {}: use feed = \"notify\"", OLDEST / 10_000));
    }
    if level != "logical" {
        return Err(format!(
            "the server's wal_level is {level}: replication requires wal_level = logical (ALTER SYSTEM SET wal_level = \
             logical, then restart the server), or use feed = \"notify\""
        ));
    }
    if row.get(2) {
        return Err("the server is a standby: the feed requires the primary, or use feed = \"notify\"".into());
    }
    if row.get::<_, i32>(3) == 0 {
        return Err("the server's max_replication_slots is 0: raise it and restart the server".into());
    }
    Ok(())
}

/// Checks that updates and deletes carry the key of the resource. Without an identity the server would refuse the updates of
/// all its users once the table is published.
async fn check_identity(client: &Client, table: &Table, place: &Place) -> Result<(), String> {
    let sql =
        "SELECT c.relreplident::text, coalesce(array_agg(a.attname::text) FILTER (WHERE a.attname IS NOT NULL), '{}')
        FROM pg_catalog.pg_class c
        LEFT JOIN pg_catalog.pg_index i ON i.indrelid = c.oid
            AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END
        LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
        WHERE c.oid = $1 GROUP BY c.relreplident";
    let row = client.query_one(sql, &[&place.oid]).await.map_err(|error| message_of(&error))?;
    let (kind, columns): (String, Vec<String>) = (row.get(0), row.get(1));
    let has_key = table.key.iter().all(|at| columns.contains(&table.fields[*at].name));
    if kind == "f" || has_key && !columns.is_empty() {
        return Ok(());
    }
    Err(format!(
        "changes of {name} do not carry its id: ALTER TABLE {table} REPLICA IDENTITY FULL, or USING INDEX with a unique index of \
         the id",
        name = table.name,
        table = table.from
    ))
}

/// Makes the publication, or adds the table to it.
async fn publish(client: &Client, place: &Place, name: &str) -> Result<(), String> {
    let sql = "SELECT puballtables, pubinsert AND pubupdate AND pubdelete AND pubtruncate, EXISTS (
            SELECT FROM pg_catalog.pg_publication_tables t
            WHERE t.pubname = p.pubname AND t.schemaname = $2 AND t.tablename = $3)
        FROM pg_catalog.pg_publication p WHERE p.pubname = $1";
    let params = [Param::text(name), Param::text(place.schema.as_str()), Param::text(place.table.as_str())];
    let found =
        client.query_opt(sql, &[&params[0], &params[1], &params[2]]).await.map_err(|error| message_of(&error))?;
    let (publication, table) = (quote(name), format!("{}.{}", quote(&place.schema), quote(&place.table)));
    let sql = match found {
        None => {
            format!("CREATE PUBLICATION {publication} FOR TABLE {table} WITH (publish_via_partition_root = true)")
        }
        Some(row) if !row.get::<_, bool>(1) => {
            return Err(format!(
                "the publication {name} does not have all changes: ALTER PUBLICATION {publication} SET (publish = \
                 'insert, update, delete, truncate')"
            ));
        }
        Some(row) if row.get(0) || row.get(2) => return Ok(()),
        Some(_) => format!("ALTER PUBLICATION {publication} ADD TABLE {table}"),
    };
    match client.batch_execute(&sql).await {
        Err(error) if error.code().is_some_and(|code| code.code() == "42710") => Ok(()),
        done => done.map_err(|error| {
            format!("{}: the owner of the table can run {sql}", error.as_db_error().map_or("", |error| error.message()))
        }),
    }
}

async fn create(client: &Client, name: &str, system: String) -> Result<Slot, String> {
    let sql = "SELECT lsn::text FROM pg_create_logical_replication_slot($1, 'pgoutput')";
    let user = user(client).await?;
    let failed = |error: PgError| match error.code().map(tokio_postgres::error::SqlState::code) {
        Some("42501") => no_right(&user),
        Some("57014") => format!(
            "the replication slot cannot be made: transactions have been open on the server for more than {PATIENCE}, and it \
             waits for them"
        ),
        Some("53400") => {
            "all replication slots of the server are in use: raise max_replication_slots, or drop unused slots \
             (diorama feed list)"
                .into()
        }
        _ => message_of(&error),
    };
    client.batch_execute(&format!("SET statement_timeout = '{PATIENCE}'")).await.map_err(failed)?;
    let created = client.query_one(sql, &[&Param::text(name)]).await;
    client.batch_execute("RESET statement_timeout").await.map_err(failed)?;
    let lsn: String = created.map_err(failed)?.get(0);
    tracing::info!(
        slot = name,
        "a replication slot is made; it keeps changes on the server until this program has them"
    );
    Ok(Slot { confirmed: Lsn::parse(&lsn).map_err(|error| error.to_string())?, is_new: true, system })
}

async fn user(client: &Client) -> Result<String, String> {
    client.query_one("SELECT current_user::text", &[]).await.map(|row| row.get(0)).map_err(|error| message_of(&error))
}

/// Returns the message that `user` may not replicate.
pub(super) fn no_right(user: &str) -> String {
    format!("the user {user} may not replicate: ALTER ROLE {} REPLICATION, or use feed = \"notify\"", quote(user))
}

/// A slot on the server.
#[derive(Clone, Debug)]
pub(super) struct FoundSlot {
    pub(super) name: String,
    pub(super) confirmed: Lsn,
    /// True if the server has removed changes that it had not sent.
    pub(super) lost: bool,
    pub(super) active: bool,
    /// Size of the log that the server keeps for it, in bytes.
    pub(super) retained: i64,
}

const FOUND: &str =
    "SELECT slot_name::text, coalesce(confirmed_flush_lsn, '0/0')::text, coalesce(wal_status = 'lost', false), active,
        coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::int8
    FROM pg_catalog.pg_replication_slots WHERE plugin = 'pgoutput' AND database = current_database()";

async fn find(client: &Client, name: &str) -> Result<Option<FoundSlot>, PgError> {
    let row = client.query_opt(&format!("{FOUND} AND slot_name = $1"), &[&Param::text(name)]).await?;
    Ok(row.map(|row| found(&row)))
}

/// Returns the slots that this program has made in the database.
pub(super) async fn list(client: &Client) -> Result<Vec<FoundSlot>, PgError> {
    let rows = client.query(&format!("{FOUND} AND slot_name LIKE 'diorama\\_%' ORDER BY slot_name"), &[]).await?;
    Ok(rows.iter().map(found).collect())
}

fn found(row: &tokio_postgres::Row) -> FoundSlot {
    FoundSlot {
        name: row.get(0),
        confirmed: Lsn::parse(row.get(1)).unwrap_or_default(),
        lost: row.get(2),
        active: row.get(3),
        retained: row.get(4),
    }
}

/// Drops a slot.
pub(super) async fn drop_slot(client: &Client, name: &str) -> Result<(), PgError> {
    client.execute("SELECT pg_drop_replication_slot($1)", &[&Param::text(name)]).await.map(drop)
}

/// Drops the publication of a slot, if there is one.
pub(super) async fn drop_publication(client: &Client, name: &str) -> Result<(), PgError> {
    client.batch_execute(&format!("DROP PUBLICATION IF EXISTS {}", quote(name))).await
}
