//! `diorama ops`: writes followed and mended, on a running server and in a stopped one's files.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use diorama::dio::{Retry, WriteOptions};
use diorama::{Column, ColumnType, Error, Lens, Record, Schema, WriteOp};
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::Scripted;
use crate::process::{Server, TOKEN, folder, run};

const ORDERS: &str = "[dio.orders]\nsource = { sqlite = \"shop.db\", table = \"orders\" }\n";
const GUARDED: &str = "[server]\nauth = { tokens = [\"env:TOKEN\"] }\n";

/// A shop whose database is away.
fn away() -> Scripted {
    let columns = vec![
        Column::new("id", ColumnType::String),
        Column::new("item", ColumnType::String),
        Column::new("price", ColumnType::Integer),
    ];
    let shop = Scripted::new(Schema::new("id", columns), []).reading_one(false);
    shop.outage(Some(Error::transient("the shop\u{1b}[2J is away")));
    shop
}

/// The files of a stopped server of `orders`, with so many writes parked; their ids, oldest first.
async fn parked(dir: &Path, count: usize) -> Vec<String> {
    let retry = Retry { max_age: Duration::ZERO, ..Retry::default() };
    let lens = Lens::new().cache_at(dir.join("cache.redb")).retry(retry).build().unwrap();
    let dio = lens.make_dio(away().vista("orders")).await.unwrap();
    let mut ids = Vec::new();
    for at in 1..=count {
        let record = Record::from_iter([("item".to_string(), "Bun".into()), ("price".to_string(), (at as i64).into())]);
        let op = WriteOp::Insert { id: format!("o{at}"), record };
        let op = dio.write(op, WriteOptions::default()).await.unwrap().operation.unwrap();
        assert_eq!(dio.settled(op, Duration::from_secs(10)).await.unwrap().state.as_str(), "parked");
        ids.push(op.to_string());
    }
    dio.close().await;
    lens.close().await;
    ids
}

async fn shop(count: usize) -> (TempDir, Vec<String>) {
    let dir = folder();
    std::fs::write(dir.path().join("diorama.toml"), ORDERS).unwrap();
    let ids = parked(dir.path(), count).await;
    (dir, ids)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Runs `ops` with words separated by spaces.
fn ops(dir: &Path, words: &str) -> Output {
    run(dir, &[&["ops"], &words.split(' ').collect::<Vec<_>>()[..]].concat())
}

fn ids(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["id"].as_str().unwrap()).collect()
}

