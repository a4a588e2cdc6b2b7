//! Writes: staged at once, delivered by a worker, by one route, confirmed or rolled back.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use diorama::dio::{IdempotencyKey, Inbound, OperationState, Reconciled, WriteOptions};
use diorama::journal::Journal;
use diorama::{ChangeEvent, Dio, DioEvent, Error, LensBuilder, Record, WriteOp};
use tokio::sync::mpsc;

use crate::harness::*;

/// A route that only remembers.
fn recording(lens: LensBuilder) -> (LensBuilder, Arc<Mutex<Vec<WriteOp>>>) {
    let taken = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&taken);
    let lens = lens.on_write(move |_, op| {
        log.lock().unwrap().push(op);
        async { Ok(()) }
    });
    (lens, taken)
}

fn price(price: i64) -> Record {
    cells([("price", price.into())])
}

/// One write of each kind that a facade can make.
async fn every_kind(dio: &Dio) {
    let vista = dio.vista();
    vista.insert("muffin", &cells([("name", "Muffin".into()), ("price", 175.into())])).await.unwrap();
    vista.replace_value("1", &cells([("name", "Rye".into())])).await.unwrap();
    vista.patch_value("2", &price(460)).await.unwrap();
    vista.delete("3").await.unwrap();
    vista.delete_all().await.unwrap();
    settle(dio).await;
}

/// What [`every_kind`] is on the queue.
fn every_op() -> Vec<WriteOp> {
    let muffin = cells([("id", "muffin".into()), ("name", "Muffin".into()), ("price", 175.into())]);
    vec![
        WriteOp::Insert { id: "muffin".into(), record: muffin },
        WriteOp::Replace { id: "1".into(), record: cells([("id", "1".into()), ("name", "Rye".into())]) },
        WriteOp::Patch { id: "2".into(), record: price(460) },
        WriteOp::Delete { id: "3".into() },
        WriteOp::DeleteAll,
    ]
}

#[tokio::test(start_paused = true)]
async fn a_write_goes_where_on_write_sends_it() {
    let (topic, mut queue) = mpsc::unbounded_channel();
    let lens = memory().on_write(move |_, op| {
        let topic = topic.clone();
        async move { topic.send(op).map_err(|error| Error::transient(error.to_string())) }
    });
    let master = Scripted::bakery();
    let (_lens, dio) = open(seeding(lens), &master).await;
    dio.vista().insert("muffin", &muffin()).await.unwrap();
    assert_eq!(soon(queue.recv()).await, Some(WriteOp::Insert { id: "muffin".into(), record: muffin() }));
    settle(&dio).await;
    assert_eq!(master.calls().write, 0);
    assert_eq!(dio.vista().get_value("muffin").await.unwrap(), Some(muffin()));
}

#[tokio::test(start_paused = true)]
async fn the_cache_shows_a_write_before_the_master_has_it() {
    let (master, dio) = bakery_dio().await;
    master.writes().close();
    dio.vista().patch_value("7", &price(200)).await.unwrap();
    assert_eq!(dio.vista().get_value("7").await.unwrap().unwrap()["price"], 200.into());
    assert_eq!(dio.cache().get_value("7").await.unwrap().unwrap()["price"], 200.into());
    master.writes().waited_at(1).await;
    assert_eq!(master.row("7").await.unwrap()["price"], 175.into());
    master.writes().open();
    settle(&dio).await;
    assert_eq!(master.row("7").await.unwrap()["price"], 200.into());
    assert_eq!(dio.cache().list_values().await.unwrap(), master.rows().await);
}

#[tokio::test(start_paused = true)]
async fn on_write_stages_as_well() {
    let gate = Gate::closed();
    let lens = memory().on_write({
        let gate = gate.clone();
        move |_, _| {
            let gate = gate.clone();
            async move {
                gate.pass().await;
                Ok(())
            }
        }
    });
    let (_lens, dio) = open(seeding(lens), &Scripted::bakery()).await;
    dio.vista().delete("7").await.unwrap();
    gate.waited_at(1).await;
    assert_eq!(dio.vista().get_value("7").await.unwrap(), None);
    gate.open();
    settle(&dio).await;
}

