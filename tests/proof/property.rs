//! Local writes, webhooks, refreshes, other people's changes and restarts meet in every order; at rest everything agrees.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use diorama::cache::MemoryCache;
use diorama::dio::{Dio, Inbound, OperationState, WriteOptions, WriteRoute};
use diorama::journal::{Journal, MemoryJournal};
use diorama::{ChangeEvent, Error, Lens, LensBuilder, WriteOp};
use diorama_core::state::{Base, Entry, Frame, State};
use parking_lot::Mutex;
use proptest::prelude::*;

use super::harness::pairs::*;

const IDS: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Copy, Debug)]
enum Step {
    Insert(usize),
    Replace(usize),
    Patch(usize, bool),
    Delete(usize),
    /// Somebody else changes the master.
    Other(usize, bool),
    /// The master tells of a row: its id only, or all of it.
    Hook {
        id: usize,
        full: bool,
        again: bool,
    },
    /// A row as it was some time ago.
    Stale(usize, usize),
    Refresh,
    Execute(usize, u8),
    Answer(usize),
    Consume,
    Wait,
    Restart,
}

#[derive(Clone, Copy, Debug)]
struct Shape {
    routed: bool,
    feedback: bool,
    versioned: bool,
    trust: bool,
    reads_one: bool,
    tells: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let id = 0..IDS.len();
    prop_oneof![
        3 => id.clone().prop_map(Step::Insert),
        2 => id.clone().prop_map(Step::Replace),
        3 => (id.clone(), any::<bool>()).prop_map(|(id, v)| Step::Patch(id, v)),
        2 => id.clone().prop_map(Step::Delete),
        3 => (id.clone(), any::<bool>()).prop_map(|(id, gone)| Step::Other(id, gone)),
        3 => (id.clone(), any::<bool>(), any::<bool>()).prop_map(|(id, full, again)| Step::Hook { id, full, again }),
        1 => (id, 0usize..6).prop_map(|(id, at)| Step::Stale(id, at)),
        2 => Just(Step::Refresh),
        6 => (0usize..4, 0u8..10).prop_map(|(n, verdict)| Step::Execute(n, verdict)),
        6 => (0usize..4).prop_map(Step::Answer),
        3 => Just(Step::Consume),
        2 => Just(Step::Wait),
        1 => Just(Step::Restart),
    ]
}

fn shape() -> impl Strategy<Value = Shape> {
    any::<[bool; 6]>().prop_map(|[routed, feedback, versioned, trust, reads_one, tells]| Shape {
        routed,
        feedback,
        versioned: versioned && !routed,
        trust,
        reads_one,
        tells,
    })
}

/// What outlives a process.
struct World {
    shape: Shape,
    master: Scripted,
    journal: Arc<MemoryJournal>,
    cache: Arc<MemoryCache>,
    routed: Arc<Mutex<VecDeque<WriteOp>>>,
    next: i64,
    deliveries: u64,
    /// How far in its history each id's confirmed row has been seen.
    seen: HashMap<&'static str, usize>,
    /// States on the way.
    kept: Vec<Arc<State>>,
    old: Vec<(String, Option<diorama::Record>, i64)>,
    acked: usize,
}

impl World {
    fn new(shape: Shape) -> World {
        let master = Scripted::of_pairs(shape.reads_one, shape.tells);
        master.set_pair("a", Some((1, 1)));
        master.by_hand(true);
        World {
            shape,
            master,
            journal: Arc::new(MemoryJournal::new()),
            cache: Arc::default(),
            routed: Arc::default(),
            next: 100,
            deliveries: 0,
            seen: HashMap::new(),
            kept: Vec::new(),
            old: Vec::new(),
            acked: 0,
        }
    }

    fn lens(&self) -> Lens {
        let mut builder: LensBuilder = Lens::new()
            .cache_source(self.cache.clone())
            .journal_source(Arc::clone(&self.journal) as Arc<dyn Journal>)
            .on_start(|dio| relist(dio.clone()))
            .on_refresh(|dio| relist(dio.clone()))
            .on_start_blocking(false)
            .write_concurrency(2)
            .settings(|settings| settings.trust_payload = self.shape.trust);
        if self.shape.versioned {
            builder = builder.version_column("ver");
        }
        if self.shape.routed {
            let routed = Arc::clone(&self.routed);
            builder = builder.write_route(WriteRoute::Around).on_write(move |_, op| {
                routed.lock().push_back(op);
                std::future::ready(Ok(()))
            });
        }
        builder.build().unwrap()
    }

