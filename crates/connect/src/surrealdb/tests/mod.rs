use std::time::Duration;

use diorama_servers::{CutProxy, PASSWORD, SurrealServer};

use super::super::address::Address;
use super::super::kind::Kind;
use super::super::value;
use super::*;
use crate::contract;
use diorama_core::vista::{Column, ColumnType, ErrorKind, Flag, Vista};

mod faults;
mod feed;
mod types;
mod writes;

/// A server whose database has the tables of some statements.
struct Fixture {
    server: SurrealServer,
}

impl Fixture {
    /// Returns `None` where no server can be had, which is a failure under CI.
    fn new(statements: &str) -> Option<Fixture> {
        let fixture = Fixture { server: SurrealServer::start()? };
        fixture.sql(statements);
        Some(fixture)
    }

    fn sql(&self, statements: &str) -> serde_json::Value {
        self.server.sql(statements)
    }

    fn count(&self, table: &str) -> u64 {
        self.sql(&format!("SELECT count() FROM {table} GROUP ALL"))[0]["count"].as_u64().unwrap_or_default()
    }

    fn address_at(&self, port: u16) -> Address {
        Address::with_root(&format!("ws://127.0.0.1:{port}"), "test", "shop", PASSWORD)
    }

    fn shared_at(&self, port: u16, table: &str) -> Arc<Shared> {
        Shared::new(self.address_at(port), table.into())
    }

    async fn shell(&self, table: &str) -> Surreal {
        self.shell_at(self.server.port(), table).await
    }

    async fn shell_at(&self, port: u16, table: &str) -> Surreal {
        Surreal::connect(self.shared_at(port, table), &Options::default()).await.unwrap()
    }

    async fn open(&self, table: &str) -> Vista {
        Vista::new(table, self.shell(table).await)
    }

    async fn open_with(&self, table: &str, options: Options) -> Result<Vista> {
        let shared = self.shared_at(self.server.port(), table);
        Ok(Vista::new(table, Surreal::connect(shared, &options).await?))
    }

    /// Opens a table as another user.
    async fn open_as(&self, database: &str, login: (&str, &str), table: &str) -> Result<Vista> {
        let address = Address::with_user(&self.server.url(), "test", database, login);
        let shell = Surreal::connect(Shared::new(address, table.into()), &Options::default()).await?;
        Ok(Vista::new(table, shell))
    }
}

fn record<const N: usize>(cells: [(&str, CborValue); N]) -> Record {
    cells.into_iter().map(|(column, value)| (column.to_string(), value)).collect()
}

/// Returns the statements of the contract's rows.
fn products() -> String {
    let mut statements = String::new();
    for line in contract::CSV.lines().skip(1) {
        let cells: Vec<&str> = line.split(',').collect();
        let price = if cells[2].is_empty() { "NULL" } else { cells[2] };
        statements += &format!(
            "CREATE products:{} SET name = '{}', price = {price}, category_id = {};",
            cells[0], cells[1], cells[3]
        );
    }
    statements
}

#[tokio::test]
async fn the_contract_suite_passes() {
    let Some(fixture) = Fixture::new(&products()) else { return };
    let vista = fixture.open("products").await;
    contract::reads(&vista, contract::Natural::ById).await;
    contract::writes(&vista).await;
    fixture.sql(&products());
    let options = Options { read_only: true, ..Options::default() };
    contract::refuses_writes(&fixture.open_with("products", options).await.unwrap()).await;
}

#[tokio::test]
async fn a_table_with_declared_fields_keeps_the_contract() {
    let fields = "DEFINE TABLE products SCHEMAFULL; DEFINE FIELD name ON products TYPE option<string>;
        DEFINE FIELD price ON products TYPE option<int | null>; DEFINE FIELD category_id ON products TYPE option<int>;";
    let Some(fixture) = Fixture::new(&format!("{fields}{}", products())) else { return };
    let vista = fixture.open("products").await;
    contract::reads(&vista, contract::Natural::ById).await;
    contract::writes(&vista).await;
}

#[tokio::test]
async fn mistakes_say_what_to_do() {
    let Some(fixture) = Fixture::new(
        "CREATE t:1 SET n = 1; DEFINE TABLE v AS SELECT count() FROM t GROUP ALL;
         DEFINE USER reader ON DATABASE PASSWORD 'secret' ROLES VIEWER; DEFINE USER writer ON DATABASE PASSWORD 'secret' ROLES EDITOR;
         DEFINE USER space ON NAMESPACE PASSWORD 'secret' ROLES VIEWER",
    ) else {
        return;
    };
    let root = ("root", PASSWORD);
    for (database, login, table, expected) in [
        ("shop", ("root", "wrong"), "t", "check user, password and level"),
        ("shop", ("reader", "wrong"), "t", "check user, password and level"),
        ("missing", root, "t", "the database \"missing\" does not exist"),
        ("missing", ("space", "secret"), "t", "DEFINE DATABASE missing"),
        ("shop", root, "missing", "the table \"missing\" does not exist in this database: there are t, v"),
    ] {
        let error = fixture.open_as(database, login, table).await.unwrap_err();
        assert!(matches!(error, Error::Config(_)), "{error:?}");
        assert!(error.to_string().contains(expected), "{error}");
        assert!(!error.to_string().contains("wrong\"") && !error.to_string().contains("secret"), "{error}");
    }
    let other = Address::with_root(&fixture.server.url(), "missing", "shop", PASSWORD).connect().await.unwrap_err();
    assert!(other.to_string().contains("DEFINE NAMESPACE missing"), "{other}");
    assert!(fixture.sql("INFO FOR ROOT")["namespaces"]["missing"].is_null(), "nothing was made");
    assert!(fixture.sql("INFO FOR NS")["databases"]["missing"].is_null(), "nothing was made");

    let reader = fixture.open_as("shop", ("reader", "secret"), "t").await.unwrap();
    assert!(!reader.capabilities().can_insert && !reader.capabilities().can_delete);
    assert_eq!(reader.list_values().await.unwrap().len(), 1);
    let writer = fixture.open_as("shop", ("writer", "secret"), "t").await.unwrap();
    writer.patch_value("1", &record([("n", 2.into())])).await.unwrap();
    let view = fixture.open_as("shop", ("writer", "secret"), "v").await.unwrap();
    assert!(!view.capabilities().can_insert);
    let address = fixture.address_at(fixture.server.port());
    drop(fixture);
    let error = address.connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
}

