//! The head of a journal: a small file beside it (`<journal>.head`) that remembers how far each log has come, so that an older
//! journal in its place, or another one, is noticed.
//!
//! It is written in place after each append, without a sync of its own: a killed process leaves it exact, a power loss leaves it
//! at the journal's position or behind. So it is never ahead of a journal that nobody replaced. Not noticed is a journal that was
//! put back together with its head.
//!
//! One block of 64 bytes per log, which no sector boundary divides: hash of the log's name u64, the log's origin u64, position
//! u64, epoch (10 bytes), 1 if the file is a backup's, zeros, xxh3-64 over all before; integers little-endian.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use super::Seq;
use crate::redb_file::{sync_folder, with_suffix};

const BLOCK: usize = 64;
const EPOCH: usize = 10;
/// Logs of one file, at most: what is longer was not written by us.
const MOST: u64 = 100_000;

/// How far a log has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LogHead {
    /// The log as such, whatever its epoch.
    pub(super) origin: u64,
    pub(super) epoch: String,
    pub(super) seq: Seq,
    /// Whether a backup wrote it.
    pub(super) copied: bool,
}

/// The open head.
#[derive(Debug)]
pub(super) struct Head {
    path: PathBuf,
    file: Option<File>,
    /// Blocks by the hash of the log's name, and what is in them.
    blocks: HashMap<u64, (u64, LogHead)>,
    next: u64,
    /// Whether somebody was told that it cannot be written.
    told: bool,
}

/// Where the head of the journal at `path` is.
pub(super) fn head_path(path: &Path) -> PathBuf {
    with_suffix(path, ".head")
}

impl Head {
    /// Reads the head of the journal at `journal`. One that is missing or cannot be read knows nothing.
    pub(super) fn read(journal: &Path) -> Head {
        let path = head_path(journal);
        let mut head = Head { path, file: None, blocks: HashMap::new(), next: 0, told: false };
        let mut bytes = Vec::new();
        let read = File::open(&head.path).and_then(|file| file.take(MOST * BLOCK as u64).read_to_end(&mut bytes));
        match read {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(path = %head.path.display(), %error, "the journal's head cannot be read"),
        }
        for (at, block) in bytes.chunks(BLOCK).enumerate() {
            head.next = at as u64 + 1;
            if let Some((name, seen)) = decode(block) {
                head.blocks.insert(name, (at as u64, seen));
            }
        }
        head
    }

    /// What is known of a log.
    pub(super) fn seen(&self, log: &str) -> Option<&LogHead> {
        self.blocks.get(&xxh3_64(log.as_bytes())).map(|(_, seen)| seen)
    }

    /// Notes how far a log has come; says whether that is written. A head that cannot be written is behind, which costs no more
    /// than that less is noticed.
    pub(super) fn note(&mut self, log: &str, seen: LogHead) -> bool {
        let name = xxh3_64(log.as_bytes());
        let known = self.blocks.get(&name).map(|(at, known)| (*at, known == &seen));
        let at = match known {
            Some((_, true)) if self.file.is_some() => return true,
            Some((at, _)) => at,
            None => self.next,
        };
        // A block that is new must be there for good before the journal counts on it.
        let fresh = known.is_none() || self.file.is_none();
        match self.write(at, &encode(name, &seen), fresh) {
            Ok(()) => {
                self.next = self.next.max(at + 1);
                self.blocks.insert(name, (at, seen));
                true
            }
            Err(error) if !std::mem::replace(&mut self.told, true) => {
                tracing::warn!(path = %self.path.display(), %error, "the journal's head cannot be written");
                false
            }
            Err(_) => false,
        }
    }

    fn write(&mut self, at: u64, block: &[u8; BLOCK], sync: bool) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let file = none.insert(open(&self.path)?);
                sync_folder(&self.path).map_err(|fault| io::Error::other(fault.to_string()))?;
                file
            }
        };
        file.seek(SeekFrom::Start(at * BLOCK as u64))?;
        file.write_all(block)?;
        if sync { file.sync_data() } else { Ok(()) }
    }

    /// Writes this head as that of a copy of the journal at `journal`, which holds `logs`.
    pub(super) fn write_copy(journal: &Path, logs: impl Iterator<Item = (String, LogHead)>) -> io::Result<()> {
        let mut head = Head { path: head_path(journal), file: None, blocks: HashMap::new(), next: 0, told: false };
        for (log, seen) in logs {
            let (at, seen) = (head.next, LogHead { copied: true, ..seen });
            head.write(at, &encode(xxh3_64(log.as_bytes()), &seen), false)?;
            head.next += 1;
        }
        match &head.file {
            Some(file) => file.sync_all(),
            None => open(&head.path)?.sync_all(),
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn encode(name: u64, seen: &LogHead) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    block[..8].copy_from_slice(&name.to_le_bytes());
    block[8..16].copy_from_slice(&seen.origin.to_le_bytes());
    block[16..24].copy_from_slice(&seen.seq.to_le_bytes());
    let epoch = seen.epoch.as_bytes();
    let length = epoch.len().min(EPOCH);
    block[24..24 + length].copy_from_slice(&epoch[..length]);
    block[24 + EPOCH] = u8::from(seen.copied);
    let sum = xxh3_64(&block[..BLOCK - 8]);
    block[BLOCK - 8..].copy_from_slice(&sum.to_le_bytes());
    block
}

fn decode(block: &[u8]) -> Option<(u64, LogHead)> {
    let number = |at: usize| Some(u64::from_le_bytes(block.get(at..at + 8)?.try_into().ok()?));
    if block.len() != BLOCK || number(BLOCK - 8)? != xxh3_64(&block[..BLOCK - 8]) {
        return None;
    }
    let epoch = std::str::from_utf8(&block[24..24 + EPOCH]).ok()?.trim_end_matches('\0').to_string();
    let copied = block[24 + EPOCH] == 1;
    Some((number(0)?, LogHead { origin: number(8)?, seq: number(16)?, epoch, copied }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(seq: Seq) -> LogHead {
        LogHead { origin: 7, epoch: "0123456789".into(), seq, copied: false }
    }

    #[test]
    fn a_head_is_read_as_it_was_written_and_a_damaged_block_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let journal = dir.path().join("j.redb");
        let mut head = Head::read(&journal);
        assert_eq!(head.seen("a"), None);
        for at in 1..=20 {
            head.note("a", seen(at));
            head.note("b", seen(at * 2));
        }
        let read = Head::read(&journal);
        assert_eq!((read.seen("a"), read.seen("b"), read.seen("c")), (Some(&seen(20)), Some(&seen(40)), None));
        let whole = std::fs::read(head_path(&journal)).unwrap();
        assert_eq!(whole.len(), 2 * BLOCK);
        for at in 0..BLOCK {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            std::fs::write(head_path(&journal), &damaged).unwrap();
            let read = Head::read(&journal);
            assert_eq!((read.seen("a"), read.seen("b")), (None, Some(&seen(40))), "byte {at}");
        }
        std::fs::write(head_path(&journal), &whole[..BLOCK + 9]).unwrap();
        assert_eq!(Head::read(&journal).seen("b"), None);
    }
}
