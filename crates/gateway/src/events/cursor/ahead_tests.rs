//! Tests of rows that readers get while they change.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::Value;

use super::tests::{all, fill, open};
use super::*;
use crate::events::testing::{dio_with_ring, record, scope_of, subscription};
use diorama_core::Record;
use diorama_core::dio::{Inbound, WriteOptions};
use diorama_core::vista::{ChangeEvent, Error, WriteOp};

/// Rows of a reader that takes every frame for exact: an event must fit the rows that it has.
#[derive(Debug, Default)]
struct Reader {
    rows: BTreeMap<String, Value>,
    /// Number of events of rows.
    events: usize,
}

impl Reader {
    fn hear(&mut self, frames: &[Value]) -> Result<(), String> {
        frames.iter().try_for_each(|frame| self.hear_one(frame))
    }

    fn hear_one(&mut self, frame: &Value) -> Result<(), String> {
        let id = frame["id"].as_str().unwrap_or_default().to_string();
        let exact = frame["conflated"] != true;
        let fits = match frame["type"].as_str().unwrap() {
            "snapshot_begin" => {
                self.rows.clear();
                return Ok(());
            }
            "rows" => {
                for row in frame["rows"].as_array().unwrap() {
                    self.rows.insert(row[0].as_str().unwrap().to_string(), row[1].clone());
                }
                return Ok(());
            }
            "RecordInserted" => self.rows.insert(id, frame["record"].clone()).is_none(),
            "RecordChanged" => {
                let before = self.rows.insert(id, frame["record"].clone());
                before.is_some_and(|before| before != frame["record"])
            }
            "RecordRemoved" => self.rows.remove(&id).is_some(),
            _ => return Ok(()),
        };
        self.events += 1;
        if fits || !exact { Ok(()) } else { Err(format!("{frame} does not fit the rows")) }
    }

    /// Rows that a reader must have.
    fn expected(scope: &Scope, query: &str) -> BTreeMap<String, Value> {
        let (state, view) = (scope.dio.state(), subscription(scope, query));
        let ids = |id: &str| view.ids.as_ref().is_none_or(|ids| ids.contains(id));
        let rows = state.table().iter_slots().filter(|row| ids(row.id()));
        rows.map(|row| (row.id().to_string(), serde_json::from_slice(row.json()).unwrap())).collect()
    }
}

/// A change of a row, `None` for its removal, as a feed reports it.
async fn change(scope: &Scope, id: &str, new: Option<Record>) {
    let id = id.to_string();
    let event = match new {
        Some(new) => ChangeEvent::Updated { id, new: Some(new) },
        None => ChangeEvent::Deleted { id },
    };
    scope.dio.handle_event(Inbound { in_order: true, ..Inbound::from(event) }).await.unwrap();
}

