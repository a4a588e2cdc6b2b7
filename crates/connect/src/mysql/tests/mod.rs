use std::time::Duration;

use diorama_servers::{CutProxy, MariaDbServer};

use super::super::address::MySqlTls;
use super::*;
use crate::contract;
use diorama_core::record::CborValue;
use diorama_core::vista::{Column, ColumnType, ErrorKind, Flag};

mod faults;
mod feed;
mod plans;
mod storm;
mod types;
mod writes;

/// A server whose database `shop` has the tables of `sql`.
struct Fixture {
    server: MariaDbServer,
}

impl Fixture {
    /// Returns `None` where no server can be had, which is a failure under CI.
    fn new(sql: &str) -> Option<Fixture> {
        Fixture::with(&["innodb-flush-log-at-trx-commit=0", "sync-binlog=0"], sql)
    }

    /// As [`Fixture::new`], with options of the server.
    fn with(options: &[&str], sql: &str) -> Option<Fixture> {
        let server = MariaDbServer::start_with(options)?;
        server.sql(&format!("CREATE DATABASE shop; USE shop; {sql}"));
        Some(Fixture { server })
    }

    /// Runs `sql` in the database and returns the rows.
    fn sql(&self, sql: &str) -> String {
        self.server.sql(&format!("USE shop; {sql}")).trim_end().to_string()
    }

    fn url(&self) -> String {
        self.server.url("shop")
    }

    async fn open(&self, table: &str) -> Result<Vista> {
        self.open_with(table, MySqlOptions::default()).await
    }

    async fn open_with(&self, table: &str, options: MySqlOptions) -> Result<Vista> {
        MySql::open("products", &self.url(), MySqlRelation::Table(table.into()), options).await
    }

    async fn query(&self, sql: &str) -> Result<Vista> {
        MySql::open("products", &self.url(), MySqlRelation::Query(sql.into()), MySqlOptions::default()).await
    }

    /// Opens a table through a proxy.
    async fn shell_behind(&self, proxy: &CutProxy, table: &str) -> MySql {
        let url = self.url().replace(&format!(":{}/", self.server.port()), &format!(":{}/", proxy.port()));
        self.shell_at(&url, table).await
    }

    async fn shell(&self, table: &str) -> MySql {
        self.shell_at(&self.url(), table).await
    }

    async fn shell_at(&self, url: &str, table: &str) -> MySql {
        let address = Address::parse(url, None, None).unwrap();
        let shared = Shared::new(address, MySqlRelation::Table(table.into()));
        MySql::connect(shared, MySqlOptions::default()).await.unwrap()
    }
}

fn record<const N: usize>(cells: [(&str, CborValue); N]) -> Record {
    cells.into_iter().map(|(column, value)| (column.to_string(), value)).collect()
}

/// Returns the SQL of the contract's rows.
fn products() -> String {
    let mut sql = String::from(
        "CREATE TABLE products (id INTEGER PRIMARY KEY, name VARCHAR(100), price INTEGER, category_id INTEGER);",
    );
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
    fixture.sql(&format!("DROP TABLE products; {}", products()));
    let options = MySqlOptions { read_only: true, ..MySqlOptions::default() };
    contract::refuses_writes(&fixture.open_with("products", options).await.unwrap()).await;
}

