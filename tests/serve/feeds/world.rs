//! What the threads of a storm share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use super::system::{Database, Dialect};

pub(super) struct World {
    /// Address of the API, which changes with every life.
    pub(super) address: Mutex<String>,
    /// URL of the database, not through the proxy.
    pub(super) database: String,
    /// SQL of the database.
    pub(super) dialect: &'static dyn Dialect,
    /// Number of rows of a large transaction.
    pub(super) large: u64,
    /// Number of large transactions so far.
    pub(super) large_transactions: AtomicU64,
    /// Held for writing while everybody rests.
    pub(super) rest: RwLock<()>,
    is_done: AtomicBool,
    numbers: AtomicU64,
    figures: Mutex<BTreeMap<&'static str, u64>>,
    faults: Mutex<Vec<String>>,
}

impl World {
    pub(super) fn new(database: &dyn Database, large: u64) -> World {
        World {
            address: Mutex::default(),
            database: database.url(),
            dialect: database.dialect(),
            large,
            large_transactions: AtomicU64::new(0),
            rest: RwLock::new(()),
            is_done: AtomicBool::new(false),
            numbers: AtomicU64::new(1),
            figures: Mutex::default(),
            faults: Mutex::default(),
        }
    }

    /// A number that is higher than all before it.
    pub(super) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn count(&self, what: &'static str, by: u64) {
        *self.figures.lock().entry(what).or_default() += by;
    }

    pub(super) fn highest(&self, what: &'static str, value: u64) {
        let mut figures = self.figures.lock();
        let highest = figures.entry(what).or_default();
        *highest = value.max(*highest);
    }

    pub(super) fn figures(&self) -> BTreeMap<&'static str, u64> {
        self.figures.lock().clone()
    }

    /// Notes what must not happen.
    pub(super) fn fault(&self, what: String) {
        self.faults.lock().push(what);
    }

    pub(super) fn faults(&self) -> Vec<String> {
        self.faults.lock().clone()
    }

    /// Whether the threads should end: at the end, or after a fault.
    pub(super) fn is_over(&self) -> bool {
        self.is_done.load(Ordering::Relaxed) || !self.faults.lock().is_empty()
    }

    pub(super) fn end(&self) {
        self.is_done.store(true, Ordering::Relaxed);
    }

    pub(super) fn address(&self) -> String {
        self.address.lock().clone()
    }
}

pub(super) fn pause(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}
