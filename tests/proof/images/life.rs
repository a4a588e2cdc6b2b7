//! A life of a Dio on disks that are recorded, with everything that anybody was told and when.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use diorama::cache::RedbCache;
use diorama::journal::{
    AppendError, Delivery, DeliveryId, DeliveryQuery, InboxLimits, InboxUse, Journal, JournalError, LogBatch, LogEntry,
    LogId, LogState, OutboxLimits, OutboxUse, RawRequest, RedbJournal, Seq,
};
use diorama::{ChangeEvent, DioEvent, Error, Lens, WriteOp};
use diorama_core::dio::{CursorRead, Dio, IdempotencyKey, Inbound, RingLimits, WriteOptions};
use diorama_core::journal::disk::{Disk, Random};
use diorama_core::state::{OpId, OpState, State};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::harness::pairs::*;

/// The two files of a Lens, on disks that lose power together.
pub(crate) struct Disks {
    pub(crate) journal: Disk,
    pub(crate) cache: Disk,
}

impl Disks {
    fn new(journal: Disk, cache: Disk) -> Disks {
        let cache = cache.beside(&journal);
        Disks { journal, cache }
    }

    pub(crate) fn empty() -> Disks {
        Disks::new(Disk::default(), Disk::default())
    }

    /// What is on both if the power fails after `cut` operations.
    pub(crate) fn image(&self, cut: usize, random: &mut Random) -> Disks {
        Disks::new(self.journal.image(cut, random), self.cache.image(cut, random))
    }

    pub(crate) fn now(&self) -> usize {
        self.journal.recorded()
    }
}

/// What a Dio was at a position.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Was {
    pub(crate) visible: BTreeMap<String, Cells>,
    pub(crate) confirmed: BTreeMap<String, Cells>,
    pub(crate) ops: BTreeMap<OpId, OpState>,
}

impl Was {
    pub(crate) fn of(state: &State) -> Was {
        let ops = state.ops().map(|op| (op.id, op.state)).collect();
        Was { visible: visible(state), confirmed: confirmed(state), ops }
    }
}

/// Something that was acknowledged.
#[derive(Clone, Debug)]
pub(crate) enum Ack {
    Write { op: WriteOp, operation: OpId, key: Option<IdempotencyKey> },
    Delivery(Inbound),
}

/// Everything that anybody was told, each with the disks' clock at that moment.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) epoch: String,
    /// The clock when the Dio was there.
    pub(crate) born: usize,
    /// What readers saw, by position.
    pub(crate) states: BTreeMap<Seq, Was>,
    /// The last position of each append, and when that began.
    pub(crate) begun: BTreeMap<Seq, usize>,
    /// The position when the Dio was closed.
    pub(crate) closed: Seq,
    pub(crate) masters: Vec<(usize, BTreeMap<String, Cells>)>,
    pub(crate) acks: Vec<(usize, Seq, Ack)>,
    pub(crate) events: BTreeMap<Seq, (usize, DioEvent)>,
    /// When rows may have been changed without the log saying to what.
    pub(crate) bulk: Vec<(usize, usize)>,
}

impl Told {
    pub(crate) fn master_at(&self, cut: usize) -> BTreeMap<String, Cells> {
        let last = self.masters.iter().rev().find(|(at, _)| *at <= cut);
        last.map(|(_, rows)| rows.clone()).unwrap_or_default()
    }
}

/// A journal that notes what the Dio and its master were before each append.
pub(crate) struct Witness {
    journal: RedbJournal,
    disk: Disk,
    master: Scripted,
    pub(crate) dio: Mutex<Option<Dio>>,
    /// The head of the log when it was opened.
    pub(crate) opened: Mutex<Option<LogState>>,
    pub(crate) told: Mutex<Told>,
}

impl Witness {
    /// What the log's claims say of a client's key.
    pub(crate) async fn claim_of(&self, key: &IdempotencyKey) -> Option<Bytes> {
        self.journal.claim(&format!("k/d/{}", key.key)).await.unwrap()
    }

    pub(crate) fn note(&self) {
        let Some(state) = self.dio.lock().as_ref().map(Dio::state) else { return };
        let mut told = self.told.lock();
        told.states.entry(state.seq()).or_insert_with(|| Was::of(&state));
        told.masters.push((self.disk.recorded(), self.master.pairs()));
    }
}