#[tokio::test(start_paused = true)]
async fn writes_are_delivered_one_at_a_time_in_order_past_a_failure() {
    let (master, dio) = bakery_dio().await;
    let mut bus = dio.subscribe_events();
    master.refuse("b", Error::permanent("no b today"));
    master.writes().close();
    for id in ["a", "b", "c"] {
        dio.vista().insert(id, &price(1)).await.unwrap();
    }
    master.writes().waited_at(1).await;
    master.writes().open();
    settle(&dio).await;
    let arrived: Vec<_> = master.arrived().iter().map(|op| op.id().unwrap().to_string()).collect();
    let applied: Vec<_> = master.applied().iter().map(|op| op.id().unwrap().to_string()).collect();
    assert_eq!((arrived, applied), (vec!["a".into(), "b".into(), "c".into()], vec!["a".to_string(), "c".into()]));
    assert_eq!(master.most_writing(), 1);
    assert_eq!(events(&mut bus).iter().filter(|event| is_failed(event)).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn writes_of_one_row_are_delivered_in_order_past_failures_that_pass() {
    let (master, dio) = bakery_dio().await;
    master.fail_writes(2, &Error::transient("busy"));
    for to in [1, 2, 3] {
        dio.vista().patch_value("7", &price(to)).await.unwrap();
    }
    settle(&dio).await;
    let applied: Vec<_> = master.applied().into_iter().map(|op| op.record().unwrap()["price"].clone()).collect();
    assert_eq!(applied, [1.into(), 2.into(), 3.into()]);
    assert_eq!(master.arrived().len(), 5, "two attempts failed");
    assert_eq!(dio.cache().list_values().await.unwrap(), master.rows().await);
}

/// A panic in the hook's future, and one before it gives a future at all.
#[tokio::test(start_paused = true)]
async fn a_panic_in_on_write_is_a_failed_attempt_and_no_more() {
    for early in [false, true] {
        let calls = Arc::new(AtomicUsize::new(0));
        let taken = Arc::new(Mutex::new(Vec::new()));
        let lens = memory().on_write({
            let (calls, taken) = (Arc::clone(&calls), Arc::clone(&taken));
            move |_, op| {
                let panics = op.id() == Some("b") && calls.fetch_add(1, Ordering::SeqCst) == 0;
                assert!(!(panics && early), "told to");
                let taken = Arc::clone(&taken);
                async move {
                    assert!(!panics, "told to");
                    taken.lock().unwrap().push(op.id().unwrap().to_string());
                    Ok(())
                }
            }
        });
        let (_lens, dio) = open(seeding(lens), &Scripted::bakery()).await;
        for id in ["a", "b", "c"] {
            dio.vista().insert(id, &price(1)).await.unwrap();
        }
        settle(&dio).await;
        assert_eq!(*taken.lock().unwrap(), ["a", "b", "c"], "early: {early}; b is tried again after its rest");
        assert_eq!(dio.vista().get_count().await.unwrap(), 10);
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_driver_is_a_failed_attempt_and_no_more() {
    struct Panicking(Scripted);
    #[async_trait::async_trait]
    impl diorama::TableShell for Panicking {
        fn schema(&self) -> Arc<diorama::Schema> {
            self.0.schema()
        }
        fn capabilities(&self) -> diorama::Capabilities {
            diorama::Capabilities::all()
        }
        async fn list(&self, query: &diorama::Query) -> diorama::Result<diorama::Rows> {
            self.0.list(query).await
        }
        async fn write(&self, op: &WriteOp) -> diorama::Result<diorama::Written> {
            assert!(!self.0.arrived().is_empty() || self.0.write(op).await.is_err(), "told to");
            self.0.write(op).await
        }
    }
    let master = Scripted::bakery();
    let lens = seeding(memory()).build().unwrap();
    let dio = lens.make_dio(diorama::Vista::new("products", Panicking(master.clone()))).await.unwrap();
    dio.vista().patch_value("7", &price(200)).await.unwrap();
    settle(&dio).await;
    assert_eq!(master.row("7").await.unwrap()["price"], 200.into());
}

#[tokio::test(start_paused = true)]
async fn the_queue_holds_write_ops() {
    let (lens, taken) = recording(memory());
    let (_lens, dio) = open(seeding(lens), &Scripted::bakery()).await;
    every_kind(&dio).await;
    assert_eq!(*taken.lock().unwrap(), every_op(), "full records, but a patch holds only what was given");
}

#[expect(clippy::unnecessary_to_owned, reason = "programs write it like this")]
#[tokio::test(start_paused = true)]
async fn insert_takes_an_id_and_a_record() {
    let (master, products_dio) = bakery_dio().await;
    let record = Record::from_iter([("name".into(), "Muffin".into()), ("price".into(), 175i64.into())]);
    products_dio.vista().insert(&"muffin".to_string(), &record).await.unwrap();
    settle(&products_dio).await;
    assert_eq!(master.applied(), every_op()[..1]);
}

#[tokio::test(start_paused = true)]
async fn a_write_has_exactly_one_route() {
    for routed in [false, true] {
        let (lens, taken) = recording(memory());
        let master = Scripted::bakery();
        let (_lens, dio) = open(seeding(if routed { lens } else { memory() }), &master).await;
        every_kind(&dio).await;
        assert_eq!((taken.lock().unwrap().len(), master.calls().write), if routed { (5, 0) } else { (0, 5) });
    }
}

#[tokio::test(start_paused = true)]
async fn without_on_write_every_kind_goes_through_to_the_master() {
    let (master, dio) = bakery_dio().await;
    every_kind(&dio).await;
    assert_eq!(master.applied(), every_op());
    assert!(master.rows().await.is_empty());
    assert_eq!(dio.cache().count().await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_narrowed_delete_all_deletes_what_it_is_narrowed_to() {
    let (master, dio) = bakery_dio().await;
    let mut tarts = dio.vista();
    tarts.add_search("tart").unwrap();
    tarts.delete_all().await.unwrap();
    settle(&dio).await;
    let deleted: Vec<_> = master.applied().iter().map(|op| op.id().unwrap().to_string()).collect();
    assert_eq!(deleted, ["2", "4", "6"]);
    assert_eq!(dio.cache().list_values().await.unwrap(), master.rows().await);
}

#[tokio::test(start_paused = true)]
async fn insert_returns_once_enqueued() {
    let (master, dio) = bakery_dio().await;
    master.writes().close();
    dio.vista().insert("muffin", &muffin()).await.unwrap();
    master.writes().waited_at(1).await;
    assert!(master.applied().is_empty());
    assert_eq!(dio.status().queued, 1);
    assert_eq!(dio.operations()[0].state, OperationState::Running);
    master.writes().open();
    settle(&dio).await;
    assert_eq!(dio.status().queued, 0);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_is_waited_for_or_refused_as_asked() {
    let journal = Arc::new(GatedJournal::default());
    let lens = memory().journal_source(Arc::clone(&journal) as Arc<dyn Journal>).write_queue_capacity(1);
    let (_lens, dio) = open(seeding(lens), &Scripted::bakery()).await;
    journal.gate().close();
    let insert = |id: &'static str| {
        let vista = dio.vista();
        tokio::spawn(async move { vista.insert(id, &price(1)).await })
    };
    let first = insert("a");
    journal.gate().waited_at(1).await;
    let second = insert("b");
    breathe().await;
    let op = WriteOp::Insert { id: "c".into(), record: price(1) };
    let options = WriteOptions { refuse_when_full: true, ..WriteOptions::default() };
    let refused = soon(dio.write(op, options)).await;
    assert!(matches!(refused, Err(Error::QueueFull)), "{refused:?}");
    assert!(!first.is_finished() && !second.is_finished());
    assert_eq!(dio.vista().get_count().await.unwrap(), 7, "nothing is shown that is not in the journal");
    journal.gate().open();
    soon(first).await.unwrap().unwrap();
    soon(second).await.unwrap().unwrap();
    assert_eq!(dio.vista().get_count().await.unwrap(), 9);
}

/// A key is in the journal a moment before readers see the operation that took it.
#[tokio::test(start_paused = true)]
async fn own_writes_are_visible_once_a_repetition_is_answered() {
    let journal = Arc::new(GatedJournal::default());
    let lens = memory().journal_source(Arc::clone(&journal) as Arc<dyn Journal>);
    let (_lens, dio) = open(seeding(lens), &Scripted::bakery()).await;
    let write = || {
        let dio = dio.clone();
        let op = WriteOp::Insert { id: "muffin".into(), record: muffin() };
        let key = IdempotencyKey { key: "k".into(), fingerprint: 7 };
        tokio::spawn(async move { dio.write(op, WriteOptions { key: Some(key), ..WriteOptions::default() }).await })
    };
    let told = || {
        let dio = dio.clone();
        let inbound = Inbound {
            delivery: Some("d".into()),
            ..Inbound::from(ChangeEvent::Updated { id: "7".into(), new: Some(price(9)) })
        };
        tokio::spawn(async move { dio.handle_event(inbound).await })
    };
    journal.stored().close();
    let (first, first_told) = (write(), told());
    journal.stored().waited_at(1).await;
    let (again, told_again) = (write(), told());
    breathe().await;
    assert!(!again.is_finished() && !told_again.is_finished(), "nobody can see yet what they would be told");
    assert!(dio.operations().is_empty());
    journal.stored().open();
    let ticket = soon(first).await.unwrap().unwrap();
    let replayed = soon(again).await.unwrap();
    let operation = ticket.operation.unwrap();
    assert!(
        matches!(&replayed, Err(Error::Replayed { operation: op }) if *op == operation.to_string()),
        "{replayed:?}"
    );
    assert!(dio.operation(operation).is_some());
    soon(first_told).await.unwrap().unwrap();
    assert_eq!(soon(told_again).await.unwrap().unwrap(), Reconciled::Duplicate);
    assert_eq!(dio.vista().get_value("7").await.unwrap().unwrap()["price"], 9.into());
}

#[tokio::test(start_paused = true)]
async fn a_backlog_at_its_bound_is_waited_for() {
    let master = Scripted::bakery();
    let lens = memory().write_queue_capacity(2);
    let (_lens, dio) = open(seeding(lens), &master).await;
    master.writes().close();
    dio.vista().insert("a", &price(1)).await.unwrap();
    dio.vista().insert("b", &price(1)).await.unwrap();
    let op = WriteOp::Insert { id: "c".into(), record: price(1) };
    let options = WriteOptions { refuse_when_full: true, ..WriteOptions::default() };
    let refused = soon(dio.write(op, options)).await;
    assert!(matches!(refused, Err(Error::QueueFull)));
    let vista = dio.vista();
    let third = tokio::spawn(async move { vista.insert("c", &price(1)).await });
    breathe().await;
    assert!(!third.is_finished());
    master.writes().open();
    soon(third).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_failed_write_is_told_once_with_its_id_and_cause() {
    let (master, dio) = bakery_dio().await;
    let mut bus = dio.subscribe_events();
    master.refuse("muffin", Error::permanent("the oven is broken"));
    dio.vista().insert("muffin", &muffin()).await.unwrap();
    let op = dio.operations()[0].id;
    settle(&dio).await;
    let seen = events(&mut bus);
    let failed = DioEvent::WriteFailed { id: "muffin".into(), op: op.to_string(), error: "the oven is broken".into() };
    assert_eq!(seen, [inserted("muffin"), removed("muffin"), failed], "staged, compensated, told");
    assert_eq!(dio.operation(op).unwrap().state, OperationState::Failed);
    master.relent("muffin");
    dio.vista().insert("muffin", &muffin()).await.unwrap();
    settle(&dio).await;
    assert_eq!(master.row("muffin").await, Some(muffin()), "the worker lives");
}

#[tokio::test(start_paused = true)]
async fn every_way_of_failing_is_told_exactly_once() {
    let errors = [
        Error::permanent("no"),
        Error::invalid("no"),
        Error::Conflict { id: "7".into(), detail: "no".into() },
        Error::NotFound { id: "7".into() },
    ];
    for error in errors {
        let (master, dio) = bakery_dio().await;
        let mut bus = dio.subscribe_events();
        master.fail_writes(1, &error);
        dio.vista().patch_value("7", &price(1)).await.unwrap();
        settle(&dio).await;
        let seen = events(&mut bus);
        assert_eq!(seen.iter().filter(|event| is_failed(event)).count(), 1, "{error}: {seen:?}");
        assert_eq!(dio.cache().list_values().await.unwrap(), master.rows().await, "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_failure_the_cache_shows_what_the_master_confirmed() {
    let (master, dio) = bakery_dio().await;
    let before = dio.cache().list_values().await.unwrap();
    for id in ["1", "2", "3", "x"] {
        master.refuse(id, Error::permanent("no"));
    }
    dio.vista().patch_value("1", &price(1)).await.unwrap();
    dio.vista().replace_value("2", &price(2)).await.unwrap();
    dio.vista().delete("3").await.unwrap();
    dio.vista().insert("x", &price(4)).await.unwrap();
    assert_ne!(dio.cache().list_values().await.unwrap(), before);
    settle(&dio).await;
    assert_eq!(dio.cache().list_values().await.unwrap(), before, "rows and their order");
    assert_eq!(before, master.rows().await);
}

#[tokio::test(start_paused = true)]
async fn what_is_still_pending_stays_over_the_confirmed_row() {
    let (master, dio) = bakery_dio().await;
    let mut bus = dio.subscribe_events();
    master.writes().close();
    dio.vista().patch_value("7", &cells([("name", "First".into()), ("price", 1.into())])).await.unwrap();
    dio.vista().patch_value("7", &price(2)).await.unwrap();
    master.writes().waited_at(1).await;
    master.fail_writes(1, &Error::permanent("no"));
    master.writes().open();
    until(&mut bus, is_failed).await;
    let row = dio.cache().get_value("7").await.unwrap().unwrap();
    assert_eq!((&row["name"], &row["price"]), (&"Blueberry muffin".into(), &2.into()));
    settle(&dio).await;
    assert_eq!(dio.cache().list_values().await.unwrap(), master.rows().await);
    assert_eq!(master.row("7").await.unwrap()["price"], 2.into());
}

#[tokio::test(start_paused = true)]
async fn a_failed_delete_all_brings_every_row_back() {
    let (master, dio) = bakery_dio().await;
    let before = dio.cache().list_values().await.unwrap();
    master.fail_writes(1, &Error::permanent("no"));
    dio.vista().delete_all().await.unwrap();
    assert_eq!(dio.cache().count().await.unwrap(), 0);
    settle(&dio).await;
    assert_eq!(dio.cache().list_values().await.unwrap(), before);
    assert_eq!(master.rows().await, before);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_not_a_failure() {
    let (master, dio) = bakery_dio().await;
    let mut bus = dio.subscribe_events();
    master.lose_answers(3);
    dio.vista().insert("muffin", &muffin()).await.unwrap();
    dio.vista().patch_value("7", &price(1)).await.unwrap();
    dio.vista().delete("3").await.unwrap();
    settle(&dio).await;
    assert!(!events(&mut bus).iter().any(is_failed));
    assert_eq!(dio.cache().list_values().await.unwrap(), master.rows().await);
    assert_eq!(master.row("muffin").await, Some(muffin()));
}

/// `on_write` -> topic -> consumer -> the other database and `handle_event` -> `on_event` -> `patched`.
struct Kafka {
    dio: Dio,
    database: Scripted,
    produced: Arc<AtomicUsize>,
    consumed: Arc<AtomicUsize>,
}

impl Kafka {
    async fn start() -> Kafka {
        let (topic, mut queue) = mpsc::unbounded_channel::<WriteOp>();
        let produced = Arc::new(AtomicUsize::new(0));
        let lens = listening(seeding(memory())).on_write({
            let produced = Arc::clone(&produced);
            move |_, op| {
                produced.fetch_add(1, Ordering::SeqCst);
                let topic = topic.clone();
                async move { topic.send(op).map_err(|error| Error::transient(error.to_string())) }
            }
        });
        // The master is the consumer's database: it lists what was consumed.
        let database = Scripted::bakery();
        let (_lens, dio) = open(lens, &database).await;
        let consumed = Arc::new(AtomicUsize::new(0));
        tokio::spawn({
            let (dio, database, consumed) = (dio.clone(), database.clone(), Arc::clone(&consumed));
            async move {
                while let Some(op) = queue.recv().await {
                    diorama::TableShell::write(&database, &op).await.unwrap();
                    let id = op.id().unwrap().to_string();
                    let event = match database.row(&id).await {
                        None => ChangeEvent::Deleted { id },
                        new => ChangeEvent::Updated { id, new },
                    };
                    dio.handle_event(event).await.unwrap();
                    consumed.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        Kafka { dio, database, produced, consumed }
    }

    async fn consumed(&self, many: usize) {
        eventually(|| self.consumed.load(Ordering::SeqCst) == many).await;
        settle(&self.dio).await;
    }
}

#[tokio::test(start_paused = true)]
async fn writes_to_a_topic_come_back_as_events_and_converge() {
    let kafka = Kafka::start().await;
    let mut bus = kafka.dio.subscribe_events();
    let vista = kafka.dio.vista();
    vista.insert("muffin", &muffin()).await.unwrap();
    vista.patch_value("muffin", &price(180)).await.unwrap();
    vista.patch_value("7", &price(1)).await.unwrap();
    vista.delete("3").await.unwrap();
    kafka.consumed(4).await;
    assert_eq!(kafka.produced.load(Ordering::SeqCst), 4, "no loop: what comes back is not written again");
    assert_eq!(kafka.dio.cache().list_values().await.unwrap(), kafka.database.rows().await);
    assert!(!is_covered(&kafka.dio), "nothing lies over the rows any more");
    let seen = events(&mut bus);
    assert_eq!(seen.iter().filter(|event| **event == inserted("muffin")).count(), 1, "{seen:?}");
    assert!(!seen.iter().any(is_failed));
}

#[tokio::test(start_paused = true)]
async fn own_writes_a_reader_never_sees_one_go_back_while_it_travels() {
    let kafka = Kafka::start().await;
    for to in 1..=50 {
        kafka.dio.vista().patch_value("7", &price(to)).await.unwrap();
        let seen = kafka.dio.vista().get_value("7").await.unwrap().unwrap()["price"].clone();
        assert_eq!(seen, to.into());
        if to % 7 == 0 {
            breathe().await;
            let seen = kafka.dio.vista().get_value("7").await.unwrap().unwrap()["price"].clone();
            assert_eq!(seen, to.into(), "feedback of earlier ones does not show");
        }
    }
    kafka.consumed(50).await;
    assert_eq!(kafka.dio.cache().list_values().await.unwrap(), kafka.database.rows().await);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_before_the_consumer_keeps_the_write() {
    let (lens, _taken) = recording(reconciling(seeding(memory())));
    let master = Scripted::bakery();
    let (_lens, dio) = open(lens, &master).await;
    dio.vista().insert("muffin", &muffin()).await.unwrap();
    dio.vista().patch_value("7", &price(1)).await.unwrap();
    settle(&dio).await;
    dio.refresh().await.unwrap();
    assert_eq!(dio.cache().get_value("muffin").await.unwrap(), Some(muffin()));
    assert_eq!(dio.cache().get_value("7").await.unwrap().unwrap()["price"], 1.into());
    master.put("muffin", muffin()).await;
    master.put("7", product("7", "Blueberry muffin", 1, 2)).await;
    dio.refresh().await.unwrap();
    assert_eq!(dio.cache().list_values().await.unwrap(), master.rows().await);
    assert!(!is_covered(&dio));
}

#[tokio::test(start_paused = true)]
async fn on_write_runs_for_every_kind_and_says_which_operation() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let lens = memory().on_write({
        let seen = Arc::clone(&seen);
        move |dio, op| {
            let early = dio.current_operation();
            let (dio, seen) = (dio.clone(), Arc::clone(&seen));
            async move {
                assert_eq!(dio.current_operation(), early, "before and in the future");
                seen.lock().unwrap().push((op.kind().as_str(), early));
                Ok(())
            }
        }
    });
    let (_lens, dio) = open(seeding(lens), &Scripted::bakery()).await;
    every_kind(&dio).await;
    let kinds: Vec<_> = seen.lock().unwrap().iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, ["insert", "replace", "patch", "delete", "delete_all"]);
    let mut operations: Vec<_> = dio.operations().iter().map(|op| Some(op.id)).collect();
    operations.reverse();
    assert_eq!(seen.lock().unwrap().iter().map(|(_, op)| *op).collect::<Vec<_>>(), operations);
    assert_eq!(dio.current_operation(), None, "outside of a hook");
}

#[tokio::test(start_paused = true)]
async fn an_on_write_that_writes_to_its_own_dio_does_not_wait_for_itself() {
    let lens = memory().write_queue_capacity(1).on_write(|dio, op| {
        let dio = dio.clone();
        async move {
            if op.id() == Some("muffin") {
                dio.vista().patch_value("7", &price(1)).await?;
            }
            Ok(())
        }
    });
    let (_lens, dio) = open(seeding(lens), &Scripted::bakery()).await;
    dio.vista().insert("muffin", &muffin()).await.unwrap();
    settle(&dio).await;
    assert_eq!(dio.cache().get_value("7").await.unwrap().unwrap()["price"], 1.into());
}

#[tokio::test(start_paused = true)]
async fn settled_waits_for_the_master_as_long_as_asked() {
    let (master, dio) = bakery_dio().await;
    master.writes().close();
    let op = WriteOp::Patch { id: "7".into(), record: price(1) };
    let ticket = dio.write(op, WriteOptions::default()).await.unwrap();
    let op = ticket.operation.unwrap();
    let waiting = dio.settled(op, Duration::from_secs(2)).await.unwrap();
    assert!(!waiting.state.is_final());
    master.writes().open();
    assert_eq!(dio.settled(op, Duration::from_secs(30)).await.unwrap().state, OperationState::Applied);
}

#[tokio::test(start_paused = true)]
async fn any_input_a_row_too_large_to_hold_is_refused_wherever_it_comes_from() {
    let (_master, dio) = bakery_dio().await;
    let huge = || cells([("name", "x".repeat(17 << 20).into())]);
    let position = dio.position();
    assert_eq!(kind(&dio.vista().insert("huge", &huge()).await.unwrap_err()), "Invalid");
    assert_eq!(kind(&dio.vista().patch_value("1", &huge()).await.unwrap_err()), "Invalid");
    assert_eq!(kind(&dio.patched("1", huge()).await.unwrap_err()), "Invalid");
    let event = ChangeEvent::Inserted { id: "huge".into(), new: Some(huge()) };
    assert_eq!(kind(&dio.handle_event(event).await.unwrap_err()), "Invalid");
    assert_eq!(kind(&dio.cache().insert_value("huge", &huge()).await.unwrap_err()), "Invalid");
    assert_eq!(dio.position(), position);
    dio.vista().insert("muffin", &muffin()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_log_keeps_who_asked_for_a_write() {
    let (lens, dio) = open(seeding(memory()), &Scripted::bakery()).await;
    let op = WriteOp::Patch { id: "7".into(), record: price(1) };
    let options = WriteOptions { principal: Some("key:till-3".into()), ..WriteOptions::default() };
    let written = dio.write(op, options).await.unwrap();
    let log = lens.journal().await.unwrap().read("products", written.position.seq - 1, usize::MAX).await.unwrap();
    let entry = diorama_core::state::Entry::decode(&log[0].bytes).unwrap();
    assert_eq!((entry.cause.op, entry.cause.principal.as_deref()), (written.operation, Some("key:till-3")));
}
