//! The application behind the topics.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use rusqlite::Connection;
use serde_json::{Value, json};
use tokio::sync::RwLock;

use super::broker::{Broker, Message, Read};
use crate::harness::Random;

/// It applies each write of the topic `writes` once, and reports the change in `changes` as Debezium does.
pub(super) struct Application<'a> {
    broker: &'a RwLock<Broker>,
    database: Connection,
    /// Operations that it has applied.
    applied: HashSet<String>,
    read: Read,
    /// Position of the last change.
    lsn: i64,
    /// Makes changes of its own to rows `o0` to `o29`, until `is_calm`.
    own: Option<Random>,
    is_calm: &'a AtomicBool,
}

/// A message about a changed row.
struct Change {
    key: String,
    partition: i32,
    text: String,
}

impl<'a> Application<'a> {
    pub(super) fn new(
        broker: &'a RwLock<Broker>,
        database: Connection,
        own: Option<Random>,
        is_calm: &'a AtomicBool,
    ) -> Application<'a> {
        Application { broker, database, applied: HashSet::new(), read: Read::new(), lsn: 0, own, is_calm }
    }

    pub(super) fn run(mut self, is_over: &AtomicBool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        while !is_over.load(Ordering::Acquire) {
            runtime.block_on(self.round());
        }
    }

    async fn round(&mut self) {
        let broker = self.broker.read().await;
        for Message { key, operation, value, partition } in broker.writes(&mut self.read).await {
            if self.applied.insert(operation) {
                let row: Option<Value> = value.map(|value| serde_json::from_str(&value).unwrap());
                self.change(&broker, &key, row.as_ref(), partition).await;
            }
        }
        // Rows of different partitions change at once, because a connection to the broker takes time.
        let own: Vec<Change> = (0..3_u64).filter_map(|partition| self.own_change(partition)).collect();
        join_all(own.iter().map(|change| broker.change(&change.key, change.partition, &change.text))).await;
    }

    /// Makes a change of its own.
    fn own_change(&mut self, partition: u64) -> Option<Change> {
        let is_calm = self.is_calm.load(Ordering::Acquire);
        let random = self.own.as_mut().filter(|_| !is_calm)?;
        let key = format!("o{}", random.below(10) * 3 + partition);
        let (is_deleted, price) = (random.below(5) == 0, random.below(100_000));
        let row = json!({ "price": price });
        let exists: i64 =
            self.database.query_row("SELECT count(*) FROM products WHERE id = ?1", [&key], |row| row.get(0)).unwrap();
        if is_deleted && exists == 0 {
            return None;
        }
        Some(self.make(&key, Some(&row).filter(|_| !is_deleted), i32::try_from(partition).unwrap()))
    }

    async fn change(&mut self, broker: &Broker, key: &str, row: Option<&Value>, partition: i32) {
        let change = self.make(key, row, partition);
        broker.change(key, partition, &change.text).await;
    }

    /// Changes a row of the database. Returns the message about it.
    fn make(&mut self, key: &str, row: Option<&Value>, partition: i32) -> Change {
        self.lsn += 1;
        self.apply(key, row);
        let source = json!({"table": "products", "lsn": self.lsn});
        let (before, after, op) = match row {
            Some(row) => (Value::Null, json!({"id": key, "price": row["price"], "rev": self.lsn}), "u"),
            None => (json!({"id": key}), Value::Null, "d"),
        };
        let text = json!({"before": before, "after": after, "source": source, "op": op}).to_string();
        Change { key: key.to_string(), partition, text }
    }

    fn apply(&self, id: &str, row: Option<&Value>) {
        let applied = match row {
            Some(row) => self.database.execute(
                "INSERT INTO products VALUES (?1, ?2, ?3)
                    ON CONFLICT (id) DO UPDATE SET price = excluded.price, rev = excluded.rev",
                (id, row["price"].as_i64(), self.lsn),
            ),
            None => self.database.execute("DELETE FROM products WHERE id = ?1", [id]),
        };
        assert_eq!(applied.unwrap(), 1, "{id}: {row:?}");
    }
}
