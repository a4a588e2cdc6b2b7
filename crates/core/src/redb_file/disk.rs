//! In-memory disk for tests that records operations, fails on demand and simulates power loss.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use redb::StorageBackend;

use super::BackendFactory;

const SECTOR: usize = 512;
const PAGE: usize = 4096;

/// A disk that several backends can use one after the other.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    state: Arc<Mutex<State>>,
    /// Number of events recorded on this disk and those beside it.
    clock: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct State {
    live: Vec<u8>,
    before: Vec<u8>,
    /// Recorded events with their clock values.
    trace: Vec<(usize, Event)>,
    operations: usize,
    failing: Failing,
}

/// Operations of a disk that fail. Operations are numbered from 0, reads included.
#[derive(Clone, Copy, Debug, Default)]
pub enum Failing {
    /// None.
    #[default]
    Never,
    /// Only this operation.
    Once(usize, io::ErrorKind),
    /// This operation and all after it, until healed.
    From(usize, io::ErrorKind),
}

#[derive(Debug)]
enum Event {
    Write(usize, Vec<u8>),
    SetLen(usize),
    Sync,
}

impl Disk {
    /// Creates a disk on which `content` is already synced.
    pub fn new(content: Vec<u8>) -> Disk {
        let state = State { live: content.clone(), before: content, ..State::default() };
        Disk { state: Arc::new(Mutex::new(state)), clock: Arc::default() }
    }

    /// Puts this disk on the power supply of `other`: the events of both disks have one order.
    #[must_use]
    pub fn beside(self, other: &Disk) -> Disk {
        Disk { clock: Arc::clone(&other.clock), ..self }
    }

    /// Returns a factory for the storage of a file on this disk.
    pub fn factory(&self) -> BackendFactory {
        let disk = self.clone();
        Arc::new(move || Ok(Box::new(disk.clone())))
    }

    /// Makes operations fail; earlier operations count for the numbering.
    pub fn set_failing(&self, failing: Failing) {
        self.state.lock().failing = failing;
    }

    /// Number of operations so far.
    pub fn operations(&self) -> usize {
        self.state.lock().operations
    }

    /// Number of changes and syncs recorded on this disk and the disks beside it.
    pub fn recorded(&self) -> usize {
        self.clock.load(Ordering::SeqCst)
    }

    /// Number of syncs recorded on this disk.
    pub fn syncs(&self) -> usize {
        self.state.lock().trace.iter().filter(|(_, event)| matches!(event, Event::Sync)).count()
    }

    /// Content of the disk if the power fails after the first `cut` recorded events: everything that was synced, and some
    /// sectors and lengths of the rest.
    pub fn image(&self, cut: usize, random: &mut Random) -> Disk {
        let state = self.state.lock();
        let trace = &state.trace[..state.trace.partition_point(|(at, _)| *at < cut)];
        let synced = trace.iter().rposition(|(_, event)| matches!(event, Event::Sync)).map_or(0, |at| at + 1);
        let mut image = state.before.clone();
        trace[..synced].iter().for_each(|(_, event)| event.apply(&mut image));
        let kept = random.below(5);
        for (_, event) in &trace[synced..] {
            event.apply_torn(&mut image, kept, random);
        }
        Disk::new(image)
    }
}

impl Event {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Event::Write(offset, data) => {
                image.resize(image.len().max(offset + data.len()), 0);
                image[*offset..offset + data.len()].copy_from_slice(data);
            }
            Event::SetLen(len) => image.resize(*len, 0),
            Event::Sync => {}
        }
    }

    /// Applies about `kept` quarters of the event.
    fn apply_torn(&self, image: &mut Vec<u8>, kept: u64, random: &mut Random) {
        match self {
            Event::Write(offset, data) => {
                let mut at = 0;
                while at < data.len() {
                    let sector = (SECTOR - (offset + at) % SECTOR).min(data.len() - at);
                    let start = offset + at;
                    if random.below(4) < kept && start + sector <= image.len() {
                        image[start..start + sector].copy_from_slice(&data[at..at + sector]);
                    }
                    at += sector;
                }
            }
            Event::SetLen(_) if random.below(4) < kept => self.apply(image),
            Event::SetLen(_) | Event::Sync => {}
        }
    }
}

impl State {
    fn operate(&mut self) -> io::Result<()> {
        let now = self.operations;
        self.operations += 1;
        match self.failing {
            Failing::Once(at, kind) if at == now => Err(kind.into()),
            Failing::From(at, kind) if at <= now => Err(kind.into()),
            _ => Ok(()),
        }
    }

    fn change(&mut self, event: Event, clock: &AtomicUsize) -> io::Result<()> {
        self.operate()?;
        event.apply(&mut self.live);
        self.trace.push((clock.fetch_add(1, Ordering::SeqCst), event));
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        let mut state = self.state.lock();
        state.operate()?;
        Ok(state.live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        state.operate()?;
        let start = offset as usize;
        let stored = state.live.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(stored);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.state.lock().change(Event::SetLen(len as usize), &self.clock)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.state.lock().change(Event::Sync, &self.clock)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.state.lock().change(Event::Write(offset as usize, data.to_vec()), &self.clock)
    }
}

/// splitmix64.
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    /// Returns a random number below `limit`.
    pub fn below(&mut self, limit: usize) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % limit as u64
    }
}

/// Random generator for the position of power cuts; the same every time unless `DIORAMA_IMAGES_SEED` is set.
pub fn fate(own: u64) -> Random {
    let seed: u64 = std::env::var("DIORAMA_IMAGES_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_default();
    Random(own.wrapping_add(seed << 8))
}

/// Number of power-cut images that all tests together open: half by the whole Dio, 2 in 5 by the journal alone, the rest by the
/// cache alone.
pub fn images() -> usize {
    std::env::var("DIORAMA_IMAGES").ok().and_then(|count| count.parse().ok()).unwrap_or(2000)
}

/// Damages a file's bytes: flips bits, cuts the end off, zeroes a page, swaps two pages, or appends garbage.
pub fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    let page = |random: &mut Random, bytes: &[u8]| random.below(bytes.len() / PAGE) as usize * PAGE;
    match random.below(8) {
        0 => return bytes.truncate(random.below(bytes.len()) as usize),
        1 => {
            let at = page(random, bytes);
            return bytes[at..at + PAGE].fill(0);
        }
        2 => {
            let (one, other) = (page(random, bytes), page(random, bytes));
            let (first, second) = (bytes[one..one + PAGE].to_vec(), bytes[other..other + PAGE].to_vec());
            bytes[one..one + PAGE].copy_from_slice(&second);
            return bytes[other..other + PAGE].copy_from_slice(&first);
        }
        3 => {
            let kept = random.below(bytes.len()) as usize;
            let garbage = random.below(3 * PAGE) as usize;
            bytes.truncate(kept);
            return bytes.extend((0..garbage).map(|_| random.below(256) as u8));
        }
        _ => {}
    }
    // Most of a fresh file is free space; flip bits in used sectors.
    let used: Vec<usize> = bytes
        .chunks(SECTOR)
        .enumerate()
        .filter(|(_, sector)| sector.iter().any(|byte| *byte != 0))
        .map(|(at, _)| at)
        .collect();
    for _ in 0..=random.below(8) {
        let sector = used[random.below(used.len()) as usize];
        let at = (sector * SECTOR + random.below(SECTOR) as usize).min(bytes.len() - 1);
        bytes[at] ^= 1 << random.below(8);
    }
}
