//! SQL answers as the evaluator does.

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRunner};

use super::*;

#[tokio::test]
async fn sql_answers_as_the_evaluator_does() {
    let Some(fixture) = Fixture::new(
        "CREATE COLLATION ignoring (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         CREATE TABLE t (id INTEGER PRIMARY KEY, n BIGINT, f FLOAT8, t TEXT, c TEXT COLLATE ignoring, p CHAR(3), d NUMERIC, b BOOLEAN);
         INSERT INTO t VALUES (-1, 1, 1, 'a', 'a', 'a', 1, true), (2, 0, 0.5, 'A', 'A', 'A', 0.50, false),
           (10, 3, 'NaN', 'é', 'é', 'é', 'NaN', NULL), (3, NULL, NULL, NULL, NULL, NULL, NULL, true),
           (4, -2, '-Infinity', '', '', '', -1.5, true), (5, 9007199254740993, '-0', '1', '1', '1', 1.0, true),
           (6, 2, -1.5, 'b', 'b', 'b', 3, false), (7, 1, 3, 'a', 'a', 'a', 1, NULL);",
    ) else {
        return;
    };
    let shell = fixture.shell("t").await;
    let all = shell.list(&Query::default()).await.unwrap();
    let columns: &[&str] = &["id", "n", "f", "t", "c", "p", "d", "b"];
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    let mut exact = 0;
    for _ in 0..1_500 {
        let query = contract::queries::query(columns).new_tree(&mut runner).unwrap().current();
        let expected = apply(&query, &shell.table().schema, all.clone());
        let found = shell.list(&query).await.unwrap();
        exact += u32::from(Plan::new(&*shell.table(), &query).is_exact);
        assert_eq!(found.ids().collect::<Vec<_>>(), expected.ids().collect::<Vec<_>>(), "{query:?}");
        assert_eq!(shell.count(&query).await.unwrap(), count(&query, &shell.table().schema, &all), "{query:?}");
    }
    assert!(exact > 200, "{exact} of the queries are answered by SQL alone");
}

/// Pages by key see every row that is there throughout, once, while others come and go.
#[tokio::test]
async fn pages_continue_while_rows_change() {
    let Some(fixture) = Fixture::new(
        "CREATE TABLE t (a TEXT, b INTEGER, PRIMARY KEY (a, b)); INSERT INTO t SELECT chr(97 + n % 5), n FROM generate_series(0, 99) n;",
    ) else {
        return;
    };
    let shell = fixture.shell("t").await;
    let query = Query { limit: Some(7), ..Query::default() };
    let (mut seen, mut token) = (Vec::new(), None);
    loop {
        let (rows, next) = shell.next(&query, token.as_ref()).await.unwrap();
        seen.extend(rows.ids().map(String::from));
        fixture.server.psql("INSERT INTO t SELECT 'c', 1000 + max(b) FROM t; DELETE FROM t WHERE (a, b) = ('a', 0)");
        token = next;
        if token.is_none() {
            break;
        }
    }
    let lasting = seen.iter().filter(|id| id[2..].parse::<u32>().unwrap() < 100);
    assert_eq!(lasting.count(), 100, "{seen:?}");
    let mut once = seen.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), seen.len());
}
