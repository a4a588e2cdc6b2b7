//! SQL answers as the evaluator does.

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRunner};

use super::*;

#[tokio::test]
async fn sql_answers_as_the_evaluator_does() {
    let Some(fixture) = Fixture::new(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, n BIGINT, u BIGINT UNSIGNED, f DOUBLE, r FLOAT, t VARCHAR(100), l TEXT,
            c VARCHAR(10) CHARACTER SET latin1 COLLATE latin1_swedish_ci, p CHAR(3), d DECIMAL(10,3), b TINYINT(1), i BIT(1),
            y YEAR, e ENUM('', 'b', 'a', 'C'), KEY (t), KEY (c)) DEFAULT CHARSET utf8mb4 COLLATE utf8mb4_unicode_ci;
         INSERT INTO t VALUES (-1, 1, 1, 1, 1, 'a', 'a', 'a', 'a', 1, 1, 1, 2001, 'a'), (2, 0, 0, 0.5, 0.5, 'A', 'A', 'A', 'A', 0.50, 0, 0, 0, 'C'),
           (10, 3, 18446744073709551615, -1.5, 0.1, 'é', 'é', 'é', 'é', -1.5, NULL, NULL, 2000, 'C'),
           (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 1, NULL, NULL),
           (4, -2, 2, 3, 3, '', '', '', '', -1.5, 1, 1, 1999, ''), (5, 9007199254740993, 9007199254740993, -0e0, 2, '1', '1', '1', '1', 1.0, 1, 0, 2001, 'b'),
           (6, 2, 3, -1.5, -1.5, 'b', 'b', 'b', 'b', 3, 5, 0, 2155, 'b'), (7, 1, 1, 1e300, 1, 'a ', 'a ', 'a ', 'a ', 1, 0, NULL, 2001, 'a'),
           (8, 1, 1, 1, 1, 'á', 'á', 'á', 'á', 1, 1, 1, 2001, 'a'), (9, 1, 1, 1, 1, 'a\\0', 'a\\0', 'a\\0', 'a\\0', 1, 2, 1, 2001, 'a');",
    ) else {
        return;
    };
    let shell = fixture.shell("t").await;
    let all = shell.list(&Query::default()).await.unwrap();
    assert_eq!(all.len(), 10);
    let columns: &[&str] = &["id", "n", "u", "f", "r", "t", "l", "c", "p", "d", "b", "i", "y", "e"];
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    let mut exact = 0;
    for _ in 0..2_000 {
        let query = contract::queries::query(columns).new_tree(&mut runner).unwrap().current();
        let expected = apply(&query, &shell.table().schema, all.clone());
        let found = shell.list(&query).await.unwrap_or_else(|error| panic!("{query:?}: {error}"));
        exact += u32::from(Plan::new(&*shell.table(), &query).is_exact);
        assert_eq!(found.ids().collect::<Vec<_>>(), expected.ids().collect::<Vec<_>>(), "{query:?}");
        assert_eq!(shell.count(&query).await.unwrap(), count(&query, &shell.table().schema, &all), "{query:?}");
    }
    assert!(exact > 200, "{exact} of the queries are answered by SQL alone");
}

/// An index answers an equality of text, whatever the collation.
#[tokio::test]
async fn an_equality_of_text_is_answered_by_the_index() {
    let Some(fixture) = Fixture::new(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, name VARCHAR(100), KEY (name));
         INSERT INTO t SELECT seq, concat('name ', seq) FROM seq_1_to_20000; ANALYZE TABLE t;",
    ) else {
        return;
    };
    let shell = fixture.shell("t").await;
    let filter = diorama_core::vista::Filter::test("name", diorama_core::vista::query::Test::Eq("name 77".into()));
    let plan = Plan::new(&*shell.table(), &Query { filter, ..Query::default() });
    let explained = plan.filter().replacen('?', "'name 77'", 2);
    let explained = fixture.sql(&format!("EXPLAIN SELECT * FROM t {explained}"));
    assert!(explained.contains("\tref\t"), "{explained}");
}

/// Pages by key see every row that is there throughout, once, while others come and go.
#[tokio::test]
async fn pages_continue_while_rows_change() {
    let Some(fixture) = Fixture::new(
        "CREATE TABLE t (a VARCHAR(20), b INTEGER, PRIMARY KEY (a, b));
         INSERT INTO t SELECT char(97 + seq % 5), seq FROM seq_0_to_99;",
    ) else {
        return;
    };
    let shell = fixture.shell("t").await;
    let query = Query { limit: Some(7), ..Query::default() };
    let (mut seen, mut token) = (Vec::new(), None);
    loop {
        let (rows, next) = shell.next(&query, token.as_ref()).await.unwrap();
        seen.extend(rows.ids().map(String::from));
        fixture
            .sql("INSERT INTO t SELECT 'c', 1 + greatest(max(b), 1000) FROM t; DELETE FROM t WHERE (a, b) = ('a', 0)");
        token = next;
        if token.is_none() {
            break;
        }
    }
    let lasting: Vec<&String> = seen.iter().filter(|id| !id.starts_with("c,1") || id.len() == 4).collect();
    assert_eq!(lasting.len(), 100, "{seen:?}");
    let mut once = seen.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), seen.len());
}

/// Without a unique key, texts that differ may be equal to their collation: no page leaves one out.
#[tokio::test]
async fn pages_of_a_view_have_rows_that_differ_in_case_only() {
    let Some(fixture) = Fixture::new(
        "CREATE TABLE t (k INTEGER PRIMARY KEY, id VARCHAR(20)); CREATE VIEW v AS SELECT id FROM t;
         INSERT INTO t VALUES (1, 'a'), (2, 'A'), (3, 'á'), (4, 'a '), (5, 'b');",
    ) else {
        return;
    };
    let shell = fixture.shell("v").await;
    let query = Query { limit: Some(1), ..Query::default() };
    let (mut seen, mut token) = (Vec::new(), None);
    loop {
        let (rows, next) = shell.next(&query, token.as_ref()).await.unwrap();
        seen.extend(rows.ids().map(String::from));
        token = next;
        if token.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["A", "a", "a ", "b", "á"]);
}
