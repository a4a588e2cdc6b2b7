//! What a source and its feed share: the address, the table, and how far the feed has come.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

use super::address::Address;
use super::progress::Progress;
use super::slot;
use super::table::Table;

/// State of a source and its feed.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) address: Address,
    pub(super) progress: Progress,
    /// The table, once it was described.
    table: ArcSwapOption<Table>,
    /// Name of the replication slot, if the source has a feed by replication.
    slot: Mutex<Option<String>>,
    /// True if the slot existed before the source was first listed.
    slot_first: AtomicBool,
    /// True if the table has other columns than those that were described.
    other_columns: AtomicBool,
}

impl Shared {
    pub(super) fn new(address: Address) -> Arc<Shared> {
        Arc::new(Shared {
            address,
            progress: Progress::new(),
            table: ArcSwapOption::empty(),
            slot: Mutex::default(),
            slot_first: AtomicBool::new(false),
            other_columns: AtomicBool::new(false),
        })
    }

    pub(super) fn table(&self) -> Option<Arc<Table>> {
        self.table.load_full()
    }

    pub(super) fn set_table(&self, table: Arc<Table>) {
        self.table.store(Some(table));
        self.other_columns.store(false, Ordering::Release);
    }

    /// Notes that the source has a feed by replication.
    pub(super) fn expect_replication(&self, slot: &str) {
        *self.slot.lock() = Some(slot.to_string());
        self.progress.hold();
    }

    /// Makes the slot before the source is listed, so that the feed continues where the list ends. A failure is left to the
    /// feed, which reports it.
    pub(super) async fn make_slot_first(&self, client: &tokio_postgres::Client, table: &Table) {
        let Some(slot) = self.slot.lock().clone() else { return };
        match slot::prepare(client, table, &slot).await {
            Ok(_) => self.slot_first.store(true, Ordering::Release),
            Err(error) => tracing::debug!(slot, error, "the feed cannot begin before the first list"),
        }
    }

    /// Returns true if the first list was read after the slot was made.
    pub(super) fn takes_first_list(&self) -> bool {
        self.slot_first.load(Ordering::Acquire)
    }

    /// Notes that the feed has other columns than the table's description.
    pub(super) fn note_other_columns(&self) {
        self.other_columns.store(true, Ordering::Release);
    }

    /// Returns true if the table is to be described anew.
    pub(super) fn has_other_columns(&self) -> bool {
        self.other_columns.load(Ordering::Acquire)
    }
}