#[tokio::test]
async fn the_schema_is_the_tables() {
    let Some(fixture) = Fixture::new(
        "CREATE TABLE categories (id INTEGER PRIMARY KEY);
         CREATE TABLE t (id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, name VARCHAR(20) NOT NULL, price DECIMAL(10,2),
            active TINYINT(1) NOT NULL DEFAULT 1, raw BLOB, added DATE, at TIMESTAMP NULL, meta JSON, tags SET('a', 'b'),
            mood ENUM('sad', 'happy'), flags BIT(8), took TIME, weight FLOAT, twice INTEGER AS (category_id * 2) STORED,
            category_id INTEGER, made YEAR, row_id UUID, note TEXT,
            FOREIGN KEY (category_id) REFERENCES categories (id));",
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
        T::String,
        T::String,
        T::Integer,
        T::String,
        T::Number,
        T::Integer,
        T::Integer,
        T::Integer,
        T::Uuid,
        T::String,
    ];
    assert_eq!(types, expected);
    let mandatory: Vec<_> = schema.columns().iter().filter(|c| c.has(Flag::Mandatory)).map(|c| &*c.name).collect();
    assert_eq!((schema.id_column(), mandatory), ("id", vec!["name"]));
    let original = |column: &str| schema.column(column).unwrap().original_type.clone();
    assert_eq!((&*original("name"), &*original("meta")), ("varchar(20)", "json"));
    let reference = &schema.references()[0];
    assert_eq!(
        (&*reference.relation, &*reference.target, &*reference.column),
        ("category", "categories", "category_id")
    );
}

/// A declared type says how the values of a column are read, not only what they are called.
#[tokio::test]
async fn a_declared_type_replaces_that_of_the_database() {
    let Some(fixture) = Fixture::new(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, stars TINYINT(1), big BIGINT UNSIGNED, doc TEXT, seen INTEGER);
         INSERT INTO t VALUES (1, 5, 18446744073709551615, '{\"a\":1}', 1);",
    ) else {
        return;
    };
    let plain = fixture.open("t").await.unwrap().get_value("1").await.unwrap().unwrap();
    assert_eq!((&plain["stars"], &plain["big"]), (&5.into(), &u64::MAX.into()), "no value is lost in any case");
    let columns = [
        ("stars", ColumnType::Integer),
        ("big", ColumnType::Decimal),
        ("doc", ColumnType::Json),
        ("seen", ColumnType::Boolean),
    ];
    let columns = columns.map(|(name, ty)| Column::new(name, ty)).to_vec();
    let vista = fixture.open_with("t", MySqlOptions { columns, ..MySqlOptions::default() }).await.unwrap();
    let row = vista.get_value("1").await.unwrap().unwrap();
    let doc = CborValue::Map(vec![("a".into(), 1.into())]);
    let expected = record([
        ("id", 1.into()),
        ("stars", 5.into()),
        ("big", "18446744073709551615".into()),
        ("doc", doc),
        ("seen", true.into()),
    ]);
    assert_eq!(row, expected);
    vista.replace_value("1", &row).await.unwrap();
    assert_eq!(vista.get_value("1").await.unwrap().unwrap(), expected);
}

#[tokio::test]
async fn hostile_names_and_values_stay_names_and_values() {
    let (table, column) = ("a`; DROP TABLE x; --", "c`] = 1 OR :name ? 1=1; --'");
    let (quoted, quoted_column) = (super::super::table::quote(table), super::super::table::quote(column));
    let sql = format!(
        "CREATE TABLE {quoted} (id VARCHAR(50) PRIMARY KEY, {quoted_column} TEXT); CREATE TABLE x (y INTEGER PRIMARY KEY);"
    );
    let Some(fixture) = Fixture::new(&sql) else { return };
    let mut vista = fixture.open(table).await.unwrap();
    let evil = "'); DROP TABLE x; --\"\\";
    for id in [evil, "%", "007", "7", "é", "\u{1f600}\0"] {
        vista.insert(id, &record([(column, evil.into())])).await.unwrap();
        assert_eq!(vista.get_value(id).await.unwrap().unwrap()[column], evil.into());
    }
    vista.patch_value(evil, &record([(column, "x".into())])).await.unwrap();
    assert_eq!(vista.get_count().await.unwrap(), 6);
    let error = vista.insert("9", &record([("nope` --", 1.into())])).await.unwrap_err();
    assert!(error.to_string().contains("does not exist"), "{error}");
    vista.add_order(column, true).unwrap();
    vista.add_condition_eq(column, evil.into()).unwrap();
    assert_eq!((vista.get_count().await.unwrap(), vista.list_values().await.unwrap().len()), (5, 5));
    vista.delete_all().await.unwrap();
    assert_eq!(fixture.open("x").await.unwrap().get_count().await.unwrap(), 0, "the other table is still there");
}