/// The orders that the database has.
fn orders(dir: &Path) -> Vec<String> {
    let shop = rusqlite::Connection::open(dir.join("shop.db")).unwrap();
    let mut orders = shop.prepare("SELECT id FROM orders ORDER BY id").unwrap();
    orders.query_map([], |row| row.get(0)).unwrap().collect::<rusqlite::Result<_>>().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_servers_writes_are_mended_in_its_files_and_delivered_at_its_next_start() {
    let (dir, parked) = shop(3).await;
    let dir = dir.path();
    let table = ops(dir, "list --state parked");
    let shown = said(&table);
    assert_eq!(code(&table), 0, "{shown}");
    assert!(shown.starts_with("ID ") && shown.contains("orders/o1") && shown.contains("is away"), "{shown}");
    assert!(!shown.contains('\u{1b}'), "others' text must not steer the terminal");
    let listed = lines(&ops(dir, "list --json diorama.toml"));
    assert_eq!(ids(&listed), [&*parked[2], &*parked[1], &*parked[0]]);
    assert_eq!(ids(&lines(&ops(dir, "list --json --limit 1"))), [&*parked[2]]);
    assert_eq!(ops(dir, "list --json --state applied,queued --cache cache.redb").stdout, b"");
    let one = &lines(&ops(dir, &format!("show --json {}", parked[0])))[0];
    assert_eq!(
        (&one["state"], &one["record"], &one["error"]["code"]),
        (&"parked".into(), &"o1".into(), &"upstream-error".into())
    );

    let retried = ops(dir, &format!("retry --json {}", parked[0]));
    assert_eq!(code(&retried), 0, "{}", said(&retried));
    let new = lines(&retried)[0]["operation"].clone();
    assert_eq!((&new["state"], &new["retry_of"]), (&"queued".into(), &parked[0].as_str().into()));
    let twice = ops(dir, &format!("retry {}", parked[0]));
    assert_eq!(code(&twice), 1);
    assert!(said(&twice).contains("is not parked"), "{}", said(&twice));
    let discarded = ops(dir, &format!("discard {}", parked[1]));
    assert_eq!((code(&discarded), said(&discarded).trim()), (0, &*format!("{} is discarded", parked[1])));
    let all = ops(dir, "retry --all --dio orders --cache cache.redb");
    assert!(code(&all) == 0 && said(&all).starts_with(&format!("{} is retried as op_", parked[2])), "{}", said(&all));

    let mut server = Server::start(dir, &[]);
    let path = format!("/operations/{}", new["id"].as_str().unwrap());
    assert_eq!(server.get(&format!("{path}?wait=20")).json()["state"], "applied");
    assert_eq!(server.get("/operations?state=discarded").json().as_array().unwrap().len(), 3);
    while server.get("/operations?state=queued,running,unknown").body != "[]" {
        std::thread::yield_now();
    }
    assert_eq!(orders(dir), ["o1", "o3"]);
    // What has ended keeps its answer, whatever ends the process.
    server.kill();
    let server = Server::start(dir, &[]);
    assert_eq!(server.get(&path).json()["state"], "applied");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_servers_writes_are_mended_over_http() {
    let (dir, parked) = shop(4).await;
    let dir = dir.path();
    std::fs::write(dir.join("diorama.toml"), format!("{GUARDED}base_path = \"/api\"\n{ORDERS}")).unwrap();
    std::fs::write(dir.join("token"), format!("{TOKEN}\n")).unwrap();
    let server = Server::start(dir, &[]);
    let at = format!("--url http://{}/api --token env:TOKEN", server.address);
    assert_eq!(
        ids(&lines(&ops(dir, &format!("list --json --state parked --limit 2 {at}")))),
        [&*parked[3], &*parked[2]]
    );
    let shown = said(&ops(dir, &format!("show {} {}", parked[0], at.replace("env:TOKEN", "file:token"))));
    assert!(shown.contains("parked") && shown.contains("upstream-error"), "{shown}");
    assert_eq!(code(&ops(dir, &format!("discard {} {at}", parked[0]))), 0);
    let again = ops(dir, &format!("discard {} {at}", parked[0]));
    assert!(code(&again) == 1 && said(&again).contains("is not parked"), "{}", said(&again));
    let one = lines(&ops(dir, &format!("retry --json {} {at}", parked[1])));
    assert_eq!(one[0]["operation"]["retry_of"], parked[1]);
    assert_eq!(ids(&lines(&ops(dir, &format!("retry --all --json {at}")))), [&*parked[2], &*parked[3]]);
    assert_eq!(ops(dir, &format!("list --json --state parked {at}")).stdout, b"");

    let unknown = ops(dir, &format!("show op_00000000000000000000000000 {at}"));
    assert!(code(&unknown) == 1 && said(&unknown).contains("ended long ago"), "{}", said(&unknown));
    assert_eq!(code(&ops(dir, &format!("list --dio nope {at}"))), 1);
    let open = ops(dir, &format!("list --url http://{}/api", server.address));
    assert!(code(&open) == 78 && said(&open).contains("--token"), "{}", said(&open));
    assert_eq!(code(&ops(dir, &at.replace("--url", "list --url").replace("env:TOKEN", "env:WHSEC"))), 78);
    let locked = ops(dir, "list");
    assert_eq!(code(&locked), 75);
    assert!(said(&locked).contains("in use") && said(&locked).contains("--url http://"), "{}", said(&locked));
    assert_eq!(code(&ops(dir, "salvage cache.journal.redb")), 75);
}

#[test]
fn a_file_in_place_of_a_subcommand_is_told_how_it_is_served() {
    let dir = folder();
    let output = crate::process::run(dir.path(), &["products.csv"]);
    assert_eq!(code(&output), 64);
    assert!(said(&output).contains("use 'diorama serve products.csv'"), "{}", said(&output));
    let name: &OsStr = OsStrExt::from_bytes(b"b\xff.csv");
    let output = Command::new(env!("CARGO_BIN_EXE_diorama")).arg(name).output().unwrap();
    assert_eq!(code(&output), 64, "{}", said(&output));
}

#[test]
fn what_cannot_be_asked_is_said_in_exit_codes() {
    let dir = folder();
    let dir = dir.path();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let free = taken.local_addr().unwrap();
    drop(taken);
    for (words, expected, word) in [
        (&*format!("list --url http://{free}"), 69, "cannot be reached"),
        ("list --url 127.0.0.1:80", 64, "write it like http://"),
        ("list --url https://127.0.0.1 --cacert nope.pem", 78, "--cacert: nope.pem"),
        ("list --url https://127.0.0.1 --cacert products.csv", 78, "no certificate in PEM format"),
        ("list --url http://127.0.0.1 --token s3cr3t", 64, "env:NAME"),
        ("list --url http://127.0.0.1 --token env:NOPE_NOPE", 78, "NOPE_NOPE"),
        ("list --nope", 64, "--nope"),
        ("show", 64, "ID"),
        ("retry", 64, "--all"),
        ("list", 78, "there is no journal cache.journal.redb"),
        ("list nope.toml", 78, "nope.toml"),
        ("salvage nope.redb", 78, "nope.redb"),
        ("salvage products.csv", 78, "contains no journal data"),
    ] {
        let output = ops(dir, words);
        assert_eq!(code(&output), expected, "{words}: {}", said(&output));
        assert!(said(&output).contains(word), "{words}: {}", said(&output));
    }
    // Asking leaves nothing behind.
    assert!(!dir.join("cache.journal.redb").exists() && !dir.join("cache.redb").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_journal_is_salvaged_whole_and_a_discarded_write_is_none_of_it() {
    let (dir, parked) = shop(3).await;
    let dir = dir.path();
    assert_eq!(code(&ops(dir, &format!("discard {}", parked[1]))), 0);
    let before = std::fs::read(dir.join("cache.journal.redb")).unwrap();
    let output = ops(dir, "salvage cache.journal.redb");
    assert_eq!(code(&output), 0, "{}", said(&output));
    let found = lines(&output);
    assert_eq!(ids(&found), [&*parked[0], &*parked[2]]);
    assert_eq!(
        (&found[0]["dio"], &found[0]["op"], &found[0]["record"], &found[0]["state"], &found[0]["certain"]),
        (&"orders".into(), &"insert".into(), &"o1".into(), &"parked".into(), &true.into())
    );
    assert_eq!(found[0]["body"], serde_json::json!({ "id": "o1", "item": "Bun", "price": 1 }));
    assert!(
        said(&output).contains("orders: ") && said(&output).contains("2 writes were not applied"),
        "{}",
        said(&output)
    );
    assert_eq!(code(&ops(dir, "salvage cache.journal.redb --to saved.ndjson")), 0);
    assert_eq!(std::fs::read(dir.join("saved.ndjson")).unwrap(), output.stdout);
    assert_eq!(code(&ops(dir, "salvage cache.journal.redb --to saved.ndjson")), 1);
    assert_eq!(std::fs::read(dir.join("cache.journal.redb")).unwrap(), before);
}

/// Where a needle is, everywhere.
fn places(bytes: &[u8], needle: &[u8]) -> Vec<usize> {
    bytes.windows(needle.len()).enumerate().filter(|(_, window)| *window == needle).map(|(at, _)| at).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_journal_gives_every_write_that_is_still_in_it() {
    let (dir, parked) = shop(40).await;
    let dir = dir.path();
    let sound = std::fs::read(dir.join("cache.journal.redb")).unwrap();
    // Without its head nobody can open it; without one write's bytes that write is lost; without its end, what was there.
    let mut beheaded = sound.clone();
    beheaded[..4096].fill(0x5a);
    let mut holed = sound.clone();
    let hole = places(&sound, br#"{"id":"o7","#);
    assert!(!hole.is_empty());
    hole.iter().for_each(|at| holed[*at + 8] ^= 1);
    let truncated = sound[..sound.len() * 2 / 3].to_vec();
    let mut ploughed = sound;
    ploughed.iter_mut().step_by(20_011).for_each(|byte| *byte ^= 0xff);
    for (name, damaged, complete) in
        [("head", beheaded, true), ("hole", holed, false), ("end", truncated, false), ("flips", ploughed, false)]
    {
        let path = dir.join(format!("{name}.redb"));
        std::fs::write(&path, &damaged).unwrap();
        let output = ops(dir, &format!("salvage {name}.redb"));
        let said = said(&output);
        assert_eq!(code(&output), 1, "{name}: {said}");
        assert!(said.contains("the journal is damaged") && !said.contains("panicked"), "{name}: {said}");
        assert_eq!(std::fs::read(&path).unwrap(), damaged, "{name} was changed");
        let found = lines(&output);
        let known: BTreeSet<&str> = parked.iter().map(String::as_str).collect();
        let found_ids: BTreeSet<&str> = ids(&found).into_iter().collect();
        assert!(found_ids.is_subset(&known), "{name}");
        assert!(found.iter().all(|one| one["certain"] == false && one["body"]["item"] == "Bun"), "{name}");
        let there = |at: &usize| !places(&damaged, format!(r#"{{"id":"o{at}","#).as_bytes()).is_empty();
        match name {
            "head" => assert_eq!(found_ids.len(), 40, "{said}"),
            "hole" => {
                assert_eq!(found_ids.len(), 39, "{said}");
                assert!(!found_ids.contains(&*parked[6]) && said.contains(" lost: "), "{said}");
            }
            "end" => {
                let left = (1..=40).filter(there).count();
                assert!(found_ids.len() >= left.saturating_sub(1), "{} of {left}: {said}", found_ids.len());
            }
            _ => assert!(found_ids.len() >= 30, "{} of 40: {said}", found_ids.len()),
        }
        assert!(!complete || found.iter().all(|one| one["dio"] == "orders"), "{name}: {said}");
    }
}

#[test]
fn a_running_server_explains_how_it_answers_a_search_that_it_was_told_to_index() {
    let dir = folder();
    let rows: String = (4..=500).map(|n| format!("{n},Roll {n},{n}\n")).collect();
    std::fs::write(dir.path().join("products.csv"), format!("{}{rows}", crate::process::PRODUCTS)).unwrap();
    let config =
        "[server]\nlisten = \"127.0.0.1:0\"\n[dio.products]\nsource = { csv = \"products.csv\" }\nindexes = [\"q\"]\n";
    std::fs::write(dir.path().join("diorama.toml"), config).unwrap();
    let server = Server::start(dir.path(), &[]);
    let url = format!("http://{}", server.address);
    let said = run(dir.path(), &["explain", "products", "q=muffin roll&limit=3", "--url", &url]);
    assert!(said.status.success(), "{said:?}");
    let said: Value = serde_json::from_slice(&said.stdout).unwrap();
    assert_eq!(
        (&said["plan"]["access"], &said["plan"]["indexes"]),
        (&"some".into(), &serde_json::json!(["q"])),
        "{said}"
    );
    assert_eq!((&said["matched"], &said["examined"]), (&0.into(), &0.into()), "{said}");
    let other = run(dir.path(), &["explain", "nothing", "--url", &url]);
    assert!(!other.status.success(), "{other:?}");
    assert!(String::from_utf8_lossy(&other.stderr).contains("nothing"), "{other:?}");
}
