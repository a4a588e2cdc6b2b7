use tempfile::TempDir;

use super::*;
use crate::contract;
use diorama_core::record::CborValue;
use diorama_core::vista::{ColumnType, Flag};

struct Fixture {
    dir: TempDir,
}

impl Fixture {
    fn new(sql: &str) -> Fixture {
        let fixture = Fixture { dir: tempfile::tempdir().unwrap() };
        fixture.direct().execute_batch(sql).unwrap();
        fixture
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("shop.db")
    }

    /// Returns a connection like that of another program on the same file.
    fn direct(&self) -> Connection {
        Connection::open(self.path()).unwrap()
    }

    async fn open(&self, table: &str) -> Result<Vista> {
        Sqlite::open("products", self.path(), table, SqliteOptions::default()).await
    }
}

/// Returns options that switch to WAL mode.
fn wal() -> SqliteOptions {
    SqliteOptions { journal_mode: Some(JournalMode::Wal), ..SqliteOptions::default() }
}

/// Number of transactions in the WAL file. The last frame of each holds the size of the database after it.
fn transactions(fixture: &Fixture) -> usize {
    let wal = std::fs::read(fixture.path().with_extension("db-wal")).unwrap();
    let page = u32::from_be_bytes(wal[8..12].try_into().unwrap()) as usize;
    wal[32..].chunks_exact(24 + page).filter(|frame| frame[4..8] != [0; 4]).count()
}

/// Runs twenty concurrent writes, one of which is refused, and returns the number of transactions.
async fn twenty_at_a_time(conflict: &str) -> usize {
    let sql = format!("CREATE TABLE products (id TEXT PRIMARY KEY, n INTEGER UNIQUE {conflict});");
    let fixture = Fixture::new(&sql);
    let sqlite = super::open(&fixture.path(), "products", &wal()).unwrap();
    let number = |n: i64| record([("n", n.into())]);
    sqlite.write_once("op_0", &WriteOp::Insert { id: "0".into(), record: number(0) }).await.unwrap();
    let (other, before) = (fixture.direct(), transactions(&fixture));
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let write = |n: i64| {
        let (sqlite, op) = (sqlite.clone(), WriteOp::Insert { id: n.to_string(), record: number(n % 20) });
        async move { sqlite.write_once(&format!("op_{n}"), &op).await }
    };
    let mut writes = futures_util::future::join_all((1..=20).map(write));
    assert!(futures_util::poll!(&mut writes).is_pending(), "another program has locked the database");
    other.execute_batch("ROLLBACK").unwrap();
    let written = writes.await;
    let refused: Vec<_> =
        written.iter().enumerate().filter(|(_, written)| written.is_err()).map(|(at, _)| at).collect();
    assert_eq!(refused, [19], "n is 0 twice");
    assert!(matches!(written[19], Err(Error::Conflict { .. })), "{:?}", written[19]);
    assert_eq!(written[4].as_ref().unwrap().record.as_ref().unwrap()["n"], 5.into());
    let count = |table: &str| other.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0));
    assert_eq!((count("products").unwrap(), count("_diorama_ops").unwrap()), (20, 20), "each with its operation");
    let again = write(5).await.unwrap();
    assert_eq!(again.record.unwrap()["n"], 5.into(), "the operation is known");
    transactions(&fixture) - before
}

#[tokio::test]
async fn concurrent_writes_share_a_transaction_and_a_refused_one_affects_no_other() {
    let transactions = twenty_at_a_time("").await;
    assert!(transactions <= 3, "{transactions} transactions");
    twenty_at_a_time("ON CONFLICT ROLLBACK").await;
}

fn record<const N: usize>(cells: [(&str, CborValue); N]) -> Record {
    cells.into_iter().map(|(column, value)| (column.to_string(), value)).collect()
}

