//! Reads and writes while changes arrive.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::task::JoinSet;

use super::*;

/// Rows never become older, whatever is read and written while changes arrive.
#[tokio::test(flavor = "multi_thread")]
async fn reads_and_writes_never_bring_an_older_row_back() {
    let Some(fixture) = Fixture::with(&["innodb-flush-log-at-trx-commit=1", "sync-binlog=1"], TABLE) else { return };
    let fixture = Arc::new(fixture);
    let followed = follow(&fixture.url(), "t").await;
    followed.connected().await;
    let rounds = Arc::new(AtomicUsize::new(0));
    let writers: Vec<_> = (0..3)
        .map(|writer| {
            let (fixture, rounds) = (Arc::clone(&fixture), Arc::clone(&rounds));
            let sql = (0..400).map(|_| format!("UPDATE t SET n = n + 1 WHERE id % 3 = {writer} AND id < 12;\n"));
            let sql: String = sql.collect();
            // At least once, and until enough was read meanwhile.
            std::thread::spawn(move || {
                loop {
                    fixture.sql(&sql);
                    if rounds.load(Ordering::Relaxed) > 5 {
                        break;
                    }
                }
            })
        })
        .collect();
    let mut events = followed.dio.subscribe_events();
    let watching = async {
        let mut last = BTreeMap::new();
        while let Ok(event) = events.recv().await {
            let DioEvent::RecordChanged { id, .. } = event else { continue };
            let row = followed.dio.held_row(&id).unwrap();
            let now = i128::from(row["n"].as_integer().unwrap());
            let before = last.insert(id.to_string(), now).unwrap_or_default();
            assert!(now >= before, "row {id} was {before} and is {now}");
        }
    };
    let reading = async {
        let facade = followed.dio.vista();
        let mut round = 0;
        while writers.iter().any(|writer| !writer.is_finished()) {
            round += 1;
            rounds.store(round, Ordering::Relaxed);
            followed.dio.refresh_from_now().await.unwrap();
            facade.patch_value("1", &record([("large", format!("{round}").into())])).await.unwrap();
            followed.dio.invalidate_record((1 + round % 11).to_string());
        }
        assert!(round > 5, "{round}");
    };
    tokio::select! {
        () = watching => panic!("the events have ended"),
        () = reading => {}
    }
    for writer in writers {
        writer.join().unwrap();
    }
    followed.until("the writes are applied", || followed.dio.status().queued == 0).await;
    followed.equals(&fixture, "t").await;
    followed.close().await;
}

/// A source whose feed is driven by the test.
async fn driven(fixture: &Fixture) -> (Arc<Shared>, MySql, Place) {
    let address = Address::parse(&fixture.url(), None, None).unwrap();
    let shared = Shared::new(address, MySqlRelation::Table("t".into()));
    let shell = MySql::connect(Arc::clone(&shared), MySqlOptions::default()).await.unwrap();
    let mut session = Session::new(shared.address.connect().await.unwrap());
    let end = server::end_of_log(&mut session).await.unwrap();
    shared.progress.set_following(true);
    shared.progress.reach(&end, true);
    (shared, shell, end)
}

/// Runs `call` until it waits for the feed, which then reaches everything.
async fn waits<T: Send + 'static>(
    fixture: &Fixture,
    shared: &Shared,
    call: impl Future<Output = T> + Send + 'static,
    is_whole: bool,
) -> T {
    fixture.sql("UPDATE t SET d = d + 1");
    let mut running = JoinSet::new();
    running.spawn(call);
    fixture.sql("SELECT count(*) FROM t a JOIN t b");
    assert!(running.try_join_next().is_none(), "it waits for the feed");
    let end = Place { file: "binlog.999999".into(), offset: 4 };
    shared.progress.reach(&end, is_whole);
    running.join_next().await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_and_writes_end_when_the_feed_has_passed_them() {
    let Some(fixture) = Fixture::new(TABLE) else { return };
    let (shared, shell, begin) = driven(&fixture).await;
    let again = || shared.progress.reach(&begin, true);
    let own = shell.clone();
    assert!(waits(&fixture, &shared, async move { own.get("1").await }, true).await.unwrap().is_some());
    again();
    let own = shell.clone();
    assert_eq!(
        waits(&fixture, &shared, async move { own.list(&Query::default()).await }, false).await.unwrap().len(),
        100
    );
    for is_whole in [true, false] {
        again();
        let (own, op) = (shell.clone(), WriteOp::Patch { id: "1".into(), record: record([("n", 5.into())]) });
        let operation = format!("op_{is_whole}");
        let written =
            waits(&fixture, &shared, async move { own.write_once(&operation, &op).await }, is_whole).await.unwrap();
        assert_eq!((written.reported, written.record.is_some()), (is_whole, is_whole));
    }
}

/// The server sends a transaction a moment before it shows it.
#[tokio::test(flavor = "multi_thread")]
async fn reads_show_what_the_feed_has_applied() {
    let Some(fixture) = Fixture::new(TABLE) else { return };
    let (shared, shell, end) = driven(&fixture).await;
    shared.progress.reach(&Place { file: "binlog.999999".into(), offset: 4 }, true);
    shared.progress.note_begun(end);
    let own = shell.clone();
    let mut reads = JoinSet::new();
    reads.spawn(async move { own.get("1").await });
    reads.spawn(async move { Ok(shell.list(&Query::default()).await?.get("1")) });
    fixture.sql("SELECT count(*) FROM t a JOIN t b");
    assert!(reads.try_join_next().is_none(), "they wait until the transaction shows");
    fixture.sql("UPDATE t SET n = 77 WHERE id = 1");
    for row in reads.join_all().await {
        assert_eq!(row.unwrap().unwrap()["n"], 77.into());
    }
}
