//! `diorama backup`, and copies of files that are in use.

use std::process::Output;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use super::*;
use crate::process::{TOKEN, run};

fn backup(shop: &Shop, server: &Server, dir: &str) -> Output {
    run(shop.dir.path(), &["backup", dir, "--url", &format!("http://{}", server.address)])
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_backup_under_load_holds_what_was_acknowledged_before_it_and_is_restored_by_copying() {
    let mut shop = Shop::new();
    let mut server = shop.start();
    let first = epoch(&server, "orders");
    for at in 0..20 {
        assert_eq!(end(&server, &put(&server, &format!("/orders/d{at}"), at)), "applied");
    }
    shop.hold();
    let held: Vec<String> = (0..20).map(|at| put(&server, &format!("/products/q{at}"), at)).collect();
    let (stop, acknowledged) = (AtomicBool::new(false), AtomicI64::new(0));
    let (before, after, output) = std::thread::scope(|scope| {
        let (address, stop, acknowledged) = (server.address.clone(), &stop, &acknowledged);
        scope.spawn(move || {
            let mut at = 0;
            while !stop.load(Ordering::Relaxed) {
                put_at(&address, &format!("/orders/w{at}"), at);
                at += 1;
                acknowledged.store(at, Ordering::Relaxed);
            }
        });
        eventually("some writes", || acknowledged.load(Ordering::Relaxed) > 5);
        let before = acknowledged.load(Ordering::Relaxed);
        let output = backup(&shop, &server, "saved");
        let after = acknowledged.load(Ordering::Relaxed);
        stop.store(true, Ordering::Relaxed);
        (before, after, output)
    });
    assert!(output.status.success(), "{}", said(&output));
    assert!(after > before, "writes went on meanwhile");
    let mut names: Vec<_> =
        std::fs::read_dir(shop.path("saved")).unwrap().map(|file| file.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, [JOURNAL, HEAD, CACHE]);
    let again = backup(&shop, &server, "saved");
    assert_eq!(again.status.code(), Some(64), "{}", said(&again));
    assert!(said(&again).contains("new or empty folder"), "{}", said(&again));
    let left = std::fs::read_dir(shop.dir.path()).unwrap();
    let left = left.filter(|file| file.as_ref().unwrap().file_name().to_string_lossy().starts_with(".backup"));
    assert_eq!(left.count(), 0, "no copies are left behind");
    server.kill();
    shop.release();

    let lost = after + 1_000;
    shop.put_back("saved", &[CACHE, JOURNAL, HEAD]);
    shop.said();
    let server = shop.start();
    assert!(shop.said().contains("restored from a backup"));
    let second = epoch(&server, "orders");
    assert_ne!(second, first, "what came after the backup was told to somebody");
    for operation in &held {
        assert_eq!(end(&server, operation), "applied");
    }
    eventually("what waited is applied", || server.get("/operations?state=queued,running,unknown").body == "[]");
    let stored = (0..lost).take_while(|at| shop.stored("orders", &format!("w{at}")).is_some()).count() as i64;
    assert!(stored >= before, "{stored} of {before} writes are there");
    assert!((0..20).all(|at| shop.stored("orders", &format!("d{at}")) == Some(at)));
    drop(server);
    let server = shop.start();
    assert_eq!(epoch(&server, "orders"), second, "it is restored once");
}

#[test]
fn a_backup_needs_the_token_and_no_page_of_another_origin_gets_one() {
    let shop = Shop::new();
    std::fs::write(
        shop.path("diorama.toml"),
        CONFIG.replace(
            "[server]\n",
            "[server]\nauth = { tokens = [\"env:TOKEN\"] }\ncors = [\"https://shop.example\"]\n",
        ),
    )
    .unwrap();
    let server = shop.start();
    let refused = backup(&shop, &server, "saved");
    assert_eq!(refused.status.code(), Some(78), "{}", said(&refused));
    assert!(!shop.path("saved").exists(), "{}", said(&refused));
    let token = ("authorization", &*format!("Bearer {TOKEN}"));
    for page in
        [("origin", "https://shop.example"), ("origin", "http://localhost:3000"), ("sec-fetch-site", "same-site")]
    {
        let answer = server.request("POST", "/_backup", &[token, page], "");
        assert_eq!((answer.status, &answer.json()["code"]), (403, &"origin-not-allowed".into()), "{page:?}");
    }
    assert_eq!(server.request("GET", "/_backup", &[token], "").raw_header("allow"), Some("POST"));
    let url = format!("http://{}", server.address);
    let taken = run(shop.dir.path(), &["backup", "saved", "--url", &url, "--token", "env:TOKEN"]);
    assert!(taken.status.success(), "{}", said(&taken));
    assert!(shop.path("saved").join(JOURNAL).exists());
}

#[test]
fn without_files_there_is_nothing_to_back_up_and_without_a_server_nobody_to_ask() {
    let shop = Shop::new();
    std::fs::write(shop.path("diorama.toml"), "[dio.products]\nsource = { csv = \"products.csv\" }\n").unwrap();
    let mut server = Server::start(shop.dir.path(), &["--cache", "memory"]);
    let refused = backup(&shop, &server, "saved");
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert!(said(&refused).contains("nothing to back up"), "{}", said(&refused));
    server.kill();
    let refused = backup(&shop, &server, "saved");
    assert_eq!(refused.status.code(), Some(69), "{}", said(&refused));
    assert!(!shop.path("saved").exists());
}

#[test]
fn files_that_are_copied_while_they_are_in_use_are_whole_or_refused() {
    let shop = Shop::new();
    let server = shop.start();
    for round in 0..4 {
        let before = (round + 1) * 20;
        for at in round * 20..before {
            put(&server, &format!("/orders/o{at}"), at);
        }
        let stop = AtomicBool::new(false);
        let copy = Shop::new();
        std::thread::scope(|scope| {
            let (address, stop) = (server.address.clone(), &stop);
            scope.spawn(move || {
                let mut at = 0;
                while !stop.load(Ordering::Relaxed) {
                    put_at(&address, &format!("/orders/other-{}", at % 7), at);
                    at += 1;
                }
            });
            for file in [JOURNAL, HEAD, CACHE] {
                std::fs::copy(shop.path(file), copy.path(file)).unwrap();
            }
            stop.store(true, Ordering::Relaxed);
        });
        match crate::kill::start_or_refusal(copy.dir.path(), crate::process::serving(copy.dir.path(), &[])) {
            Err((code, said)) => {
                assert_eq!(code, Some(78), "{said}");
                assert!(said.contains("holds acknowledged writes"), "{said}");
            }
            Ok((address, mut child)) => {
                let all = [("accept", "application/x-ndjson")];
                let known = crate::process::ask(&address, "GET", "/operations", &all, "").unwrap();
                child.kill().unwrap();
                child.wait().unwrap();
                let missing = (0..before).find(|at| !known.body.contains(&format!("\"record\":\"o{at}\"")));
                assert_eq!(missing, None, "a write from before the copy is gone, and the journal was not refused");
            }
        }
    }
}