#[async_trait]
impl Journal for Witness {
    async fn open(&self, log: &str, shape: &str) -> Result<LogState, JournalError> {
        let opened = self.journal.open(log, shape).await?;
        *self.opened.lock() = Some(opened.clone());
        Ok(opened)
    }

    async fn new_epoch(&self, log: &str, _: Seq, _: &[Seq], why: &str) -> Result<LogState, JournalError> {
        panic!("{log} lost its epoch: {why}");
    }

    async fn append(&self, batches: Vec<LogBatch>) -> Vec<Result<(), AppendError>> {
        self.note();
        // All of an append or nothing: only its last position can be the head of a log.
        if let Some(last) = batches.iter().rev().find_map(|batch| batch.entries.last()) {
            self.told.lock().begun.insert(last.seq, self.disk.recorded());
        }
        self.journal.append(batches).await
    }

    async fn read(&self, log: &str, after: Seq, max_bytes: usize) -> Result<Vec<LogEntry>, JournalError> {
        self.journal.read(log, after, max_bytes).await
    }

    async fn claim(&self, key: &str) -> Result<Option<Bytes>, JournalError> {
        self.journal.claim(key).await
    }

    async fn claim_room(&self) -> Result<bool, JournalError> {
        self.journal.claim_room().await
    }

    async fn mark(&self, key: &str) -> Result<Option<Bytes>, JournalError> {
        self.journal.mark(key).await
    }

    async fn deliveries(&self, query: &DeliveryQuery) -> Result<(Vec<Delivery>, usize), JournalError> {
        self.journal.deliveries(query).await
    }

    async fn delivery(&self, id: DeliveryId) -> Result<Option<(Delivery, RawRequest)>, JournalError> {
        self.journal.delivery(id).await
    }

    fn inbox(&self) -> InboxUse {
        self.journal.inbox()
    }

    fn limit_inbox(&self, limits: InboxLimits) {
        self.journal.limit_inbox(limits);
    }

    fn outbox(&self) -> OutboxUse {
        self.journal.outbox()
    }

    fn limit_outbox(&self, limits: OutboxLimits) {
        self.journal.limit_outbox(limits);
    }

    fn heads(&self, log: &str) -> watch::Receiver<Seq> {
        self.journal.heads(log)
    }

    async fn trim(&self, log: &str, before: Seq, keep: &[Seq], now: u64) -> Result<(), JournalError> {
        self.journal.trim(log, before, keep, now).await
    }

    async fn reopen(&self) -> Result<(), JournalError> {
        self.journal.reopen().await
    }

    async fn logs(&self) -> Result<Vec<LogId>, JournalError> {
        self.journal.logs().await
    }

    async fn close(&self) {
        self.journal.close().await;
    }

    fn durable(&self) -> bool {
        true
    }
}

/// A Dio `d` on two disks, watched.
pub(crate) struct Life {
    pub(crate) lens: Lens,
    pub(crate) dio: Dio,
    pub(crate) witness: Arc<Witness>,
}

impl Life {
    /// Opens what is on the disks; what cannot be opened fails the test. With `routed`, writes go by the master.
    pub(crate) async fn begin(disks: &Disks, master: &Scripted, routed: bool) -> Life {
        let witness = Arc::new(Witness {
            journal: RedbJournal::with_backend(disks.journal.factory()).unwrap(),
            disk: disks.journal.clone(),
            master: master.clone(),
            dio: Mutex::default(),
            opened: Mutex::default(),
            told: Mutex::default(),
        });
        let mut lens = Lens::new()
            .cache_file(RedbCache::with_backend(disks.cache.factory()).unwrap())
            .journal_source(Arc::clone(&witness) as _)
            .ring(RingLimits { events: 1000, bytes: 16_000 })
            .on_refresh(|dio| relist(dio.clone()))
            .settings(|settings| {
                settings.keep_events = 80;
                settings.drain_timeout = Duration::ZERO;
            });
        if routed {
            lens = lens.on_write(|_, _| std::future::ready(Ok(())));
        }
        let lens = lens.build().unwrap();
        let dio = lens.make_dio(master.vista("d")).await.unwrap();
        *witness.dio.lock() = Some(dio.clone());
        Life { lens, dio, witness }
    }

