//! SQL of the triggers that report a table's changes where replication is not allowed.
//!
//! They send the ids of changed rows as notifications, which are lost while nobody listens, or write them into a table, the outbox,
//! in the transaction of the change.

use tokio_postgres::{Client, Error as PgError};

use super::outbox;
use super::slot::name_of;
use super::table::{Place, Table};
use super::value::Param;
use crate::sql::quote;

/// Size of one notification in bytes. The server refuses 8,000, which would be an error inside of somebody's write.
const PAYLOAD: u32 = 7_500;

/// Number of notifications of one statement. A statement that changes more rows reports that all may have changed.
const MOST: u32 = 20;

/// Maximum length of a channel: the names of triggers and outbox are longer, and have at most 63 bytes.
const LONGEST: usize = 63 - "_truncate".len();

/// Returns the channel of a resource's notifications, with which the names of its triggers begin.
pub(super) fn channel(dio: &str) -> String {
    let mut channel = name_of(dio);
    channel.truncate(LONGEST);
    channel
}

/// Triggers of a resource as they are on the server.
pub(super) struct Triggers {
    /// True if they write into the outbox.
    pub(super) outbox: bool,
    /// Their numbers, which triggers that replace them do not have.
    pub(super) oids: String,
}

/// Returns the statements that create the triggers of a resource; they replace earlier ones.
///
/// A trigger runs once for each statement and sends the ids of its rows, as arrays of the texts of the key columns: `[["7"],["8"]]`.
/// `["*"]` stands for all rows. With `reader`, the user of this program, the ids are written into the outbox, and an empty
/// notification says so.
pub(super) fn sql(table: &Table, place: &Place, dio: &str, reader: Option<&str>) -> String {
    let channel = channel(dio);
    let outbox = reader.map(|_| outbox::table(place, &channel));
    let outbox = outbox.as_deref();
    let key = table.key_columns().iter().map(|column| format!("{column}::text")).collect::<Vec<_>>().join(", ");
    let ids = |rows: &str| format!("SELECT jsonb_build_array({key}) AS id FROM {rows}");
    let distinct = format!("SELECT DISTINCT * FROM ({}) all_ids", ids("changed"));
    let of_rows = function(place, &channel, &channel, &distinct, outbox);
    // An update may change a key.
    let both = format!("{} UNION {}", ids("changed"), ids("before"));
    let of_updates = function(place, &channel, &format!("{channel}_both"), &both, outbox);
    let argument = if outbox.is_some() { "'outbox'" } else { "" };
    let trigger = |event: &str, function: &str, referencing: &str| {
        let (name, from) = (quote(&format!("{channel}_{}", event.to_ascii_lowercase())), &table.from);
        let function = format!("{}.{}", quote(&place.schema), quote(function));
        format!(
            "DROP TRIGGER IF EXISTS {name} ON {from};
CREATE TRIGGER {name} AFTER {event} ON {from}{referencing} FOR EACH STATEMENT EXECUTE FUNCTION {function}({argument});
"
        )
    };
    let made = reader.map(|reader| outbox::create(place, &channel, reader)).unwrap_or_default();
    [
        format!("-- Reports the changes of {} to Diorama. Run this as the owner of the table.\nBEGIN;\n", table.from),
        made,
        of_rows,
        of_updates,
        trigger("INSERT", &channel, " REFERENCING NEW TABLE AS changed"),
        trigger("UPDATE", &format!("{channel}_both"), " REFERENCING NEW TABLE AS changed OLD TABLE AS before"),
        trigger("DELETE", &channel, " REFERENCING OLD TABLE AS changed"),
        trigger("TRUNCATE", &channel, ""),
        "COMMIT;\n".into(),
    ]
    .concat()
}

/// Returns the statement that creates the trigger function `name`, which sends the ids that the query `ids` returns, or writes
/// them into `outbox`.
fn function(place: &Place, channel: &str, name: &str, ids: &str, outbox: Option<&str>) -> String {
    let tell = |text: &str| match outbox {
        None => format!("PERFORM pg_notify('{channel}', {text});"),
        Some(outbox) => format!("INSERT INTO {outbox} (ids) VALUES ({text}); PERFORM pg_notify('{channel}', '');"),
    };
    let (all, part) = (tell("'[\"*\"]'"), tell("part"));
    // Those who write to the table need no right on the outbox.
    let rights = if outbox.is_some() { " SECURITY DEFINER SET search_path = pg_catalog, pg_temp" } else { "" };
    format!(
        "CREATE OR REPLACE FUNCTION {schema}.{name}() RETURNS trigger LANGUAGE plpgsql{rights} AS $diorama$
DECLARE
  parts text[];
  part text;
BEGIN
  IF TG_OP = 'TRUNCATE' THEN
    {all}
    RETURN NULL;
  END IF;
  -- Several notifications, none longer than the server permits.
  SELECT array_agg(numbered.ids) INTO parts FROM (
    SELECT jsonb_agg(id)::text AS ids
    FROM (SELECT id, sum(octet_length(id::text) + 2) OVER (ORDER BY id) / {half} AS number FROM ({ids}) found) sized
    GROUP BY number
  ) numbered;
  IF cardinality(parts) > {MOST} OR EXISTS (SELECT FROM unnest(parts) long WHERE octet_length(long) > {PAYLOAD}) THEN
    {all}
    RETURN NULL;
  END IF;
  FOREACH part IN ARRAY coalesce(parts, '{{}}') LOOP
    {part}
  END LOOP;
  RETURN NULL;
END
$diorama$;
",
        schema = quote(&place.schema),
        name = quote(name),
        half = PAYLOAD / 2,
    )
}

/// Returns the triggers of a resource; `None` if they are not all there and enabled.
pub(super) async fn find(client: &Client, place: &Place, dio: &str) -> Result<Option<Triggers>, PgError> {
    let sql = "SELECT count(*) = 4, coalesce(bool_and(tgnargs = 1), false), coalesce(string_agg(oid::text, '-' ORDER BY tgname), '')
        FROM pg_catalog.pg_trigger WHERE tgrelid = $1 AND tgenabled <> 'D' AND tgname = ANY (
        SELECT $2::text || event FROM unnest(ARRAY['_insert', '_update', '_delete', '_truncate']) event)";
    let row = client.query_one(sql, &[&place.oid, &Param::text(channel(dio))]).await?;
    let (all, outbox, oids) = (row.get(0), row.get(1), row.get(2));
    Ok(if all { Some(Triggers { outbox, oids }) } else { None })
}
