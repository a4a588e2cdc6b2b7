//! Writes of a batch that share a statement have the results that they have one by one.

use super::*;
use crate::postgres::group::steps;

/// Returns a batch of these writes, with operations of this name.
fn batch(name: &str, ops: impl IntoIterator<Item = WriteOp>) -> Vec<(String, WriteOp)> {
    ops.into_iter().enumerate().map(|(at, op)| (format!("{name}_{at:03}"), op)).collect()
}

fn patch(id: &str, n: i64) -> WriteOp {
    WriteOp::Patch { id: id.into(), record: record([("n", n.into())]) }
}

/// Returns the number of statements of a batch.
fn statements(shell: &Postgres, batch: &[(String, WriteOp)]) -> usize {
    let write = |(id, op): &(String, WriteOp)| Write { operation: Some(id.clone()), op: op.clone() };
    let writes: Vec<Write> = batch.iter().map(write).collect();
    steps(&shell.table(), &writes, true).0.len()
}

fn number_of(done: &Result<Written>) -> i64 {
    let record = done.as_ref().unwrap().record.as_ref().unwrap();
    i64::try_from(record["n"].as_integer().unwrap()).unwrap()
}

#[tokio::test]
async fn a_refused_write_within_a_statement_affects_no_other() {
    let Some(fixture) = Fixture::new(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER CHECK (n <> 103)); INSERT INTO t SELECT g, 0 FROM generate_series(0, 9) g;",
    ) else {
        return;
    };
    let shell = fixture.shell("t").await;
    let writes = batch("op", (0..10).map(|n| patch(&n.to_string(), 100 + n)));
    assert_eq!(statements(&shell, &writes), 1);
    let written = shell.write_batch(&writes).await;
    assert_eq!(written.len(), 10);
    for (at, done) in written.iter().enumerate() {
        match at {
            3 => assert!(matches!(done, Err(Error::Invalid { .. })), "{done:?}"),
            at => assert_eq!(number_of(done), 100 + i64::try_from(at).unwrap(), "each has its own row"),
        }
    }
    assert_eq!(
        fixture.server.psql("SELECT string_agg(n::text, ' ' ORDER BY id) FROM t"),
        "100 101 102 0 104 105 106 107 108 109"
    );
    assert_eq!(fixture.server.psql("SELECT count(*) FROM _diorama_ops"), "9");
    assert!(shell.knows("op_002").await.unwrap() && !shell.knows("op_003").await.unwrap());
    let written = shell.write_batch(&batch("missing", [patch("1", 1), patch("99", 1), patch("2", 2)])).await;
    assert!(written[0].is_ok() && matches!(written[1], Err(Error::NotFound { .. })) && written[2].is_ok());
    assert!(!shell.knows("missing_001").await.unwrap(), "what had no effect is not noted");
}