    fn fresh(&mut self) -> i64 {
        self.next += 1;
        self.next
    }

    async fn write(&mut self, dio: &Dio, op: WriteOp) {
        let id = op.id().unwrap().to_string();
        match dio.write(op, WriteOptions::default()).await {
            Ok(ticket) => {
                // Read your writes: what a reader takes now is at least as new.
                assert!(dio.state().seq() >= ticket.position.seq);
                if let Some(op) = ticket.operation {
                    assert!(dio.operation(op).is_some());
                    self.acked += 1;
                }
            }
            // Before the first copy a write cannot be judged.
            Err(Error::NotFound { .. } | Error::Conflict { .. } | Error::NotReady { .. }) => {}
            Err(error) => panic!("{id}: {error}"),
        }
    }

    async fn step(&mut self, dio: &Dio, step: Step) {
        let (v, w) = (self.fresh(), self.fresh());
        match step {
            Step::Insert(id) => self.write(dio, insert(IDS[id], (v, w))).await,
            Step::Replace(id) => self.write(dio, replace(IDS[id], (v, w))).await,
            Step::Patch(id, first) => self.write(dio, patch(IDS[id], if first { "v" } else { "w" }, v)).await,
            Step::Delete(id) => self.write(dio, delete(IDS[id])).await,
            Step::Other(id, gone) => {
                // A routed row that is set back to what it was is not seen: documented.
                let there = self.master.pairs().contains_key(IDS[id]);
                if !self.shape.routed || there && !gone {
                    self.master.set_pair(IDS[id], (!gone).then_some((v, w)));
                }
            }
            Step::Hook { id, full, again } => {
                if !again {
                    self.deliveries += 1;
                }
                self.hook(dio, IDS[id], full, self.deliveries).await;
            }
            Step::Stale(id, at) => {
                // Without versions, an old payload that is believed is believed.
                if !self.shape.trust || self.shape.versioned {
                    self.stale(dio, IDS[id], at).await;
                }
            }
            Step::Refresh => {
                let dio = dio.clone();
                drop(tokio::spawn(async move { drop(dio.refresh().await) }));
            }
            Step::Execute(n, verdict) => self.master.execute(
                n,
                match verdict {
                    0 => Verdict::Refuse,
                    1 => Verdict::Busy,
                    2 => Verdict::Lost,
                    _ => Verdict::Accept,
                },
            ),
            Step::Answer(n) => self.master.answer(n),
            Step::Consume => self.consume(dio).await,
            Step::Wait => tokio::time::sleep(Duration::from_millis(400)).await,
            Step::Restart => unreachable!("restarts are outside"),
        }
        // Time stands while anything can run.
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.observe(dio);
    }

    async fn hook(&mut self, dio: &Dio, id: &str, full: bool, delivery: u64) {
        let row = self.master.event_row(id);
        let event = match (row.is_some(), full) {
            (true, true) => ChangeEvent::Updated { id: id.into(), new: row },
            (true, false) => ChangeEvent::Updated { id: id.into(), new: None },
            // Without a version a deletion cannot be put in order.
            (false, true) if !self.shape.versioned => ChangeEvent::Deleted { id: id.into() },
            (false, _) => ChangeEvent::Updated { id: id.into(), new: None },
        };
        let delivery = Some(format!("{delivery}"));
        let _ = dio.handle_event(Inbound { delivery, ..Inbound::from(event) }).await.unwrap();
    }

    async fn stale(&mut self, dio: &Dio, id: &str, at: usize) {
        if let Some(row) = self.master.event_row(id) {
            self.old.push((id.to_string(), Some(row), self.next));
        }
        let Some((id, new, _)) = self.old.get(at).cloned() else { return };
        let _ = dio.handle_event(ChangeEvent::Updated { id, new }).await.unwrap();
    }

    async fn consume(&mut self, dio: &Dio) {
        let Some(op) = self.routed.lock().pop_front() else { return };
        self.master.consume(&op);
        if self.shape.feedback {
            self.deliveries += 1;
            self.hook(dio, op.id().unwrap(), true, self.deliveries).await;
        }
    }

