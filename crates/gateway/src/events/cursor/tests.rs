//! Tests of readers that are far behind.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::events::testing::{dio_with_ring, mounted, record, scope_of, subscription};
use diorama_core::dio::{Inbound, WriteOptions};
use diorama_core::vista::{ChangeEvent, ColumnType, WriteOp};

/// Number of rows of 5,000 bytes that are too much to be sent as single events.
const FAR: usize = 1_000;

/// Changes `rows` rows, whose names have `bytes` bytes.
pub(super) async fn fill(scope: &Scope, rows: usize, bytes: usize) {
    let name = "x".repeat(bytes);
    join_all((0..rows).map(|id| scope.dio.patched(id.to_string(), record(&name, 1)))).await;
}

pub(super) async fn open(scope: &Scope, query: &str) -> EventCursor {
    let mut cursor =
        EventCursor::open(scope, subscription(scope, query), Encoding::Json, 25, &Bounds::default()).await.unwrap();
    cursor.batch().await.unwrap();
    cursor
}

/// Reads frames until the cursor is not ready.
pub(super) async fn all(cursor: &mut EventCursor) -> Result<Vec<Value>, CursorEnd> {
    let mut frames = Vec::new();
    while cursor.is_ready() {
        let sent = cursor.batch().await?;
        frames.extend(sent.iter().map(|sent| serde_json::from_slice::<Value>(&sent.frame).unwrap()));
    }
    Ok(frames)
}

