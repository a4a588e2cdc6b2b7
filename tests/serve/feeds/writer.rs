//! A writer of random transactions on the server.

use std::sync::atomic::Ordering;

use super::system::{Failed, OnConflict, Session};
use super::table::{Key, LARGE, Owner, Table};
use super::world::{World, pause};
use crate::harness::Random;
use crate::process::ask;

pub(super) struct Writer<'w> {
    number: u64,
    random: Random,
    world: &'w World,
}

impl<'w> Writer<'w> {
    pub(super) fn new(number: u64, random: Random, world: &'w World) -> Writer<'w> {
        Writer { number, random, world }
    }

    /// Writes until the end, over all lives of the server.
    pub(super) fn write(mut self) {
        while !self.world.is_over() {
            match self.world.dialect.connect(&self.world.database) {
                Some(mut session) => self.use_session(&mut *session),
                None => pause(20),
            }
        }
    }

    fn use_session(&mut self, session: &mut dyn Session) {
        while !self.world.is_over() && !session.is_closed() {
            {
                let world = self.world;
                let _working = world.rest.read();
                if world.is_over() {
                    return;
                }
                self.transaction(session);
            }
            pause(self.random.below(60));
        }
    }

    fn transaction(&mut self, session: &mut dyn Session) {
        let dialect = self.world.dialect;
        let mut sql = vec![dialect.begin(&mut self.random)];
        let kind = self.random.below(400);
        let is_large = kind < 2 && self.number == 0 && self.large_is_applied(session);
        if is_large {
            sql.push(self.large());
        } else if kind < 6 {
            let table = if self.random.below(2) == 0 { Table::Goods } else { Table::Shelves };
            sql.push(dialect.truncate(table.name()));
        }
        for _ in 0..self.random.below(7) {
            self.statement(&mut sql);
        }
        let is_undone = self.random.below(10) == 0;
        sql.push(if is_undone { "ROLLBACK" } else { "COMMIT" }.into());
        match session.execute(&sql.join(";\n")) {
            Ok(_) if is_undone => self.world.count("transactions rolled back", 1),
            Ok(rows) => {
                self.world.count("transactions", 1);
                self.world.count("changes", rows);
                self.world.count("large transactions", is_large.into());
                self.world.large_transactions.fetch_add(is_large.into(), Ordering::Relaxed);
            }
            Err(failed) => {
                if let Failed::Mistake(mistake) = failed {
                    self.world.fault(format!("a writer: {mistake}: {sql:#?}"));
                }
                self.world.count("transactions failed", 1);
                let _ = session.execute("ROLLBACK");
            }
        }
    }

    /// Returns true if the API shows the last row of the last large transaction. Several at once would only take longer.
    fn large_is_applied(&self, session: &mut dyn Session) -> bool {
        let last = LARGE + self.world.large;
        let n = session.query(&format!("SELECT n FROM goods WHERE id = {last}"));
        let shown = ask(&self.world.address(), "GET", &format!("/goods/{last}"), &[], "");
        shown.is_ok_and(|shown| match shown.status {
            200 => n.is_some_and(|n| n.parse().is_ok_and(|n: serde_json::Value| shown.json()["n"] == n)),
            404 => n.is_none(),
            _ => false,
        })
    }

    /// A statement about very many rows.
    fn large(&mut self) -> String {
        let (n, rows) = (self.world.number(), self.world.large);
        match self.random.below(5) {
            0 => format!("DELETE FROM goods WHERE id >= {LARGE}"),
            1 | 2 => format!("UPDATE goods SET n = {n}, d = {n} WHERE id >= {LARGE}"),
            _ => {
                let rows = format!("SELECT {LARGE} + i, {n}, '{{}}' FROM {}", self.world.dialect.numbers(rows));
                self.world.dialect.insert("goods (id, n, j)", &rows, "id", OnConflict::Update)
            }
        }
    }

    fn statement(&mut self, sql: &mut Vec<String>) {
        let (random, dialect) = (&mut self.random, self.world.dialect);
        let n = self.world.number();
        let own = Owner::Writer(self.number);
        let table = Table::random(random);
        let (name, key, other) = (table.name(), table.key(own, random), table.key(own, random));
        let update = |random: &mut Random, n: u64| {
            let set = table.assignment(dialect, random);
            format!("UPDATE {name} SET n = {n}, {set} WHERE {}", key.is())
        };
        let rename = |from: &Key, to: &Key, n: u64| {
            dialect.rename(name, &format!("{}, n = {n}", to.set()), &from.is(), &to.is())
        };
        match random.below(20) {
            0..=3 => sql.push(update(random, n)),
            4 => sql.push(format!("UPDATE {name} SET n = {n} WHERE {}", key.is())),
            5..=7 => sql.push(key.insert(n, OnConflict::Ignore, dialect, random)),
            8 => {
                let conflict = if random.below(2) == 0 { OnConflict::Update } else { OnConflict::Replace };
                sql.push(key.insert(n, conflict, dialect, random));
            }
            9 | 10 => {
                for _ in 0..2 + random.below(3) {
                    sql.push(update(random, self.world.number()));
                }
            }
            11 | 12 => sql.push(format!("DELETE FROM {name} WHERE {}", key.is())),
            13 | 14 => sql.push(rename(&key, &other, n)),
            15 => {
                sql.push(format!("DELETE FROM {name} WHERE {}", key.is()));
                sql.push(key.insert(n, OnConflict::Ignore, dialect, random));
            }
            16 => sql.push(format!("UPDATE {name} SET n = {n} WHERE {}", table.all_of(own))),
            17 => {
                // The rows of the client: each has a column that is not the client's.
                let set = table.assignment(dialect, random);
                sql.push(format!("UPDATE {name} SET {set} WHERE {}", table.all_of(Owner::Client)));
            }
            18 => {
                sql.push("SAVEPOINT s".into());
                sql.push(update(random, n));
                sql.push(other.insert(self.world.number(), OnConflict::Ignore, dialect, random));
                sql.push(if random.below(2) == 0 { "ROLLBACK TO s" } else { "RELEASE SAVEPOINT s" }.into());
            }
            _ => {
                // There and back again.
                sql.push(rename(&key, &other, n));
                sql.push(rename(&other, &key, self.world.number()));
            }
        }
    }
}