/// Returns the SQL of the contract's rows in their natural order, which needs a separate rowid.
fn products(ending: &str) -> String {
    let mut sql =
        format!("CREATE TABLE products (id INTEGER {ending}, name TEXT, price INTEGER, category_id INTEGER);");
    for line in contract::CSV.lines().skip(1) {
        let cells: Vec<&str> = line.split(',').collect();
        let price = if cells[2].is_empty() { "NULL" } else { cells[2] };
        sql += &format!("INSERT INTO products VALUES ({}, '{}', {price}, {});", cells[0], cells[1], cells[3]);
    }
    sql
}

#[tokio::test]
async fn the_contract_suite_passes() {
    let fixture = Fixture::new(&products("UNIQUE"));
    let options = SqliteOptions { id: Some("id".into()), ..SqliteOptions::default() };
    let vista = Sqlite::open("products", fixture.path(), "products", options.clone()).await.unwrap();
    contract::reads(&vista, contract::Natural::Stored).await;
    contract::writes(&vista).await;
    let fixture = Fixture::new(&products("UNIQUE"));
    let options = SqliteOptions { read_only: true, ..options };
    let vista = Sqlite::open("products", fixture.path(), "products", options).await.unwrap();
    contract::refuses_writes(&vista).await;
}

#[tokio::test]
async fn the_schema_is_the_tables() {
    let fixture = Fixture::new(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, name VARCHAR(20) NOT NULL, price REAL, active BOOLEAN NOT NULL DEFAULT 1, \
         raw BLOB, added DATE, at DATETIME, meta JSON, any, twice INTEGER AS (price * 2));",
    );
    let schema = fixture.open("t").await.unwrap().schema();
    use ColumnType as T;
    let types: Vec<_> = schema.columns().iter().map(|column| column.ty).collect();
    let expected =
        [T::Integer, T::String, T::Number, T::Boolean, T::Bytes, T::Date, T::Datetime, T::Json, T::Json, T::Integer];
    assert_eq!(types, expected);
    let mandatory: Vec<_> = schema.columns().iter().filter(|c| c.has(Flag::Mandatory)).map(|c| &*c.name).collect();
    assert_eq!((schema.id_column(), mandatory), ("id", vec!["name"]));
    assert_eq!(schema.column("name").unwrap().original_type, "VARCHAR(20)");
}

#[tokio::test]
async fn values_come_back_as_they_were_written() {
    let fixture = Fixture::new(
        "CREATE TABLE t (id TEXT PRIMARY KEY, n INTEGER, f REAL, b BOOLEAN, raw BLOB, meta JSON, any, twice AS (n * 2));",
    );
    let vista = fixture.open("t").await.unwrap();
    let meta = CborValue::Map(vec![("a".into(), CborValue::Array(vec![1.into(), true.into(), "x".into()]))]);
    let row = record([
        ("id", "7".into()),
        ("n", i64::MAX.into()),
        ("f", 0.1.into()),
        ("b", true.into()),
        ("raw", CborValue::Bytes(vec![0, 255])),
        ("meta", meta),
        ("any", "[1]".into()),
    ]);
    vista.insert("7", &row).await.unwrap();
    vista.insert("7", &row).await.expect("a retry");
    let stored = vista.get_value("7").await.unwrap().unwrap();
    for (column, value) in &row {
        assert_eq!(&stored[column], value, "{column}");
    }
    vista.replace_value("7", &stored).await.expect("generated columns are left alone");
    let nested = vista.patch_value("7", &record([("meta", CborValue::Map(vec![("b".into(), 2.into())]))])).await;
    nested.unwrap();
    let meta = vista.get_value("7").await.unwrap().unwrap()["meta"].clone();
    assert_eq!(meta.as_map().unwrap().len(), 2, "nested objects merge");
    for (column, value) in [("n", u64::MAX.into()), ("f", f64::NAN.into()), ("any", CborValue::Array(vec![]))] {
        let error = vista.patch_value("7", &record([(column, value)])).await.unwrap_err();
        assert!(matches!(error, Error::Invalid { ref fields, .. } if fields.contains_key(column)), "{error}");
    }
}