    /// Ends it in order; gives what was told.
    pub(crate) async fn end(self) -> Told {
        self.dio.close().await;
        self.witness.told.lock().closed = self.dio.position().seq;
        self.lens.close().await;
        // An answer that was on its way may have come after the Dio had closed.
        self.witness.note();
        *self.witness.dio.lock() = None;
        std::mem::take(&mut *self.witness.told.lock())
    }
}

/// Lives a life of everything that changes a Dio, and ends in the midst of it.
pub(crate) async fn full_life(disks: &Disks, routed: bool, random: &mut Random) -> Told {
    let master = Scripted::of_pairs(true, true);
    (0..8).for_each(|at| master.set_pair(&id(at), Some((0, at))));
    let life = Life::begin(disks, &master, routed).await;
    let (dio, told) = (life.dio.clone(), &life.witness.told);
    {
        let mut told = told.lock();
        told.epoch = dio.position().epoch.to_string();
        told.born = disks.now();
        told.masters.push((0, master.pairs()));
    }
    let mut next = dio.ring().end();
    let mut number = 100;
    for step in 0..90 {
        number += 1;
        match random.below(12) {
            _ if step % 30 == 0 => refresh_all(&life, disks, &master, number).await,
            0..=5 => write_one(&life, disks, random, number).await,
            6 | 7 => deliver_one(&life, disks, &master, random, number).await,
            8 => {
                master.set_pair(&id(random.below(20) as i64), Some((number, 0)));
                dio.refresh().await.unwrap();
            }
            9 => {
                // Two at once share an append.
                let (mut one, mut two) = (Random(random.0), Random(random.0 + 1));
                tokio::join!(
                    write_one(&life, disks, &mut one, number),
                    write_one(&life, disks, &mut two, number + 1000),
                );
            }
            // The cache file is written meanwhile.
            _ => tokio::time::sleep(Duration::from_millis(700)).await,
        }
        loop {
            match dio.ring().at(next) {
                CursorRead::Item(item) => {
                    next += 1;
                    if let Some(seq) = item.seq {
                        told.lock().events.insert(seq, (disks.now(), item.event.clone()));
                    }
                }
                CursorRead::Gone { next: first, .. } => next = first,
                CursorRead::End | CursorRead::Closed => break,
            }
        }
    }
    life.end().await
}

fn id(at: i64) -> String {
    format!("r{at}")
}

async fn write_one(life: &Life, disks: &Disks, random: &mut Random, number: i64) {
    let id = id(random.below(20) as i64);
    let op = match random.below(6) {
        0 | 1 => insert(&id, (number, 0)),
        2 => replace(&id, (number, 1)),
        3 | 4 => patch(&id, "w", number),
        _ => delete(&id),
    };
    let key = (random.below(2) == 0).then(|| IdempotencyKey { key: format!("k{number}"), fingerprint: number as u128 });
    let options = WriteOptions { key: key.clone(), ..WriteOptions::default() };
    match life.dio.write(op.clone(), options).await {
        Ok(ticket) => {
            let Some(operation) = ticket.operation else { return };
            let ack = Ack::Write { op, operation, key };
            life.witness.told.lock().acks.push((disks.now(), ticket.position.seq, ack));
        }
        Err(Error::Conflict { .. } | Error::NotFound { .. } | Error::Replayed { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

async fn deliver_one(life: &Life, disks: &Disks, master: &Scripted, random: &mut Random, number: i64) {
    let id = id(random.below(20) as i64);
    master.set_pair(&id, (random.below(4) > 0).then_some((number, 2)));
    let new = master.event_row(&id);
    let event = match &new {
        Some(_) => ChangeEvent::Updated { id, new },
        None => ChangeEvent::Deleted { id },
    };
    let inbound = Inbound { delivery: Some(format!("d{number}")), ..Inbound::from(event) };
    life.dio.handle_event(inbound.clone()).await.unwrap();
    let seq = life.dio.position().seq;
    life.witness.told.lock().acks.push((disks.now(), seq, Ack::Delivery(inbound)));
}

/// A refresh with more news than are told one by one.
async fn refresh_all(life: &Life, disks: &Disks, master: &Scripted, number: i64) {
    (0..48).for_each(|at| master.set_pair(&format!("r{at}"), Some((number, at))));
    let begun = disks.now();
    life.dio.refresh().await.unwrap();
    life.witness.told.lock().bulk.push((begun, disks.now()));
}
