use std::time::Duration;

use diorama_servers::{CutProxy, PostgresServer};

use super::*;
use crate::contract;
use diorama_core::record::CborValue;
use diorama_core::vista::{ColumnType, ErrorKind, Flag};

mod cache;
mod faults;
mod feed;
mod groups;
mod outbox;
mod plans;
mod types;

/// A server whose database `postgres` has the tables of `sql`.
struct Fixture {
    server: PostgresServer,
}

impl Fixture {
    /// Returns `None` where no server can be had, which is a failure under CI.
    fn new(sql: &str) -> Option<Fixture> {
        let server = PostgresServer::start_with(&["fsync=off"])?;
        server.psql(sql);
        Some(Fixture { server })
    }

    fn url(&self) -> String {
        self.server.url("postgres")
    }

    async fn open(&self, table: &str) -> Result<Vista> {
        self.open_with(table, PostgresOptions::default()).await
    }

    async fn open_with(&self, table: &str, options: PostgresOptions) -> Result<Vista> {
        Postgres::open("products", &self.url(), PostgresRelation::Table(table.into()), options).await
    }

    async fn query(&self, sql: &str) -> Result<Vista> {
        let options = PostgresOptions::default();
        Postgres::open("products", &self.url(), PostgresRelation::Query(sql.into()), options).await
    }

    /// Opens a table through a proxy.
    async fn shell_behind(&self, proxy: &CutProxy, table: &str) -> Postgres {
        let url = self.url().replace(&format!(":{}/", self.server.port()), &format!(":{}/", proxy.port()));
        self.shell_at(&url, table).await
    }

    async fn shell(&self, table: &str) -> Postgres {
        self.shell_at(&self.url(), table).await
    }

    async fn shell_at(&self, url: &str, table: &str) -> Postgres {
        let relation = PostgresRelation::Table(table.into());
        let shared = Shared::new(Address::parse(url, None, None).unwrap(), relation);
        Postgres::connect(shared, PostgresOptions::default()).await.unwrap()
    }
}

fn record<const N: usize>(cells: [(&str, CborValue); N]) -> Record {
    cells.into_iter().map(|(column, value)| (column.to_string(), value)).collect()
}

/// Returns the SQL of the contract's rows.
fn products() -> String {
    let mut sql =
        String::from("CREATE TABLE products (id INTEGER PRIMARY KEY, name TEXT, price INTEGER, category_id INTEGER);");
    for line in contract::CSV.lines().skip(1) {
        let cells: Vec<&str> = line.split(',').collect();
        let price = if cells[2].is_empty() { "NULL" } else { cells[2] };
        sql += &format!("INSERT INTO products VALUES ({}, '{}', {price}, {});", cells[0], cells[1], cells[3]);
    }
    sql
}

#[tokio::test]
async fn the_contract_suite_passes() {
    let Some(fixture) = Fixture::new(&products()) else { return };
    let vista = fixture.open("products").await.unwrap();
    contract::reads(&vista, contract::Natural::ById).await;
    contract::writes(&vista).await;
    fixture.server.psql(&format!("DROP TABLE products; {}", products()));
    let options = PostgresOptions { read_only: true, ..PostgresOptions::default() };
    contract::refuses_writes(&fixture.open_with("products", options).await.unwrap()).await;
}

#[tokio::test]
async fn the_schema_is_the_tables() {
    let Some(fixture) = Fixture::new(
        "CREATE TABLE categories (id INTEGER PRIMARY KEY);
         CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE DOMAIN cents AS INTEGER CHECK (VALUE >= 0);
         CREATE TABLE t (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name VARCHAR(20) NOT NULL, price NUMERIC(10,2),
            active BOOLEAN NOT NULL DEFAULT true, raw BYTEA, added DATE, at TIMESTAMPTZ, meta JSONB, tags TEXT[], mood mood,
            cents cents, took INTERVAL, weight REAL, twice INTEGER GENERATED ALWAYS AS (cents * 2) STORED,
            category_id INTEGER REFERENCES categories);",
    ) else {
        return;
    };
    let schema = fixture.open("t").await.unwrap().schema();
    use ColumnType as T;
    let types: Vec<_> = schema.columns().iter().map(|column| column.ty).collect();
    let expected = [
        T::Integer,
        T::String,
        T::Decimal,
        T::Boolean,
        T::Bytes,
        T::Date,
        T::Datetime,
        T::Json,
        T::Json,
        T::String,
        T::Integer,
        T::String,
        T::Number,
        T::Integer,
        T::Integer,
    ];
    assert_eq!(types, expected);
    let mandatory: Vec<_> = schema.columns().iter().filter(|c| c.has(Flag::Mandatory)).map(|c| &*c.name).collect();
    assert_eq!((schema.id_column(), mandatory), ("id", vec!["name"]));
    assert_eq!(schema.column("name").unwrap().original_type, "character varying(20)");
    let reference = &schema.references()[0];
    assert_eq!(
        (&*reference.relation, &*reference.target, &*reference.column),
        ("category", "categories", "category_id")
    );
}

