//! What can still be read of a damaged journal. The file itself is only ever read.
//!
//! Two ways, each for what the other cannot see: the database is opened on a copy in memory, where redb may repair it; and the
//! bytes are searched for entries. An entry is known by its checksum, which covers its log and its position too.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, TryLockError};
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use redb::backends::InMemoryBackend;
use redb::{ReadableDatabase as _, StorageBackend};
use xxhash_rust::xxh3::xxh3_64;

use super::redb::log::{Log, decode_log};
use super::redb::tables::{ENTRIES, LOGS_END, META, OPTIONS, journal_error, unseal_entry};
use super::{Delivery, JournalError, RawRequest, Seq, redb::inbox as redb_inbox};
use crate::redb_file::{BackendFactory, Fault, Options, RedbFile, SEAL, SEAL_VERSION, no_panic, salt_of};

/// What was read of one log.
#[derive(Clone, Debug, Default)]
pub struct SalvagedLog {
    /// Its name; a made-up one if that is lost.
    pub log: String,
    /// The entries that were found.
    pub entries: BTreeMap<Seq, Bytes>,
    /// From where on entries should be there without gaps, if that is known.
    pub oldest: Option<Seq>,
    /// The newest position that is known to have been stored.
    pub head: Seq,
    /// Whether the file is sound as far as this log goes: entries up to its head are all there, and no older ones among them.
    pub whole: bool,
}

impl SalvagedLog {
    /// Positions that should be there and are not, as first and last of each gap. What came after the newest entry that was
    /// found is not known.
    pub fn missing(&self) -> Vec<(Seq, Seq)> {
        let Some(oldest) = self.oldest.or_else(|| self.entries.keys().next().copied()) else { return Vec::new() };
        let (mut expected, mut missing) = (oldest, Vec::new());
        for seq in self.entries.range(oldest..).map(|(seq, _)| *seq) {
            if seq > expected {
                missing.push((expected, seq - 1));
            }
            expected = seq + 1;
        }
        if expected <= self.head {
            missing.push((expected, self.head));
        }
        missing
    }
}

/// An entry that bytes begin with.
#[derive(Clone, Copy, Debug)]
pub struct EntryExtent {
    /// Its length.
    pub length: usize,
    /// Its position.
    pub seq: Seq,
    /// Whether values were erased from it. Of two entries of one position the erased one is the newer.
    pub erased: bool,
}

/// Reads what can be read of the journal at `path`, log by log. `measure` knows an entry that bytes begin with, if they do.
///
/// # Errors
/// [`JournalError::Locked`] if somebody has it open, [`JournalError::Io`] if the file cannot be read at all. Damage is no error.
pub fn salvage(path: &Path, measure: impl Fn(&[u8]) -> Option<EntryExtent>) -> Result<Vec<SalvagedLog>, JournalError> {
    let bytes = read(path).map_err(|fault| journal_error(&path.display().to_string(), fault))?;
    let mut table = SalvageScan::default();
    // Verified first; what does not pass is read as far as it goes.
    let whole = table.read_table(&bytes, true).is_ok();
    if !whole {
        table = SalvageScan::default();
        // Whatever stopped it, the search goes on from what was read before.
        let _ = table.read_table(&bytes, false);
    }
    let carved = SalvageScan { logs: carve_logs(&bytes), entries: carve(&bytes, measure) };
    Ok(merge(table, carved, whole))
}

/// Deliveries that nobody has seen to (received, undecodable, failed), oldest first, each with what was sent if that is there.
/// What redb cannot read any more is not found.
///
/// # Errors
/// As [`salvage`].
pub fn salvage_deliveries(path: &Path) -> Result<Vec<(Delivery, Option<RawRequest>)>, JournalError> {
    let bytes = read(path).map_err(|fault| journal_error(&path.display().to_string(), fault))?;
    let opened = open_copy(&bytes, true).or_else(|_| open_copy(&bytes, false));
    let Ok(file) = opened else { return Ok(Vec::new()) };
    let mut found = redb_inbox::rescue(&file);
    drop_quietly(file);
    found.retain(|(delivery, _)| !delivery.state.is_fine());
    Ok(found)
}

/// A copy of the file in memory, where redb may repair it.
fn open_copy(bytes: &Arc<Vec<u8>>, verified: bool) -> Result<RedbFile, Fault> {
    let bytes = Arc::clone(bytes);
    let copy: BackendFactory = Arc::new(move || {
        let copy = InMemoryBackend::new();
        copy.set_len(bytes.len() as u64).and_then(|()| copy.write(0, &bytes)).map_err(std::io::Error::other)?;
        Ok(Box::new(copy))
    });
    RedbFile::with_backend(copy, Options { check_integrity: verified, ..OPTIONS })
}

/// The file's bytes, under a lock that keeps writers away meanwhile.
fn read(path: &Path) -> Result<Arc<Vec<u8>>, Fault> {
    let mut file = File::open(path)?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => return Err(Fault::Locked),
        // A file system without locks has nobody who holds one.
        Err(TryLockError::Error(_)) | Ok(()) => {}
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(Arc::new(bytes))
}

/// Logs by number, and entries.
#[derive(Default)]
struct SalvageScan {
    logs: HashMap<u32, (String, Log)>,
    entries: BTreeMap<(u32, Seq), Bytes>,
}

