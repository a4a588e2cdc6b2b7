//! Power cuts at any moment, also while a start recovers from one: every image is opened by the whole Dio.
//!
//! `DIORAMA_IMAGES=50000` cuts more often than the test command does, `DIORAMA_IMAGES_SEED=N` elsewhere. A half of the images is
//! opened here, the others by the journal and the cache alone.

pub(crate) mod life;

use std::collections::BTreeMap;
use std::time::Duration;

use diorama::cache::RedbCache;
use diorama::journal::Seq;
use diorama::{DioEvent, Error};
use diorama_core::dio::{CursorRead, OperationState, Reconciled, WriteOptions};
use diorama_core::journal::disk::{fate, images};

use super::harness::pairs::*;
use life::{Ack, Disks, Life, Told, Was, full_life};

/// Runs `life` on a clock that jumps to whatever is waited for.
fn run<T>(life: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(life)
}

/// What a recovered life showed.
struct Recovered {
    /// The position that its log had reached when it was opened.
    head: Seq,
    /// Whether it told subscribers to read again.
    doubt: bool,
    told: Told,
}

/// What is known of the lives before a cut.
struct Before<'a> {
    told: &'a Told,
    cut: usize,
    /// A life between that one and the cut, and the cut by its clock.
    recovery: Option<(&'a Recovered, usize)>,
}

impl Before<'_> {
    /// What was acknowledged before the cut.
    fn acks(&self) -> impl Iterator<Item = (Seq, &Ack)> {
        let until = |told: &'_ Told, cut: usize| told.acks.iter().take_while(move |(at, ..)| *at <= cut).count();
        let first = &self.told.acks[..until(self.told, self.cut)];
        let second = self.recovery.map_or(&[][..], |(life, cut)| &life.told.acks[..until(&life.told, cut)]);
        first.iter().chain(second).map(|(_, seq, ack)| (*seq, ack))
    }

    /// What the Dio was at a position that the log may have reached at the cut; `None` for what nobody has seen: what a recovery
    /// did before anybody had its Dio, and an append that a close overtook.
    fn was(&self, seq: Seq) -> Option<&Was> {
        let second = self.recovery.filter(|(life, _)| seq > life.head);
        let (told, cut) = second.map_or((self.told, self.cut), |(life, cut)| (&life.told, cut));
        if seq > 0 {
            let begun = told.begun.get(&seq).unwrap_or_else(|| panic!("half of an append came through: {seq}"));
            assert!(*begun <= cut, "position {seq} was not even begun");
        }
        let was = told.states.get(&seq);
        assert!(was.is_some() || second.is_some() || seq > told.closed, "nobody has seen position {seq}");
        was
    }

    /// Whether rows may be in doubt.
    fn may_doubt(&self) -> bool {
        let bulk = self.told.bulk.iter().any(|(begun, done)| (*begun..=*done).contains(&self.cut));
        bulk || self.recovery.is_some_and(|(life, _)| life.doubt)
    }

    /// An event that was told before the cut, or may have been.
    fn event(&self, seq: Seq) -> Option<&DioEvent> {
        let second = self.recovery.filter(|(life, _)| seq > life.head);
        let told = second.map_or(self.told, |(life, _)| &life.told);
        told.events.get(&seq).map(|(_, event)| event)
    }
}

/// Opens an image and holds it against what was told.
async fn check(image: &Disks, before: &Before<'_>, master: &Scripted, routed: bool) -> Recovered {
    master.by_hand(true);
    let life = Life::begin(image, master, routed).await;
    let dio = &life.dio;
    let opened = life.witness.opened.lock().clone().unwrap();
    let head = opened.head;
    assert_eq!(opened.epoch, before.told.epoch, "a power cut does not end an epoch");
    let floor = before.acks().map(|(seq, _)| seq).max().unwrap_or(0);
    assert!(head >= floor, "acknowledged up to {floor}, found {head}");
    let state = dio.state();
    let doubt = state.seq() > head;
    assert!(!doubt || before.may_doubt(), "nobody has to read again");
    if let Some(was) = before.was(head) {
        let is = Was::of(&state);
        assert_eq!(is.ops, was.ops, "operations at {head}");
        if !doubt {
            assert_eq!(is.visible, was.visible, "what readers see at {head}");
            assert_eq!(is.confirmed, was.confirmed, "what the master confirmed at {head}");
        }
    }
    check_events(&life, before, head);
    check_repetitions(&life, before).await;
    // Positions go on behind everything that anybody was told.
    let key = format!("after {head}");
    let operation = dio.write(replace(&key, (1, 1)), WriteOptions::default()).await.unwrap();
    assert!(operation.position.seq > head);
    let ack = Ack::Write { op: replace(&key, (1, 1)), operation: operation.operation.unwrap(), key: None };
    life.witness.told.lock().acks.push((image.now(), operation.position.seq, ack));
    let recovered = Recovered { head, doubt, told: life.end().await };
    check_cache(image, &recovered).await;
    recovered
}

