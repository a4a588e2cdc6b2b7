//! Subscribers that come back after restarts. The bytes are steps: writes, deletions, events, lists, restarts. Whoever asks again
//! since a position gets what was told before, and a position of another history is answered with a reset.
#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use diorama::cache::RedbCache;
use diorama::connect::MemoryTable;
use diorama::dio::{Position, WriteOptions};
use diorama::gateway::{Gateway, GatewayService};
use diorama::journal::RedbJournal;
use diorama::vista::{ChangeEvent, WriteOp};
use diorama::{Dio, Lens, Record, Rows, Vista};
use diorama_core::journal::disk::Disk;
use hyper::Request;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt as _;

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime"));

const MOST_STEPS: usize = 40;
const QUERIES: [&str; 6] =
    ["", "price=gte.100", "price=lt.100", "ops=insert,delete", "ids=1,2", "select=name&price=not.eq.5"];

/// One life of a server over two files.
struct Life {
    lens: Lens,
    dio: Dio,
    router: Router,
}

impl Life {
    async fn begin(master: &Vista, cache: &Disk, journal: &Disk) -> Life {
        let cache = RedbCache::with_backend(cache.factory()).expect("a cache");
        let journal = Arc::new(RedbJournal::with_backend(journal.factory()).expect("a journal"));
        let lens =
            Lens::new().cache_file(cache).journal_source(journal).settings(|settings| settings.allow_shrink = true);
        let lens = lens.build().expect("a lens");
        let dio = lens.make_dio(master.clone()).await.expect("a Dio");
        let gateway: GatewayService = Gateway::new().mount(dio.clone()).into_service();
        let router = Router::new().fallback(move |request: axum::extract::Request| gateway.clone().answer(request));
        Life { lens, dio, router }
    }

    /// Frames since a position, without those that only say where they end.
    async fn frames(&self, since: &Position, query: &str) -> Vec<Value> {
        let uri = format!("/products/events?since={since}&wait=0&{query}");
        let request = Request::get(uri.trim_end_matches('&')).body(Body::empty()).expect("a request");
        let answer = self.router.clone().oneshot(request).await.expect("it always answers");
        assert_eq!(answer.status(), 200);
        let body = to_bytes(answer.into_body(), usize::MAX).await.expect("it ends");
        let frames = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let frames = frames.map(|line| serde_json::from_slice::<Value>(line).expect("a frame"));
        frames.filter(|frame| frame["type"] != "hello" && frame["type"] != "heartbeat").collect()
    }

    async fn end(self) {
        self.lens.close().await;
    }
}

fn row(kind: &str, price: u8) -> Record {
    Record::from_iter([("name".to_string(), kind.into()), ("price".to_string(), i64::from(price).into())])
}

async fn write(dio: &Dio, op: WriteOp) {
    let accepted = dio.write(op, WriteOptions::default()).await;
    if let Some(op) = accepted.ok().and_then(|ticket| ticket.operation) {
        dio.settled(op, Duration::from_secs(30)).await.expect("it settles");
    }
}

async fn take(dio: &Dio, step: u8, price: u8) {
    let id = (step >> 5).to_string();
    match step % 8 {
        0 => dio.patched(id, row("patched", price)).await.expect("it is taken"),
        1 => write(dio, WriteOp::Insert { id, record: row("new", price) }).await,
        2 => write(dio, WriteOp::Replace { id, record: row("put", price) }).await,
        3 => {
            write(
                dio,
                WriteOp::Patch { id, record: Record::from_iter([("price".to_string(), i64::from(price).into())]) },
            )
            .await
        }
        4 => write(dio, WriteOp::Delete { id }).await,
        5 => drop(dio.handle_event(ChangeEvent::Updated { id, new: Some(row("told", price)) }).await),
        6 => {
            let mut list = dio.begin_list().await.expect("a list");
            for at in (0..8).filter(|at| price & 1 << at != 0) {
                list.push(at.to_string(), &row("listed", price)).expect("a row");
            }
            list.finish(Rows::new()).await.expect("it ends");
        }
        _ => dio.cache().delete_value(&id).await.expect("it goes"),
    }
}

/// Frames up to `seq`. An `Invalidated` at the end is left out: one that follows takes its place.
fn upto(mut frames: Vec<Value>, seq: u64) -> Vec<Value> {
    frames.retain(|frame| frame["seq"].as_u64() <= Some(seq));
    while frames.last().is_some_and(|last| last["covered"] == false) {
        frames.pop();
    }
    frames
}

async fn live(steps: &[u8]) {
    let (cache, journal) = (Disk::default(), Disk::default());
    let master = MemoryTable::vista("products", diorama_fuzz::schema(), diorama_fuzz::rows());
    let mut life = Life::begin(&master, &cache, &journal).await;
    let mut positions = vec![life.dio.position()];
    for (at, step) in steps.chunks(2).take(MOST_STEPS).enumerate() {
        let (step, price) = (step[0], step.get(1).copied().unwrap_or(5));
        if step % 16 != 15 {
            take(&life.dio, step, price).await;
            positions.push(life.dio.position());
            continue;
        }
        let query = QUERIES[usize::from(price) % QUERIES.len()];
        let since = positions[usize::from(step >> 4).wrapping_mul(7).wrapping_add(at) % positions.len()].clone();
        let now = life.dio.position();
        let told = upto(life.frames(&since, query).await, now.seq);
        life.end().await;
        life = Life::begin(&master, &cache, &journal).await;
        assert_eq!(life.dio.position().epoch, now.epoch, "a restart goes on with the same history");
        assert!(life.dio.position().seq >= now.seq);
        let again = life.frames(&since, query).await;
        assert_eq!(upto(again, now.seq), told, "{query} since {since} after a restart");
        for strange in
            [Position { seq: now.seq + 1_000, ..now.clone() }, Position { epoch: "0000000000".into(), ..since }]
        {
            let frames = life.frames(&strange, query).await;
            assert!(frames.iter().any(|frame| frame["type"] == "reset"), "{strange}: {frames:?}");
        }
    }
    life.end().await;
}

fuzz_target!(|data: &[u8]| RUNTIME.block_on(live(data)));
