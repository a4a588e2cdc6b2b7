//! Tests of cursors whose events are dispatched: they get what a cursor that reads every event gets.

use std::collections::HashMap;
use std::sync::Weak;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;
use std::time::Duration;

use parking_lot::Mutex;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::Value;

use super::tests::all;
use super::*;
use crate::MountOptions;
use crate::access::{Grant, Identity, Principal, Verb, Verbs, View};
use crate::events::testing::{dio_with_ring, record, scope_within, small_dio, subscription};
use crate::http::problem::Code;
use crate::state::Resource;
use diorama_core::cache::MemoryCache;
use diorama_core::dio::{RingObserver, WriteOptions};
use diorama_core::record::{CborValue, of_digits};
use diorama_core::vista::query::{IsTest, Test};
use diorama_core::vista::{ColumnType, Filter, WriteOp};
use diorama_core::{Column, Dio, Lens, Record, Schema};

const IDS: [&str; 4] = ["a", "b", "c", "d"];
const COLUMNS: [(&str, ColumnType); 6] = [
    ("id", ColumnType::String),
    ("any", ColumnType::Json),
    ("dec", ColumnType::Decimal),
    ("at", ColumnType::Datetime),
    ("uid", ColumnType::Uuid),
    ("n", ColumnType::Integer),
];

/// Values of a column, among them different notations of equal ones.
fn values(column: &str) -> Vec<CborValue> {
    let texts = |texts: &[&str]| texts.iter().map(|text| CborValue::from(*text)).collect::<Vec<_>>();
    let mut values = match column {
        "any" => {
            let floats = [1.0, 0.0, -0.0, f64::NAN, 9_007_199_254_740_992.0, 1.8446744073709552e19];
            let mut any: Vec<CborValue> = floats.map(CborValue::from).into();
            any.extend([1, 0, 9_007_199_254_740_992_i64, 9_007_199_254_740_993].map(CborValue::from));
            any.extend(["18446744073709551616", "36893488147419103233"].map(|digits| of_digits(digits).unwrap()));
            any.extend([true.into(), CborValue::Array(vec![1.into()]), CborValue::Array(vec![1.0.into()])]);
            any.push(CborValue::Map(vec![("k".into(), 1.into())]));
            any.extend(texts(&["1", "1.0", "", "\0", "x"]));
            any
        }
        "dec" => [texts(&["1.5", "1.50", "15e-1", "x", "2"]), vec![1.5.into(), 2.into(), 2.0.into()]].concat(),
        "at" => {
            let moments = ["2024-01-01T00:00:00Z", "2024-01-01", "2023-12-31T23:00:00-01:00", "soon"];
            [texts(&moments), vec![1_704_067_200.into()]].concat()
        }
        "uid" => texts(&["01890a5d-ac96-774b-bcce-b302099a8057", "01890A5DAC96774BBCCEB302099A8057", "x", "01890a5d"]),
        "any->k" => vec![1.into(), 1.0.into(), 2.into()],
        _ => vec![1.into(), 2.into(), 1.0.into(), 3.into()],
    };
    values.push(CborValue::Null);
    values
}

fn column() -> impl Strategy<Value = &'static str> {
    select(vec!["any", "dec", "at", "uid", "n", "n", "any->k"])
}

fn filter() -> impl Strategy<Value = Filter> {
    let test = column().prop_flat_map(|column| {
        let value = select(values(column));
        let test = prop_oneof![
            6 => value.clone().prop_map(Test::Eq),
            3 => proptest::collection::vec(value.clone(), 0..4).prop_map(Test::In),
            1 => value.clone().prop_map(Test::Neq),
            1 => value.prop_map(Test::IsDistinct),
            1 => Just(Test::Is(IsTest::Null)),
        ];
        test.prop_map(move |test| Filter::test(column, test))
    });
    test.prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            3 => proptest::collection::vec(inner.clone(), 0..4).prop_map(Filter::All),
            2 => proptest::collection::vec(inner.clone(), 0..4).prop_map(Filter::Any),
            1 => inner.prop_map(Filter::not),
        ]
    })
}

fn row() -> impl Strategy<Value = Record> {
    let cells = ["any", "dec", "at", "uid", "n"].map(|column| (Just(column), select(values(column)), 0..5u8));
    cells.prop_map(|cells| {
        let present = cells.into_iter().filter(|(.., absent)| *absent > 0);
        present.map(|(column, value, _)| (column.to_string(), value)).collect()
    })
}