/// The ring is filled again with what was told.
fn check_events(life: &Life, before: &Before<'_>, head: Seq) {
    let mut found = BTreeMap::new();
    for at in 0..life.dio.ring().end() {
        if let CursorRead::Item(item) = life.dio.ring().at(at)
            && let Some(seq) = item.seq.filter(|seq| *seq <= head)
        {
            found.insert(seq, item.event.clone());
        }
    }
    for (seq, event) in &found {
        if let Some(told) = before.event(*seq) {
            assert_eq!(event, told, "what position {seq} told");
        }
    }
    let told = before.told.events.iter().filter(|(seq, (at, _))| **seq > life.dio.ring().floor() && *at <= before.cut);
    for (seq, (_, event)) in told {
        assert_eq!(found.get(seq), Some(event), "position {seq} was told and taken back");
    }
}

/// Keys and deliveries that were acknowledged are known; those nobody heard of are known exactly if they are in the log.
async fn check_repetitions(life: &Life, before: &Before<'_>) {
    let acked = before.acks().count();
    let next = before.told.acks.get(acked).filter(|_| before.recovery.is_none()).map(|(_, _, ack)| (false, ack));
    let known: Vec<_> = before.acks().map(|(_, ack)| (true, ack)).collect();
    let some = known.iter().rev().take(6).chain(known.iter().take(2)).copied();
    for (acked, ack) in some.chain(next) {
        match ack {
            Ack::Write { op, operation, key: Some(key) } => {
                let there = acked || life.dio.operation(*operation).is_some();
                let options = WriteOptions { key: Some(key.clone()), ..WriteOptions::default() };
                if there {
                    let again = life.dio.write(op.clone(), options).await;
                    let Err(Error::Replayed { operation: known }) = &again else { panic!("{ack:?}: {again:?}") };
                    assert_eq!(*known, operation.to_string());
                } else {
                    let free = life.witness.claim_of(key).await.is_none();
                    assert!(free, "the key of a write that is not there is taken: {ack:?}");
                }
            }
            Ack::Delivery(inbound) if acked => {
                let again = life.dio.handle_event(inbound.clone()).await.unwrap();
                assert_eq!(again, Reconciled::Duplicate, "{inbound:?}");
            }
            Ack::Write { .. } | Ack::Delivery(_) => {}
        }
    }
}

/// The cache file has come as far as the journal.
async fn check_cache(image: &Disks, recovered: &Recovered) {
    let cache = RedbCache::with_backend(image.cache.factory()).unwrap();
    let (rows, watermark) = stored_in_file(&cache).await;
    assert!(watermark >= recovered.told.closed, "{watermark} of {}", recovered.told.closed);
    assert_eq!(rows, recovered.told.states[&watermark].confirmed, "the cache file at {watermark}");
    cache.close().await;
}

/// The master comes back: everything accepted is delivered, and a refresh finds nothing else.
async fn converge(image: &Disks, before: &Before<'_>, master: &Scripted) {
    master.release();
    let life = Life::begin(image, master, false).await;
    eventually("delivery", || life.dio.state().backlog().0 == 0).await;
    life.dio.refresh().await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(visible(&life.dio.state()), master.pairs());
    for (_, ack) in before.acks() {
        let Ack::Write { operation, .. } = ack else { continue };
        // Ended ones may have been forgotten with their events.
        let state = life.dio.operation(*operation).map(|operation| operation.state);
        assert!(matches!(state, None | Some(OperationState::Applied | OperationState::Failed)), "{ack:?}: {state:?}");
    }
    life.end().await;
}

/// A master as it was.
fn master_of(rows: &BTreeMap<String, Cells>) -> Scripted {
    let master = Scripted::of_pairs(true, true);
    rows.iter().for_each(|(id, cells)| master.set_pair(id, Some(*cells)));
    master
}

/// Opens `count` images of one life, half of them cut once more while they are recovered.
fn cut_power(routed: bool) {
    let count = images() / 4;
    let mut random = fate(11);
    let disks = Disks::empty();
    let told = run(full_life(&disks, routed, &mut random));
    let end = disks.now();
    let (mut opened, mut doubts, mut round) = (0, 0, 0);
    while opened < count {
        round += 1;
        let cut = told.born + random.below(end + 1 - told.born) as usize;
        let image = disks.image(cut, &mut random);
        let before = Before { told: &told, cut, recovery: None };
        run(async {
            let master = master_of(&told.master_at(cut));
            let recovered = check(&image, &before, &master, routed).await;
            opened += 1;
            doubts += u64::from(recovered.doubt);
            let second_cut = random.below(image.now() + 1) as usize;
            let second = image.image(second_cut, &mut random);
            let before = Before { recovery: Some((&recovered, second_cut)), ..before };
            check(&second, &before, &master, routed).await;
            opened += 1;
            if round % 8 == 0 && !routed {
                converge(&second, &before, &master).await;
            }
        });
    }
    println!("{opened} images of {end} operations on two disks, {doubts} of them in doubt");
    assert!(doubts > 0 || count < 100, "some cuts meet a bulk change");
}

#[test]
fn a_power_cut_and_one_in_the_recovery_lose_nothing_that_was_told() {
    cut_power(false);
}

#[test]
fn a_power_cut_and_one_in_the_recovery_lose_no_routed_write() {
    cut_power(true);
}
