//! A log as the file has it: its epoch, its head and its identity.

use redb::WriteTransaction;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::tables::META;
use crate::journal::head::LogHead;
use crate::journal::{LogState, Seq, new_epoch};
use crate::redb_file::{Fault, seal, unseal};

/// A log as stored, except that the stored `head` may lag behind the last entry.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::journal) struct Log {
    pub(in crate::journal) id: u32,
    pub(super) epoch: String,
    pub(super) shape: String,
    pub(super) why: String,
    pub(in crate::journal) head: Seq,
    pub(in crate::journal) oldest: Seq,
    /// Where the epoch began; files of 0.1.0 lack it, and carried nothing over.
    #[serde(default)]
    pub(super) begun: Seq,
    /// Random bits that identify the log over all its epochs; 0 until its head was written for the first time.
    #[serde(default)]
    pub(super) origin: u64,
}

impl Log {
    /// The log as its head has it.
    pub(super) fn seen(&self) -> LogHead {
        LogHead { origin: self.origin, epoch: self.epoch.clone(), seq: self.head, copied: false }
    }

    /// What `seen`, which the head says of the log, has against it.
    pub(super) fn doubt(&self, seen: Option<&LogHead>) -> Option<String> {
        let Some(seen) = seen else {
            let lost = self.origin != 0;
            return lost.then(|| "its head file is gone: it may be an older copy".to_string());
        };
        // A program of 0.1.0 leaves the origin out when it stores the log.
        if self.origin != 0 && seen.origin != self.origin {
            return Some("it is another journal than the one that was here".into());
        }
        if seen.copied {
            return Some("it was restored from a backup".into());
        }
        if seen.epoch != self.epoch {
            return Some("it is of another epoch than the one that was here: an older copy".into());
        }
        let behind = seen.seq > self.head;
        behind.then(|| format!("it ends at {} and had come to {}: it is an older copy", self.head, seen.seq))
    }

    pub(super) fn begin_epoch(&mut self, at_least: Seq, why: &str) {
        self.epoch = new_epoch();
        self.why = why.into();
        self.head = self.head.max(at_least);
        self.oldest = self.head + 1;
        self.begun = self.head;
    }

    pub(super) fn state(&self, log: &str) -> LogState {
        let (epoch, begun) = (self.epoch.clone(), self.begun);
        LogState { log: log.into(), epoch, head: self.head, oldest: self.oldest, durable: true, begun, doubt: None }
    }
}

/// Identifies a log; `known` if it has an origin already.
pub(super) fn some_origin(known: u64) -> u64 {
    match known {
        0 => uuid::Uuid::new_v4().as_u128() as u64 | 1,
        known => known,
    }
}

pub(super) fn store_log(transaction: &WriteTransaction, name: &str, log: &Log) -> Result<(), Fault> {
    let key = format!("log/{name}");
    let bytes = serde_json::to_vec(log).map_err(|error| Fault::Io { detail: error.to_string(), full: false })?;
    transaction.open_table(META)?.insert(key.as_str(), seal(xxh3_64(key.as_bytes()), &[&bytes]).as_slice())?;
    Ok(())
}

pub(in crate::journal) fn decode_log(key: &str, sealed: &[u8]) -> Result<Log, Fault> {
    let payload = unseal(xxh3_64(key.as_bytes()), sealed);
    let log = payload.and_then(|payload| serde_json::from_slice(payload).ok());
    log.ok_or_else(|| Fault::Corrupt(format!("the record {key:?} is damaged")))
}