/// Frames of one batch.
async fn one(cursor: &mut EventCursor) -> Vec<Value> {
    let sent = cursor.batch().await.unwrap();
    sent.iter().map(|sent| serde_json::from_slice(&sent.frame).unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn row_before_event_no_event_repeats_what_a_row_of_a_snapshot_shows() {
    let scope = scope_of(dio_with_ring(10_000).await);
    fill(&scope, 1_200, 10).await;
    let mut reader = Reader::default();
    let mut cursor = open(&scope, "snapshot=full").await;
    reader.hear(&one(&mut cursor).await).unwrap();
    assert_eq!(reader.rows.len(), 500, "one frame of rows");
    // Rows that the reader has, and rows that it will get in their new state.
    for (id, price) in [("10", 2), ("700", 2), ("700", 3), ("701", 2)] {
        change(&scope, id, Some(record("changed", price))).await;
    }
    for id in ["20", "701", "800"] {
        change(&scope, id, None).await;
    }
    for id in ["800", "new"] {
        change(&scope, id, Some(record("new", 1))).await;
    }
    change(&scope, "new", None).await;
    reader.hear(&all(&mut cursor).await.unwrap()).unwrap();
    assert_eq!(reader.rows, Reader::expected(&scope, ""));
    // Rows 10 and 20, the new row twice, and row 800 with a new slot.
    assert_eq!(reader.events, 5);
}

#[tokio::test(start_paused = true)]
async fn never_back_no_event_takes_back_the_newest_state_that_a_slow_reader_has_got() {
    let scope = scope_of(dio_with_ring(10_000).await);
    let mut reader = Reader::default();
    let mut cursor = open(&scope, "").await;
    fill(&scope, 1_000, 5_000).await;
    reader.hear(&one(&mut cursor).await).unwrap();
    let got = reader.rows.len();
    assert!(got > 0 && got < 1_000, "a part of the newest states: {got}");
    for price in 2..5 {
        for id in ["0", "999"] {
            change(&scope, id, Some(record("changed", price))).await;
        }
    }
    change(&scope, "998", None).await;
    let before = reader.events;
    reader.hear(&all(&mut cursor).await.unwrap()).unwrap();
    assert_eq!(reader.rows, Reader::expected(&scope, ""));
    assert_eq!(reader.events - before, 1_000 - got + 3, "the rest, and three changes of the first row");
}

/// Change of a test, or one batch of the reader.
#[derive(Clone, Debug)]
enum Step {
    Batch,
    Put(u16, i64),
    Delete(u16),
    Feed(u16, Option<i64>),
}

fn step() -> impl Strategy<Value = Step> {
    // Few rows at both ends of the table, and new ones.
    let row = prop_oneof![0..4u16, 598..602u16, 1_198..1_204u16];
    prop_oneof![
        2 => Just(Step::Batch),
        4 => (row.clone(), 0..9i64).prop_map(|(row, price)| Step::Put(row, price)),
        1 => row.clone().prop_map(Step::Delete),
        4 => (row, proptest::option::of(0..9i64)).prop_map(|(row, price)| Step::Feed(row, price)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 100, ..ProptestConfig::default() })]

    #[test]
    fn row_before_event_every_event_fits_the_rows_of_a_snapshot_that_is_read_meanwhile(
        steps in proptest::collection::vec(step(), 1..60),
        ring in prop_oneof![Just(10_000usize), Just(8)],
        query in prop_oneof![Just("snapshot=full"), Just("snapshot=full&ids=0,1,599,600,1199,1200,1201")],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let scope = scope_of(dio_with_ring(ring).await);
            fill(&scope, 1_200, 10).await;
            let mut reader = Reader::default();
            let mut cursor = open(&scope, query).await;
            for step in steps {
                match step {
                    Step::Batch => reader.hear(&one(&mut cursor).await).map_err(TestCaseError::fail)?,
                    Step::Put(row, price) => {
                        let (row, new) = (row.to_string(), record("put", price));
                        let is_new = !scope.dio.state().table().contains(&row);
                        let op = match is_new {
                            true => WriteOp::Insert { id: row, record: new },
                            false => WriteOp::Replace { id: row, record: new },
                        };
                        // The row may have come or gone meanwhile, with a delivery or a read.
                        match scope.dio.write(op, WriteOptions::default()).await {
                            Ok(_) | Err(Error::Conflict { .. } | Error::NotFound { .. }) => {}
                            Err(error) => return Err(TestCaseError::fail(error.to_string())),
                        }
                    }
                    Step::Feed(row, price) => {
                        change(&scope, &row.to_string(), price.map(|price| record("fed", price))).await;
                    }
                    Step::Delete(row) => drop(scope.dio.vista().delete(&row.to_string()).await),
                }
            }
            reader.hear(&all(&mut cursor).await.unwrap()).map_err(TestCaseError::fail)?;
            prop_assert_eq!(reader.rows, Reader::expected(&scope, query));
            Ok(())
        })?;
    }
}