#[tokio::test]
async fn refusals_name_the_mistake_in_the_data() {
    let Some(fixture) = Fixture::new(
        "CREATE TABLE parents (id INTEGER PRIMARY KEY);
         CREATE TABLE t (id INTEGER PRIMARY KEY, name VARCHAR(10) NOT NULL, sku VARCHAR(10) UNIQUE, n TINYINT CHECK (n > 0),
            short VARCHAR(3), day DATE, at DATETIME, mood ENUM('sad'), parent INTEGER REFERENCES parents (id), old CHAR(2) CHARACTER SET latin1,
            FOREIGN KEY (parent) REFERENCES parents (id));
         INSERT INTO t (id, name, sku, n) VALUES (1, 'a', 'x', 1);
         \nDELIMITER //\nCREATE TRIGGER guard BEFORE UPDATE ON t FOR EACH ROW
            IF new.name = 'bad' THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no bad names'; END IF //\nDELIMITER ;\n",
    ) else {
        return;
    };
    let vista = fixture.open("t").await.unwrap();
    let error = vista.insert("2", &record([("name", "b".into()), ("sku", "x".into())])).await.unwrap_err();
    assert_eq!(error.to_string(), "row \"2\" conflicts with another row: Duplicate entry 'x' for key 'sku'");
    let error = vista.replace_value("2", &record([("name", "b".into()), ("sku", "x".into())])).await.unwrap_err();
    assert!(matches!(error, Error::Conflict { .. }), "a replace does not delete another row: {error}");
    let error = vista.patch_value("1", &record([("name", CborValue::Null)])).await.unwrap_err();
    assert_eq!(error.to_string(), "column \"name\" must not be null");
    let error = vista.insert("3", &record([("sku", "y".into())])).await.unwrap_err();
    assert_eq!(error.to_string(), "column \"name\" must be given: it has no default");
    for (column, value, named) in [
        ("n", 0.into(), false),
        ("n", 1_000.into(), true),
        ("short", "long".into(), true),
        ("parent", 9.into(), false),
        ("day", "tomorrow".into(), true),
        ("at", "2026-02-30T00:00:00Z".into(), true),
        ("mood", "angry".into(), true),
        ("old", "\u{1f600}".into(), true),
        ("name", "bad".into(), false),
    ] {
        let error = vista.patch_value("1", &record([(column, value)])).await.unwrap_err();
        let Error::Invalid { fields, .. } = &error else { panic!("{column}: {error}") };
        assert_eq!(fields.contains_key(column), named, "{column}: {error}");
        assert_eq!(error.kind(), ErrorKind::Permanent);
    }
    let error = vista.insert("007", &record([("name", "b".into())])).await.unwrap_err();
    assert_eq!(error.to_string(), "column \"id\" must be an integer of 64 bits");
    assert_eq!(vista.get_value("01").await.unwrap(), None);
    assert_eq!(vista.get_count().await.unwrap(), 1, "a refused write has no effect");
}

