//! Clients that write and read over plain sockets until the server is gone, and remember what they were told.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use super::ledger::{Effect, Outcome, Row, Rows, Sent};
use super::wire::{Wire, header, operation, position};
use crate::harness::Random;
use crate::process::Answer;

/// The resources that clients write to.
pub(crate) const DIOS: [&str; 2] = ["orders", "products"];
/// Ids of one writer and resource.
const OWN: usize = 12;
/// Ids that all writers share.
const SHARED: usize = 4;
/// Rows of one bulk insert.
const BULK: u64 = 16;

/// What all clients of one life of the server share.
pub(crate) struct World {
    pub(crate) address: String,
    /// What is acknowledged so far, so that somebody may stop the server at a certain moment.
    pub(crate) acknowledged: AtomicU64,
    /// A number for every write.
    pub(crate) numbers: AtomicU64,
}

impl World {
    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }
}

/// A client: what it believes of its own rows, and what it sent.
pub(crate) struct Client<'a> {
    name: String,
    random: Random,
    world: &'a World,
    wire: Wire,
    own: HashMap<(&'static str, String), Row>,
    seen: HashMap<&'static str, u64>,
    sent: Vec<Sent>,
}

/// How a write is sent.
#[derive(Default)]
struct Manner {
    key: Option<String>,
    wait: bool,
}

impl<'a> Client<'a> {
    /// `known` are the rows that the server has shown.
    pub(crate) fn connect(
        name: &str,
        random: Random,
        world: &'a World,
        known: &HashMap<&'static str, Rows>,
    ) -> io::Result<Self> {
        let wire = Wire::connect(&world.address)?;
        let mut own = HashMap::new();
        for (dio, rows) in known {
            let mine = rows.iter().filter(|(id, _)| id.starts_with(&format!("{name}-")));
            own.extend(mine.map(|(id, row)| ((*dio, id.clone()), Some(row.clone()))));
        }
        Ok(Client { name: name.into(), random, world, wire, own, seen: HashMap::new(), sent: Vec::new() })
    }

    /// Writes single rows until the server is gone.
    pub(crate) fn write_rows(mut self) -> Vec<Sent> {
        while self.write_one().is_ok() {}
        self.sent
    }

    fn write_one(&mut self) -> io::Result<()> {
        let dio = DIOS[self.random.below(2) as usize];
        let shared = self.random.below(4) == 0;
        let id = match shared {
            true => format!("shared-{}", self.random.below(SHARED)),
            false => format!("{}-{}", self.name, self.random.below(OWN)),
        };
        let n = self.world.number();
        let item = format!("{}/{n}", self.name);
        let there = self.own.get(&(dio, id.clone())).is_some_and(Option::is_some);
        let effect = match (shared, there, self.random.below(8)) {
            (false, false, 0..=5) | (true, _, 0) => Effect::Insert(item, n),
            (false, false, _) | (_, _, 1 | 2) => Effect::Replace(item, n),
            (_, _, 3 | 4) => Effect::Delete,
            (_, _, 5) => Effect::PatchItem(item),
            (_, _, _) => Effect::PatchN(n),
        };
        let key = (!shared && self.random.below(4) == 0).then(|| format!("key-{n}"));
        let manner = Manner { key, wait: self.random.below(24) == 0 };
        let expected = self.send(dio, &id, &effect, &manner)?;
        let look = self.random.below(2) == 0;
        if !shared && look {
            assert_eq!(self.wire.row(dio, &id)?, expected, "{dio}/{id}: what was just written is not what is read");
        }
        Ok(())
    }

    /// Sends one write and notes what came of it; gives the row as this client expects it to be.
    fn send(&mut self, dio: &'static str, id: &str, effect: &Effect, manner: &Manner) -> io::Result<Row> {
        let (method, body) = request(effect);
        let headers = headers(manner.key.as_deref(), manner.wait);
        let seen = self.seen.get(dio).copied().unwrap_or(0);
        let outcome = Outcome::Doubt;
        self.sent.push(Sent { dio, id: id.into(), effect: effect.clone(), outcome, seen, key: manner.key.clone() });
        let pairs: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = self.wire.ask(method, &format!("/{dio}/{id}"), &pairs, &body)?;
        let before = self.own.get(&(dio, id.to_string())).cloned().flatten();
        match self.judge(&answer, id.starts_with("shared")) {
            Some(outcome) => {
                let seq = position(&answer).1;
                self.seen.insert(dio, seq.max(seen));
                self.sent.last_mut().unwrap().outcome = outcome;
                let after = match id.starts_with("shared") {
                    true => None,
                    false => effect.on(&before).unwrap_or_else(|()| panic!("{effect:?} of {before:?}: {answer:?}")),
                };
                self.own.insert((dio, id.into()), after.clone());
                Ok(after)
            }
            None => {
                self.sent.pop();
                Ok(before)
            }
        }
    }

    /// The outcome that an answer stands for, `None` for a refusal.
    fn judge(&self, answer: &Answer, may_refuse: bool) -> Option<Outcome> {
        match answer.status {
            200 | 201 | 202 | 204 => {
                self.world.acknowledged.fetch_add(1, Ordering::Relaxed);
                let settled = answer.status != 202;
                Some(Outcome::Acknowledged { seq: position(answer).1, operation: operation(answer), settled })
            }
            503 => None,
            404 | 409 if may_refuse => None,
            _ => panic!("{} was refused: {answer:?}", self.name),
        }
    }

    /// Inserts many rows at once and takes them away again, until the server is gone.
    pub(crate) fn write_bulk(mut self) -> Vec<Sent> {
        while self.bulk().is_ok() {}
        self.sent
    }