/// Step of a history.
#[derive(Clone, Debug)]
enum Step {
    Patched(&'static str, Record),
    Write(WriteOp, Option<&'static str>),
    Deleted(&'static str),
    Invalidate(&'static str),
    InvalidateAll,
    Purge(&'static str),
    Refresh,
    /// Reads all events of one subscriber.
    Read(usize),
    /// Opens one subscriber again, at its position.
    Resume(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let id = || select(IDS.to_vec());
    let writer = || proptest::option::of(select(vec!["key:0", "key:1"]));
    let write = prop_oneof![
        (id(), row()).prop_map(|(id, record)| WriteOp::Insert { id: id.into(), record }),
        (id(), row()).prop_map(|(id, record)| WriteOp::Replace { id: id.into(), record }),
        (id(), row()).prop_map(|(id, record)| WriteOp::Patch { id: id.into(), record }),
        id().prop_map(|id| WriteOp::Delete { id: id.into() }),
    ];
    prop_oneof![
        8 => (id(), row()).prop_map(|(id, row)| Step::Patched(id, row)),
        6 => (write, writer()).prop_map(|(op, writer)| Step::Write(op, writer)),
        2 => id().prop_map(Step::Deleted),
        1 => id().prop_map(Step::Invalidate),
        1 => Just(Step::InvalidateAll),
        1 => id().prop_map(Step::Purge),
        1 => Just(Step::Refresh),
        4 => any::<usize>().prop_map(Step::Read),
        1 => any::<usize>().prop_map(Step::Resume),
    ]
}

/// Request of a subscriber, and its identity.
#[derive(Clone, Debug)]
struct Asked {
    rule: Option<Filter>,
    own: Option<Filter>,
    ids: Option<Vec<&'static str>>,
    search: bool,
    columns: bool,
    governs: bool,
    name: usize,
}

fn asked() -> impl Strategy<Value = Asked> {
    let ids = proptest::option::weighted(0.2, proptest::sample::subsequence(IDS.to_vec(), 1..3));
    let rare = || proptest::bool::weighted(0.15);
    let filters = (proptest::option::weighted(0.7, filter()), proptest::option::weighted(0.5, filter()));
    (filters, ids, rare(), rare(), rare(), 0..3usize).prop_map(|((rule, own), ids, search, columns, governs, name)| {
        Asked { rule, own, ids, search, columns, governs, name }
    })
}

async fn dio() -> Dio {
    let schema = Schema::new("id", COLUMNS.map(|(name, ty)| Column::new(name, ty)).to_vec());
    let lens = Lens::new().cache_source(MemoryCache::default()).settings(|settings| {
        settings.ring.events = 6;
        settings.allow_shrink = true;
    });
    lens.build().unwrap().make_dio(diorama_connect::MemoryTable::vista("things", schema, [])).await.unwrap()
}

/// Events of a ring as they were published, which a purge may have erased since.
#[derive(Debug)]
struct Published {
    ring: Arc<Ring>,
    /// The events, and the number of the next one.
    items: Mutex<(HashMap<Seq, Arc<RingItem>>, u64)>,
}

impl Published {
    fn follow(ring: &Arc<Ring>) -> Arc<Published> {
        let published = Arc::new(Published { ring: Arc::clone(ring), items: Mutex::new((HashMap::new(), ring.end())) });
        ring.observe(Arc::downgrade(&published) as Weak<dyn RingObserver>);
        published
    }

    /// Returns an event, unless the ring had dropped it before observers were called. Such an event reaches every subscriber.
    fn get(&self, seq: Seq) -> Option<Arc<RingItem>> {
        self.items.lock().0.get(&seq).cloned()
    }
}

impl RingObserver for Published {
    fn advance(&self) {
        let (items, next) = &mut *self.items.lock();
        if let CursorRead::Gone { next: oldest, .. } = self.ring.at(*next) {
            *next = oldest;
        }
        for (item, _) in self.ring.read(*next, usize::MAX) {
            *next += 1;
            items.extend(item.seq.map(|seq| (seq, item)));
        }
    }
}

/// A subscriber whose events are dispatched if they can be, and one that reads every event.
struct Pair {
    asked: Asked,
    scope: Scope,
    routed: EventCursor,
    reads_all: EventCursor,
    frames: [Vec<Value>; 2],
}

impl Pair {
    async fn new(resource: &Arc<Resource>, asked: &Asked) -> Pair {
        let identity = Identity {
            name: format!("key:{}", asked.name).into(),
            role: "x".into(),
            claims: CborValue::Map(Vec::new()),
            verbs: Verbs::ALL,
            unrestricted: false,
            expires: None,
        };
        let verbs: Verbs = match asked.governs {
            true => Verbs::ALL,
            false => [Verb::Read, Verb::Events].into_iter().collect(),
        };
        let grant = Arc::new(Grant::unrestricted(&resource.schema, verbs));
        let columns = asked.columns.then(|| HashSet::from(["n", "any"].map(Arc::<str>::from)));
        let rule = asked.rule.clone().unwrap_or_default();
        let view = Arc::new(View::new(&resource.schema, rule, columns.as_ref()).unwrap());
        let scope = Scope::new(Arc::clone(resource), Principal::from(Arc::new(identity)), grant, view);
        let routed = Pair::open(&scope, asked, None).await;
        let mut reads_all = Pair::open(&scope, asked, None).await;
        reads_all.events = RingEvents::All(scope.dio.ring().watch());
        Pair { asked: asked.clone(), scope, routed, reads_all, frames: Default::default() }
    }

    async fn open(scope: &Scope, asked: &Asked, since: Option<Position>) -> EventCursor {
        let mut subscription = subscription(scope, "");
        subscription.query.filter = asked.own.clone().unwrap_or_default();
        subscription.query.search = asked.search.then(|| "1".to_string());
        subscription.ids = asked.ids.as_ref().map(|ids| ids.iter().map(ToString::to_string).collect());
        subscription.since = since.map(StartPoint::Position);
        let mut cursor = EventCursor::open(scope, subscription, Encoding::Json, 25, &Bounds::default()).await.unwrap();
        cursor.batch().await.unwrap();
        cursor
    }

    /// Reads all events of both and compares them. Background work may add some meanwhile.
    ///
    /// The frames are the same, with one exception: an event that a purge has erased since its publication tells or resets every reader
    /// that comes to it. A dispatched subscriber may pass it if the event as it was published did not concern it.
    async fn read(&mut self, published: &Published) -> Result<(), TestCaseError> {
        let from = self.routed.position.seq.min(self.reads_all.position.seq);
        while self.routed.is_ready() || self.reads_all.is_ready() {
            self.frames[0].extend(all(&mut self.routed).await.unwrap());
            self.frames[1].extend(all(&mut self.reads_all).await.unwrap());
        }
        let [routed, reads_all] = std::mem::take(&mut self.frames);
        let past = self.routed.log.past(from, 1 << 20).await.unwrap().unwrap().items;
        let is_foreign = |item: &&RingItem| {
            let original = item.seq.and_then(|seq| published.get(seq));
            item.entry.as_ref().is_some_and(|entry| entry.erased) && original.is_some_and(|item| !self.shows(&item))
        };
        let (foreign, own): (Vec<_>, Vec<_>) = past.iter().partition(is_foreign);
        let [told, expected] = match own.iter().any(|item| self.lacks_prior_row(item)) || is_reset(&routed) {
            true => [routed, reads_all],
            false => {
                let frame = |item: &&RingItem| self.routed.frame_of(item, None);
                let parse = |sent: OutgoingFrame| serde_json::from_slice(&sent.frame).unwrap();
                let of_own = || own.iter().filter_map(frame).map(parse).collect();
                let expected = if is_reset(&reads_all) { of_own() } else { reads_all };
                let foreign: HashSet<_> = foreign.iter().filter_map(|item| item.seq).collect();
                [routed, expected].map(|mut frames: Vec<Value>| {
                    frames.retain(|frame| frame["seq"].as_u64().is_none_or(|seq| !foreign.contains(&seq)));
                    without_repeated_invalidations(frames)
                })
            }
        };
        prop_assert_eq!(told, expected, "{:?}", &self.asked);
        let (own, other) = (self.routed.bookmark().unwrap(), self.reads_all.bookmark().unwrap());
        // Positions may differ by entries of the log that have no event.
        prop_assert!(own.seq <= self.scope.dio.position().seq, "{} of {}", own, other);
        Ok(())
    }

    /// Returns true if an event is sent to the subscriber or resets it, regardless of its position.
    fn shows(&self, item: &RingItem) -> bool {
        self.lacks_prior_row(item) || self.routed.frame_of(item, None).is_some()
    }

    fn lacks_prior_row(&self, item: &RingItem) -> bool {
        self.routed.concerns(item) && self.routed.view.lacks_prior_row(item)
    }

    async fn resume(&mut self, published: &Published) -> Result<(), TestCaseError> {
        self.read(published).await?;
        let since = self.routed.bookmark();
        self.routed = Pair::open(&self.scope, &self.asked, since.clone()).await;
        let mut reads_all = Pair::open(&self.scope, &self.asked, since).await;
        reads_all.events = RingEvents::All(self.scope.dio.ring().watch());
        prop_assert!(!reads_all.is_ready() || all(&mut reads_all).await.unwrap().is_empty(), "{:?}", &self.asked);
        self.reads_all = reads_all;
        Ok(())
    }
}

fn is_reset(frames: &[Value]) -> bool {
    frames.iter().any(|frame| frame["type"] == "reset")
}

/// Consecutive invalidations of everything are one, depending on when they are read.
fn without_repeated_invalidations(mut frames: Vec<Value>) -> Vec<Value> {
    let rereads = |frame: &Value| frame["covered"] == false;
    let mut at = 1;
    while at < frames.len() {
        match rereads(&frames[at - 1]) && rereads(&frames[at]) {
            true => drop(frames.remove(at - 1)),
            false => at += 1,
        }
    }
    frames
}

async fn take(dio: &Dio, pairs: &mut [Pair], step: Step, published: &Published) -> Result<(), TestCaseError> {
    match step {
        Step::Patched(id, row) => drop(dio.patched(id, row).await),
        Step::Write(op, writer) => {
            let options = WriteOptions { principal: writer.map(Arc::from), ..WriteOptions::default() };
            let accepted = dio.write(op, options).await;
            if let Some(op) = accepted.ok().and_then(|ticket| ticket.operation) {
                dio.settled(op, Duration::from_secs(30)).await;
            }
        }
        Step::Deleted(id) => dio.cache().delete_value(id).await.unwrap(),
        Step::Invalidate(id) => dio.invalidate_record(id),
        Step::InvalidateAll => dio.invalidate_all(),
        Step::Purge(id) => drop(dio.purge([id]).await),
        Step::Refresh => drop(dio.refresh().await),
        Step::Read(at) => pairs[at % pairs.len()].read(published).await?,
        Step::Resume(at) => pairs[at % pairs.len()].resume(published).await?,
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_dispatched_subscriber_gets_the_events_of_one_that_reads_all(
        steps in proptest::collection::vec(step(), 1..40),
        asked in proptest::collection::vec(asked(), 1..6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dio = dio().await;
            let published = Published::follow(dio.ring());
            let resource = Arc::new(Resource::new(dio.clone(), MountOptions::default()));
            let mut pairs = Vec::new();
            for asked in &asked {
                pairs.push(Pair::new(&resource, asked).await);
            }
            for step in steps {
                take(&dio, &mut pairs, step, &published).await?;
            }
            for pair in &mut pairs {
                pair.read(&published).await?;
            }
            dio.close().await;
            for pair in &mut pairs {
                let end = async |cursor: &mut EventCursor| loop {
                    cursor.ready().await;
                    if let Err(end) = cursor.batch().await {
                        break end;
                    }
                };
                prop_assert_eq!(end(&mut pair.routed).await, CursorEnd::Closed);
            }
            Ok(())
        })?;
    }
}

/// Counts how often a task is woken.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Scope of the rows with this name.
fn named(resource: &Arc<Resource>, name: &str) -> Scope {
    scope_within(resource, Filter::eq("name", name.into()))
}

async fn opened(scope: &Scope, query: &str) -> EventCursor {
    let mut cursor =
        EventCursor::open(scope, subscription(scope, query), Encoding::Json, 25, &Bounds::default()).await.unwrap();
    cursor.batch().await.unwrap();
    cursor
}

#[tokio::test]
async fn a_change_wakes_the_subscribers_of_its_old_and_new_cell_only() {
    let dio = small_dio().await;
    let resource = Arc::new(Resource::new(dio.clone(), MountOptions::default()));
    let mut cursors = HashMap::new();
    for n in 0..100 {
        let cursor = opened(&named(&resource, &n.to_string()), "").await;
        let wakes = Arc::new(Wakes::default());
        assert!(cursor.poll_routed(&Context::from_waker(&Arc::clone(&wakes).into())).is_pending());
        cursors.insert(n, (cursor, wakes));
    }
    dio.patched("x", record("7", 1)).await.unwrap();
    let woken = |cursors: &HashMap<i32, (EventCursor, Arc<Wakes>)>| {
        let mut woken: Vec<_> =
            cursors.iter().filter(|(_, (_, wakes))| wakes.0.swap(0, Ordering::Relaxed) > 0).map(|(n, _)| *n).collect();
        woken.sort_unstable();
        woken
    };
    assert_eq!(woken(&cursors), [7]);
    for (cursor, wakes) in cursors.values_mut() {
        all(cursor).await.unwrap();
        assert!(cursor.poll_routed(&Context::from_waker(&Arc::clone(wakes).into())).is_pending());
    }
    dio.patched("x", record("8", 1)).await.unwrap();
    assert_eq!(woken(&cursors), [7, 8]);
    let (nine, _) = cursors.get_mut(&9).unwrap();
    assert_eq!(nine.bookmark().unwrap(), dio.position(), "the others pass it without reading it");
    resource.dispatch.check_rules();
    cursors.values().for_each(|(cursor, wakes)| {
        let _ = cursor.poll_routed(&Context::from_waker(&Arc::clone(wakes).into()));
    });
    dio.patched("x", record("none", 1)).await.unwrap();
    assert_eq!(woken(&cursors).len(), 100, "all look at their permissions after a change of the rules");
}

#[tokio::test]
async fn a_quiet_subscriber_keeps_its_place_while_the_ring_moves_on() {
    let dio = dio_with_ring(8).await;
    let resource = Arc::new(Resource::new(dio.clone(), MountOptions::default()));
    let mut ada = opened(&named(&resource, "ada"), "").await;
    for n in 0..100 {
        dio.patched("x", record("bob", n)).await.unwrap();
    }
    assert!(!ada.is_ready());
    assert_eq!(ada.bookmark().unwrap(), dio.position());
    dio.patched("x", record("ada", 1)).await.unwrap();
    for n in 0..20 {
        dio.patched("y", record("ada", n)).await.unwrap();
    }
    let frames = all(&mut ada).await.unwrap();
    assert_eq!(frames.len(), 21, "those that the ring has dropped come from the journal");
    assert_eq!((&frames[0]["entered"], &frames[0]["id"]), (&true.into(), &"x".into()));
}

#[tokio::test]
async fn scopes_of_a_rule_are_bounded_by_their_own_limit_and_forgotten_with_their_subscribers() {
    const SCOPES: usize = 1_500;
    let dio = small_dio().await;
    let resource = Arc::new(Resource::new(dio.clone(), MountOptions::default()));
    let mut cursors = Vec::new();
    for n in 0..SCOPES {
        cursors.push(opened(&named(&resource, &n.to_string()), "").await);
    }
    assert_eq!((resource.views.len(), resource.dispatch.len()), (SCOPES, SCOPES));
    let few = crate::Limits { event_views: SCOPES, ..crate::Limits::default() };
    let bounds = Bounds::of_limits(&few);
    let scope = named(&resource, "one more");
    let open = async || EventCursor::open(&scope, subscription(&scope, ""), Encoding::Json, 25, &bounds).await;
    assert_eq!(open().await.err().unwrap().code(), Code::TooManyViews);
    assert_eq!(resource.dispatch.len(), SCOPES, "a refused subscriber leaves nothing behind");
    cursors.pop();
    assert!(open().await.is_ok());
    cursors.clear();
    assert_eq!((resource.views.len(), resource.dispatch.len()), (0, 0));
    dio.patched("x", record("1", 1)).await.unwrap();
    let mut late = opened(&named(&resource, "1"), "").await;
    assert!(!late.is_ready(), "events from before the first subscriber are not sent");
    dio.patched("x", record("1", 2)).await.unwrap();
    assert_eq!(all(&mut late).await.unwrap().len(), 1);
}
