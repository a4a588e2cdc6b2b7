//! A disk in memory that records what is done to it, fails on demand and loses power, for testing.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use redb::StorageBackend;

use super::BackendFactory;

const SECTOR: usize = 512;

/// A disk that several backends, one after the other, can be on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    live: Vec<u8>,
    before: Vec<u8>,
    trace: Vec<Event>,
    operations: usize,
    failing: Failing,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Failing {
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
    pub(crate) fn new(content: Vec<u8>) -> Disk {
        Disk(Arc::new(Mutex::new(State { live: content.clone(), before: content, ..State::default() })))
    }

    pub(crate) fn factory(&self) -> BackendFactory {
        let disk = self.clone();
        Arc::new(move || Ok(Box::new(disk.clone())))
    }

    /// Lets operations fail, counting all that have been.
    pub(crate) fn set_failing(&self, failing: Failing) {
        self.0.lock().failing = failing;
    }

    /// How many operations there have been.
    pub(crate) fn operations(&self) -> usize {
        self.0.lock().operations
    }

    /// How many changes and syncs have been recorded.
    pub(crate) fn recorded(&self) -> usize {
        self.0.lock().trace.len()
    }

    pub(crate) fn syncs(&self) -> usize {
        self.0.lock().trace.iter().filter(|event| matches!(event, Event::Sync)).count()
    }

    /// What is on the disk if the power fails after the first `cut` recorded events: everything that was synced, and of the
    /// rest some sectors and lengths.
    pub(crate) fn image(&self, cut: usize, random: &mut Random) -> Disk {
        let state = self.0.lock();
        let trace = &state.trace[..cut];
        let synced = trace.iter().rposition(|event| matches!(event, Event::Sync)).map_or(0, |at| at + 1);
        let mut image = state.before.clone();
        trace[..synced].iter().for_each(|event| event.apply(&mut image));
        let kept = random.below(5);
        for event in &trace[synced..] {
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

    fn change(&mut self, event: Event) -> io::Result<()> {
        self.operate()?;
        event.apply(&mut self.live);
        self.trace.push(event);
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        let mut state = self.0.lock();
        state.operate()?;
        Ok(state.live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.0.lock();
        state.operate()?;
        let start = offset as usize;
        let stored = state.live.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(stored);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().change(Event::SetLen(len as usize))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.lock().change(Event::Sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.lock().change(Event::Write(offset as usize, data.to_vec()))
    }
}

/// splitmix64.
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: usize) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % limit as u64
    }
}

/// How many power cuts a test simulates.
pub(crate) fn images() -> usize {
    std::env::var("DIORAMA_IMAGES").ok().and_then(|count| count.parse().ok()).unwrap_or(300)
}

/// Flips bits of a file's bytes or cuts them off, somewhere.
pub(crate) fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    if random.below(4) == 0 {
        bytes.truncate(random.below(bytes.len()) as usize);
        return;
    }
    // Most of a fresh file is free space; damage goes where something is.
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
