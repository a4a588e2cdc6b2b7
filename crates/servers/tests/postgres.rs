//! A PostgreSQL server from its start to its end.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod common;

use std::panic::catch_unwind;
use std::process::Command;
use std::time::Instant;

use common::{eventually, folder_of_killed_test, processes, wait_to_be_killed};
use diorama_servers::{CutProxy, PASSWORD, PostgresServer};

#[test]
fn answers_queries_with_the_settings_of_the_test() {
    let begin = Instant::now();
    let Some(server) = PostgresServer::start_with(&["fsync=off", "max_wal_senders=7"]) else { return };
    println!("PostgreSQL started in {} ms", begin.elapsed().as_millis());
    assert_eq!(server.psql("SELECT 1, 'a'; SELECT 2"), "1|a\n2");
    let settings = "SELECT current_setting('wal_level'), current_setting('max_replication_slots'),
        current_setting('max_wal_senders'), current_setting('fsync'), current_setting('server_encoding')";
    assert_eq!(server.psql(settings), "logical|20|7|off|UTF8");
    assert_eq!(server.psql("SELECT lower('ÄÖ')"), "äö");
    server.psql("CREATE DATABASE bakery");
    assert_eq!(server.psql("\\c bakery\nSELECT current_database()"), "bakery");
    assert_eq!(server.url("bakery"), format!("postgres://postgres:{PASSWORD}@127.0.0.1:{}/bakery", server.port()));
}

#[test]
fn a_failed_statement_panics_with_its_message() {
    let Some(server) = PostgresServer::start() else { return };
    let failed = catch_unwind(|| server.psql("SELECT * FROM missing")).unwrap_err();
    let message = failed.downcast::<String>().unwrap();
    assert!(message.contains("relation \"missing\" does not exist"), "{message}");
}

#[test]
fn committed_rows_survive_kill_and_stop() {
    let Some(mut server) = PostgresServer::start() else { return };
    let port = server.port();
    server.psql("CREATE TABLE bread (id int PRIMARY KEY); INSERT INTO bread VALUES (1)");
    server.kill();
    let left = processes(&server.folder().join("data"));
    assert!(left.is_empty(), "{left:?}");
    let begin = Instant::now();
    server.restart();
    println!("PostgreSQL recovered in {} ms", begin.elapsed().as_millis());
    server.psql("INSERT INTO bread VALUES (2)");
    server.stop();
    server.restart();
    server.restart();
    assert_eq!((server.psql("SELECT id FROM bread ORDER BY id").as_str(), server.port()), ("1\n2", port));
}

#[test]
fn busy_processes_are_killed() {
    let Some(mut server) = PostgresServer::start() else { return };
    let busy = "SELECT count(*) FROM generate_series(1, 100000000000)";
    let mut client = Command::new("psql").args(["-Xqc", busy, &server.url("postgres")]).spawn().unwrap();
    let active = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%generate_series(1%'
        AND pid <> pg_backend_pid()";
    eventually("the query runs", || server.psql(active) == "1");
    let data = server.folder().join("data");
    assert!(processes(&data).len() > 5);
    server.kill();
    assert_eq!(processes(&data), Vec::<String>::new());
    assert!(!client.wait().unwrap().success());
}

#[test]
fn nothing_is_left_after_the_end() {
    let Some(server) = PostgresServer::start() else { return };
    let folder = server.folder().to_path_buf();
    assert!(!processes(&folder).is_empty());
    drop(server);
    assert!(!folder.exists());
    assert_eq!(processes(&folder), Vec::<String>::new());
}

#[test]
fn nothing_is_left_after_a_killed_test() {
    let Some(folder) = folder_of_killed_test("is_killed") else { return };
    eventually("the folder is removed", || !folder.exists());
    eventually("the processes end", || processes(&folder).is_empty());
}

#[test]
#[ignore = "another test runs and kills this one"]
fn is_killed() {
    let Some(server) = PostgresServer::start() else { return };
    wait_to_be_killed(server.folder());
}

#[test]
fn a_proxy_stands_between() {
    let Some(server) = PostgresServer::start() else { return };
    let proxy = CutProxy::start(server.port());
    let url = server.url("postgres").replace(&server.port().to_string(), &proxy.port().to_string());
    let ask = || Command::new("psql").args(["-Xqtc", "SELECT 1", &url]).output().unwrap();
    assert!(ask().status.success());
    proxy.cut_after(proxy.received() / 2);
    assert!(!ask().status.success());
    assert_eq!(proxy.accepted(), 2);
}