#[tokio::test]
async fn writes_of_one_row_in_a_batch_take_effect_in_their_order() {
    let Some(fixture) = Fixture::new(
        "CREATE TABLE t (id UUID PRIMARY KEY, n INTEGER);
         INSERT INTO t VALUES ('00000000-0000-0000-0000-00000000000a', 0), ('00000000-0000-0000-0000-00000000000b', 0);",
    ) else {
        return;
    };
    let shell = fixture.shell("t").await;
    let (a, b) = ("00000000-0000-0000-0000-00000000000a", "00000000-0000-0000-0000-00000000000b");
    let again = a.to_uppercase();
    let writes = batch("op", [patch(a, 1), patch(b, 2), patch(&again, 3), patch(b, 4), patch(a, 5)]);
    assert_eq!(statements(&shell, &writes), 3);
    let written = shell.write_batch(&writes).await;
    assert_eq!(written.iter().map(number_of).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert_eq!(fixture.server.psql("SELECT string_agg(n::text, ' ' ORDER BY id) FROM t"), "5 4");
}

/// Operations that are stored already are recognized in a statement of several, also if only some are.
#[tokio::test]
async fn repeated_operations_have_one_effect_within_statements() {
    let Some(fixture) = Fixture::new(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER); INSERT INTO t SELECT g, -1 FROM generate_series(0, 9) g;
         SELECT pg_create_logical_replication_slot('changes', 'test_decoding');",
    ) else {
        return;
    };
    let shell = fixture.shell("t").await;
    assert_eq!(statements(&shell, &batch("op", (0..10).map(|n| patch(&n.to_string(), n)))), 1);
    let expected = contract::one_effect(&shell).await;
    let updates = "SELECT count(*) FROM pg_logical_slot_get_changes('changes', NULL, NULL) WHERE data LIKE 'table public.t: UPDATE%'";
    assert_eq!(fixture.server.psql(updates), expected.to_string());
    let half = batch("more", (0..5).map(|n| patch(&n.to_string(), 1_000 + n)));
    let all = batch("more", (0..10).map(|n| patch(&n.to_string(), 1_000 + n)));
    for writes in [&half, &all, &all] {
        assert!(shell.write_batch(writes).await.iter().all(Result::is_ok));
    }
    assert_eq!(fixture.server.psql(updates), "10");
    let proxy = CutProxy::start(fixture.server.port());
    let cut = fixture.shell_behind(&proxy, "t").await;
    for round in 0..30 {
        let writes = batch(&format!("cut_{round}"), (0..10).map(|n| patch(&n.to_string(), 2_000 + 10 * round + n)));
        proxy.cut_all();
        proxy.cut_after(u64::try_from(round * 130).unwrap());
        let first = cut.write_batch(&writes).await;
        assert!(first.iter().flat_map(|done| done.as_ref().err()).all(|error| error.kind() != ErrorKind::Permanent));
        proxy.cut_after(None);
        proxy.cut_all();
        tokio::time::timeout(Duration::from_secs(20), async {
            // An idle connection may have been cut.
            while cut.write_batch(&writes).await.iter().filter(|done| done.is_ok()).count() < 10 {}
        })
        .await
        .expect("the server is reachable");
    }
    assert_eq!(fixture.server.psql(updates), "300");
}

#[tokio::test]
async fn tables_on_which_the_order_of_rows_matters_have_a_statement_for_each_write() {
    let Some(fixture) = Fixture::new(
        "CREATE TABLE plain (id INTEGER PRIMARY KEY, n INTEGER, meta JSONB, tags TEXT[]);
         CREATE TABLE triggered (id INTEGER PRIMARY KEY, n INTEGER);
         CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
         CREATE TRIGGER nothing AFTER UPDATE ON triggered EXECUTE FUNCTION nothing();
         CREATE TABLE tree (id INTEGER PRIMARY KEY, n INTEGER REFERENCES tree);
         CREATE TABLE parted (id INTEGER PRIMARY KEY, n INTEGER) PARTITION BY HASH (id);
         CREATE TABLE part PARTITION OF parted FOR VALUES WITH (MODULUS 1, REMAINDER 0);
         CREATE TABLE indexed (id INTEGER PRIMARY KEY, n INTEGER UNIQUE);
         CREATE TABLE padded (id CHAR(5) PRIMARY KEY, n INTEGER);
         CREATE TABLE bounded (id VARCHAR(5) PRIMARY KEY, n INTEGER);",
    ) else {
        return;
    };
    let patches = batch("op", ["1", "2", "3"].map(|id| patch(id, 1)));
    for (table, expected) in
        [("plain", 1), ("triggered", 3), ("tree", 3), ("parted", 3), ("indexed", 3), ("padded", 3), ("bounded", 3)]
    {
        assert_eq!(statements(&fixture.shell(table).await, &patches), expected, "{table}");
    }
    let indexed = fixture.shell("indexed").await;
    let insert = |id: &str| WriteOp::Insert { id: id.into(), record: record([]) };
    assert_eq!(statements(&indexed, &batch("in", ["1", "2", "3"].map(insert))), 1, "inserts are in order");
    let plain = fixture.shell("plain").await;
    let of = |column: &'static str, value: CborValue| {
        move |id: &str| WriteOp::Patch { id: id.into(), record: record([(column, value.clone())]) }
    };
    assert_eq!(statements(&plain, &batch("meta", ["1", "2"].map(of("meta", 1.into())))), 1);
    assert_eq!(statements(&plain, &batch("tags", ["1", "2"].map(of("tags", CborValue::Array(vec!["a".into()]))))), 2);
    let mixed = [
        patch("1", 1),
        of("meta", 1.into())("2"),
        WriteOp::Delete { id: "3".into() },
        WriteOp::Delete { id: "4".into() },
    ];
    assert_eq!(statements(&plain, &batch("mixed", mixed)), 3);
    // A trigger that is new since the source was opened.
    fixture.server.psql("CREATE TRIGGER nothing AFTER UPDATE ON plain EXECUTE FUNCTION nothing();");
    plain.list(&Query::default()).await.unwrap();
    assert_eq!(statements(&plain, &patches), 3);
}

