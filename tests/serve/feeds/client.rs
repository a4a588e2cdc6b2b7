//! A client of the API: writes to its own rows and to those of the writers, and checks what it reads.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::table::{Key, Owner, Table};
use super::world::{World, pause};
use crate::harness::Random;
use crate::process::{Answer, ask};

/// The client of one table.
pub(super) struct Client<'w> {
    table: Table,
    random: Random,
    world: &'w World,
    /// For rows that nobody else changes: what `n` may be, by path; none without a row.
    own: HashMap<String, Vec<Option<u64>>>,
    /// For rows of the writers: the highest `n` that was read, by path.
    highest: HashMap<String, u64>,
}

impl<'w> Client<'w> {
    pub(super) fn new(table: Table, random: Random, world: &'w World) -> Client<'w> {
        Client { table, random, world, own: HashMap::new(), highest: HashMap::new() }
    }

    /// Writes and reads until the end, over all lives of Diorama; returns what `n` of its own rows may be.
    pub(super) fn run(mut self) -> HashMap<String, Vec<Option<u64>>> {
        while !self.world.is_over() {
            {
                let world = self.world;
                let _working = world.rest.read();
                if world.is_over() {
                    break;
                }
                match self.random.below(3) {
                    0 => self.write_own(),
                    1 => self.write_shared(),
                    _ => self.read_shared(),
                }
            }
            pause(self.random.below(30));
        }
        self.own
    }

    fn send(&mut self, method: &str, path: &str, body: &Value) -> Option<Answer> {
        let mut headers = vec![("content-type", "application/json")];
        if method != "GET" && self.random.below(6) == 0 {
            headers.push(("prefer", "wait=1"));
        }
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = ask(&self.world.address(), method, path, &headers, &body).ok();
        if answer.is_none() {
            self.world.count("requests without an answer", 1);
            pause(50);
        }
        answer.filter(|answer| answer.status != 503 || method == "GET")
    }

    /// Writes a row that no writer touches in `n`; where no writer deletes it either, what is read must be what was written.
    fn write_own(&mut self) {
        let key = self.table.key(Owner::Client, &mut self.random);
        let (path, n) = (key.path(), self.world.number());
        let mut body = key.body();
        body["own"] = json!(format!("o{n}"));
        let before = self.own.get(&path).cloned().unwrap_or_else(|| vec![None]);
        let (method, after) = match self.random.below(6) {
            0 | 1 => ("POST", Some(n)),
            2 => ("PUT", Some(n)),
            3 | 4 => ("PATCH", Some(n)),
            _ => ("DELETE", None),
        };
        if method != "DELETE" {
            body["n"] = json!(n);
        }
        if method == "PATCH" {
            body = json!({ "n": n, "own": format!("o{n}") });
        }
        let body = if method == "DELETE" { Value::Null } else { body };
        let answer = self.send(method, &path, &body);
        self.world.count("own writes", answer.is_some().into());
        if self.table.is_truncated() {
            return self.expect(method, &path, answer.as_ref(), &[200, 201, 202, 204, 404, 409]);
        }
        let may_be = match answer.as_ref().map(|answer| answer.status) {
            // It was refused before it was accepted, or nobody knows.
            None => [before, vec![after]].concat(),
            Some(200..=299) => vec![after],
            Some(404) if method == "PATCH" || method == "DELETE" => {
                self.check(&before, &[None], &path, method);
                vec![None]
            }
            Some(409) if method == "POST" => before.into_iter().filter(Option::is_some).collect(),
            _ => return self.expect(method, &path, answer.as_ref(), &[]),
        };
        self.own.insert(path.clone(), may_be.clone());
        if self.random.below(2) == 0
            && let Some(answer) = self.send("GET", &path, &Value::Null)
            && matches!(answer.status, 200 | 404)
        {
            let found = if answer.status == 200 { answer.json()["n"].as_u64() } else { None };
            self.check(&may_be, &[found], &path, method);
            self.own.insert(path, vec![found]);
        }
    }

    fn check(&self, may_be: &[Option<u64>], found: &[Option<u64>], path: &str, method: &str) {
        if !found.iter().all(|found| may_be.contains(found)) {
            self.world.fault(format!("{path}: after a {method}, n may be {may_be:?}, and {found:?} was read"));
        }
    }

    fn expect(&self, method: &str, path: &str, answer: Option<&Answer>, statuses: &[u16]) {
        if let Some(answer) = answer
            && !statuses.contains(&answer.status)
        {
            self.world.fault(format!("{method} {path}: {answer:?}"));
        }
    }

    /// Writes to a row of a writer, in other columns or as a whole, but no number to `n`.
    fn write_shared(&mut self) {
        let key = self.shared();
        let path = key.path();
        let own = format!("s{}", self.world.number());
        let mut body = key.body();
        body["own"] = json!(own);
        let has_json = self.table.is_truncated();
        let (method, body) = match self.random.below(10) {
            0 => ("POST", body),
            1 => ("PUT", body),
            2 => ("DELETE", Value::Null),
            3 if has_json => ("PATCH", json!({ "j": { "merged": own } })),
            _ => ("PATCH", json!({ "own": own })),
        };
        let answer = self.send(method, &path, &body);
        self.world.count("writes to rows of the writers", answer.is_some().into());
        self.expect(method, &path, answer.as_ref(), &[200, 201, 202, 204, 404, 409]);
    }

    fn shared(&mut self) -> Key {
        let writer = Owner::Writer(self.random.below(2));
        self.table.key(writer, &mut self.random)
    }

    fn read_shared(&mut self) {
        let path = self.shared().path();
        let Some(answer) = self.send("GET", &path, &Value::Null) else { return };
        self.world.count("reads", 1);
        self.expect("GET", &path, Some(&answer), &[200, 404, 503]);
        if answer.status == 200
            && let Some(n) = answer.json()["n"].as_u64()
        {
            let highest = self.highest.entry(path.clone()).or_default();
            if n < *highest {
                self.world.fault(format!("GET {path}: n went back from {highest} to {n}: {answer:?}"));
            }
            *highest = n;
        }
    }
}

/// Compares what the clients believe of their rows with the rows as they are at rest.
pub(super) fn check_own(own: &HashMap<String, Vec<Option<u64>>>, n_of: impl Fn(&str) -> Option<u64>, world: &World) {
    for (path, may_be) in own {
        if !may_be.contains(&n_of(path)) {
            world.fault(format!("{path}: n may be {may_be:?}, and it is {:?}", n_of(path)));
        }
    }
    world.count("own rows checked", own.len() as u64);
}
