//! An upstream system that tells of its changes by webhook, each row in versions that only rise.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rusqlite::Connection;
use serde_json::json;

use super::load::World;
use super::wire::Wire;
use crate::harness::Random;
use crate::process::{Answer, TOKEN};

const ROWS: u64 = 8;

/// What the sender knows of a row's deliveries.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    sent: u64,
    acknowledged: u64,
}

/// The upstream system.
pub(crate) struct Stock {
    master: Connection,
    told: BTreeMap<String, Told>,
}

impl Stock {
    pub(crate) fn open(dir: &Path) -> Stock {
        let master = Connection::open(dir.join("stock.db")).unwrap();
        master.busy_timeout(Duration::from_secs(10)).unwrap();
        master
            .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE stock (id TEXT PRIMARY KEY, n INTEGER, v INTEGER)")
            .unwrap();
        let mut told = BTreeMap::new();
        for at in 0..ROWS {
            let id = format!("s{at}");
            master.execute("INSERT INTO stock VALUES (?, 0, 0)", [&id]).unwrap();
            told.insert(id, Told::default());
        }
        Stock { master, told }
    }

    /// Delivers until the server is gone.
    pub(crate) fn deliver(&mut self, mut random: Random, world: &World) {
        let Ok(mut wire) = Wire::connect(&world.address) else { return };
        while self.deliver_one(&mut random, world, &mut wire).is_ok() {}
    }

    fn deliver_one(&mut self, random: &mut Random, world: &World, wire: &mut Wire) -> io::Result<()> {
        let at = random.below(ROWS as usize);
        let id = format!("s{at}");
        let version = self.told[&id].sent + 1;
        if at.is_multiple_of(2) {
            self.store(&id, version);
        }
        // The rows with odd numbers are told of long before the master has them: only the journal knows.
        self.told.get_mut(&id).unwrap().sent = version;
        let answer = post(wire, &id, version)?;
        // 202: it is going to be applied, and may not be yet.
        if matches!(answer.status, 202 | 503) {
            return Ok(());
        }
        assert_eq!(answer.status, 200, "{answer:?}");
        self.told.get_mut(&id).unwrap().acknowledged = version;
        world.acknowledged.fetch_add(1, Ordering::Relaxed);
        if random.below(2) == 0 {
            let shown = shown(wire, &id)?;
            assert!(shown >= version, "{id} shows version {shown} after {version} was acknowledged");
        }
        Ok(())
    }

    fn store(&self, id: &str, version: u64) {
        let values = (version as i64 * 10, version as i64, id);
        self.master.execute("UPDATE stock SET n = ?, v = ? WHERE id = ?", values).unwrap();
    }

    /// The master gets everything that was told of, as it has in life: a lost cache is filled from it.
    pub(crate) fn catch_up(&self) {
        self.told.iter().for_each(|(id, told)| self.store(id, told.sent));
    }

    /// Nothing acknowledged is lost; deliveries that come again change nothing, those in doubt arrive at last.
    pub(crate) fn check(&mut self, address: &str) -> (u64, u64) {
        let mut wire = Wire::connect(address).unwrap();
        let mut counts = (0, 0);
        for (id, told) in &mut self.told {
            let now = shown(&mut wire, id).unwrap();
            let range = told.acknowledged..=told.sent;
            assert!(range.contains(&now), "{id} shows version {now}, possible are {range:?}");
            counts.0 += told.acknowledged;
            counts.1 += told.sent - told.acknowledged;
            if told.sent == 0 {
                continue;
            }
            let certain = told.acknowledged == told.sent;
            let answer = post(&mut wire, id, told.sent).unwrap();
            assert_eq!(answer.status, 200, "{answer:?}");
            assert!(!certain || answer.json()["applied"] == 0, "{id} {told:?} was applied again: {answer:?}");
            assert_eq!(shown(&mut wire, id).unwrap(), told.sent);
            told.acknowledged = told.sent;
        }
        counts
    }
}

fn post(wire: &mut Wire, id: &str, version: u64) -> io::Result<Answer> {
    let new = json!({ "n": version * 10, "v": version });
    let delivery = format!("{id}-{version}");
    let body = json!({ "op": "upsert", "id": id, "new": new, "version": version, "delivery": delivery });
    let token = format!("Bearer {TOKEN}");
    let headers = [("content-type", "application/json"), ("authorization", token.as_str())];
    wire.ask("POST", "/webhooks/stock", &headers, &body.to_string())
}

/// The version that readers see.
fn shown(wire: &mut Wire, id: &str) -> io::Result<u64> {
    let answer = wire.get(&format!("/stock/{id}"))?;
    assert!(matches!(answer.status, 200 | 503), "{answer:?}");
    if answer.status == 503 {
        return Err(io::ErrorKind::Other.into());
    }
    let row = answer.json();
    let version = row["v"].as_u64().unwrap();
    assert_eq!(row["n"], version * 10, "{row}");
    Ok(version)
}
