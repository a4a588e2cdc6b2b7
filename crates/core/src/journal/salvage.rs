//! Salvage of the readable parts of a damaged journal. The file itself is only read.
//!
//! Two methods complement each other: the database is opened on a copy in memory, where redb may repair it, and the bytes are
//! searched for entries. An entry is recognized by its checksum, which also covers its log and position.

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
use super::redb::{audit as redb_audit, inbox as redb_inbox};
use super::{AuditEntry, Delivery, JournalError, RawRequest, Seq};
use crate::redb_file::{BackendFactory, Fault, Options, RedbFile, SEAL, SEAL_VERSION, no_panic, salt_of};

/// Salvaged content of one log.
#[derive(Clone, Debug, Default)]
pub struct SalvagedLog {
    /// Name of the log; a generated one if the name is lost.
    pub log: String,
    /// Salvaged entries by position.
    pub entries: BTreeMap<Seq, Bytes>,
    /// Position from which entries should exist without gaps, if known.
    pub oldest: Option<Seq>,
    /// Newest position that is known to have been stored.
    pub head: Seq,
    /// True if the file is intact for this log: all entries up to its head are present, and no older ones among them.
    pub whole: bool,
}

impl SalvagedLog {
    /// Returns the missing positions as first and last of each gap. Entries after the newest salvaged one are unknown.
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

/// Length and position of an entry at the start of some bytes.
#[derive(Clone, Copy, Debug)]
pub struct EntryExtent {
    /// Length in bytes.
    pub length: usize,
    /// Position of the entry.
    pub seq: Seq,
    /// True if values were erased from it. Of two entries at one position, the erased one is newer.
    pub erased: bool,
}

/// Reads all salvageable content of the journal at `path`, log by log. `measure` recognizes an entry at the start of bytes.
///
/// # Errors
/// [`JournalError::Locked`] if the file is open elsewhere, [`JournalError::Io`] if it cannot be read. Damage is not an error.
pub fn salvage(path: &Path, measure: impl Fn(&[u8]) -> Option<EntryExtent>) -> Result<Vec<SalvagedLog>, JournalError> {
    let bytes = read(path).map_err(|fault| journal_error(&path.display().to_string(), fault))?;
    let mut table = SalvageScan::default();
    // First read with verification; if that fails, read as much as possible without.
    let whole = table.read_table(&bytes, true).is_ok();
    if !whole {
        table = SalvageScan::default();
        // After any fault, continue with the entries read before it.
        let _ = table.read_table(&bytes, false);
    }
    let carved = SalvageScan { logs: carve_logs(&bytes), entries: carve(&bytes, measure) };
    Ok(merge(table, carved, whole))
}

/// Reads deliveries that need attention (received, undecodable, failed), oldest first, each with its raw request if that is
/// readable. Deliveries that redb cannot read are left out.
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

/// Reads the audit log, oldest entry first. Entries that redb cannot read are left out.
///
/// # Errors
/// As [`salvage`].
pub fn salvage_audit(path: &Path) -> Result<Vec<AuditEntry>, JournalError> {
    let bytes = read(path).map_err(|fault| journal_error(&path.display().to_string(), fault))?;
    let opened = open_copy(&bytes, true).or_else(|_| open_copy(&bytes, false));
    let Ok(file) = opened else { return Ok(Vec::new()) };
    let found = redb_audit::rescue(&file);
    drop_quietly(file);
    Ok(found)
}

/// Opens a copy of the file in memory, where redb may repair it.
fn open_copy(bytes: &Arc<Vec<u8>>, verified: bool) -> Result<RedbFile, Fault> {
    let bytes = Arc::clone(bytes);
    let copy: BackendFactory = Arc::new(move || {
        let copy = InMemoryBackend::new();
        copy.set_len(bytes.len() as u64).and_then(|()| copy.write(0, &bytes)).map_err(std::io::Error::other)?;
        Ok(Box::new(copy))
    });
    RedbFile::with_backend(copy, Options { check_integrity: verified, ..OPTIONS })
}

/// Reads the file's bytes under a lock that excludes writers.
fn read(path: &Path) -> Result<Arc<Vec<u8>>, Fault> {
    let mut file = File::open(path)?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => return Err(Fault::Locked),
        // On a file system without locks, no other process can hold one.
        Err(TryLockError::Error(_)) | Ok(()) => {}
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(Arc::new(bytes))
}

/// Logs by number, and entries by log number and position.
#[derive(Default)]
struct SalvageScan {
    logs: HashMap<u32, (String, Log)>,
    entries: BTreeMap<(u32, Seq), Bytes>,
}

impl SalvageScan {
    /// Reads a copy as a database. Entries read before a fault are kept.
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
        // After damage in the middle, the entries behind it can still be read backwards.
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

/// Closes a database. Closing a damaged one may panic like any other use of it.
fn drop_quietly(file: RedbFile) {
    let _ = no_panic(|| {
        drop(file);
        Ok(())
    });
}

/// Finds entries anywhere in `bytes`. Freed pages may hold entries that were dropped or never committed.
fn carve(bytes: &[u8], measure: impl Fn(&[u8]) -> Option<EntryExtent>) -> BTreeMap<(u32, Seq), Bytes> {
    let mut found: BTreeMap<(u32, Seq), (bool, Bytes)> = BTreeMap::new();
    for at in memchr::memchr_iter(SEAL_VERSION, bytes) {
        let Some(EntryExtent { length, seq, erased }) = bytes.get(at + SEAL..).and_then(&measure) else { continue };
        let Some(sealed) = bytes.get(at..at + SEAL + length) else { continue };
        // A salt is the log's number shifted left by 40 bits, XOR the position.
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

/// Maximum length in bytes of the log names that are tried.
const MAX_NAME: usize = 128;

/// Finds log records anywhere in `bytes`. A record is recognized by its checksum, which covers its key.
fn carve_logs(bytes: &[u8]) -> HashMap<u32, (String, Log)> {
    let mut keys: HashMap<u64, String> = HashMap::new();
    for at in memchr::memmem::find_iter(bytes, b"log/") {
        for end in at + 5..=(at + 4 + MAX_NAME).min(bytes.len()) {
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
        // In an intact log, other entries up to its head were dropped. Entries after it are of a last append that was rolled
        // back.
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