#[tokio::test]
async fn hostile_names_and_values_stay_names_and_values() {
    let table = "a\"; DROP TABLE x; --";
    let column = "c\"] = 1 OR 1=1; --'";
    let (quoted, quoted_column) = (crate::sql::quote(table), crate::sql::quote(column));
    let fixture = Fixture::new(&format!(
        "CREATE TABLE {quoted} (id TEXT PRIMARY KEY, {quoted_column} TEXT); CREATE TABLE x (y);"
    ));
    let mut vista = fixture.open(table).await.unwrap();
    let evil = "'); DROP TABLE x; --\0\"";
    for id in [evil, "%", "007", "7", "é"] {
        vista.insert(id, &record([(column, evil.into())])).await.unwrap();
        assert_eq!(vista.get_value(id).await.unwrap().unwrap()[column], evil.into());
    }
    vista.patch_value(evil, &record([(column, "x".into())])).await.unwrap();
    assert_eq!(vista.get_count().await.unwrap(), 5);
    let error = vista.insert("9", &record([("nope\" --", 1.into())])).await.unwrap_err();
    assert!(error.to_string().contains("does not exist"), "{error}");
    vista.add_order(column, true).unwrap();
    vista.add_condition_eq(column, evil.into()).unwrap();
    assert_eq!(vista.get_count().await.unwrap(), 4);
    vista.delete_all().await.unwrap();
    assert_eq!(fixture.open("x").await.unwrap().get_count().await.unwrap(), 0, "the other table is still there");
}

#[tokio::test]
async fn refusals_name_the_mistake_in_the_data() {
    let fixture = Fixture::new(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT NOT NULL, sku TEXT UNIQUE, n INTEGER CHECK (n > 0)); \
         INSERT INTO t VALUES (1, 'a', 'x', 1);",
    );
    let vista = fixture.open("t").await.unwrap();
    let error = vista.insert("2", &record([("name", "b".into()), ("sku", "x".into())])).await.unwrap_err();
    assert_eq!(error.to_string(), "row \"2\" conflicts with another row: UNIQUE constraint failed: t.sku");
    let error = vista.replace_value("2", &record([("name", "b".into()), ("sku", "x".into())])).await.unwrap_err();
    assert!(matches!(error, Error::Conflict { .. }), "a replace does not delete another row: {error}");
    let error = vista.patch_value("1", &record([("name", CborValue::Null)])).await.unwrap_err();
    assert_eq!(error.to_string(), "column \"name\" must not be null");
    let error = vista.patch_value("1", &record([("n", 0.into())])).await.unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }) && error.kind() == ErrorKind::Permanent, "{error}");
    let error = vista.insert("007", &record([("name", "b".into())])).await.unwrap_err();
    assert_eq!(error.to_string(), "column \"id\" must be an integer of 64 bits");
    assert_eq!(vista.get_value("01").await.unwrap(), None);
    assert_eq!(vista.get_count().await.unwrap(), 1, "a refused write has no effect");
}

