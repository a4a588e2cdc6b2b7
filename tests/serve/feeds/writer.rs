//! A writer of random transactions on the server.

use std::sync::atomic::Ordering;

use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::table::{LARGE, Owner, Table};
use super::world::{World, pause};
use crate::harness::Random;

pub(super) struct Writer<'w> {
    number: u64,
    random: Random,
    world: &'w World,
    /// Position in the server's log after the last large transaction.
    large: Option<String>,
}

impl<'w> Writer<'w> {
    pub(super) fn new(number: u64, random: Random, world: &'w World) -> Writer<'w> {
        Writer { number, random, world, large: None }
    }

    /// Writes until the end, over all lives of the server.
    pub(super) fn write(mut self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            while !self.world.is_over() {
                match tokio_postgres::connect(&self.world.database, NoTls).await {
                    Ok((client, connection)) => {
                        #[expect(clippy::disallowed_methods, reason = "joined below")]
                        let task = tokio::spawn(connection);
                        self.use_connection(&client).await;
                        drop(client);
                        let _ended = task.await;
                    }
                    Err(_) => pause(20),
                }
            }
        });
    }

    #[expect(
        clippy::await_holding_lock,
        reason = "the checker takes this lock while the writers rest; each has its own thread"
    )]
    async fn use_connection(&mut self, client: &Client) {
        let _ = client.batch_execute("SET lock_timeout = '3s'").await;
        while !self.world.is_over() && !client.is_closed() {
            {
                let world = self.world;
                let _working = world.rest.read();
                if world.is_over() {
                    return;
                }
                self.transaction(client).await;
            }
            pause(self.random.below(60));
        }
    }

    async fn transaction(&mut self, client: &Client) {
        let mut sql = vec!["BEGIN".to_string()];
        let kind = self.random.below(400);
        let is_large = kind < 2 && self.number == 0 && self.large_is_applied(client).await;
        if is_large {
            sql.push(self.large());
        } else if kind < 6 {
            let table = if self.random.below(2) == 0 { Table::Goods } else { Table::Lines };
            sql.push(format!("TRUNCATE {}", table.name()));
        }
        for _ in 0..self.random.below(7) {
            self.statement(&mut sql);
        }
        let is_undone = self.random.below(10) == 0;
        sql.push(if is_undone { "ROLLBACK" } else { "COMMIT" }.into());
        match client.simple_query(&sql.join(";\n")).await {
            Ok(answers) => {
                let rows = answers.iter().filter_map(|answer| match answer {
                    SimpleQueryMessage::CommandComplete(rows) => Some(*rows),
                    _ => None,
                });
                if is_undone {
                    self.world.count("transactions rolled back", 1);
                } else {
                    self.world.count("transactions", 1);
                    self.world.count("changes", rows.sum());
                    self.world.count("large transactions", is_large.into());
                }
                if is_large && !is_undone {
                    self.world.large_transactions.fetch_add(1, Ordering::Relaxed);
                    self.large = query(client, "SELECT pg_current_wal_insert_lsn()").await;
                }
            }
            Err(error) => {
                if let Some(error) = error.as_db_error() {
                    let expected = ["40P01", "55P03", "57P01", "57P02", "57P03"];
                    if !expected.contains(&error.code().code()) {
                        self.world.fault(format!("a writer: {error}: {sql:#?}"));
                    }
                }
                self.world.count("transactions failed", 1);
                let _ = client.batch_execute("ROLLBACK").await;
            }
        }
    }

    /// Returns true if the feed has stored the changes of the last large transaction. Several at once would only take longer.
    async fn large_is_applied(&self, client: &Client) -> bool {
        let Some(large) = &self.large else { return true };
        let sql = format!(
            "SELECT 1 FROM pg_replication_slots WHERE slot_name = 'diorama_goods' AND confirmed_flush_lsn >= '{large}'"
        );
        query(client, &sql).await.is_some()
    }

    /// A statement about very many rows.
    fn large(&mut self) -> String {
        let (n, rows) = (self.world.number(), self.world.large);
        match self.random.below(5) {
            0 => format!("DELETE FROM goods WHERE id >= {LARGE}"),
            1 | 2 => format!("UPDATE goods SET n = {n}, d = {n} WHERE id >= {LARGE}"),
            _ => format!(
                "INSERT INTO goods (id, n, j) SELECT {LARGE} + i, {n}, '{{}}' FROM generate_series(1, {rows}) i \
                 ON CONFLICT (id) DO UPDATE SET n = EXCLUDED.n"
            ),
        }
    }

    fn statement(&mut self, sql: &mut Vec<String>) {
        let random = &mut self.random;
        let n = self.world.number();
        let own = Owner::Writer(self.number);
        let table = Table::random(random);
        let (name, key, other) = (table.name(), table.key(own, random), table.key(own, random));
        let update = |random: &mut Random, n: u64| {
            let set = table.assignment(random);
            format!("UPDATE {name} SET n = {n}, {set} WHERE {}", key.is())
        };
        match random.below(20) {
            0..=3 => sql.push(update(random, n)),
            4 => sql.push(format!("UPDATE {name} SET n = {n} WHERE {}", key.is())),
            5..=7 => sql.push(format!("{} DO NOTHING", key.insert(n, random))),
            8 => sql.push(format!("{} DO UPDATE SET n = EXCLUDED.n", key.insert(n, random))),
            9 | 10 => {
                for _ in 0..2 + random.below(3) {
                    sql.push(update(random, self.world.number()));
                }
            }
            11 | 12 => sql.push(format!("DELETE FROM {name} WHERE {}", key.is())),
            13 | 14 => sql.push(rename(name, &key.is(), &other, n)),
            15 => {
                sql.push(format!("DELETE FROM {name} WHERE {}", key.is()));
                sql.push(format!("{} DO NOTHING", key.insert(n, random)));
            }
            16 => sql.push(format!("UPDATE {name} SET n = {n} WHERE {}", table.all_of(own))),
            17 => {
                // The rows of the client: each has a column that is not the client's.
                let set = table.assignment(random);
                sql.push(format!("UPDATE {name} SET {set} WHERE {}", table.all_of(Owner::Client)));
            }
            18 => {
                sql.push("SAVEPOINT s".into());
                sql.push(update(random, n));
                sql.push(format!("{} DO NOTHING", other.insert(self.world.number(), random)));
                sql.push(if random.below(2) == 0 { "ROLLBACK TO s" } else { "RELEASE s" }.into());
            }
            _ => {
                // There and back again.
                sql.push(rename(name, &key.is(), &other, n));
                sql.push(rename(name, &other.is(), &key, self.world.number()));
            }
        }
    }
}

/// The first value of the result of a query; `None` without a row, or if it fails.
async fn query(client: &Client, sql: &str) -> Option<String> {
    let answers = client.simple_query(sql).await.ok()?;
    answers.iter().find_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_string),
        _ => None,
    })
}

/// Gives a row another key, if no row has it.
fn rename(name: &str, is: &str, to: &super::table::Key, n: u64) -> String {
    let free = format!("NOT EXISTS (SELECT FROM {name} WHERE {})", to.is());
    format!("UPDATE {name} SET {}, n = {n} WHERE {is} AND {free}", to.set())
}
