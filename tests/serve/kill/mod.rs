//! SIGKILL, SIGTERM and damaged files under load: whatever was acknowledged is there afterwards, in the order it was told.
//!
//! `DIORAMA_KILL_CYCLES=500` runs more lives than the test command does, `DIORAMA_KILL_SEED=N` those of an earlier run.

mod check;
mod damage;
mod full;
mod journal;
mod ledger;
mod load;
mod stock;
mod subscriber;
mod trial;
mod wire;

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use tempfile::TempDir;

use damage::{Damage, damage_after};
pub(crate) use journal::start_or_refusal;
use ledger::Rows;
use load::DIOS;
use trial::{End, Trial};
pub(crate) use wire::position;
use wire::{Wire, row_of};

const CONFIG: &str = r#"
[server]
drain_timeout = "300ms"

[lens]
cache = "cache.redb"
refresh_every = "400ms"

[dio.orders]
source = { sqlite = "shop.db", table = "orders" }

[dio.products]
source = { csv = "products.csv" }
write = { sqlite = "shop.db", table = "products" }
write_concurrency = 2

[dio.stock]
source = { sqlite = "stock.db", table = "stock" }
version = "v"

[webhook.stock]
auth = { scheme = "bearer", secrets = ["env:TOKEN"] }
"#;

/// Resources with events.
const ALL: [&str; 3] = ["orders", "products", "stock"];
/// Rows that the read-only source has from the beginning; nobody writes to them.
const SOURCE: &str = "id,item,n\ncsv-1,Muffin,1\ncsv-2,Bun,2\n";

fn kill_folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("products.csv"), SOURCE).unwrap();
    std::fs::write(dir.path().join("diorama.toml"), CONFIG).unwrap();
    let tables = DIOS.map(|dio| format!("CREATE TABLE {dio} (id TEXT PRIMARY KEY, item TEXT, n INTEGER);")).concat();
    shop(dir.path()).execute_batch(&format!("PRAGMA journal_mode = WAL; {tables}")).unwrap();
    dir
}

fn shop(dir: &Path) -> Connection {
    let shop = Connection::open(dir.join("shop.db")).unwrap();
    shop.busy_timeout(Duration::from_secs(10)).unwrap();
    shop
}

/// The rows of a table as SQLite has them, and those of the file in front of it.
fn stored(dir: &Path, dio: &str) -> Rows {
    let shop = shop(dir);
    let mut select = shop.prepare(&format!("SELECT id, item, n FROM {dio}")).unwrap();
    let rows = select.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get::<_, i64>(2)? as u64)))).unwrap();
    let mut rows: Rows = rows.map(Result::unwrap).collect();
    if dio == "products" {
        rows.extend([("csv-1".into(), ("Muffin".into(), 1)), ("csv-2".into(), ("Bun".into(), 2))]);
    }
    rows
}

/// All rows as a list shows them, and the position.
fn listed(wire: &mut Wire, dio: &str) -> (Rows, String, u64) {
    let answer = wire.get(&format!("/{dio}?limit=10000")).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    let (epoch, seq) = position(&answer);
    (answer.json().as_array().unwrap().iter().map(row_of).collect(), epoch, seq)
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

#[test]
fn nothing_acknowledged_is_lost_over_sigkill_sigterm_and_damaged_caches() {
    let cycles = variable("DIORAMA_KILL_CYCLES").unwrap_or(20) as usize;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = variable("DIORAMA_KILL_SEED").unwrap_or(now);
    eprintln!("DIORAMA_KILL_SEED={seed}");
    let mut trial = Trial::new(seed);
    let mut server = trial.start();
    for at in 0..cycles {
        let end = if trial.random.below(3) == 0 { End::Terminate } else { End::Kill };
        let damage = damage_after(at, cycles);
        eprintln!("life {at}: {end:?}, then {damage:?}");
        let (sent, heard) = trial.live(&mut server, end);
        let drained = match end {
            End::Terminate => trial.check_end(&mut server, &heard),
            End::Kill => Vec::new(),
        };
        let stored: Vec<_> = drained.into_iter().map(|dio| (dio, stored(trial.dir.path(), dio))).collect();
        trial.damage(damage);
        let aside = trial.set_aside();
        server = trial.start();
        assert!(!damage.is_plain() || trial.set_aside() > aside, "{damage:?} was overlooked");
        trial.check_start(&server, &sent, &heard);
        for (dio, stored) in stored {
            let repeated: HashSet<&str> =
                sent.iter().filter(|one| one.key.is_some()).map(|one| one.id.as_str()).collect();
            let rows = trial.ledgers[dio].rows.iter().chain(&stored).filter(|(id, _)| !repeated.contains(id.as_str()));
            for (id, _) in rows {
                assert_eq!(trial.ledgers[dio].rows.get(id), stored.get(id), "{dio}/{id} was drained");
            }
        }
        if damage != Damage::None || at % 4 == 3 {
            trial.settle(&server);
        }
    }
    let said = std::fs::read_to_string(&trial.log).unwrap();
    assert_eq!(said.matches("it is set aside and filled again").count(), trial.set_aside(), "each is said once");
    let aside = trial.set_aside() as u64;
    trial.count("caches set aside", aside);
    assert!(trial.figures["acknowledged writes"] > cycles as u64);
    eprintln!("{cycles} lives: {:#?}", trial.figures);
    server.signal("TERM");
    assert!(server.ended().success());
}