#[tokio::test]
async fn a_lock_is_transient_and_reads_continue() {
    let fixture = Fixture::new("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER); INSERT INTO t VALUES (1, 1);");
    let sqlite = open(&fixture.path(), "t", &SqliteOptions::default()).unwrap();
    sqlite.0.connections.writer.lock().as_ref().unwrap().busy_timeout(Duration::ZERO).unwrap();
    let vista = Vista::new("t", sqlite);
    let other = fixture.direct();
    other.execute_batch("BEGIN IMMEDIATE; UPDATE t SET n = 2").unwrap();
    let error = vista.patch_value("1", &record([("n", 3.into())])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
    assert_eq!(vista.get_value("1").await.unwrap().unwrap()["n"], 1.into());
    other.execute_batch("COMMIT").unwrap();
    vista.patch_value("1", &record([("n", 3.into())])).await.unwrap();
}

/// SQLite does not wait for other connections while it switches to WAL mode.
#[test]
fn several_dios_open_a_fresh_database_at_once() {
    for _ in 0..30 {
        let fixture = Fixture::new("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER)");
        let open = || super::open(&fixture.path(), "t", &wal()).map(drop);
        std::thread::scope(|scope| {
            let opened = [(); 4].map(|()| scope.spawn(open));
            opened.into_iter().for_each(|opened| opened.join().unwrap().unwrap());
        });
        let mode = fixture.direct().query_row("PRAGMA journal_mode", [], |row| row.get::<_, String>(0));
        assert_eq!(mode.unwrap(), "wal");
    }
}

#[tokio::test]
async fn ids_come_from_the_key_the_rowid_or_the_options() {
    let fixture = Fixture::new(
        "CREATE TABLE plain (name TEXT); INSERT INTO plain VALUES ('a'), ('b');
         CREATE TABLE pair (a INTEGER, b INTEGER, PRIMARY KEY (a, b)) WITHOUT ROWID;
         CREATE TABLE keyed (k TEXT PRIMARY KEY, n INTEGER) WITHOUT ROWID; INSERT INTO keyed VALUES ('b', 1), ('a', 2);
         CREATE TABLE uuids (id UUID PRIMARY KEY, n INTEGER);
         CREATE VIEW seen AS SELECT k AS id, n FROM keyed;",
    );
    let plain = fixture.open("plain").await.unwrap();
    assert_eq!(plain.schema().id_column(), "rowid");
    assert_eq!(plain.insert_return_id(&record([("name", "c".into())])).await.unwrap(), "3");
    plain.patch_value("3", &record([("name", "d".into())])).await.unwrap();
    plain.replace_value("9", &record([("name", "e".into())])).await.unwrap();
    assert_eq!(plain.list_values().await.unwrap().ids().collect::<Vec<_>>(), ["1", "2", "3", "9"]);
    let error = fixture.open("pair").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "pair has no primary key of one column, but columns a, b: set id to the column that identifies the rows, or id = \"#\" to number them"
    );
    let mut keyed = fixture.open("keyed").await.unwrap();
    keyed.set_page_size(1).unwrap();
    let (page, token) = keyed.fetch_next(None).await.unwrap();
    assert_eq!((page.ids().next(), token.as_deref()), (Some("a"), Some("a")));
    let (page, token) = keyed.fetch_next(token).await.unwrap();
    assert_eq!((page.ids().next(), token), (Some("b"), None));
    let uuids = fixture.open("uuids").await.unwrap();
    let id = uuids.insert_return_id(&record([("n", 1.into())])).await.unwrap();
    assert_eq!(uuids.get_value(&id).await.unwrap().unwrap()["n"], 1.into());
    let seen = fixture.open("seen").await.unwrap();
    assert_eq!(seen.get_value("a").await.unwrap().unwrap()["n"], 2.into());
    assert!(matches!(seen.delete("a").await, Err(Error::Unsupported { .. })));
    let error = fixture.open("nope").await.unwrap_err().to_string();
    assert!(error.ends_with("shop.db has no table \"nope\": it has keyed, pair, plain, seen, uuids"), "{error}");
}

mod plans {
    use proptest::prelude::*;

    use super::*;

    /// Returns a table with cells of every kind in columns of every kind, as SQLite permits.
    fn table() -> Sqlite {
        let fixture = Fixture::new(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, n NUMERIC, t TEXT COLLATE NOCASE, b BOOLEAN);
             INSERT INTO t VALUES (-1, 1, 'a', 1), (2, 0.5, 'A', 0), (10, 'a', 'é', NULL), (3, NULL, NULL, 2),
               (4, x'61', x'61', 'x'), (5, 1.0, '', 1), (6, -1.5, '1', 0), (7, '', 'b', -1), (8, 3, 'a', 0.5);",
        );
        let sqlite =
            open(&fixture.path(), "t", &SqliteOptions { read_only: true, ..SqliteOptions::default() }).unwrap();
        // The open connection keeps the data; the folder may be deleted.
        sqlite
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn sql_answers_as_the_evaluator_does(queries in proptest::collection::vec(contract::queries::query(&["id", "n", "t", "b"]), 32)) {
            let sqlite = table();
            let (table, connection) = (&sqlite.0.table, sqlite.0.connections.reader.lock());
            let connection = connection.as_ref().unwrap();
            let ask = |query: &Query| {
                let plan = Plan::new(table, query);
                let rows = select(table, connection, &plan.select(&table.selected, &table.quoted), plan.params()).unwrap();
                if plan.is_exact { rows } else { apply(query, &table.schema, rows) }
            };
            let all = ask(&Query::default());
            for query in queries {
                let expected = apply(&query, &table.schema, all.clone());
                let (found, expected): (Vec<_>, Vec<_>) = (ask(&query).ids().map(String::from).collect(), expected.ids().map(String::from).collect());
                prop_assert_eq!(found, expected, "{:?}", query);
            }
        }
    }
}

