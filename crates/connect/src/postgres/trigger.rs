//! SQL of the triggers that report a table's changes where replication is not allowed.

use tokio_postgres::{Client, Error as PgError};

use super::slot::name_of;
use super::table::{Place, Table};
use super::value::Param;
use crate::sql::quote;

/// Size of one notification in bytes. The server refuses 8,000, which would be an error inside of somebody's write.
const PAYLOAD: u32 = 7_500;

/// Number of notifications of one statement. A statement that changes more rows reports that all may have changed.
const MOST: u32 = 20;

/// Returns the channel of a resource's notifications, which is also the name of its triggers.
pub(super) fn channel(dio: &str) -> String {
    name_of(dio)
}

/// Returns the statements that create the triggers of a resource; they replace earlier ones.
///
/// A trigger runs once for each statement and sends the ids of its rows, as arrays of the texts of the key columns: `[["7"],["8"]]`.
/// `["*"]` stands for all rows.
pub(super) fn sql(table: &Table, place: &Place, dio: &str) -> String {
    let channel = channel(dio);
    let key = table.key_columns().iter().map(|column| format!("{column}::text")).collect::<Vec<_>>().join(", ");
    let ids = |rows: &str| format!("SELECT jsonb_build_array({key}) AS id FROM {rows}");
    let of_rows = function(place, &channel, &channel, &format!("SELECT DISTINCT * FROM ({}) all_ids", ids("changed")));
    // An update may change a key.
    let both = format!("{} UNION {}", ids("changed"), ids("before"));
    let of_updates = function(place, &channel, &format!("{channel}_both"), &both);
    let trigger = |event: &str, function: &str, referencing: &str| {
        let (name, from) = (quote(&format!("{channel}_{}", event.to_ascii_lowercase())), &table.from);
        let function = format!("{}.{}", quote(&place.schema), quote(function));
        format!(
            "DROP TRIGGER IF EXISTS {name} ON {from};
CREATE TRIGGER {name} AFTER {event} ON {from}{referencing} FOR EACH STATEMENT EXECUTE FUNCTION {function}();
"
        )
    };
    [
        format!("-- Reports the changes of {} to Diorama. Run this as the owner of the table.\n", table.from),
        of_rows,
        of_updates,
        trigger("INSERT", &channel, " REFERENCING NEW TABLE AS changed"),
        trigger("UPDATE", &format!("{channel}_both"), " REFERENCING NEW TABLE AS changed OLD TABLE AS before"),
        trigger("DELETE", &channel, " REFERENCING OLD TABLE AS changed"),
        trigger("TRUNCATE", &channel, ""),
    ]
    .concat()
}

/// Returns the statement that creates the trigger function `name`, which sends the ids that the query `ids` returns.
fn function(place: &Place, channel: &str, name: &str, ids: &str) -> String {
    let all = format!("PERFORM pg_notify('{channel}', '[\"*\"]');");
    format!(
        "CREATE OR REPLACE FUNCTION {schema}.{name}() RETURNS trigger LANGUAGE plpgsql AS $diorama$
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
    PERFORM pg_notify('{channel}', part);
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

/// Returns true if the triggers of a resource are there and enabled.
pub(super) async fn exist(client: &Client, place: &Place, dio: &str) -> Result<bool, PgError> {
    let sql =
        "SELECT count(*) = 4 FROM pg_catalog.pg_trigger WHERE tgrelid = $1 AND tgenabled <> 'D' AND tgname = ANY (
        SELECT $2::text || event FROM unnest(ARRAY['_insert', '_update', '_delete', '_truncate']) event)";
    client.query_one(sql, &[&place.oid, &Param::text(channel(dio))]).await.map(|row| row.get(0))
}
