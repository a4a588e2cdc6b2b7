//! Vectors and groups that nodes keep, and their bound.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::table::Table;
use crate::vista::query::{BlockGroups, Path, Vector};

/// Maximum number of columns that are kept, and of aggregations.
const MAX_ENTRIES: usize = 32;
/// Default limit in bytes.
const DEFAULT_LIMIT: usize = 256 << 20;

/// Bookkeeping of the columns of a table and its clones.
pub struct ColumnCache {
    limit: AtomicUsize,
    /// Bytes of everything that is kept, and number of scans so far, which is the clock of use.
    used: Arc<AtomicUsize>,
    clock: AtomicU64,
    entries: Mutex<Vec<Arc<Entry>>>,
}

/// A column, or an aggregation, of which vectors or groups are kept.
pub(super) struct Entry {
    subject: Subject,
    used_at: AtomicU64,
    bytes: AtomicUsize,
    all: Arc<AtomicUsize>,
    /// True once it is not listed any more. A scan that began before keeps nothing more under it, because nothing would drop that.
    is_dropped: AtomicBool,
}

/// Subject of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// The column, or the values under a path.
    Column(Path),
    /// A description of an aggregation and its filter, and of how they read columns.
    Groups(Arc<str>),
}

/// Vectors and groups of a node's rows.
#[derive(Default)]
pub(in crate::table) struct Kept(Mutex<Vec<Part>>);

/// A vector or the groups of one node, counted while it is alive.
struct Part {
    entry: Arc<Entry>,
    bytes: usize,
    value: Value,
}

/// The value of a part.
#[derive(Clone)]
pub(super) enum Value {
    Vector(Arc<Vector>),
    Groups(Arc<BlockGroups>),
}

impl Drop for Part {
    fn drop(&mut self) {
        self.entry.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.entry.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Value {
    fn bytes(&self) -> usize {
        match self {
            Value::Vector(vector) => size_of::<Vector>() + vector.bytes(),
            Value::Groups(groups) => groups.bytes(),
        }
    }
}

impl Default for ColumnCache {
    fn default() -> ColumnCache {
        ColumnCache {
            limit: AtomicUsize::new(DEFAULT_LIMIT),
            used: Arc::default(),
            clock: AtomicU64::new(0),
            entries: Mutex::default(),
        }
    }
}

impl fmt::Debug for ColumnCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ColumnCache").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

impl ColumnCache {
    /// Bytes of all that is kept, for old tables as well.
    pub fn bytes(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Sets the maximum of bytes; 0 keeps nothing.
    pub fn set_limit(&self, bytes: usize) {
        self.limit.store(bytes, Ordering::Relaxed);
    }

    /// True if columns are kept.
    pub(crate) fn is_used(&self) -> bool {
        self.limit.load(Ordering::Relaxed) > 0
    }

    /// The columns that are kept, each with its bytes, in the order of their first use.
    pub fn kept(&self) -> Vec<(String, usize)> {
        let entries = self.entries.lock();
        let columns = entries.iter().filter_map(|entry| match &entry.subject {
            Subject::Column(path) => Some((path.to_string(), entry.bytes.load(Ordering::Relaxed))),
            Subject::Groups(_) => None,
        });
        columns.collect()
    }

    /// A new time of use.
    pub(super) fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The entry of `subject`, used now. Drops the least recently used one of its kind if there are too many.
    pub(super) fn entry(&self, subject: Subject, now: u64, table: &Table) -> Arc<Entry> {
        let mut entries = self.entries.lock();
        if let Some(entry) = entries.iter().find(|entry| entry.subject == subject) {
            entry.used_at.fetch_max(now, Ordering::Relaxed);
            return Arc::clone(entry);
        }
        let kind = std::mem::discriminant(&subject);
        let same = |entry: &Arc<Entry>| std::mem::discriminant(&entry.subject) == kind;
        let dropped = (entries.iter().filter(|entry| same(entry)).count() >= MAX_ENTRIES)
            .then(|| take_oldest(&mut entries, |entry| std::mem::discriminant(&entry.subject) == kind))
            .flatten();
        let entry = Arc::new(Entry {
            subject,
            used_at: AtomicU64::new(now),
            bytes: AtomicUsize::new(0),
            all: Arc::clone(&self.used),
            is_dropped: AtomicBool::new(false),
        });
        entries.push(Arc::clone(&entry));
        drop(entries);
        if let Some(dropped) = dropped {
            table.forget(&dropped);
        }
        entry
    }

    /// Keeps a value of a node under `entry`, if there is room or room can be made by dropping what was not used since `now`.
    pub(super) fn keep(&self, node: &Kept, entry: &Arc<Entry>, value: Value, now: u64, table: &Table) {
        let bytes = value.bytes();
        while self.bytes().saturating_add(bytes) > self.limit.load(Ordering::Relaxed) {
            let oldest = take_oldest(&mut self.entries.lock(), |entry| entry.used_at.load(Ordering::Relaxed) < now);
            match oldest {
                Some(oldest) => table.forget(&oldest),
                None => return,
            }
        }
        node.keep(entry, value, bytes);
    }
}

/// Takes out the least recently used of the entries that `may_go`.
fn take_oldest(entries: &mut Vec<Arc<Entry>>, may_go: impl Fn(&Entry) -> bool) -> Option<Arc<Entry>> {
    let candidates = entries.iter().enumerate().filter(|(_, entry)| may_go(entry));
    let (at, _) = candidates.min_by_key(|(_, entry)| entry.used_at.load(Ordering::Relaxed))?;
    let oldest = entries.remove(at);
    oldest.is_dropped.store(true, Ordering::Release);
    Some(oldest)
}

impl Kept {
    /// Returns the value under `entry`.
    pub(super) fn get(&self, entry: &Arc<Entry>) -> Option<Value> {
        let parts = self.0.lock();
        parts.iter().find(|part| Arc::ptr_eq(&part.entry, entry)).map(|part| part.value.clone())
    }

    fn keep(&self, entry: &Arc<Entry>, value: Value, bytes: usize) {
        let mut parts = self.0.lock();
        // Dropping an entry visits the nodes of one table only.
        parts.retain(|part| !part.entry.is_dropped.load(Ordering::Acquire));
        // If it is dropped after this, it is forgotten here once the lock is free.
        let is_dropped = entry.is_dropped.load(Ordering::Acquire);
        if is_dropped || parts.iter().any(|part| Arc::ptr_eq(&part.entry, entry)) {
            return;
        }
        entry.bytes.fetch_add(bytes, Ordering::Relaxed);
        entry.all.fetch_add(bytes, Ordering::Relaxed);
        parts.push(Part { entry: Arc::clone(entry), bytes, value });
    }

    pub(super) fn forget(&self, entry: &Entry) {
        self.0.lock().retain(|part| !std::ptr::eq(&*part.entry, entry));
    }
}