#[tokio::test]
async fn a_right_that_is_lost_while_writing_is_named() {
    let Some(fixture) =
        Fixture::new("CREATE t:1 SET n = 1; DEFINE USER someone ON DATABASE PASSWORD 'secret' ROLES EDITOR")
    else {
        return;
    };
    let vista = fixture.open_as("shop", ("someone", "secret"), "t").await.unwrap();
    vista.patch_value("1", &record([("n", 2.into())])).await.unwrap();
    // The server answers the writes of such a user with nothing.
    fixture.sql("DEFINE USER OVERWRITE someone ON DATABASE PASSWORD 'secret' ROLES VIEWER");
    let mut root = fixture.address_at(fixture.server.port()).connect().await.unwrap();
    let table = Table::describe(&mut root, "t", &Options::default()).await.unwrap();
    let address = Address::with_user(&fixture.server.url(), "test", "shop", ("someone", "secret"));
    let mut session = address.connect().await.unwrap();
    let op = WriteOp::Insert { id: "7".into(), record: record([("n", 7.into())]) };
    for operation in [None, Some("op_1")] {
        let error = write::execute(&mut session, &table, &op, operation).await.unwrap_err();
        assert!(error.to_string().contains("EDITOR"), "{error}");
        assert_eq!(error.kind(), ErrorKind::Permanent);
    }
}

#[tokio::test]
async fn rows_with_keys_of_several_types_are_read_and_written() {
    let Some(fixture) = Fixture::new(
        "CREATE t:10 SET n = 1; CREATE t:⟨10⟩ SET n = 2; CREATE t:['London', d'2026-01-02T03:04:05Z'] SET n = 3;
         CREATE t:{ a: 1 } SET n = 4; CREATE t:u'0190d9df-57e6-7a12-9e3b-3c0b1a2d4e5f' SET n = 5; CREATE t:muffin SET n = 6;",
    ) else {
        return;
    };
    let vista = fixture.open("t").await;
    let rows = vista.list_values().await.unwrap();
    let ids: Vec<String> = rows.ids().map(str::to_string).collect();
    assert_eq!(ids.len(), 6);
    assert_eq!(ids.iter().filter(|id| !id.starts_with('~')).count(), 2, "{ids:?}");
    for id in &ids {
        let n = vista.get_value(id).await.unwrap().unwrap()["n"].clone();
        vista.patch_value(id, &record([("seen", true.into())])).await.unwrap();
        let row = vista.get_value(id).await.unwrap().unwrap();
        assert_eq!((&row["n"], &row["seen"]), (&n, &true.into()), "{id}");
    }
    assert_eq!(fixture.count("t"), 6);
    let mut paged = vista.clone();
    paged.set_page_size(1).unwrap();
    let (mut seen, mut token) = (Vec::new(), None);
    loop {
        let (page, next) = paged.fetch_next(token).await.unwrap();
        seen.extend(page.ids().map(str::to_string));
        token = next;
        if token.is_none() {
            break;
        }
    }
    assert_eq!(seen, ids, "pages are in the order of the keys");
    for id in &ids {
        vista.delete(id).await.unwrap();
    }
    assert_eq!(fixture.count("t"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_shows_one_moment_over_several_pages() {
    let Some(fixture) = Fixture::new("FOR $i IN 0..3500 { CREATE type::record('t', $i) SET n = 0 }") else { return };
    let shell = fixture.shell("t").await;
    let address = fixture.address_at(fixture.server.port());
    let mut changing = tokio::task::JoinSet::new();
    changing.spawn(async move {
        let mut session = address.connect().await.unwrap();
        for n in 1.. {
            session.last(&format!("UPDATE t SET n = {n} RETURN NONE"), object([]), None).await.unwrap();
        }
    });
    let mut moments = std::collections::HashSet::new();
    while moments.len() < 5 {
        let rows = shell.list(&Query::default()).await.unwrap();
        assert_eq!(rows.len(), 3_500);
        let values: std::collections::HashSet<String> = rows.iter().map(|(_, row)| format!("{:?}", row["n"])).collect();
        assert_eq!(values.len(), 1, "{values:?}");
        moments.extend(values);
    }
    changing.shutdown().await;
}