#[tokio::test(start_paused = true)]
async fn a_reader_behind_the_ring_gets_the_newest_state_of_each_row_from_the_journal() {
    let scope = mounted().await;
    let mut cursor = open(&scope, "records=false").await;
    fill(&scope, FAR, 5_000).await;
    fill(&scope, 10, 5_000).await;
    assert!(scope.dio.ring().floor() > cursor.position.seq, "the ring no longer has these events");
    let frames = all(&mut cursor).await.unwrap();
    let (states, rest): (Vec<_>, Vec<_>) = frames.iter().partition(|frame| frame["conflated"] == true);
    let mut ids: Vec<_> = states.iter().map(|frame| frame["id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((states.len(), ids.len()), (FAR, FAR), "each row once, regardless of the number of changes");
    assert_eq!((rest.len(), &rest[0]["type"]), (1, &"heartbeat".into()));
    assert_eq!(rest[0]["seq"], scope.dio.position().seq);
    fill(&scope, 1, 5_000).await;
    let next = all(&mut cursor).await.unwrap();
    assert_eq!((next.len(), &next[0]["conflated"]), (1, &Value::Null), "events continue");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_has_missed_too_many_rows_is_reset_and_disconnected_at_the_third_reset() {
    let scope = mounted().await;
    let mut cursor = open(&scope, "records=false").await;
    fill(&scope, 10_001, 300).await;
    let frames = all(&mut cursor).await.unwrap();
    assert_eq!((frames.len(), &frames[0]["type"], &frames[0]["reason"]), (1, &"reset".into(), &"overflow".into()));
    assert_eq!(frames[0]["seq"], scope.dio.position().seq);
    assert!(cursor.reset().is_ok());
    assert_eq!(cursor.reset().unwrap_err(), CursorEnd::Slow);
}

/// Frames from the beginning of the log, read from the ring or from the journal.
async fn past(scope: &Scope, query: &str, from_journal: bool) -> Vec<Value> {
    let since = Position { seq: 0, ..scope.dio.position() };
    past_since(scope, &since, query, from_journal).await
}

/// Frames after `since`, read from the ring or from the journal.
async fn past_since(scope: &Scope, since: &Position, query: &str, from_journal: bool) -> Vec<Value> {
    let mut cursor = open(scope, &format!("since={since}&{query}")).await;
    if from_journal {
        cursor.next = None;
    }
    all(&mut cursor).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_journal_and_the_ring_give_each_filter_the_same_events() {
    let scope = scope_of(dio_with_ring(1_000).await);
    for (id, price) in [("a", 5), ("b", 5), ("c", 2_000), ("d", 1_500), ("e", 1)] {
        scope.dio.patched(id, record(id, price)).await.unwrap();
    }
    for (id, price) in [("a", 6), ("c", 2_001), ("e", 5_000), ("d", 10), ("c", 2_001)] {
        scope.dio.patched(id, record("again", price)).await.unwrap();
    }
    scope.dio.vista().delete("b").await.unwrap();
    scope.dio.vista().delete("c").await.unwrap();
    scope.dio.cache().delete_value("d").await.unwrap();
    scope.dio.patched("d", record("d", 3_000)).await.unwrap();
    for query in
        ["", "price=gte.1000", "price=lt.1000", "name=eq.again", "price=gte.1000&select=name", "ops=insert,delete"]
    {
        let expected = past(&scope, query, false).await;
        assert_eq!(past(&scope, query, true).await, expected, "{query}");
        assert!(!expected.is_empty(), "{query}");
    }
    let expected = past(&scope, "price=gte.1000", true).await;
    // The commit of a removal is sent to all subscribers, because the row no longer exists to be matched.
    let is_row = |frame: &&Value| frame["type"] != "WriteCommitted";
    let never_matched = |frame: &Value| frame["id"] == "a" || frame["id"] == "b";
    assert!(!expected.iter().filter(is_row).any(never_matched), "{expected:#?}");
    assert!(expected.iter().any(|frame| frame["id"] == "e" && frame["entered"] == true));
    assert!(expected.iter().any(|frame| frame["id"] == "d" && frame["left"] == true));
    let changed = |frame: &Value| frame["id"] == "c" && frame["changed"] == serde_json::json!(["name", "price"]);
    assert!(expected.iter().any(changed), "{expected:#?}");
}

/// Step of a test, on one of five rows.
#[derive(Clone, Debug)]
enum Step {
    Patched(u8, i64),
    Insert(u8, i64),
    Replace(u8, i64),
    Patch(u8, i64),
    Delete(u8),
    CacheInsert(u8, i64),
    CacheDelete(u8),
    Invalidate(u8),
    InvalidateAll,
    Event(u8, Option<i64>, i64),
    List(Vec<(u8, i64)>),
}

fn step() -> impl Strategy<Value = Step> {
    let (row, price) = (0..5u8, prop_oneof![Just(5), Just(1_000), 900..1_100i64]);
    let both = (row.clone(), price.clone());
    prop_oneof![
        both.clone().prop_map(|(row, price)| Step::Patched(row, price)),
        both.clone().prop_map(|(row, price)| Step::Insert(row, price)),
        both.clone().prop_map(|(row, price)| Step::Replace(row, price)),
        both.clone().prop_map(|(row, price)| Step::Patch(row, price)),
        row.clone().prop_map(Step::Delete),
        both.clone().prop_map(|(row, price)| Step::CacheInsert(row, price)),
        row.clone().prop_map(Step::CacheDelete),
        row.clone().prop_map(Step::Invalidate),
        Just(Step::InvalidateAll),
        (row, proptest::option::of(price), 0..9i64).prop_map(|(row, price, at)| Step::Event(row, price, at)),
        proptest::collection::vec(both, 0..5).prop_map(Step::List),
    ]
}

/// Executes a step and waits for its end. The master may refuse a write, because it does not have the row; that is not an
/// error of the test.
async fn take(dio: &diorama_core::Dio, step: Step) {
    let name = |row: u8| ["a", "b", "c", "d", "e"][usize::from(row)].to_string();
    let price = |price: i64| diorama_core::Record::from_iter([("price".to_string(), price.into())]);
    let write = async |op: WriteOp| {
        let accepted = dio.write(op, WriteOptions::default()).await;
        if let Some(op) = accepted.ok().and_then(|ticket| ticket.operation) {
            dio.settled(op, Duration::from_secs(30)).await.unwrap();
        }
    };
    match step {
        Step::Patched(row, at) => dio.patched(name(row), record("patched", at)).await.unwrap(),
        Step::Insert(row, at) => write(WriteOp::Insert { id: name(row), record: record("new", at) }).await,
        Step::Replace(row, at) => write(WriteOp::Replace { id: name(row), record: record("put", at) }).await,
        Step::Patch(row, at) => write(WriteOp::Patch { id: name(row), record: price(at) }).await,
        Step::Delete(row) => write(WriteOp::Delete { id: name(row) }).await,
        Step::CacheInsert(row, at) => dio.cache().insert_value(&name(row), &record("raw", at)).await.unwrap(),
        Step::CacheDelete(row) => dio.cache().delete_value(&name(row)).await.unwrap(),
        Step::Invalidate(row) => dio.invalidate_record(name(row)),
        Step::InvalidateAll => dio.invalidate_all(),
        Step::Event(row, new, at) => {
            let event = match new {
                Some(new) => ChangeEvent::Updated { id: name(row), new: Some(record("event", new)) },
                None => ChangeEvent::Deleted { id: name(row) },
            };
            let inbound = Inbound { version: Some(at.into()), clock: Some("sender".into()), ..Inbound::from(event) };
            dio.handle_event(inbound).await.unwrap();
        }
        Step::List(rows) => {
            let mut list = dio.begin_list().await.unwrap();
            let rows: BTreeMap<u8, i64> = rows.into_iter().collect();
            rows.iter().for_each(|(row, at)| list.push(name(*row), &record("listed", *at)).unwrap());
            list.finish(diorama_core::Rows::new()).await.unwrap();
        }
    }
}

async fn resource_on(dir: &std::path::Path) -> (diorama_core::Lens, Scope) {
    let columns = [("id", ColumnType::String), ("name", ColumnType::String), ("price", ColumnType::Integer)];
    let schema =
        diorama_core::Schema::new("id", columns.map(|(name, ty)| diorama_core::Column::new(name, ty)).to_vec());
    let settings = |settings: &mut diorama_core::dio::Settings| settings.allow_shrink = true;
    let lens = diorama_core::Lens::new().cache_at(dir.join("cache.redb")).settings(settings).build().unwrap();
    let dio = lens.make_dio(diorama_connect::MemoryTable::vista("products", schema, [])).await.unwrap();
    (lens, scope_of(dio))
}

/// Frames up to `seq`. Trailing `Invalidated` frames are left out, because a later one replaces them.
fn upto(mut frames: Vec<Value>, seq: u64) -> Vec<Value> {
    frames.retain(|frame| frame["seq"].as_u64() <= Some(seq));
    while frames.last().is_some_and(|last| last["covered"] == false) {
        frames.pop();
    }
    frames
}

const FILTERS: [&str; 6] =
    ["", "price=gte.1000", "price=lt.1000", "name=eq.patched", "price=not.eq.5", "or=(price.eq.5,name.eq.new)"];
const OPS: [&str; 4] = ["", "ops=insert", "ops=update,delete", "ops=insert,update"];
const SHOWN: [&str; 4] = ["", "select=name", "records=false", "ids=a,b"];

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_journal_and_the_ring_give_the_same_events_also_after_a_restart(
        steps in proptest::collection::vec(step(), 1..40),
        asked in proptest::collection::vec((0..FILTERS.len(), 0..OPS.len(), 0..SHOWN.len(), any::<u16>()), 12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        runtime.block_on(async {
            let (lens, scope) = resource_on(dir.path()).await;
            let mut positions = vec![scope.dio.position()];
            for step in &steps {
                take(&scope.dio, step.clone()).await;
                positions.push(scope.dio.position());
            }
            let asked: Vec<_> = asked
                .iter()
                .map(|(filter, ops, shown, since)| {
                    let query = [FILTERS[*filter], OPS[*ops], SHOWN[*shown]].join("&");
                    (query.replace("&&", "&").trim_matches('&').to_string(), &positions[usize::from(*since) % positions.len()])
                })
                .collect();
            // Background work may end only when the Dio closes; its events are compared after the restart only.
            let mut expected = Vec::new();
            let now = scope.dio.position();
            for (query, since) in &asked {
                let ring = past_since(&scope, since, query, false).await;
                let journal = past_since(&scope, since, query, true).await;
                let ring = upto(ring, now.seq);
                prop_assert_eq!(upto(journal, now.seq), ring.clone(), "{} since {} from the journal", query, since);
                expected.push(ring);
            }
            lens.close().await;
            drop((scope, lens));
            let (lens, at) = resource_on(dir.path()).await;
            for ((query, since), expected) in asked.iter().zip(expected) {
                for from_journal in [false, true] {
                    let again = past_since(&at, since, query, from_journal).await;
                    let again = upto(again, now.seq);
                    prop_assert_eq!(again, expected.clone(), "{} since {} after a restart, from the journal: {}", query, since, from_journal);
                }
            }
            lens.close().await;
            Ok(())
        })?;
    }
}