#[tokio::test]
async fn hostile_names_and_values_stay_names_and_values() {
    let (table, column) = ("a\"; DROP TABLE x; --", "c\"] = 1 OR 1=1; --'");
    let (quoted, quoted_column) = (crate::sql::quote(table), crate::sql::quote(column));
    let sql = format!(
        "CREATE TABLE {quoted} (id TEXT PRIMARY KEY, {quoted_column} TEXT); CREATE TABLE x (y INTEGER PRIMARY KEY);"
    );
    let Some(fixture) = Fixture::new(&sql) else { return };
    let mut vista = fixture.open(table).await.unwrap();
    let evil = "'); DROP TABLE x; --\"";
    for id in [evil, "%", "007", "7", "é"] {
        vista.insert(id, &record([(column, evil.into())])).await.unwrap();
        assert_eq!(vista.get_value(id).await.unwrap().unwrap()[column], evil.into());
    }
    vista.patch_value(evil, &record([(column, "x".into())])).await.unwrap();
    assert_eq!(vista.get_count().await.unwrap(), 5);
    let error = vista.insert("9", &record([("nope\" --", 1.into())])).await.unwrap_err();
    assert!(error.to_string().contains("does not exist"), "{error}");
    let error = vista.insert("9", &record([(column, "\0".into())])).await.unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error}");
    vista.add_order(column, true).unwrap();
    vista.add_condition_eq(column, evil.into()).unwrap();
    assert_eq!(vista.get_count().await.unwrap(), 4);
    vista.delete_all().await.unwrap();
    assert_eq!(fixture.open("x").await.unwrap().get_count().await.unwrap(), 0, "the other table is still there");
}

#[tokio::test]
async fn refusals_name_the_mistake_in_the_data() {
    let Some(fixture) = Fixture::new(
        "CREATE TABLE parents (id INTEGER PRIMARY KEY);
         CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT NOT NULL, sku TEXT UNIQUE, n INTEGER CHECK (n > 0),
            short VARCHAR(3), parent INTEGER REFERENCES parents);
         INSERT INTO t VALUES (1, 'a', 'x', 1);",
    ) else {
        return;
    };
    let vista = fixture.open("t").await.unwrap();
    let error = vista.insert("2", &record([("name", "b".into()), ("sku", "x".into())])).await.unwrap_err();
    let text = "row \"2\" conflicts with another row: duplicate key value violates unique constraint \"t_sku_key\": \
        Key (sku)=(x) already exists.";
    assert_eq!(error.to_string(), text);
    let error = vista.replace_value("2", &record([("name", "b".into()), ("sku", "x".into())])).await.unwrap_err();
    assert!(matches!(error, Error::Conflict { .. }), "a replace does not delete another row: {error}");
    let error = vista.patch_value("1", &record([("name", CborValue::Null)])).await.unwrap_err();
    assert_eq!(error.to_string(), "column \"name\" must not be null");
    for (column, value) in [("n", 0.into()), ("short", "long".into()), ("parent", 9.into())] {
        let error = vista.patch_value("1", &record([(column, value)])).await.unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }) && error.kind() == ErrorKind::Permanent, "{column}: {error}");
    }
    let error = vista.insert("007", &record([("name", "b".into())])).await.unwrap_err();
    assert_eq!(error.to_string(), "column \"id\" must be an integer of 64 bits");
    assert_eq!(vista.get_value("01").await.unwrap(), None);
    assert_eq!(vista.get_count().await.unwrap(), 1, "a refused write has no effect");
}

