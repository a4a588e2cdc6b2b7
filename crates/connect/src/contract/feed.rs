//! Contract suite of all feeds: what each must do, whatever it follows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use diorama_core::Dio;
use diorama_core::cache::MemoryCache;
use diorama_core::dio::{DioEvent, EventEntry, EventReceiver};
use diorama_core::journal::{Journal, MemoryJournal};
use diorama_core::lens::Lens;
use diorama_core::record::Record;
use tokio::task::JoinSet;

/// Longest time until a change arrives. A feed that was cut several times waits before it connects again.
const PATIENCE: Duration = Duration::from_secs(60);
/// Number of rows of the table.
const ROWS: u32 = 20;

/// A row, and its new `n`; `None` deletes it.
pub(crate) type Change = (u32, Option<i64>);

/// The sender of a feed under the suite: a table with the columns `id` and `n`, whose rows `1` to `20` begin with `n = 0`.
#[async_trait]
pub(crate) trait Sender: Send + Sync {
    /// Returns the abilities of the feed.
    fn abilities(&self) -> Abilities;

    /// Opens source and feed as a new process does. Returns a Dio of the table, which follows its changes.
    async fn follow(&self, lens: &Lens) -> Dio;

    /// Makes changes, one after the other. All are stored, and on their way, when this returns.
    async fn change(&self, changes: &[Change]);

    /// Cuts every connection.
    async fn cut(&self);

    /// Ends the sender as a crash does, and starts it again.
    async fn restart(&mut self);

    /// Makes all positions so far useless, in one of several ways. Returns false if there is no such way. Nothing follows
    /// meanwhile.
    async fn lose_positions(&mut self, way: usize) -> bool;

    /// Sends something that cannot be decoded. Returns false if it always can.
    async fn send_nonsense(&self) -> bool;

    /// True if a feed whose connection was lost misses nothing, although it may have no position for a new process.
    fn keeps_while_cut(&self) -> bool {
        self.abilities().resumes
    }
}

/// Abilities of a feed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Abilities {
    /// Its sender can continue from a position.
    pub(crate) resumes: bool,
    /// No row goes back to an older value for a moment. Values without a version may arrive after a read that has shown newer ones.
    pub(crate) never_back: bool,
    /// Its changes are in the order of the commits, and the table can be written to.
    pub(crate) in_order: bool,
    /// Number of refreshes that a feed without a position begins with.
    pub(crate) refreshes_at_start: u64,
}

/// The rows as they must be, with the last number that was given to one.
struct Expected {
    rows: BTreeMap<String, i64>,
    last: i64,
}

impl Expected {
    fn new() -> Expected {
        Expected { rows: (1..=ROWS).map(|id| (id.to_string(), 0)).collect(), last: 0 }
    }

    /// Returns `count` changes: rows are counted up, deleted and inserted.
    fn changes(&mut self, count: usize) -> Vec<Change> {
        let change = |_| {
            self.last += 1;
            // Each round over the rows deletes other ones than the round before.
            let rows = i64::from(ROWS);
            let id = 1 + u32::try_from((self.last * 7 + self.last / rows) % rows).unwrap();
            let n = (self.last % 5 != 0).then_some(self.last);
            match n {
                Some(n) => drop(self.rows.insert(id.to_string(), n)),
                None => drop(self.rows.remove(&id.to_string())),
            }
            (id, n)
        };
        (0..count).map(change).collect()
    }
}

/// The files of a Lens, in memory.
#[derive(Default)]
struct Files {
    cache: Arc<MemoryCache>,
    journal: Arc<MemoryJournal>,
}

impl Files {
    /// A Lens whose Dios are listed once, and by the refreshes of their feeds.
    fn lens(&self) -> Lens {
        let list = |dio: &Dio| {
            let dio = dio.clone();
            async move {
                let rows = dio.master().list_values().await?;
                dio.reconcile(rows).await.map(drop)
            }
        };
        let once = move |dio: &Dio| {
            let (copied, listing) = (dio.status().complete, list(dio));
            async move { if copied { Ok(()) } else { listing.await } }
        };
        let lens = Lens::new().cache_source(Arc::clone(&self.cache)).on_start(once).on_refresh(list);
        lens.journal_source(Arc::clone(&self.journal) as Arc<dyn Journal>).build().unwrap()
    }
}

/// A Dio that follows, and a subscriber that checks its events.
struct Follower {
    dio: Dio,
    lens: Lens,
    watching: JoinSet<()>,
}

