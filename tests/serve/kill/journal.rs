//! A journal that is damaged or gone when the command starts.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use super::damage::Damage;
use super::stock::Stock;
use super::subscriber::Subscriber;
use super::wire::{Wire, position};
use super::{kill_folder, listed, stored};
use crate::harness::Random;
use crate::process::{PATIENCE, Server, run, serving};

/// The address of a server that got ready and what runs it, or the exit code and what it said.
pub(crate) type Started = Result<(String, std::process::Child), (Option<i32>, String)>;

/// Starts a server that may refuse.
pub(crate) fn start_or_refusal(dir: &Path, mut command: std::process::Command) -> Started {
    let (out, err) = (dir.join("stdout"), dir.join("stderr"));
    let mut child = command.stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap()).spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let said = std::fs::read_to_string(&out).unwrap();
        if said.lines().any(|line| line.starts_with("ready")) {
            let address = said.split("listening on http://").nth(1).unwrap().split(['/', '\n']).next().unwrap();
            return Ok((address.to_string(), child));
        }
        if let Some(status) = child.try_wait().unwrap() {
            return Err((status.code(), std::fs::read_to_string(&err).unwrap()));
        }
        assert!(Instant::now() < deadline, "neither ready nor ended: {said}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A folder whose journal holds writes that were acknowledged and not delivered, with the server gone.
fn killed_folder() -> TempDir {
    let dir = kill_folder();
    drop(Stock::open(dir.path()));
    let mut server = Server::start(dir.path(), &[]);
    for at in 0..40 {
        assert_eq!(server.post(&format!("/orders/o{at}"), &json!({ "item": "Bun", "n": at }).to_string()).status, 202);
    }
    server.kill();
    dir
}

#[test]
fn a_damaged_journal_stops_the_start_and_stays_as_it_is() {
    let dir = killed_folder();
    let path = dir.path().join("cache.journal.redb");
    let whole = std::fs::read(&path).unwrap();
    let mut random = Random(7);
    for damage in [Damage::Truncate, Damage::Empty, Damage::Garbage] {
        damage.inflict(&path, &mut random);
        let damaged = std::fs::read(&path).unwrap();
        let output = run(dir.path(), &["serve", "--listen", "127.0.0.1:0"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{damage:?}: {said}");
        assert!(
            said.contains("cache.journal.redb") && said.contains("holds acknowledged writes"),
            "{damage:?}: {said}"
        );
        assert_eq!(std::fs::read(&path).unwrap(), damaged, "{damage:?}: the journal was touched");
        std::fs::write(&path, &whole).unwrap();
    }
    let server = Server::start(dir.path(), &[]);
    assert!((0..40).all(|at| server.get(&format!("/orders/o{at}")).status == 200), "the restored journal has all");
    let second = run(dir.path(), &["serve", "--listen", "127.0.0.1:0"]);
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(75), "{said}");
    assert!(said.contains("cache.redb") && said.contains("in use by another process"), "{said}");
    assert_eq!(server.get("/orders/o1").status, 200);
}

#[test]
fn no_flipped_bit_or_lost_page_of_the_journal_is_taken_for_the_truth() {
    let dir = killed_folder();
    let path = dir.path().join("cache.journal.redb");
    let cache = dir.path().join("cache.redb");
    let (whole, whole_cache) = (std::fs::read(&path).unwrap(), std::fs::read(&cache).unwrap());
    let (mut random, mut refused) = (Random(8), 0);
    let kinds = [Damage::Flips, Damage::ZeroPage, Damage::SwapPages, Damage::Tail];
    for at in 0..16 {
        let damage = kinds[at % kinds.len()];
        damage.inflict(&path, &mut random);
        let damaged = std::fs::read(&path).unwrap();
        let command = serving(dir.path(), &[]);
        match start_or_refusal(dir.path(), command) {
            Err((code, said)) => {
                assert_eq!(code, Some(78), "{damage:?}: {said}");
                assert!(said.contains("cache.journal.redb") && said.contains("holds acknowledged writes"), "{said}");
                assert!(std::fs::read(&path).unwrap() == damaged, "{damage:?}: the journal was touched");
                refused += 1;
            }
            // Nothing of the file was in use where it was damaged.
            Ok((address, mut child)) => {
                let mut wire = Wire::connect(&address).unwrap();
                let all = (0..40).all(|at| wire.row("orders", &format!("o{at}")).unwrap().is_some());
                child.kill().unwrap();
                child.wait().unwrap();
                assert!(all, "{damage:?} number {at}: an acknowledged write is gone, and the journal was not refused");
            }
        }
        std::fs::write(&path, &whole).unwrap();
        std::fs::write(&cache, &whole_cache).unwrap();
    }
    assert!(refused >= 8, "only {refused} of 16 were refused");
}

#[test]
fn a_journal_that_is_gone_begins_an_epoch_and_whoever_comes_back_is_told() {
    let dir = kill_folder();
    drop(Stock::open(dir.path()));
    let mut server = Server::start(dir.path(), &[]);
    for at in 0..10 {
        let row = json!({ "item": "Bun", "n": at }).to_string();
        let headers = [("content-type", "application/json"), ("prefer", "wait=10")];
        let answer = server.request("POST", &format!("/orders/o{at}"), &headers, &row);
        assert_eq!(answer.status, 201, "{answer:?}");
    }
    let (epoch, _) = position(&server.get("/orders"));
    server.kill();
    std::fs::remove_file(dir.path().join("cache.journal.redb")).unwrap();
    let server = Server::start(dir.path(), &[]);
    let mut wire = Wire::connect(&server.address).unwrap();
    // What the cache file has is served at once; what it had not learnt yet comes with the first list.
    let deadline = Instant::now() + PATIENCE;
    let (now, head) = loop {
        let (rows, now, head) = listed(&mut wire, "orders");
        if rows == stored(dir.path(), "orders") {
            break (now, head);
        }
        assert!(Instant::now() < deadline, "{rows:?}");
        std::thread::sleep(Duration::from_millis(10));
    };
    assert_ne!(now, epoch, "what was told cannot be continued");
    let heard = Subscriber::connect(&server.address, "orders", &epoch, 0).unwrap().until(head);
    assert_eq!(heard.resets, ["epoch"]);
}