/// Returns a batch of inserts into `products (id, n)`.
fn inserts(numbers: impl IntoIterator<Item = i64>) -> Vec<(String, WriteOp)> {
    let insert = |n: i64| WriteOp::Insert { id: n.to_string(), record: record([("n", n.into())]) };
    numbers.into_iter().map(|n| (format!("op_{n}"), insert(n))).collect()
}

#[tokio::test]
async fn a_batch_is_one_transaction_in_which_a_refusal_affects_no_other_write() {
    let fixture = Fixture::new("CREATE TABLE products (id TEXT PRIMARY KEY, n INTEGER CHECK (n <> 3));");
    let sqlite = super::open(&fixture.path(), "products", &wal()).unwrap();
    sqlite.write_batch(&inserts([0])).await.remove(0).unwrap();
    let before = transactions(&fixture);
    let written = sqlite.write_batch(&inserts(1..=5)).await;
    let refused: Vec<_> = written.iter().enumerate().filter(|(_, done)| done.is_err()).map(|(at, _)| at).collect();
    assert_eq!((written.len(), refused), (5, vec![2]));
    assert_eq!(transactions(&fixture) - before, 1);
    let again = sqlite.write_batch(&inserts(1..=2)).await;
    assert!(again.iter().all(Result::is_ok), "a repeated operation has no second effect");
    let count = |sql: &str| fixture.direct().query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!((count("SELECT count(*) FROM products"), count("SELECT count(*) FROM _diorama_ops")), (5, 5));
}

#[tokio::test]
async fn an_operation_has_one_effect_over_a_thousand_deliveries() {
    let fixture = Fixture::new(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER);
         INSERT INTO t VALUES (0, -1), (1, -1), (2, -1), (3, -1), (4, -1), (5, -1), (6, -1), (7, -1), (8, -1), (9, -1);
         CREATE TABLE history (n INTEGER);
         CREATE TRIGGER note AFTER UPDATE ON t BEGIN INSERT INTO history VALUES (new.n); END;",
    );
    let sqlite = super::open(&fixture.path(), "t", &SqliteOptions::default()).unwrap();
    let changes = contract::one_effect(&sqlite).await;
    let count = fixture.direct().query_row("SELECT count(*) FROM history", [], |row| row.get::<_, i64>(0));
    assert_eq!(usize::try_from(count.unwrap()), Ok(changes));
}

#[tokio::test]
async fn a_batch_whose_commit_is_refused_is_executed_one_by_one_in_order() {
    let fixture = Fixture::new(
        "CREATE TABLE parents (id TEXT PRIMARY KEY);
         CREATE TABLE products (id TEXT PRIMARY KEY, n TEXT REFERENCES parents DEFERRABLE INITIALLY DEFERRED);
         CREATE TABLE history (id TEXT);
         CREATE TRIGGER t AFTER INSERT ON products BEGIN INSERT INTO history VALUES (new.id); END;
         INSERT INTO parents VALUES ('1'), ('2');",
    );
    let sqlite = super::open(&fixture.path(), "products", &SqliteOptions::default()).unwrap();
    sqlite.0.connections.writer.lock().as_ref().unwrap().execute_batch("PRAGMA foreign_keys = ON").unwrap();
    let insert = |id: &str, parent: &str| {
        let record = record([("n", parent.into())]);
        (format!("op_{id}"), WriteOp::Insert { id: id.into(), record })
    };
    let written = sqlite.write_batch(&[insert("a", "1"), insert("b", "none"), insert("c", "2")]).await;
    assert!(written[0].is_ok() && written[1].is_err() && written[2].is_ok(), "{written:?}");
    let direct = fixture.direct();
    let mut order = direct.prepare("SELECT group_concat(id) FROM history").unwrap();
    assert_eq!(order.query_row([], |row| row.get::<_, String>(0)).unwrap(), "a,c");
}