impl SalvageScan {
    /// Reads a copy as a database. What was read before a fault is kept.
    fn read_table(&mut self, bytes: &Arc<Vec<u8>>, verified: bool) -> Result<(), Fault> {
        let file = open_copy(bytes, verified)?;
        let logs = file.with(|database| {
            for stored in database.begin_read()?.open_table(META)?.range("log/"..LOGS_END)? {
                let (key, value) = stored?;
                let log = decode_log(key.value(), value.value())?;
                self.logs.insert(log.id, (key.value()["log/".len()..].to_string(), log));
            }
            Ok(())
        });
        // Damage in the middle leaves what lies before and what lies behind.
        let forward = self.read_entries(&file, false);
        let read = forward.or_else(|fault| self.read_entries(&file, true).and(Err(fault)));
        drop_quietly(file);
        logs.and(read)
    }

    fn read_entries(&mut self, file: &RedbFile, backward: bool) -> Result<(), Fault> {
        file.with(|database| {
            let table = match database.begin_read()?.open_table(ENTRIES) {
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(()),
                table => table?,
            };
            let mut range = table.range((0, 0)..)?;
            let mut damaged = None;
            while let Some(stored) = if backward { range.next_back() } else { range.next() } {
                let (key, value) = stored?;
                let (log, seq) = key.value();
                match unseal_entry(log, seq, value.value()) {
                    Ok(bytes) => drop(self.entries.insert((log, seq), Bytes::copy_from_slice(bytes))),
                    Err(fault) => damaged = Some(fault),
                }
            }
            damaged.map_or(Ok(()), Err)
        })
    }
}

/// Closing a damaged database may panic like any other use of it.
fn drop_quietly(file: RedbFile) {
    let _ = no_panic(|| {
        drop(file);
        Ok(())
    });
}

/// Entries anywhere in `bytes`. A page that was freed may hold some that had been dropped, or were never committed.
fn carve(bytes: &[u8], measure: impl Fn(&[u8]) -> Option<EntryExtent>) -> BTreeMap<(u32, Seq), Bytes> {
    let mut found: BTreeMap<(u32, Seq), (bool, Bytes)> = BTreeMap::new();
    for at in memchr::memchr_iter(SEAL_VERSION, bytes) {
        let Some(EntryExtent { length, seq, erased }) = bytes.get(at + SEAL..).and_then(&measure) else { continue };
        let Some(sealed) = bytes.get(at..at + SEAL + length) else { continue };
        // A salt is the log's number, forty bits up, with the position.
        let Some(log) = salt_of(sealed).map(|salt| salt ^ seq).filter(|log| log.trailing_zeros() >= 40) else {
            continue;
        };
        let Ok(log) = u32::try_from(log >> 40) else { continue };
        let known = found.get(&(log, seq)).is_some_and(|(known, _)| *known && !erased);
        if !known {
            found.insert((log, seq), (erased, Bytes::copy_from_slice(&sealed[SEAL..])));
        }
    }
    found.into_iter().map(|(at, (_, bytes))| (at, bytes)).collect()
}

/// Bytes of a log's name, at most, that are tried.
const LONGEST_NAME: usize = 128;

/// Records of logs anywhere in `bytes`: a record is known by its checksum, which covers its key.
fn carve_logs(bytes: &[u8]) -> HashMap<u32, (String, Log)> {
    let mut keys: HashMap<u64, String> = HashMap::new();
    for at in memchr::memmem::find_iter(bytes, b"log/") {
        for end in at + 5..=(at + 4 + LONGEST_NAME).min(bytes.len()) {
            let Ok(key) = std::str::from_utf8(&bytes[at..end]) else { continue };
            keys.insert(xxh3_64(key.as_bytes()), key["log/".len()..].to_string());
        }
    }
    let mut logs: HashMap<u32, (String, Log)> = HashMap::new();
    for at in memchr::memmem::find_iter(bytes, b"{\"id\":").filter(|at| *at >= SEAL) {
        let mut stream = serde_json::Deserializer::from_slice(&bytes[at..]).into_iter::<Log>();
        let Some(Ok(log)) = stream.next() else { continue };
        let sealed = &bytes[at - SEAL..at + stream.byte_offset()];
        let Some(name) = salt_of(sealed).and_then(|salt| keys.get(&salt)) else { continue };
        let known = logs.get(&log.id).is_some_and(|(_, known)| (known.head, known.oldest) > (log.head, log.oldest));
        if !known {
            logs.insert(log.id, (name.clone(), log));
        }
    }
    logs
}

fn merge(table: SalvageScan, carved: SalvageScan, whole: bool) -> Vec<SalvagedLog> {
    let mut logs: BTreeMap<u32, SalvagedLog> = BTreeMap::new();
    for (id, (name, log)) in carved.logs.into_iter().filter(|_| !whole).chain(table.logs) {
        let Log { head, oldest, .. } = log;
        logs.insert(id, SalvagedLog { log: name, oldest: Some(oldest), head, ..SalvagedLog::default() });
    }
    for ((id, seq), bytes) in table.entries {
        let log = logs.entry(id).or_default();
        log.head = log.head.max(seq);
        log.entries.insert(seq, bytes);
    }
    logs.values_mut().for_each(|log| log.whole = whole);
    for ((id, seq), bytes) in carved.entries {
        let log = logs.entry(id).or_default();
        // Of a sound log, what is not in it was dropped; only a last append that was rolled back may lie behind its head.
        if log.whole && seq <= log.head {
            continue;
        }
        log.entries.entry(seq).or_insert(bytes);
        if !log.whole {
            log.head = log.head.max(seq);
        }
    }
    for (id, log) in logs.iter_mut().filter(|(_, log)| log.log.is_empty()) {
        log.log = format!("log-{id}");
    }
    logs.into_values().collect()
}