/// Executes random batches on one table and the same writes one by one on another.
#[tokio::test]
async fn a_batch_has_the_results_of_its_writes_one_by_one() {
    let columns =
        "id TEXT PRIMARY KEY, n INTEGER CHECK (n <> 3), u INTEGER UNIQUE, _d TEXT DEFAULT 'none', \"_d_op\" cents";
    let Some(fixture) = Fixture::new(&format!(
        "CREATE DOMAIN cents AS INTEGER CHECK (VALUE >= 0); CREATE TABLE _d_given ({columns}); CREATE TABLE single ({columns});"
    )) else {
        return;
    };
    let (together, single) = (fixture.shell("_d_given").await, fixture.shell("single").await);
    let mut seed = 7_u64;
    let mut below = move |bound: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % bound
    };
    let (mut grouped, mut refused) = (0, 0);
    for round in 0..60 {
        // Runs of one form, as programs write them.
        let mut ops = Vec::new();
        while ops.len() < 24 {
            let (kind, form) = (below(4), below(3));
            for _ in 0..=below(6) {
                let id = ["a", "b", "c'", "d\"\\", "e,{}", "é", " f", "NULL"][below(8) as usize].to_string();
                let value =
                    |bound: u64, number: u64| if number == bound { CborValue::Null } else { (number as i64).into() };
                let record = match form {
                    0 => record([("n", value(6, below(7)))]),
                    1 => record([("n", value(6, below(7))), ("u", value(5, below(6))), ("_d", "{NULL,\"x\"}".into())]),
                    _ => record([("_d", CborValue::Null), ("_d_op", (below(5) as i64 - 1).into())]),
                };
                ops.push(match kind {
                    // One that is in the way of another column is tried again at the end, when that may be free.
                    0 => {
                        WriteOp::Insert { id, record: record.into_iter().filter(|(column, _)| column != "u").collect() }
                    }
                    1 => WriteOp::Replace { id, record },
                    2 => WriteOp::Patch { id, record },
                    _ => WriteOp::Delete { id },
                });
            }
        }
        let name = format!("together_{round:02}");
        let writes = batch(&name, ops.clone());
        grouped += writes.len() - statements(&together, &writes);
        let done = together.write_batch(&writes).await;
        let mut expected = Vec::new();
        for (operation, op) in batch(&format!("single_{round:02}"), ops) {
            expected.push(single.write_once(&operation, &op).await);
        }
        let result = |done: &Result<Written>| match done {
            Ok(written) => format!("{:?}", written.record),
            Err(Error::Conflict { id, .. }) => format!("conflict {id}"),
            Err(error) => error.to_string().replace("_d_given", "single"),
        };
        refused += expected.iter().filter(|done| done.is_err()).count();
        assert_eq!(
            done.iter().map(result).collect::<Vec<_>>(),
            expected.iter().map(result).collect::<Vec<_>>(),
            "{writes:#?}"
        );
        let noted = |name: &str| {
            format!("SELECT string_agg(right(op, 6), ' ' ORDER BY op) FROM _diorama_ops WHERE op LIKE '{name}%'")
        };
        assert_eq!(fixture.server.psql(&noted("together")), fixture.server.psql(&noted("single")));
    }
    let rows = |table: &str| fixture.server.psql(&format!("SELECT * FROM {table} ORDER BY id"));
    assert_eq!(rows("_d_given"), rows("single"));
    assert!(grouped > 200 && refused > 200, "{grouped} writes shared a statement, {refused} were refused");
}
