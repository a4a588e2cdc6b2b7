//! Live queries against fresh reads.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::dio::{Ticket, WriteOptions};
use crate::gateway::events::feed::Sent;
use crate::gateway::events::testing::{mounted, record};
use crate::vista::WriteOp;

/// A client's list, kept as the frames say.
#[derive(Debug, Default)]
struct List {
    rows: Vec<(String, Value)>,
    total: u64,
    resets: usize,
    hello: Value,
}

impl List {
    /// Applies a frame; gives the position, where the list is that of one.
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

fn json_of(sent: &[Sent]) -> Vec<Value> {
    sent.iter().map(|sent| serde_json::from_slice(&sent.frame).unwrap()).collect()
}

async fn follow(at: &Mounted, query: &str) -> Follow {
    Follow::open(at, LiveWish::parse(query, at).unwrap().0, Encoding::Json, 5).await.unwrap()
}

/// What a fresh read gives.
async fn fresh(at: &Mounted, query: &str) -> (Vec<(String, Value)>, u64) {
    let Of::Rows(query) = LiveWish::parse(query, at).unwrap().0.of else { panic!("rows") };
    let state = at.dio.0.core.state();
    let (rows, total) = at.dio.0.core.select_from(state, &query, &at.schema).await.unwrap();
    let rows = rows.bodies().map(|(id, body)| (id.to_string(), serde_json::from_slice(body.json()).unwrap()));
    (rows.collect(), total)
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, i64),
    Remove(u8),
    /// The reader takes what there is, until it has what a fresh read has.
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

/// The live list is true at every position that it names, and catches up.
async fn check(query: &str, steps: &[Step]) {
    let at = mounted().await;
    for id in 0..5 {
        put(&at, id, i64::from(id)).await;
    }
    let mut live = follow(&at, query).await;
    let mut list = List::default();
    // What a fresh read gave at the position of each write, and so at all positions before the next.
    let mut read = BTreeMap::from([(0, fresh(&at, query).await)]);
    for step in steps.iter().chain([&Step::Read]) {
        let written = match step {
            Step::Put(id, price) => put(&at, *id, *price).await,
            Step::Remove(id) => {
                at.dio.write(WriteOp::Delete { id: id.to_string() }, WriteOptions::default()).await.ok()
            }
            Step::Read => {
                let want = fresh(&at, query).await;
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
            read.insert(ticket.position.seq, fresh(&at, query).await);
        }
    }
    assert_eq!(list.resets, 0);
}

async fn put(at: &Mounted, id: u8, price: i64) -> Option<Ticket> {
    let op = WriteOp::Replace { id: id.to_string(), record: record("Bun", price) };
    Some(at.dio.write(op, WriteOptions::default()).await.unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    #[test]
    fn the_frames_make_of_the_rows_what_a_fresh_read_gives(
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