#[tokio::test]
async fn ids_come_from_the_key_or_the_options() {
    let Some(fixture) = Fixture::new(
        "CREATE TABLE plain (name TEXT); CREATE TABLE lines (orders TEXT, line INTEGER, n INTEGER, PRIMARY KEY (orders, line));
         CREATE TABLE uuids (id UUID PRIMARY KEY, n INTEGER); CREATE TABLE serials (id SERIAL PRIMARY KEY, n INTEGER);
         CREATE TABLE bytes (id BYTEA PRIMARY KEY); INSERT INTO bytes VALUES ('\\x00ff');
         CREATE TABLE always (id INTEGER GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n INTEGER);
         CREATE SCHEMA sales; CREATE TABLE sales.orders (id INTEGER PRIMARY KEY);
         CREATE VIEW seen AS SELECT id, n FROM serials;",
    ) else {
        return;
    };
    let error = fixture.open("plain").await.unwrap_err().to_string();
    let hint = "set id to the column that identifies the rows, or to several with commas between them";
    assert_eq!(error, format!("plain has no primary key, but columns name: {hint}"));
    let by_name = PostgresOptions { id: Some("name".into()), ..PostgresOptions::default() };
    let plain = fixture.open_with("plain", by_name).await.unwrap();
    assert!(!plain.capabilities().can_update, "a column that may repeat cannot be written by");

    let lines = fixture.open("lines").await.unwrap();
    lines.insert("a\\,b,1", &record([("n", 1.into())])).await.unwrap();
    let row = lines.get_value("a\\,b,1").await.unwrap().unwrap();
    assert_eq!(row, record([("id", "a\\,b,1".into()), ("orders", "a,b".into()), ("line", 1.into()), ("n", 1.into())]));
    lines.replace_value("a\\,b,1", &row).await.unwrap();
    assert!(
        matches!(lines.patch_value("a\\,b,1", &record([("line", 2.into())])).await, Ok(())),
        "keys stay as they are"
    );
    assert!(lines.get_value("a\\,b,2").await.unwrap().is_none());
    let id = lines.insert_return_id(&record([("orders", "c".into()), ("line", 2.into())])).await.unwrap();
    assert_eq!(id, "c,2");
    assert!(matches!(lines.insert_return_id(&record([("orders", "c".into())])).await, Err(Error::Invalid { .. })));
    lines.delete(&id).await.unwrap();
    assert_eq!(lines.get_value("c").await.unwrap(), None);

    let uuids = fixture.open("uuids").await.unwrap();
    let id = uuids.insert_return_id(&record([("n", 1.into())])).await.unwrap();
    assert_eq!(uuids.get_value(&id.to_uppercase()).await.unwrap().unwrap()["n"], 1.into());
    let serials = fixture.open("serials").await.unwrap();
    assert_eq!(serials.insert_return_id(&record([("n", 1.into())])).await.unwrap(), "1");
    let bytes = fixture.open("bytes").await.unwrap();
    assert_eq!(bytes.get_value("AP8").await.unwrap().unwrap()["id"], "AP8".into());
    let always = fixture.open("always").await.unwrap();
    always.insert("7", &record([("n", 1.into())])).await.unwrap();
    always.replace_value("7", &record([("n", 2.into())])).await.unwrap();
    assert_eq!(always.get_value("7").await.unwrap().unwrap()["n"], 2.into());
    assert_eq!(fixture.open("sales.orders").await.unwrap().get_count().await.unwrap(), 0);
    let seen = fixture.open("seen").await.unwrap();
    assert_eq!(seen.get_value("1").await.unwrap().unwrap()["n"], 1.into());
    assert!(matches!(seen.delete("1").await, Err(Error::Unsupported { .. })));
    let query = fixture.query("SELECT id, n * 2 AS twice FROM serials; -- all of them").await;
    assert!(query.is_err(), "two statements");
    let query = fixture.query("SELECT id, n * 2 AS twice FROM serials -- all of them").await.unwrap();
    assert_eq!(query.get_value("1").await.unwrap().unwrap()["twice"], 2.into());
    let error = fixture.query("SELECT 1 AS a, 2 AS a").await.unwrap_err().to_string();
    assert_eq!(error, "the query has two columns named \"a\": name one of them with AS");
}

