//! Batches, and writes that take effect exactly once.

use super::*;

/// Returns a batch of inserts into `products (id, n)`.
pub(super) fn inserts(numbers: impl IntoIterator<Item = i64>) -> Vec<(String, WriteOp)> {
    let insert = |n: i64| WriteOp::Insert { id: n.to_string(), record: record([("n", n.into())]) };
    numbers.into_iter().map(|n| (format!("op_{n}"), insert(n))).collect()
}

fn patch(id: &str, n: i64) -> WriteOp {
    WriteOp::Patch { id: id.into(), record: record([("n", n.into())]) }
}

/// The table of the tests, with its history in another one.
const PRODUCTS: &str = "CREATE TABLE products (id VARCHAR(20) PRIMARY KEY, n INTEGER CHECK (n <> 3));
    CREATE TABLE history (at INTEGER AUTO_INCREMENT PRIMARY KEY, id VARCHAR(20), n INTEGER);
    CREATE TRIGGER inserted AFTER INSERT ON products FOR EACH ROW INSERT INTO history (id, n) VALUES (new.id, new.n);
    CREATE TRIGGER updated AFTER UPDATE ON products FOR EACH ROW INSERT INTO history (id, n) VALUES (new.id, new.n);";

#[tokio::test]
async fn a_batch_is_one_transaction_in_which_a_refusal_affects_no_other_write() {
    let Some(fixture) = Fixture::new(PRODUCTS) else { return };
    let shell = fixture.shell("products").await;
    let commits =
        || fixture.sql("SHOW GLOBAL STATUS LIKE 'Com_commit'").split('\t').nth(1).unwrap().parse::<u64>().unwrap();
    let before = commits();
    let written = shell.write_batch(&inserts(4..=9)).await;
    assert!(written.iter().all(Result::is_ok), "{written:?}");
    assert_eq!(commits() - before, 1);
    assert_eq!(written[1].as_ref().unwrap().record.as_ref().unwrap()["n"], 5.into());
    let written = shell.write_batch(&inserts(1..=5)).await;
    let refused: Vec<_> = written.iter().enumerate().filter(|(_, done)| done.is_err()).map(|(at, _)| at).collect();
    assert_eq!((written.len(), refused), (5, vec![2]));
    let again = shell.write_batch(&inserts(1..=2)).await;
    assert!(again.iter().all(Result::is_ok), "a repeated operation has no second effect");
    assert_eq!(again[1].as_ref().unwrap().record.as_ref().unwrap()["n"], 2.into());
    assert_eq!(fixture.sql("SELECT count(*) FROM products"), "8");
    assert_eq!(fixture.sql("SELECT count(*) FROM _diorama_ops"), "8");
    assert_eq!(fixture.sql("SELECT count(*) FROM history"), "8", "each had its effect once");
    assert!(shell.knows("op_1").await.unwrap() && !shell.knows("op_3").await.unwrap());
    for op in [patch("99", 1), WriteOp::Delete { id: "99".into() }] {
        let written = shell.write_once("op_99", &op).await;
        assert!(matches!(written, Err(Error::NotFound { .. })));
        assert!(!shell.knows("op_99").await.unwrap(), "what had no effect is not noted");
    }
}

/// Every kind of write, some of them refused, in an order that matters.
#[tokio::test]
async fn a_mixed_batch_is_executed_in_order() {
    let Some(fixture) = Fixture::new(PRODUCTS) else { return };
    let shell = fixture.shell("products").await;
    let replace = |id: &str, n: i64| WriteOp::Replace { id: id.into(), record: record([("n", n.into())]) };
    let ops = [
        inserts([1]).remove(0).1,
        patch("1", 10),
        replace("2", 2),
        patch("2", 3),
        inserts([4]).remove(0).1,
        WriteOp::Delete { id: "none".into() },
        WriteOp::Patch { id: "4".into(), record: record([("nope", 1.into())]) },
        replace("2", 20),
        WriteOp::Delete { id: "4".into() },
        inserts([4]).remove(0).1,
        replace("5", 5),
    ];
    let batch: Vec<_> = ops.into_iter().enumerate().map(|(at, op)| (format!("op_{at}"), op)).collect();
    let written = shell.write_batch(&batch).await;
    let refused: Vec<_> = written.iter().enumerate().filter(|(_, done)| done.is_err()).map(|(at, _)| at).collect();
    assert_eq!((written.len(), refused), (11, vec![3, 5, 6]), "{written:?}");
    let record_of = |at: usize| written[at].as_ref().unwrap().record.as_ref().unwrap()["n"].clone();
    assert_eq!((record_of(0), record_of(1), record_of(2), record_of(7)), (1.into(), 10.into(), 2.into(), 20.into()));
    assert_eq!(fixture.sql("SELECT group_concat(id, ':', n ORDER BY id) FROM products"), "1:10,2:20,4:4,5:5");
    assert_eq!(fixture.sql("SELECT count(*) FROM _diorama_ops"), "8");
    let all = WriteOp::DeleteAll;
    shell.write_once("op_all", &all).await.unwrap();
    shell.write_batch(&inserts([70])).await.remove(0).unwrap();
    shell.write_once("op_all", &all).await.unwrap();
    assert_eq!(fixture.sql("SELECT count(*) FROM products"), "1", "a repeated operation has no second effect");
}