#[tokio::test]
async fn a_batch_ends_with_the_first_transient_failure() {
    let fixture = Fixture::new("CREATE TABLE products (id TEXT PRIMARY KEY, n INTEGER);");
    let sqlite = super::open(&fixture.path(), "products", &SqliteOptions::default()).unwrap();
    sqlite.0.connections.writer.lock().as_ref().unwrap().busy_timeout(Duration::ZERO).unwrap();
    let other = fixture.direct();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let written = sqlite.write_batch(&inserts(1..=3)).await;
    assert_eq!(written.len(), 1, "the others were not tried");
    assert_eq!(written[0].as_ref().unwrap_err().kind(), ErrorKind::Transient);
    other.execute_batch("ROLLBACK").unwrap();
    assert!(sqlite.write_batch(&inserts(1..=3)).await.iter().all(Result::is_ok));
}

#[tokio::test]
async fn a_writer_whose_writes_were_taken_does_not_wait_for_a_lock() {
    let fixture = Fixture::new("CREATE TABLE products (id TEXT PRIMARY KEY, n INTEGER);");
    let sqlite = super::open(&fixture.path(), "products", &SqliteOptions::default()).unwrap();
    let other = fixture.direct();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let written = write::execute_groups(&sqlite.0.table, sqlite.0.connections.writer.lock().as_mut().unwrap(), &[]);
    assert!(written.is_empty() && other.execute_batch("ROLLBACK").is_ok());
}

/// In rollback mode a crash leaves a journal, which the first reader has to roll back.
#[tokio::test]
async fn a_transaction_that_a_crash_interrupted_is_rolled_back_when_the_file_is_opened() {
    let before = Fixture::new("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER, text TEXT)");
    let program = before.direct();
    let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
        INSERT INTO t SELECT i, 1, printf('%0200d', i) FROM n; PRAGMA cache_size = 5; BEGIN; UPDATE t SET n = 2;";
    program.execute_batch(fill).unwrap();
    let after = Fixture { dir: tempfile::tempdir().unwrap() };
    for name in ["shop.db", "shop.db-journal"] {
        std::fs::copy(before.dir.path().join(name), after.dir.path().join(name)).unwrap();
    }
    let vista = after.open("t").await.unwrap();
    let rows = vista.list_values().await.unwrap();
    assert_eq!((rows.len(), &rows.get("2000").unwrap()["n"]), (2_000, &1.into()));
    vista.patch_value("1", &record([("n", 3.into())])).await.unwrap();
}

mod replaced;

#[tokio::test]
async fn foreign_keys_to_a_primary_key_are_references() {
    let fixture = Fixture::new(
        "CREATE TABLE categories (id INTEGER PRIMARY KEY, code TEXT UNIQUE);
         CREATE TABLE pairs (a INTEGER, b INTEGER, PRIMARY KEY (a, b));
         CREATE TABLE products (
            id TEXT PRIMARY KEY,
            category_id INTEGER REFERENCES categories,
            Maker INTEGER REFERENCES categories (ID),
            code TEXT REFERENCES categories (code),
            a INTEGER, b INTEGER, parent_id TEXT REFERENCES products (id),
            lost_id TEXT REFERENCES nowhere (id),
            FOREIGN KEY (a, b) REFERENCES pairs
         );",
    );
    let schema = fixture.open("products").await.unwrap().schema();
    let found: Vec<_> = schema.references().iter().map(|it| (&*it.relation, &*it.target, &*it.column)).collect();
    let expected = [
        ("category", "categories", "category_id"),
        ("Maker", "categories", "Maker"),
        ("parent", "products", "parent_id"),
    ];
    assert_eq!(found, expected);
}