#[tokio::test]
async fn nested_objects_merge_and_generated_columns_are_left_alone() {
    let Some(fixture) = Fixture::new(
        "CREATE TABLE t (id TEXT PRIMARY KEY, n INTEGER DEFAULT 5, meta JSONB, twice INTEGER GENERATED ALWAYS AS (n * 2) STORED);",
    ) else {
        return;
    };
    let vista = fixture.open("t").await.unwrap();
    let map = |key: &str, n: i64| CborValue::Map(vec![(key.into(), n.into())]);
    let row = record([("n", 3.into()), ("meta", map("a", 1))]);
    vista.insert("7", &row).await.unwrap();
    vista.insert("7", &row).await.expect("a retry");
    let stored = vista.get_value("7").await.unwrap().unwrap();
    assert_eq!(stored["twice"], 6.into());
    vista.replace_value("7", &stored).await.unwrap();
    vista.patch_value("7", &record([("meta", map("b", 2))])).await.unwrap();
    let meta = vista.get_value("7").await.unwrap().unwrap()["meta"].clone();
    assert_eq!(meta.as_map().unwrap().len(), 2);
    vista.replace_value("7", &record([])).await.unwrap();
    let row = vista.get_value("7").await.unwrap().unwrap();
    assert_eq!((&row["n"], &row["meta"]), (&5.into(), &CborValue::Null), "the default of the table");
}

/// Returns a batch of inserts into `products (id, n)`.
fn inserts(numbers: impl IntoIterator<Item = i64>) -> Vec<(String, WriteOp)> {
    let insert = |n: i64| WriteOp::Insert { id: n.to_string(), record: record([("n", n.into())]) };
    numbers.into_iter().map(|n| (format!("op_{n}"), insert(n))).collect()
}

#[tokio::test]
async fn a_batch_is_one_transaction_in_which_a_refusal_affects_no_other_write() {
    let Some(fixture) = Fixture::new(
        "CREATE TABLE products (id TEXT PRIMARY KEY, n INTEGER CHECK (n <> 3));
         CREATE TABLE history (op TEXT, transaction BIGINT);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO history VALUES (tg_op || new.id, txid_current()); RETURN NULL; END $$;
         CREATE TRIGGER note AFTER INSERT OR UPDATE ON products FOR EACH ROW EXECUTE FUNCTION note();",
    ) else {
        return;
    };
    let shell = fixture.shell("products").await;
    let written = shell.write_batch(&inserts(4..=9)).await;
    assert!(written.iter().all(Result::is_ok), "{written:?}");
    assert_eq!(fixture.server.psql("SELECT count(DISTINCT transaction) FROM history"), "1");
    let written = shell.write_batch(&inserts(1..=5)).await;
    let refused: Vec<_> = written.iter().enumerate().filter(|(_, done)| done.is_err()).map(|(at, _)| at).collect();
    assert_eq!((written.len(), refused), (5, vec![2]));
    let again = shell.write_batch(&inserts(1..=2)).await;
    assert!(again.iter().all(Result::is_ok), "a repeated operation has no second effect");
    assert_eq!(again[1].as_ref().unwrap().record.as_ref().unwrap()["n"], 2.into());
    assert_eq!(fixture.server.psql("SELECT count(*) FROM products"), "8");
    assert_eq!(fixture.server.psql("SELECT count(*) FROM _diorama_ops"), "8");
    assert_eq!(fixture.server.psql("SELECT count(*) FROM history"), "8", "each had its effect once");
    assert!(shell.knows("op_1").await.unwrap() && !shell.knows("op_3").await.unwrap());
    let missing = WriteOp::Patch { id: "99".into(), record: record([("n", 1.into())]) };
    let written = shell.write_once("op_99", &missing).await;
    assert!(matches!(written, Err(Error::NotFound { .. })));
    assert!(!shell.knows("op_99").await.unwrap(), "what had no effect is not noted");
}