/// Two attempts of one operation at the same time: the first has not committed when the second begins.
#[tokio::test]
async fn attempts_of_one_operation_at_the_same_time_have_one_effect() {
    let Some(fixture) = Fixture::new(&format!("{PRODUCTS} INSERT INTO products VALUES ('a', 0);")) else { return };
    let shell = fixture.shell("products").await;
    for round in 10..30 {
        let op = patch("a", round);
        let operation = format!("op_{round}");
        let attempts = (0..4).map(|_| shell.write_once(&operation, &op));
        for attempt in futures_util::future::join_all(attempts).await {
            let again = match attempt {
                Ok(written) => Ok(written),
                // The attempt lost the race, and a retry finds the operation.
                Err(_) => shell.write_once(&operation, &op).await,
            };
            assert_eq!(again.unwrap().record.unwrap()["n"], round.into());
        }
    }
    assert_eq!(fixture.sql("SELECT count(*) FROM history"), "21");
}

/// Batches of several connections at the same time, which meet at rows and operations.
#[tokio::test]
async fn batches_at_the_same_time_do_not_hinder_each_other() {
    let Some(fixture) = Fixture::new(PRODUCTS) else { return };
    let shell = fixture.shell("products").await;
    let batch = |of: i64| {
        let shell = shell.clone();
        async move {
            for round in 0..10 {
                let numbers = (0..20).map(|n| 1_000 * of + 100 * round + n);
                for done in shell.write_batch(&inserts(numbers)).await {
                    done.unwrap_or_else(|error| panic!("{error}"));
                }
            }
        }
    };
    futures_util::future::join_all((1..=4).map(batch)).await;
    assert_eq!(fixture.sql("SELECT count(*), count(DISTINCT id) FROM history"), "800\t800");
}

/// Connections that end at every point of a batch: a retry has the effect once.
#[tokio::test]
async fn a_cut_connection_leaves_one_effect_after_a_retry() {
    let Some(fixture) = Fixture::new(PRODUCTS) else { return };
    let proxy = CutProxy::start(fixture.server.port());
    let url = fixture.url().replace(&format!(":{}/", fixture.server.port()), &format!(":{}/", proxy.port()));
    let shell = fixture.shell_at(&url, "products").await;
    let mut cuts = 0;
    for round in 0..40 {
        let batch = inserts((0..5).map(|n| 100 + 10 * round + n));
        proxy.cut_all();
        proxy.cut_after(Some(400 + 12 * u64::try_from(round).unwrap()));
        let mut rest = batch.as_slice();
        while !rest.is_empty() {
            for done in shell.write_batch(rest).await {
                match done {
                    Ok(_) => rest = &rest[1..],
                    Err(error) => {
                        assert_ne!(error.kind(), ErrorKind::Permanent, "{error}");
                        cuts += 1;
                        proxy.cut_after(None);
                    }
                }
            }
        }
    }
    assert!(cuts >= 20, "{cuts}");
    assert_eq!(fixture.sql("SELECT count(*), count(DISTINCT id) FROM history"), "200\t200");
}

/// Figures of a list and of batches: `cargo nextest run -p diorama-connect measured --run-ignored all --no-capture --release`.
#[tokio::test]
#[ignore = "measures"]
async fn lists_and_batches_measured() {
    let Some(fixture) = Fixture::new(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, name VARCHAR(100), price DECIMAL(10,2), at DATETIME, a INTEGER, b DOUBLE, c TEXT);
         INSERT INTO t SELECT seq, concat('name ', seq), seq / 7, now(), seq, seq / 3, repeat('x', 30) FROM seq_1_to_300000;
         CREATE TABLE products (id VARCHAR(20) PRIMARY KEY, n INTEGER);",
    ) else {
        return;
    };
    let shell = fixture.shell("t").await;
    let started = std::time::Instant::now();
    let rows = shell.list(&Query::default()).await.unwrap().len();
    let seconds = started.elapsed().as_secs_f64();
    println!("list: {rows} rows in {seconds:.2} s, {:.0} rows/s", rows as f64 / seconds);
    let shell = fixture.shell("products").await;
    let batches: Vec<_> = (0..40).map(|batch| inserts((0..256).map(|n| 256 * batch + n))).collect();
    let started = std::time::Instant::now();
    for batch in &batches {
        assert!(shell.write_batch(batch).await.iter().all(Result::is_ok));
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("batches: {:.0} writes/s", 40.0 * 256.0 / seconds);
}

/// Reads and writes with columns that have changed fail once, and are right when they are repeated.
#[tokio::test]
async fn dropped_columns_are_noticed_by_reads_and_writes() {
    let sql = "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER, a TEXT, b TEXT, c TEXT); INSERT INTO t VALUES (1, 1, 'a', 'b', 'c');";
    let Some(fixture) = Fixture::new(sql) else { return };
    let shell = fixture.shell("t").await;
    let op = WriteOp::Patch { id: "1".into(), record: record([("n", 2.into())]) };
    fixture.sql("ALTER TABLE t DROP COLUMN a");
    let error = shell.write_once("op_1", &op).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
    let row = shell.write_once("op_1", &op).await.unwrap().record.unwrap();
    assert_eq!(row, record([("id", 1.into()), ("n", 2.into()), ("b", "b".into()), ("c", "c".into())]));
    fixture.sql("ALTER TABLE t DROP COLUMN b");
    assert_eq!(shell.get("1").await.unwrap_err().kind(), ErrorKind::Transient);
    assert_eq!(shell.get("1").await.unwrap().unwrap(), record([("id", 1.into()), ("n", 2.into()), ("c", "c".into())]));
    fixture.sql("ALTER TABLE t DROP COLUMN c");
    let some = Query { limit: Some(1), ..Query::default() };
    assert_eq!(shell.list(&some).await.unwrap_err().kind(), ErrorKind::Transient);
    assert_eq!(shell.list(&some).await.unwrap().len(), 1);
    let told: Vec<String> = shell.inferred().iter().map(ToString::to_string).collect();
    assert!(told.len() == 3 && told[0].starts_with("column \"a\": was dropped"), "{told:?}");
}