#[tokio::test]
async fn ids_come_from_the_key_or_the_options() {
    let Some(fixture) = Fixture::new(
        "CREATE TABLE plain (name TEXT);
         CREATE TABLE order_lines (orders VARCHAR(20), line INTEGER, n INTEGER, PRIMARY KEY (orders, line));
         CREATE TABLE uuids (id UUID PRIMARY KEY, n INTEGER); CREATE TABLE serials (id SERIAL PRIMARY KEY, n INTEGER);
         CREATE TABLE bytes (id BINARY(2) PRIMARY KEY); INSERT INTO bytes VALUES (x'00ff');
         CREATE TABLE words (id VARCHAR(20) PRIMARY KEY, n INTEGER); INSERT INTO words VALUES ('a', 1);
         CREATE TABLE big (id BIGINT UNSIGNED PRIMARY KEY); INSERT INTO big VALUES (18446744073709551615);
         CREATE TABLE other (a INTEGER NULL UNIQUE, b VARCHAR(20) NOT NULL UNIQUE);
         CREATE TABLE langs (lang ENUM('b', 'a'), n INTEGER, PRIMARY KEY (lang, n)); INSERT INTO langs VALUES ('b', 1), ('a', 1), ('a', 2);
         CREATE DATABASE sales; CREATE TABLE sales.orders (id INTEGER PRIMARY KEY);
         CREATE TABLE myisam (id INTEGER PRIMARY KEY) ENGINE = MyISAM;
         CREATE VIEW seen AS SELECT id, n FROM serials;",
    ) else {
        return;
    };
    let error = fixture.open("plain").await.unwrap_err().to_string();
    let hint = "set id to the column that identifies the rows, or to several with commas between them";
    assert_eq!(error, format!("plain has no primary key, but columns name: {hint}"));
    let by_name = MySqlOptions { id: Some("name".into()), ..MySqlOptions::default() };
    let plain = fixture.open_with("plain", by_name).await.unwrap();
    assert!(!plain.capabilities().can_update, "a column that may repeat cannot be written by");
    assert!(!fixture.open("myisam").await.unwrap().capabilities().can_insert, "an engine without transactions");

    let lines = fixture.open("order_lines").await.unwrap();
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

    let words = fixture.open("words").await.unwrap();
    for other in ["A", "a ", "á"] {
        assert_eq!(words.get_value(other).await.unwrap(), None, "{other:?} is another id");
        assert!(matches!(words.patch_value(other, &record([("n", 2.into())])).await, Err(Error::NotFound { .. })));
        assert!(matches!(words.replace_value(other, &record([("n", 2.into())])).await, Err(Error::Conflict { .. })));
        words.delete(other).await.unwrap();
    }
    assert_eq!(words.get_value("a").await.unwrap().unwrap()["n"], 1.into());
    let uuids = fixture.open("uuids").await.unwrap();
    let id = uuids.insert_return_id(&record([("n", 1.into())])).await.unwrap();
    assert_eq!(uuids.get_value(&id.to_uppercase()).await.unwrap().unwrap()["n"], 1.into());
    let serials = fixture.open("serials").await.unwrap();
    assert_eq!(serials.insert_return_id(&record([("n", 1.into())])).await.unwrap(), "1");
    serials.insert("0", &record([("n", 0.into())])).await.unwrap();
    assert_eq!(serials.get_value("0").await.unwrap().unwrap()["id"], 0.into());
    let bytes = fixture.open("bytes").await.unwrap();
    assert_eq!(bytes.get_value("AP8").await.unwrap().unwrap()["id"], "AP8".into());
    let big = fixture.open("big").await.unwrap();
    assert_eq!(big.get_value(&u64::MAX.to_string()).await.unwrap().unwrap()["id"], u64::MAX.to_string().into());
    assert_eq!(fixture.open("other").await.unwrap().schema().id_column(), "b");
    let mut langs = fixture.open("langs").await.unwrap();
    langs.set_page_size(1).unwrap();
    let (mut ids, mut token) = (Vec::new(), None);
    loop {
        let (rows, next) = langs.fetch_next(token).await.unwrap();
        ids.extend(rows.ids().map(String::from));
        token = next;
        if token.is_none() {
            break;
        }
    }
    assert_eq!(ids, ["a,1", "a,2", "b,1"]);
    assert_eq!(fixture.open("sales.orders").await.unwrap().get_count().await.unwrap(), 0);
    let seen = fixture.open("seen").await.unwrap();
    assert_eq!(seen.get_value("1").await.unwrap().unwrap()["n"], 1.into());
    assert!(matches!(seen.delete("1").await, Err(Error::Unsupported { .. })));
    let query = fixture.query("SELECT id, n * 2 AS twice FROM serials; DROP TABLE words; -- all of them").await;
    assert!(query.is_err(), "two statements");
    let query = fixture.query("SELECT id, n * 2 AS twice FROM serials -- all of them").await.unwrap();
    assert_eq!(query.get_value("1").await.unwrap().unwrap()["twice"], 2.into());
    let error = fixture.query("SELECT 1 AS a, 2 AS a").await.unwrap_err().to_string();
    assert_eq!(error, "Duplicate column name 'a': name one of the columns of the query with AS");
}

