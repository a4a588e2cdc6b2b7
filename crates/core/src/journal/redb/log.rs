//! Stored form of a log: its epoch, its head and its identity.

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
    /// Position at which the epoch began. Files of 0.1.0 lack it, and carried nothing over.
    #[serde(default)]
    pub(super) begun: Seq,
    /// Random bits that identify the log across epochs; 0 until its head was first written.
    #[serde(default)]
    pub(super) origin: u64,
}

impl Log {
    /// Returns the position to record in the head file.
    pub(super) fn as_head(&self) -> LogHead {
        LogHead { origin: self.origin, epoch: self.epoch.clone(), seq: self.head, copied: false }
    }

    /// Returns the reason why the log may be incomplete, compared with its position in the head file.
    pub(super) fn doubt(&self, recorded: Option<&LogHead>) -> Option<String> {
        let Some(recorded) = recorded else {
            let lost = self.origin != 0;
            return lost.then(|| "its head file is missing: it may be an older copy".to_string());
        };
        // A program of version 0.1.0 drops the origin when it stores the log.
        if self.origin != 0 && recorded.origin != self.origin {
            return Some("it is not the journal that was here before".into());
        }
        if recorded.copied {
            return Some("it was restored from a backup".into());
        }
        if recorded.epoch != self.epoch {
            return Some("its epoch differs from the recorded one: it is an older copy".into());
        }
        let behind = recorded.seq > self.head;
        behind.then(|| format!("it ends at {} but had reached {}: it is an older copy", self.head, recorded.seq))
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

/// Returns `known` if it is an origin, otherwise a new random one.
pub(super) fn known_or_new_origin(known: u64) -> u64 {
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