#[tokio::test]
async fn a_batch_whose_commit_is_refused_is_executed_one_by_one_in_order() {
    let Some(fixture) = Fixture::new(
        "CREATE TABLE parents (id TEXT PRIMARY KEY);
         CREATE TABLE products (id TEXT PRIMARY KEY, n TEXT REFERENCES parents DEFERRABLE INITIALLY DEFERRED, at SERIAL);
         INSERT INTO parents VALUES ('1'), ('2');",
    ) else {
        return;
    };
    let shell = fixture.shell("products").await;
    let insert = |id: &str, parent: &str| {
        (format!("op_{id}"), WriteOp::Insert { id: id.into(), record: record([("n", parent.into())]) })
    };
    let written = shell.write_batch(&[insert("a", "1"), insert("b", "none"), insert("c", "2")]).await;
    assert!(written[0].is_ok() && written[1].is_err() && written[2].is_ok(), "{written:?}");
    assert_eq!(fixture.server.psql("SELECT string_agg(id, ',' ORDER BY at) FROM products"), "a,c");
}

/// Two attempts of one operation at the same time: the first has not committed when the second begins.
#[tokio::test]
async fn attempts_of_one_operation_at_the_same_time_have_one_effect() {
    let Some(fixture) = Fixture::new(
        "CREATE TABLE t (id TEXT PRIMARY KEY, n INTEGER); INSERT INTO t VALUES ('a', 0);
         CREATE TABLE history (n INTEGER);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO history VALUES (new.n); RETURN NULL; END $$;
         CREATE TRIGGER note AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION note();",
    ) else {
        return;
    };
    let shell = fixture.shell("t").await;
    for round in 0..20 {
        let op = WriteOp::Patch { id: "a".into(), record: record([("n", round.into())]) };
        let operation = format!("op_{round}");
        let attempts = (0..4).map(|_| shell.write_once(&operation, &op));
        for attempt in futures_util::future::join_all(attempts).await {
            let again = match attempt {
                Ok(written) => Ok(written),
                // The attempt lost the race, and a retry finds the operation.
                Err(_) => shell.write_once(&operation, &op).await,
            };
            assert_eq!(again.unwrap().record.unwrap()["n"], round.into());
        }
    }
    assert_eq!(fixture.server.psql("SELECT count(*) FROM history"), "20");
}

#[tokio::test]
async fn errors_of_connecting_say_what_to_do_and_keep_the_password() {
    let Some(fixture) =
        Fixture::new("CREATE TABLE t (id INTEGER PRIMARY KEY); CREATE USER reader PASSWORD 'reading-only';")
    else {
        return;
    };
    let open = async |url: &str| {
        let relation = PostgresRelation::Table("t".into());
        Postgres::open("t", url, relation, PostgresOptions::default()).await.unwrap_err().to_string()
    };
    let url = fixture.url();
    let wrong = open(&url.replace("diorama@", "mistaken@")).await;
    assert!(
        wrong.contains("password authentication failed") && wrong.ends_with("check user and password of the URL"),
        "{wrong}"
    );
    assert!(!wrong.contains("mistaken"), "{wrong}");
    let unescaped = open(&url.replace("diorama@", "half@half/half@")).await;
    assert!(unescaped.contains("write @ as %40") && !unescaped.contains("half"), "{unescaped}");
    let missing = open(&fixture.server.url("nope")).await;
    assert!(
        missing.ends_with("database \"nope\" does not exist: check the name of the database in the URL"),
        "{missing}"
    );
    let refused = open("postgres://postgres:x@127.0.0.1:1/db").await;
    assert!(refused.starts_with("cannot connect to postgres://postgres@127.0.0.1:1/db: "), "{refused}");
    let reader = url.replace("postgres:diorama@", "reader:reading-only@");
    assert_eq!(open(&reader).await, "reader may not read t: GRANT SELECT ON \"t\" TO reader");
    fixture.server.psql("GRANT SELECT ON t TO reader");
    let relation = || PostgresRelation::Table("t".into());
    let vista = Postgres::open("t", &reader, relation(), PostgresOptions::default()).await.unwrap();
    assert!(!vista.capabilities().can_insert, "a user who may only read has a source that can only be read");
    fixture.server.psql("GRANT INSERT, UPDATE, DELETE ON t TO reader");
    let told = open(&reader).await;
    assert!(
        told.contains("CREATE TABLE IF NOT EXISTS \"public\"._diorama_ops") && told.contains("GRANT SELECT"),
        "{told}"
    );
    let error = fixture.open("nope").await.unwrap_err().to_string();
    assert!(error.ends_with("has no table \"nope\": it has t"), "{error}");
}
