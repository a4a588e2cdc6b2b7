//! Values that arrive by the feed.

use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::{Config, TestRunner};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn every_value_is_the_one_that_a_list_gives() {
    let types = types::types();
    let columns: Vec<String> = types.iter().enumerate().map(|(at, (ty, _))| format!("c{at} {ty}")).collect();
    let sql = format!("CREATE TABLE t (id INTEGER PRIMARY KEY, {}) DEFAULT CHARSET utf8mb4", columns.join(", "));
    let Some(fixture) = Fixture::new(&sql) else { return };
    let followed = follow(&fixture.url(), "t").await;
    followed.connected().await;
    let lists = followed.lists();
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    let shell = fixture.shell("t").await;
    for first in (0..types::rounds()).step_by(BATCH) {
        let mut batch = Vec::new();
        for n in first..(first + BATCH).min(types::rounds()) {
            let mut record = Record::new();
            for (at, (_, values)) in types.iter().enumerate() {
                record.insert(format!("c{at}"), values.new_tree(&mut runner).unwrap().current());
            }
            batch.push((format!("op_{n}"), WriteOp::Insert { id: n.to_string(), record }));
        }
        for done in shell.write_batch(&batch).await {
            done.unwrap();
        }
    }
    followed.equals(&fixture, "t").await;
    fixture.sql("UPDATE t SET c0 = NOT c0; SET binlog_row_image = MINIMAL; UPDATE t SET c7 = 1 WHERE id % 2 = 0");
    followed.equals(&fixture, "t").await;
    assert_eq!(followed.lists(), lists, "the table was not listed again");
    assert_eq!(followed.dio.status().feeds[0].undecodable, 0);
    followed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_at_the_edges_of_their_types_are_those_of_a_list() {
    let Some(fixture) = Fixture::new(
        r"CREATE TABLE t (id INTEGER PRIMARY KEY, day DATE, at0 DATETIME, at3 DATETIME(3), m0 TIMESTAMP NULL, m2 TIMESTAMP(2) NULL, m5 TIMESTAMP(5) NULL,
            t0 TIME, t1 TIME(1), t4 TIME(4), year YEAR, n24 MEDIUMINT UNSIGNED, d0 DECIMAL(10), d1 DECIMAL(9,9), d2 DECIMAL(65,30),
            dz DECIMAL(12,3) ZEROFILL, bits BIT(13), fixed BINARY(5), wide CHAR(255), latin CHAR(5) CHARACTER SET latin1,
            cyr VARCHAR(50) CHARACTER SET cp1251, gbk VARCHAR(50) CHARACTER SET gbk, ucs VARCHAR(50) CHARACTER SET ucs2, v6 INET6, v4 INET4, u UUID,
            e ENUM('a', 'it''s', 'b\\c'), s SET('x', 'y z', 'ü') , place POINT, doc JSON, tiny TINYBLOB, medium MEDIUMTEXT, big LONGBLOB,
            twice INTEGER AS (id * 2) VIRTUAL, kept INTEGER AS (id * 3) STORED, hidden INTEGER INVISIBLE DEFAULT 5) DEFAULT CHARSET utf8mb4",
    ) else {
        return;
    };
    let followed = follow(&fixture.url(), "t").await;
    followed.connected().await;
    fixture.sql(
        r"SET sql_mode = '';
        INSERT INTO t (id) VALUES (1);
        INSERT INTO t (id, day, at0, at3, m0, m2, m5, t0, t1, t4, year, n24, d0, d1, d2, dz, bits) VALUES
            (2, '0000-00-00', '0000-00-00', '9999-12-31 23:59:59.999', '0000-00-00', '1970-01-01 00:00:01.01', '2038-01-19 03:14:07.99999',
                '-838:59:59', '-00:00:00.1', '838:59:59.0001', 0, 16777215, -9999999999, -0.000000001, -1.5, 7.5, 8191),
            (3, '2026-00-31', '2026-02-00 01:02:03', '1000-01-01', NULL, '2026-01-01 00:00:00', NULL,
                '00:00:00', '12:00:00', '-12:34:56.7891', 2155, 0, 0, 0.5, 99999999999999999999999999999999999.999999999999999999999999999999, 0, 0);
        INSERT INTO t (id, fixed, wide, latin, cyr, gbk, ucs, v6, v4, u, e, s) VALUES
            (4, x'6100000000', repeat('ü', 255), 'äß', 'Привет', '你好', 'été', '::', '0.0.0.0', '00000000-0000-0000-0000-000000000000', 'wrong', ''),
            (5, x'00', 'a  ', '', '', '', '', '::1', '255.255.255.255', '01890a5d-ac96-774b-bcce-b302099a8057', 'it''s', 'ü,x'),
            (6, x'0100000020', NULL, NULL, NULL, NULL, NULL, '::1.2.3.4', '1.2.3.4', '123e4567-e89b-12d3-a456-426614174000', 'b\\c', 'y z'),
            (7, NULL, NULL, NULL, 'ђ', NULL, NULL, '::ffff:1.2.3.4', NULL, 'ffffffff-ffff-ffff-ffff-ffffffffffff', NULL, 'x,y z,ü'),
            (8, NULL, NULL, NULL, NULL, NULL, NULL, '1:0:0:2::', NULL, '123e4567-e89b-52d3-7456-426614174000', NULL, NULL),
            (9, NULL, NULL, NULL, NULL, NULL, NULL, '::1:2', NULL, '00000000-0000-6000-8000-000000000001', NULL, NULL);
        INSERT INTO t (id, u) SELECT 30 + seq, concat('01890a5d-ac96-', seq MOD 10, '74b-', seq DIV 10, 'cce-b302099a8057') FROM seq_0_to_99;
        INSERT INTO t (id, place, doc, tiny, medium, big) VALUES
            (20, POINT(1, 2), '{}', '', '', ''), (21, NULL, '[1.50, 1e400]', repeat('a', 255), repeat('b', 70000), repeat('c', 300000));",
    );
    followed.equals(&fixture, "t").await;
    fixture.sql("UPDATE t SET m0 = NULL, id = id + 1000; SET binlog_row_image = MINIMAL; UPDATE t SET t0 = '01:00:00'");
    followed.equals(&fixture, "t").await;
    assert_eq!(followed.dio.status().feeds[0].undecodable, 0);
    followed.close().await;
}

/// Reading them one by one would take minutes.
#[tokio::test(flavor = "multi_thread")]
async fn many_rows_that_the_log_does_not_have_as_a_whole_are_listed() {
    let Some(fixture) = Fixture::new(TABLE) else { return };
    let followed = follow(&fixture.url(), "t").await;
    followed.connected().await;
    fixture.sql("SET binlog_row_image = MINIMAL; INSERT INTO t (id, n) SELECT seq, seq FROM seq_10001_to_30000");
    followed.equals(&fixture, "t").await;
    fixture.sql(
        "SET binlog_row_image = MINIMAL; INSERT INTO t (id, n) VALUES (40000, 1); UPDATE t SET n = 0 WHERE id = 7",
    );
    followed.equals(&fixture, "t").await;
    followed.close().await;
}