#[tokio::test]
async fn nested_objects_merge_and_generated_columns_are_left_alone() {
    let Some(fixture) = Fixture::new(
        "CREATE TABLE t (id VARCHAR(20) PRIMARY KEY, n INTEGER DEFAULT 5, meta JSON, twice INTEGER AS (n * 2) STORED,
            text VARCHAR(20) DEFAULT (concat('a', 'b')));",
    ) else {
        return;
    };
    let vista = fixture.open("t").await.unwrap();
    let map = |key: &str, n: i64| CborValue::Map(vec![(key.into(), n.into())]);
    let row = record([("n", 3.into()), ("meta", map("a", 1))]);
    vista.insert("7", &row).await.unwrap();
    vista.insert("7", &row).await.expect("a retry");
    let stored = vista.get_value("7").await.unwrap().unwrap();
    assert_eq!((&stored["twice"], &stored["text"]), (&6.into(), &"ab".into()));
    vista.replace_value("7", &stored).await.unwrap();
    vista.patch_value("7", &record([("meta", map("b", 2))])).await.unwrap();
    let meta = vista.get_value("7").await.unwrap().unwrap()["meta"].clone();
    assert_eq!(meta.as_map().unwrap().len(), 2);
    vista.replace_value("7", &record([("text", "x".into())])).await.unwrap();
    let row = vista.get_value("7").await.unwrap().unwrap();
    assert_eq!(
        (&row["n"], &row["meta"], &row["text"]),
        (&5.into(), &CborValue::Null, &"x".into()),
        "the default of the table"
    );
}

#[tokio::test]
async fn errors_of_connecting_say_what_to_do_and_keep_the_password() {
    let Some(fixture) = Fixture::new(
        "CREATE TABLE t (id INTEGER PRIMARY KEY); CREATE TABLE secret (id INTEGER PRIMARY KEY);
         CREATE USER reader@'127.0.0.1' IDENTIFIED BY 'reading-only'; GRANT SELECT ON shop.t TO reader@'127.0.0.1';",
    ) else {
        return;
    };
    let open = async |url: &str, table: &str, tls: Option<MySqlTls>| {
        let options = MySqlOptions { tls, ..MySqlOptions::default() };
        MySql::open("t", url, MySqlRelation::Table(table.into()), options).await.unwrap_err().to_string()
    };
    let url = fixture.url();
    let wrong = open(&url.replace("diorama@", "mistaken@"), "t", None).await;
    assert!(wrong.contains("Access denied") && wrong.ends_with("check user and password of the URL"), "{wrong}");
    assert!(!wrong.contains("mistaken"), "{wrong}");
    let missing = open(&fixture.server.url("nope"), "t", None).await;
    assert!(missing.contains("check the name of the database in the URL"), "{missing}");
    let refused = open("mysql://root:x@127.0.0.1:1/db", "t", None).await;
    assert!(refused.starts_with("cannot connect to mysql://root@127.0.0.1:1/db: "), "{refused}");
    let plain = open(&url, "t", Some(MySqlTls::Require)).await;
    assert!(plain.contains("the server does not encrypt"), "{plain}");
    let reader = url.replace("root:diorama@", "reader:reading-only@");
    assert_eq!(
        open(&reader, "secret", None).await,
        "reader may not read secret: GRANT SELECT ON `shop`.`secret` TO reader"
    );
    let relation = || MySqlRelation::Table("t".into());
    let vista = MySql::open("t", &reader, relation(), MySqlOptions::default()).await.unwrap();
    assert!(!vista.capabilities().can_insert, "a user who may only read has a source that can only be read");
    fixture.sql("GRANT INSERT, UPDATE, DELETE ON shop.t TO reader@'127.0.0.1'");
    let told = open(&reader, "t", None).await;
    assert!(
        told.contains("CREATE TABLE IF NOT EXISTS `shop`.`_diorama_ops`") && told.contains("GRANT SELECT"),
        "{told}"
    );
    fixture.open("t").await.unwrap();
    fixture.sql("GRANT SELECT, INSERT, DELETE ON shop._diorama_ops TO reader@'127.0.0.1'");
    let vista = MySql::open("t", &reader, relation(), MySqlOptions::default()).await.unwrap();
    vista.insert("1", &record([])).await.unwrap();
    let error = fixture.open("nope").await.unwrap_err().to_string();
    assert!(error.ends_with("has no table \"nope\": it has secret, t"), "{error}");
}