    fn bulk(&mut self) -> io::Result<()> {
        let dio = DIOS[self.random.below(2) as usize];
        let slot = self.random.below(4);
        let ids: Vec<String> = (0..BULK).map(|at| format!("{}-{slot}-{at}", self.name)).collect();
        let item = format!("{}-{slot}", self.name);
        let is_there = |client: &Self, id: &String| client.own.get(&(dio, id.clone())).is_some_and(Option::is_some);
        let there: Vec<String> = ids.iter().filter(|id| is_there(self, id)).cloned().collect();
        if !there.is_empty() {
            self.doubt(dio, there.iter().map(|id| (id.clone(), Effect::Delete)));
            let answer = self.wire.ask("DELETE", &format!("/{dio}?item=eq.{item}"), &[], "")?;
            let body: Value = if answer.status == 202 { answer.json() } else { Value::Null };
            let operations = body["operations"].as_array().cloned().unwrap_or_default();
            assert!(answer.status == 503 || operations.len() == there.len(), "{there:?} of {slot}: {answer:?}");
            let results = operations.iter().map(|op| op.as_str().map(str::to_string));
            return self.certain(dio, &there, &answer, results.collect());
        }
        let rows: Vec<(String, u64)> = ids.iter().map(|id| (id.clone(), self.world.number())).collect();
        self.doubt(dio, rows.iter().map(|(id, n)| (id.clone(), Effect::Insert(item.clone(), *n))));
        let lines: String =
            rows.iter().map(|(id, n)| format!("{}\n", json!({ "id": id, "item": item, "n": n }))).collect();
        let headers = [("content-type", "application/x-ndjson")];
        let answer = self.wire.ask("POST", &format!("/{dio}"), &headers, &lines)?;
        let results: Vec<Value> = answer.body.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let accepted = results.iter().filter(|result| result["status"] == 202).count();
        assert!(answer.status == 503 || accepted == ids.len(), "{answer:?}");
        let operations = results.iter().map(|result| result["operation"].as_str().map(str::to_string));
        self.certain(dio, &ids, &answer, operations.collect())
    }

    fn doubt(&mut self, dio: &'static str, effects: impl Iterator<Item = (String, Effect)>) {
        let seen = self.seen.get(dio).copied().unwrap_or(0);
        let sent = effects.map(|(id, effect)| Sent { dio, id, effect, outcome: Outcome::Doubt, seen, key: None });
        self.sent.extend(sent);
    }

    /// Notes the answer to the last `ids`.
    fn certain(
        &mut self,
        dio: &'static str,
        ids: &[String],
        answer: &Answer,
        operations: Vec<Option<String>>,
    ) -> io::Result<()> {
        let first = self.sent.len() - ids.len();
        if answer.status == 503 {
            // Some may have been accepted before the refusal: they stay in doubt, and this client stops.
            return Err(ErrorKind::Other.into());
        }
        let seq = position(answer).1;
        self.seen.insert(dio, seq);
        // Operations of a write by filter are not in the order of the ids.
        for (one, operation) in self.sent[first..].iter_mut().zip(operations) {
            one.outcome = Outcome::Acknowledged { seq, operation, settled: false };
            let after = match &one.effect {
                Effect::Insert(item, n) => Some((item.clone(), *n)),
                _ => None,
            };
            self.own.insert((dio, one.id.clone()), after);
        }
        self.world.acknowledged.fetch_add(ids.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}

/// Method and body of a write.
fn request(effect: &Effect) -> (&'static str, String) {
    match effect {
        Effect::Insert(item, n) => ("POST", json!({ "item": item, "n": n }).to_string()),
        Effect::Replace(item, n) => ("PUT", json!({ "item": item, "n": n }).to_string()),
        Effect::PatchItem(item) => ("PATCH", json!({ "item": item }).to_string()),
        Effect::PatchN(n) => ("PATCH", json!({ "n": n }).to_string()),
        Effect::Delete => ("DELETE", String::new()),
    }
}

fn headers(key: Option<&str>, wait: bool) -> Vec<(&'static str, String)> {
    let mut headers = vec![("content-type", "application/json".to_string())];
    headers.extend(key.map(|key| ("idempotency-key", key.to_string())));
    headers.extend(wait.then(|| ("prefer", "wait=5".to_string())));
    headers
}

/// Sends a write with a key once more. Gives its operation, and whether it had been accepted before.
pub(crate) fn send_again(wire: &mut Wire, sent: &Sent) -> (String, bool) {
    let (method, body) = request(&sent.effect);
    let headers = headers(sent.key.as_deref(), false);
    let pairs: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let answer = wire.ask(method, &format!("/{}/{}", sent.dio, sent.id), &pairs, &body).unwrap();
    assert!((200..300).contains(&answer.status), "a repetition was refused: {sent:?}: {answer:?}");
    let operation = operation(&answer).unwrap_or_else(|| panic!("no operation: {sent:?}: {answer:?}"));
    (operation, header(&answer, "idempotency-replayed") == Some("true"))
}

/// Refreshes and reads lists until the server is gone; what is read never goes back.
pub(crate) fn refresh_and_read(mut random: Random, address: &str) -> io::Result<()> {
    let mut wire = Wire::connect(address)?;
    let mut last: HashMap<&str, u64> = HashMap::new();
    loop {
        let dio = DIOS[random.below(2) as usize];
        if random.below(4) == 0 {
            let answer = wire.ask("POST", &format!("/{dio}/_refresh"), &[], "")?;
            assert!(matches!(answer.status, 200 | 503), "{answer:?}");
        }
        let answer = wire.get(&format!("/{dio}?limit=50"))?;
        if answer.status == 503 {
            continue;
        }
        let (_, seq) = position(&answer);
        let before = last.insert(dio, seq).unwrap_or(0);
        assert!(seq >= before, "{dio} went back from {before} to {seq}");
    }
}
