//! Tests of live queries against fresh reads.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::MountOptions;
use crate::events::cursor::OutgoingFrame;
use crate::events::testing::{mounted, record, scope_with, small_dio};
use crate::scope::Scope;
use diorama_core::dio::{Ticket, WriteOptions};
use diorama_core::vista::WriteOp;
use diorama_core::vista::query::Meter;

/// List of a client, updated by frames.
#[derive(Debug, Default)]
struct List {
    rows: Vec<(String, Value)>,
    total: u64,
    resets: usize,
    hello: Value,
}

impl List {
    /// Applies a frame; returns the position of the list after the last frame of a change.
    fn apply(&mut self, frame: &Value) -> Option<u64> {
        let at = |name: &str| frame[name].as_u64().map(|at| at as usize);
        let row = || (frame["id"].as_str().unwrap().to_string(), frame["record"].clone());
        if let Some(total) = frame["total"].as_u64() {
            self.total = total;
        }
        match frame["type"].as_str().unwrap() {
            "hello" => self.hello = frame.clone(),
            "reset" => self.resets += 1,
            "snapshot_begin" => self.rows.clear(),
            "rows" => {
                for row in frame["rows"].as_array().unwrap() {
                    self.rows.push((row[0].as_str().unwrap().to_string(), row[1].clone()));
                }
            }
            "snapshot_end" => return frame["seq"].as_u64(),
            "window" => {
                match frame["op"].as_str() {
                    Some("insert") => self.rows.insert(at("index").unwrap(), row()),
                    Some("update") => {
                        assert_eq!(self.rows[at("index").unwrap()].0, frame["id"]);
                        self.rows[at("index").unwrap()] = row();
                    }
                    Some("remove") => assert_eq!(self.rows.remove(at("index").unwrap()).0, frame["id"]),
                    Some("move") => {
                        let mut old = self.rows.remove(at("from").unwrap());
                        assert_eq!(old.0, frame["id"]);
                        old.1 = frame.get("record").cloned().unwrap_or(old.1);
                        self.rows.insert(at("index").unwrap(), old);
                    }
                    None => assert!(frame["total"].is_u64()),
                    other => panic!("{other:?}"),
                }
                return frame["seq"].as_u64();
            }
            "heartbeat" => {}
            other => panic!("{other}"),
        }
        None
    }
}

fn json_of(sent: &[OutgoingFrame]) -> Vec<Value> {
    sent.iter().map(|sent| serde_json::from_slice(&sent.frame).unwrap()).collect()
}

async fn follow(scope: &Scope, query: &str) -> LiveCursor {
    LiveCursor::open(
        scope,
        LiveSubscription::parse(query, &scope.schema, &scope.options).unwrap().0,
        Encoding::Json,
        5,
        &Bounds::default(),
    )
    .await
    .unwrap()
}

/// Rows and total of a fresh read.
async fn fresh(scope: &Scope, query: &str) -> (Vec<(String, Value)>, u64) {
    let LiveTarget::Rows(query) = LiveSubscription::parse(query, &scope.schema, &scope.options).unwrap().0.target
    else {
        panic!("rows")
    };
    let state = scope.dio.state();
    let (selection, _) = scope.dio.select(&state, &query, &scope.schema, &Arc::new(Meter::unbounded())).await.unwrap();
    let rows = selection.slots.iter().filter_map(|slot| state.table().at(*slot));
    let rows = rows.map(|row| (row.id().to_string(), serde_json::from_slice(row.json()).unwrap()));
    (rows.collect(), selection.total)
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, i64),
    Remove(u8),
    /// The reader reads until its list equals a fresh read.
    Read,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..10u8, 0..8i64).prop_map(|(id, price)| Step::Put(id, price)),
        2 => (0..10u8).prop_map(Step::Remove),
        3 => Just(Step::Read),
    ];
    prop::collection::vec(step, 1..60)
}

/// Checks that the live list is correct at every position that it reports, and catches up.
async fn check(query: &str, steps: &[Step]) {
    let scope = mounted().await;
    for id in 0..5 {
        put(&scope, id, i64::from(id)).await;
    }
    let mut live = follow(&scope, query).await;
    let mut list = List::default();
    // Fresh reads by the position of each write; they are valid up to the next position.
    let mut read = BTreeMap::from([(0, fresh(&scope, query).await)]);
    for step in steps.iter().chain([&Step::Read]) {
        let written = match step {
            Step::Put(id, price) => put(&scope, *id, *price).await,
            Step::Remove(id) => {
                scope.dio.write(WriteOp::Delete { id: id.to_string() }, WriteOptions::default()).await.ok()
            }
            Step::Read => {
                let want = fresh(&scope, query).await;
                while (&list.rows, list.total) != (&want.0, want.1) || list.hello.is_null() {
                    live.ready().await;
                    for frame in json_of(&live.batch().unwrap()) {
                        if let Some(seq) = list.apply(&frame) {
                            let (_, then) = read.range(..=seq).next_back().unwrap();
                            assert_eq!((&list.rows, list.total), (&then.0, then.1), "{query} at {seq}: {frame}");
                        }
                    }
                }
                None
            }
        };
        if let Some(ticket) = written {
            read.insert(ticket.position.seq, fresh(&scope, query).await);
        }
    }
    assert_eq!(list.resets, 0);
}

