//! A MariaDB server from its start to its end.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod common;

use std::panic::catch_unwind;
use std::time::Instant;

use common::{eventually, folder_of_killed_test, processes, wait_to_be_killed};
use diorama_servers::{MariaDbServer, PASSWORD};

#[test]
fn answers_queries_with_the_options_of_the_test() {
    let begin = Instant::now();
    let Some(server) = MariaDbServer::start_with(&["max-connections=17"]) else { return };
    println!("MariaDB started in {} ms", begin.elapsed().as_millis());
    assert_eq!(server.sql("SELECT 1, 'ä'; SELECT 2"), "1\tä\n2");
    let options = "SELECT @@log_bin, @@binlog_format, @@binlog_row_metadata, @@server_id, @@max_connections";
    assert_eq!(server.sql(options), "1\tROW\tFULL\t1\t17");
    server.sql("CREATE DATABASE bakery");
    assert_eq!(server.sql("USE bakery; SELECT database(), current_user()"), "bakery\troot@127.0.0.1");
    assert_eq!(server.url("bakery"), format!("mysql://root:{PASSWORD}@127.0.0.1:{}/bakery", server.port()));
}

#[test]
fn a_failed_statement_panics_with_its_message() {
    let Some(server) = MariaDbServer::start() else { return };
    let failed = catch_unwind(|| server.sql("SELECT * FROM mysql.missing")).unwrap_err();
    let message = failed.downcast::<String>().unwrap();
    assert!(message.contains("Table 'mysql.missing' doesn't exist"), "{message}");
}

#[test]
fn committed_rows_survive_kill_and_stop() {
    let Some(mut server) = MariaDbServer::start() else { return };
    let port = server.port();
    server.sql("CREATE DATABASE d; USE d; CREATE TABLE bread (id int PRIMARY KEY); INSERT INTO bread VALUES (1)");
    server.kill();
    let left = processes(&server.folder().join("data"));
    assert!(left.is_empty(), "{left:?}");
    let begin = Instant::now();
    server.restart();
    println!("MariaDB recovered in {} ms", begin.elapsed().as_millis());
    server.sql("INSERT INTO d.bread VALUES (2)");
    server.stop();
    server.restart();
    server.restart();
    assert_eq!((server.sql("SELECT id FROM d.bread ORDER BY id").as_str(), server.port()), ("1\n2", port));
}

#[test]
fn nothing_is_left_after_the_end() {
    let Some(server) = MariaDbServer::start() else { return };
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
    let Some(server) = MariaDbServer::start() else { return };
    wait_to_be_killed(server.folder());
}