    /// No confirmed row goes back.
    fn observe(&mut self, dio: &Dio) {
        let state = dio.state();
        for id in IDS {
            let row = state.base(id).map(|base| cells(&base.body.decode().unwrap()));
            let history = self.master.pair_history(id);
            let last = self.seen.get(id).copied().unwrap_or(0);
            match history.iter().enumerate().skip(last).find(|(_, known)| **known == row) {
                Some((at, _)) => drop(self.seen.insert(id, at)),
                // A master that does not tell its row after a write: ours may be one that it never had.
                None if history.contains(&row) => panic!("{id} went back to {row:?}; {last} of {history:?}"),
                None => {}
            }
        }
        if self.kept.len() < 20 {
            self.kept.push(state);
        }
    }

    async fn rest(&mut self, dio: &Dio) {
        self.master.release();
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_secs(400)).await;
            while !self.routed.lock().is_empty() {
                self.consume(dio).await;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            dio.refresh().await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        self.observe(dio);
        let state = dio.state();
        assert_eq!(visible(&state), self.master.pairs(), "at rest");
        assert_eq!(state.dirty().count(), 0, "rows in doubt at rest");
        assert_eq!(state.backlog(), (0, 0));
        assert!(!state.in_motion(), "a mark was never closed");
        let log = self.log().await;
        self.check_failures(dio, &log);
        self.check_replay(&state, &log);
        dio.close().await;
        assert_eq!(stored(&self.cache, "d").await, confirmed(&state), "the cache file");
    }

    async fn log(&self) -> Vec<Entry> {
        let entries = self.journal.read("d", 0, usize::MAX).await.unwrap();
        assert!(entries.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq), "positions have no holes");
        entries.iter().map(|entry| Entry::decode(&entry.bytes).unwrap()).collect()
    }

    fn check_failures(&self, dio: &Dio, log: &[Entry]) {
        let mut told: HashMap<_, u32> = HashMap::new();
        for entry in log.iter().filter(|entry| matches!(entry.frame, Frame::WriteFailed(_))) {
            *told.entry(entry.cause.op.unwrap()).or_default() += 1;
        }
        let operations = dio.operations();
        assert_eq!(operations.len(), self.acked, "every accepted write is known");
        for operation in operations {
            let failed = operation.state == OperationState::Failed;
            assert!(operation.state.is_final(), "{operation:?}");
            assert_eq!(told.remove(&operation.id).unwrap_or(0), u32::from(failed), "{operation:?}");
        }
        assert!(told.is_empty());
    }

    /// The log from any position gives what is there now.
    fn check_replay(&self, now: &State, log: &[Entry]) {
        for kept in &self.kept {
            let rest: Vec<&Entry> = log.iter().filter(|entry| entry.seq > kept.seq()).collect();
            if rest.iter().any(|entry| matches!(entry.base, Base::Many { .. })) {
                continue;
            }
            let mut state = (**kept).clone();
            for entry in rest {
                state.apply(&Entry::decode(&entry.encode()).unwrap());
            }
            assert_eq!(visible(&state), visible(now), "replayed from {}", kept.seq());
            assert_eq!(confirmed(&state), confirmed(now), "replayed from {}", kept.seq());
        }
    }
}

fn run(shape: Shape, steps: &[Step]) {
    let mut world = World::new(shape);
    let mut lives = steps.split(|step| matches!(step, Step::Restart)).peekable();
    while let Some(life) = lives.next() {
        let last = lives.peek().is_none();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let lens = world.lens();
            let before = world.kept.last().cloned();
            let dio = lens.make_dio(world.master.vista("d")).await.unwrap();
            if let Some(before) = before {
                let state = dio.state();
                assert_eq!(before.epoch(), state.epoch());
                assert!(state.seq() >= before.seq());
                if state.seq() == before.seq() {
                    assert_eq!(visible(&before), visible(&state), "over a restart");
                    assert_eq!(confirmed(&before), confirmed(&state), "over a restart");
                }
            }
            for step in life {
                world.step(&dio, *step).await;
            }
            if last {
                world.rest(&dio).await;
            }
        });
        // The process ends here, in the middle of whatever it does.
        drop(runtime);
        world.master.forget_calls();
    }
}

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(150)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_meets_at_rest_everything_agrees(
        shape in shape(),
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        run(shape, &steps);
    }
}

/// All rows were hidden by pending deletes, and the list was taken for a first copy: their confirmed rows left the cache file.
#[test]
fn a_list_that_comes_while_every_row_is_being_deleted_keeps_what_is_confirmed() {
    use Step::*;
    let shape =
        Shape { routed: false, feedback: false, versioned: false, trust: false, reads_one: false, tells: false };
    let steps = [Execute(0, 3), Answer(0), Refresh, Delete(0), Execute(0, 3), Answer(0), Restart, Wait];
    run(shape, &steps);
}