async fn put(scope: &Scope, id: u8, price: i64) -> Option<Ticket> {
    let op = WriteOp::Replace { id: id.to_string(), record: record("Bun", price) };
    Some(scope.dio.write(op, WriteOptions::default()).await.unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn applying_the_frames_gives_the_rows_of_a_fresh_read(
        steps in steps(),
        order in prop::sample::select(vec!["", "&order=price", "&order=price.desc,id", "&order=name,price"]),
        filter in prop::sample::select(vec!["", "&price=gte.3", "&or=(price.lt.2,price.gt.5)"]),
        offset in 0..4u64,
        limit in 0..6u64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(check(&format!("offset={offset}&limit={limit}{order}{filter}"), &steps));
    }
}

async fn rows_of(follow: &mut LiveCursor, list: &mut List) {
    while follow.is_ready() {
        for frame in json_of(&follow.batch().unwrap()) {
            list.apply(&frame);
        }
    }
}

/// Reads until the window equals a fresh read.
async fn catch_up(scope: &Scope, query: &str, follow: &mut LiveCursor, list: &mut List) {
    let want = fresh(scope, query).await;
    while (&list.rows, list.total) != (&want.0, want.1) {
        follow.ready().await;
        rows_of(follow, list).await;
    }
}

#[tokio::test(start_paused = true)]
async fn equal_queries_share_one_scenery_and_their_number_is_bounded() {
    let scope = scope_with(small_dio().await, MountOptions { max_live: 2, ..MountOptions::default() });
    let (one, two) = (follow(&scope, "price=gte.1&limit=3").await, follow(&scope, "limit=3&price=gte.1").await);
    assert!(Arc::ptr_eq(&one.live, &two.live));
    assert_eq!(scope.live_queries.len(), 1);
    let other = follow(&scope, "limit=4").await;
    let subscription = LiveSubscription::parse("limit=5", &scope.schema, &scope.options).unwrap().0;
    let refused =
        LiveCursor::open(&scope, subscription.clone(), Encoding::Json, 5, &Bounds::default()).await.err().unwrap();
    assert_eq!(refused.code(), Code::TooManyViews);
    drop((one, two));
    assert!(
        LiveCursor::open(&scope, subscription, Encoding::Json, 5, &Bounds::default()).await.is_ok(),
        "the first has no subscriptions any more"
    );
    drop(other);
}

#[tokio::test(start_paused = true)]
async fn a_reader_behind_the_kept_changes_gets_a_reset_and_all_rows() {
    let scope = mounted().await;
    put(&scope, 0, 0).await;
    let (mut slow, mut quick) = (follow(&scope, "").await, follow(&scope, "").await);
    let (mut old, mut new) = (List::default(), List::default());
    rows_of(&mut slow, &mut old).await;
    rows_of(&mut quick, &mut new).await;
    for price in 1..=(MOST_CHANGES as i64 + 20) {
        put(&scope, 0, price).await;
        catch_up(&scope, "", &mut quick, &mut new).await;
    }
    assert_eq!(new.resets, 0);
    let kept = slow.live.with_log(|log| log.changes.len());
    assert!(kept <= MOST_CHANGES, "{kept}");
    catch_up(&scope, "", &mut slow, &mut old).await;
    assert_eq!((old.resets, &old.rows), (1, &new.rows));
}

#[tokio::test(start_paused = true)]
async fn a_change_that_is_too_large_is_sent_as_all_rows() {
    let scope = mounted().await;
    let mut live = follow(&scope, "").await;
    let mut list = List::default();
    rows_of(&mut live, &mut list).await;
    for id in 0..3 {
        let op = WriteOp::Replace { id: id.to_string(), record: record(&"x".repeat(100_000), id) };
        scope.dio.write(op, WriteOptions::default()).await.unwrap();
    }
    catch_up(&scope, "", &mut live, &mut list).await;
    let held = live.live.with_log(|log| log.bytes);
    assert!(held <= MOST_KEPT && list.rows.len() == 3 && list.resets == 1, "{held} {}", list.resets);
}

#[tokio::test(start_paused = true)]
async fn a_list_resumes_from_its_own_position_and_no_other() {
    let scope = mounted().await;
    put(&scope, 0, 0).await;
    let keep = follow(&scope, "").await;
    let mut live = follow(&scope, "").await;
    let mut list = List::default();
    rows_of(&mut live, &mut list).await;
    let since = live.bookmark().unwrap();
    drop(live);
    put(&scope, 1, 1).await;
    let mut again = keep;
    let mut other = List::default();
    catch_up(&scope, "", &mut again, &mut other).await;
    let mut live = follow(&scope, &format!("since={since}")).await;
    list.hello = Value::Null;
    rows_of(&mut live, &mut list).await;
    assert_eq!((&list.hello["resumed"], &list.hello["missed"]), (&true.into(), &1.into()));
    assert_eq!(list.rows, fresh(&scope, "").await.0);
    for since in ["OTHER00000:1".to_string(), format!("{}:1000", since.epoch), format!("{}:0", since.epoch)] {
        let mut live = follow(&scope, &format!("since={since}")).await;
        let mut list = List::default();
        rows_of(&mut live, &mut list).await;
        assert_eq!((&list.hello["resumed"], list.rows.len()), (&false.into(), 2), "{since}");
    }
}

#[tokio::test(start_paused = true)]
async fn changes_of_hidden_columns_only_move_the_bookmark() {
    let scope = mounted().await;
    put(&scope, 0, 0).await;
    let mut live = follow(&scope, "select=name").await;
    let mut list = List::default();
    rows_of(&mut live, &mut list).await;
    let written = put(&scope, 0, 7).await.unwrap().position.seq;
    // The scenery updates in the background.
    while live.bookmark().unwrap().seq < written {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert!(!live.is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_closed_dio_ends_its_live_queries() {
    let scope = mounted().await;
    let mut live = follow(&scope, "").await;
    rows_of(&mut live, &mut List::default()).await;
    scope.dio.close().await;
    live.ready().await;
    assert_eq!(live.batch().err(), Some(crate::events::cursor::CursorEnd::Closed));
}