impl Follower {
    async fn open(sender: &impl Sender, files: &Files) -> Follower {
        let lens = files.lens();
        let dio = sender.follow(&lens).await;
        let mut watching = JoinSet::new();
        watching.spawn(watch(dio.subscribe_events(), sender.abilities().never_back));
        Follower { dio, lens, watching }
    }

    /// Opens the first Dio of `files`, and waits until it needs no refresh.
    async fn begin(sender: &impl Sender, files: &Files, expected: &mut Expected) -> Follower {
        let follower = Follower::open(sender, files).await;
        let begins_with = sender.abilities().refreshes_at_start;
        follower.until("the feed begins", || follower.refreshes() >= begins_with).await;
        follower.settle(sender, expected).await;
        assert_eq!(follower.refreshes(), begins_with, "{:?}", follower.dio.status().feeds);
        follower
    }

    /// Makes changes, until one is stored with a position that owes no refresh.
    async fn settle(&self, sender: &impl Sender, expected: &mut Expected) {
        self.until("the feed is connected", || self.dio.status().feeds[0].connected).await;
        for _ in 0..2 {
            sender.change(&expected.changes(3)).await;
            self.equals(expected).await;
        }
    }

    fn refreshes(&self) -> u64 {
        self.dio.counters().refreshed.count
    }

    async fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let waiting = async {
            while !holds() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
            let (rows, status) = (self.rows(), self.dio.status());
            panic!("{what}: {rows:?}, {} refreshes, {status:?}", self.refreshes());
        }
    }

    fn rows(&self) -> BTreeMap<String, i64> {
        let state = self.dio.state();
        let row = |row: diorama_core::table::RowRef<'_>| (row.id().to_string(), n_of(&row.body().decode().unwrap()));
        state.table().natural(0).map(row).collect()
    }

    /// Waits until the rows are as expected, and none is in doubt.
    async fn equals(&self, expected: &Expected) {
        let what = format!("the rows are {:?}", expected.rows);
        self.until(&what, || self.rows() == expected.rows && self.dio.rows_in_doubt() == 0).await;
    }

    /// Closes the Dio, which ends the task of its feed.
    async fn close(self) {
        let closing = tokio::time::timeout(PATIENCE, self.dio.close());
        closing.await.expect("the feed ends with its Dio");
        assert_eq!(self.dio.status().tasks, 0);
        self.lens.close().await;
        self.watching.join_all().await;
    }
}

fn n_of(record: &Record) -> i64 {
    let n = record.get("n").and_then(|n| n.as_integer());
    n.and_then(|n| i64::try_from(n).ok()).unwrap_or_else(|| panic!("{record:?}"))
}

/// Checks that no change is told twice, and that a row only counts up if it is `never_back`, until the Dio closes.
async fn watch(mut events: EventReceiver, never_back: bool) {
    let (mut highest, mut newest) = (BTreeMap::new(), BTreeMap::new());
    while let Ok(EventEntry { event, record, .. }) = events.recv_entry().await {
        let id = match event {
            DioEvent::RecordChanged { id } | DioEvent::RecordInserted { id } => id,
            DioEvent::RecordRemoved { id } => {
                assert!(newest.insert(id.clone(), None) != Some(None), "row {id} was removed twice");
                continue;
            }
            DioEvent::Lagged { .. } | DioEvent::WriteFailed { .. } => panic!("{event:?}"),
            _ => continue,
        };
        let n = n_of(&record.unwrap());
        assert!(newest.insert(id.clone(), Some(n)) != Some(Some(n)), "row {id} was told with {n} twice");
        let before = highest.insert(id.clone(), n).unwrap_or(-1);
        assert!(n > before || !never_back, "row {id} was told with {before}, and then with {n}");
    }
}

/// Checks everything that a feed must do.
pub(crate) async fn feeds(mut sender: impl Sender) {
    let sender = &mut sender;
    let mut expected = Expected::new();
    changes_while_a_feed_begins(sender, &mut expected).await;
    nothing_is_lost_or_told_twice_over_cuts(sender, &mut expected).await;
    a_feed_continues_where_it_has_stopped(sender, &mut expected).await;
    useless_positions_cost_one_refresh(sender, &mut expected).await;
    what_cannot_be_decoded_is_read_from_the_source(sender, &mut expected).await;
    if sender.abilities().in_order {
        own_writes_are_not_undone_by_late_events(sender, &mut expected).await;
    }
}

