//! A database that remembers operations: nothing happens twice, wherever the answer or the process is lost.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use diorama::connect::{Sqlite, SqliteOptions};
use diorama::dio::{OperationState, Retry};
use diorama::{Dio, Lens, WriteOp};
use diorama_core::state::OpId;

use super::harness::*;
use super::masters::{patch, write};

/// The database behind a master that can lose answers, or hold them, after the database has committed.
async fn database(path: &Path) -> Scripted {
    let table = Sqlite::open("products", path, "products", SqliteOptions::default()).await.unwrap();
    Scripted::over(Arc::clone(table.shell()))
}

/// Every change of a row leaves a mark, as it would in any database with a history: doing it twice shows.
const SHOP: &str = "CREATE TABLE products (id TEXT PRIMARY KEY, name TEXT, price INTEGER);
    INSERT INTO products VALUES ('7', 'Muffin', 175);
    CREATE TABLE history (what TEXT);
    CREATE TRIGGER changed AFTER UPDATE ON products BEGIN INSERT INTO history VALUES ('update'); END;
    CREATE TRIGGER made AFTER INSERT ON products BEGIN INSERT INTO history VALUES ('insert'); END;";

fn history(path: &Path) -> Vec<String> {
    let connection = rusqlite::Connection::open(path).unwrap();
    let mut statement = connection.prepare("SELECT what FROM history ORDER BY what").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(|what| what.unwrap()).collect()
}

async fn shop(dir: &Path, master: &Scripted) -> (Lens, Dio) {
    let retry = Retry { first: Duration::from_millis(1), ..Retry::default() };
    let lens = seeding(Lens::new().cache_at(dir.join("cache.redb"))).retry(retry).build().unwrap();
    let dio = lens.make_dio(master.vista("products")).await.unwrap();
    (lens, dio)
}

#[tokio::test]
async fn in_order_a_database_that_remembers_operations_applies_each_once_however_often_answers_are_lost() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shop.db");
    rusqlite::Connection::open(&path).unwrap().execute_batch(SHOP).unwrap();
    let master = database(&path).await;
    master.lose_answers(3);
    let (_lens, dio) = shop(dir.path(), &master).await;
    let op = patch(&dio, "7", 1).await;
    assert_eq!(dio.settled(op, Duration::from_secs(20)).await.unwrap().state, OperationState::Applied);
    assert_eq!(master.applied().len(), 4, "three answers were lost");
    assert_eq!(history(&path), ["update"]);
    assert_eq!(dio.cache().get_value("7").await.unwrap().unwrap()["price"], 1.into());
}

/// Killed between the database's commit and the journal's word of it.
#[test]
fn in_order_a_kill_between_commit_and_settlement_makes_nothing_happen_twice() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shop.db");
    rusqlite::Connection::open(&path).unwrap().execute_batch(SHOP).unwrap();
    let life = |work: std::pin::Pin<Box<dyn Future<Output = Vec<OpId>>>>| {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    };
    let (folder, database) = (dir.path().to_path_buf(), path.clone());
    let ops = life(Box::pin(async move {
        let master = self::database(&database).await;
        master.answers().close();
        let retry = Retry { first: Duration::from_millis(1), ..Retry::default() };
        let lens = seeding(Lens::new().cache_at(folder.join("cache.redb"))).retry(retry).write_concurrency(2);
        let lens = lens.build().unwrap();
        let dio = lens.make_dio(master.vista("products")).await.unwrap();
        let muffin = cells([("name", "Bun".into()), ("price", 5.into())]);
        let ops =
            vec![patch(&dio, "7", 1).await, write(&dio, WriteOp::Insert { id: "8".into(), record: muffin }).await];
        master.answers().waited_at(2).await;
        ops
    }));
    assert_eq!(history(&path), ["insert", "update"]);
    let folder = dir.path().to_path_buf();
    let database = path.clone();
    life(Box::pin(async move {
        let master = self::database(&database).await;
        let (_lens, dio) = shop(&folder, &master).await;
        for op in &ops {
            assert_eq!(dio.settled(*op, Duration::from_secs(20)).await.unwrap().state, OperationState::Applied);
        }
        assert_eq!(dio.cache().get_value("8").await.unwrap().unwrap()["price"], 5.into());
        ops
    }));
    assert_eq!(history(&path), ["insert", "update"], "nothing twice");
}