/// Returns the cipher of a new connection, empty if it is not encrypted.
async fn cipher(server: &MariaDbServer, tls: Option<MySqlTls>, ca: Option<std::path::PathBuf>) -> Result<String> {
    let address = Address::parse(&server.url("mysql"), tls, ca).unwrap();
    let pool = Pool::new(address);
    let mut lease = pool.lease().await?;
    let rows = lease.session().rows("SHOW SESSION STATUS LIKE 'Ssl_cipher'").await.unwrap();
    Ok(rows[0].get(1).unwrap())
}

#[tokio::test]
async fn connections_are_encrypted_if_the_server_can_and_checked_if_required() {
    let folder = tempfile::Builder::new().prefix("tls").tempdir().unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_string()]).unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert, certified.cert.pem()).unwrap();
    std::fs::write(&key, certified.signing_key.serialize_pem()).unwrap();
    let option = |name: &str, path: &std::path::Path| format!("{name}={}", path.display());
    let Some(server) = MariaDbServer::start_with(&[&option("ssl-cert", &cert), &option("ssl-key", &key)]) else {
        return;
    };
    assert_ne!(cipher(&server, None, None).await.unwrap(), "");
    assert_eq!(cipher(&server, Some(MySqlTls::Off), None).await.unwrap(), "");
    assert_ne!(cipher(&server, Some(MySqlTls::Require), Some(cert.clone())).await.unwrap(), "");
    let unknown = cipher(&server, Some(MySqlTls::Require), None).await.unwrap_err().to_string();
    assert!(unknown.contains("set ca to a PEM file"), "{unknown}");
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_string()]).unwrap();
    std::fs::write(&key, other.cert.pem()).unwrap();
    assert!(cipher(&server, None, Some(key)).await.is_err(), "a given authority is checked");
    let wrong = cipher(&server, None, Some("none.pem".into())).await.unwrap_err();
    assert!(matches!(wrong, Error::Config(_)), "{wrong}");
}

#[tokio::test]
async fn a_restarted_server_is_connected_to_again() {
    let Some(mut fixture) =
        Fixture::new("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER); INSERT INTO t VALUES (1, 1);")
    else {
        return;
    };
    let shell = fixture.shell("t").await;
    assert!(shell.get("1").await.unwrap().is_some());
    fixture.server.kill();
    let error = shell.get("1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
    let error = shell.write_batch(&writes::inserts([5])).await.remove(0).unwrap_err();
    assert_ne!(error.kind(), ErrorKind::Permanent, "{error}");
    fixture.server.restart();
    tokio::time::timeout(Duration::from_secs(20), async {
        while shell.get("1").await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the server is back");
    assert!(shell.write_batch(&writes::inserts([5])).await.remove(0).is_ok());
}