/// A change between the first list and the feed is told once.
async fn changes_while_a_feed_begins(sender: &impl Sender, expected: &mut Expected) {
    let changes = expected.changes(1_000);
    let files = Files::default();
    let (follower, ()) = tokio::join!(Follower::open(sender, &files), sender.change(&changes));
    follower.equals(expected).await;
    follower.close().await;
}

/// A feed that has a position continues there, without a list. Another one reads the source again.
async fn nothing_is_lost_or_told_twice_over_cuts(sender: &mut impl Sender, expected: &mut Expected) {
    let follower = Follower::begin(sender, &Files::default(), expected).await;
    for round in 0..6 {
        let refreshes = follower.refreshes();
        let changes = expected.changes(40);
        sender.change(&changes[..10]).await;
        match round {
            3 => sender.restart().await,
            _ => sender.cut().await,
        }
        sender.change(&changes[10..20]).await;
        tokio::join!(sender.change(&changes[20..]), sender.cut());
        follower.equals(expected).await;
        if !sender.keeps_while_cut() {
            follower.until("the source is read again", || follower.refreshes() > refreshes).await;
        }
    }
    if sender.keeps_while_cut() {
        assert_eq!(follower.refreshes(), sender.abilities().refreshes_at_start, "no list is needed");
    }
    follower.close().await;
}

/// A new Dio over the same journal: if there are positions, without a list.
async fn a_feed_continues_where_it_has_stopped(sender: &mut impl Sender, expected: &mut Expected) {
    let files = Files::default();
    Follower::begin(sender, &files, expected).await.close().await;
    for round in 0..3 {
        sender.change(&expected.changes(50)).await;
        if round == 1 {
            sender.restart().await;
            sender.change(&expected.changes(5)).await;
        }
        let follower = Follower::open(sender, &files).await;
        follower.settle(sender, expected).await;
        let refreshes = if sender.abilities().resumes { 0 } else { 1 };
        assert_eq!(follower.refreshes(), refreshes, "round {round}");
        follower.close().await;
    }
}

/// Changes since a position that the sender does not know are found by one refresh.
async fn useless_positions_cost_one_refresh(sender: &mut impl Sender, expected: &mut Expected) {
    let files = Files::default();
    Follower::begin(sender, &files, expected).await.close().await;
    for way in 0.. {
        sender.change(&expected.changes(20)).await;
        if !sender.lose_positions(way).await {
            break;
        }
        sender.change(&expected.changes(5)).await;
        let follower = Follower::open(sender, &files).await;
        follower.equals(expected).await;
        follower.until("the source is read again", || follower.refreshes() == 1).await;
        follower.settle(sender, expected).await;
        assert_eq!(follower.refreshes(), 1, "way {way}");
        follower.close().await;
    }
}

/// It is counted, the source is read again, and the feed goes on.
async fn what_cannot_be_decoded_is_read_from_the_source(sender: &impl Sender, expected: &mut Expected) {
    let follower = Follower::begin(sender, &Files::default(), expected).await;
    let undecodable = || follower.dio.status().feeds[0].undecodable;
    let before = (undecodable(), follower.refreshes(), follower.dio.status().feeds[0].connects);
    if sender.send_nonsense().await {
        follower.until("it is counted", || undecodable() > before.0).await;
        follower.until("the source is read again", || follower.refreshes() > before.1).await;
        follower.settle(sender, expected).await;
        assert_eq!(follower.dio.status().feeds[0].connects, before.2, "the feed goes on");
    }
    follower.close().await;
}

/// A write is confirmed when the feed has reported it, so that no older event of the feed hides it again.
async fn own_writes_are_not_undone_by_late_events(sender: &impl Sender, expected: &mut Expected) {
    let follower = Follower::begin(sender, &Files::default(), expected).await;
    sender.change(&[(1, Some(expected.last))]).await;
    let mut events = follower.dio.subscribe_events();
    for _ in 0..100 {
        expected.last += 1;
        let patch = Record::from_iter([("n".to_string(), expected.last.into())]);
        follower.dio.vista().patch_value("1", &patch).await.unwrap();
    }
    let mut committed = 0;
    while committed < 100 {
        let event = tokio::time::timeout(PATIENCE, events.recv()).await.expect("all are confirmed").unwrap();
        committed += i32::from(matches!(event, DioEvent::WriteCommitted { .. }));
        assert_eq!(follower.dio.rows_in_doubt(), 0, "no row has to be read again");
    }
    expected.rows.insert("1".into(), expected.last);
    follower.equals(expected).await;
    follower.close().await;
}
