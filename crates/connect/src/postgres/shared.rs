//! State of a source and its feed: the address, the table, and how far the feed has come.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio_postgres::Client;

use super::address::Address;
use super::options::PostgresOptions;
use super::progress::Progress;
use super::slot;
use super::table::{PostgresRelation, Table};
use diorama_core::vista::{Error, Result};

/// State of a source and its feed.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) address: Address,
    pub(super) relation: PostgresRelation,
    pub(super) progress: Progress,
    /// The source as it was opened.
    opened: ArcSwapOption<Opened>,
    /// The table as it was last described.
    table: ArcSwapOption<Table>,
    /// Name of the replication slot, if the source has a feed by replication.
    slot: Mutex<Option<String>>,
    /// True if the slot existed before the source was first listed.
    slot_first: AtomicBool,
}

/// Description of a source when it was opened.
#[derive(Debug)]
struct Opened {
    options: PostgresOptions,
    table: Arc<Table>,
}

impl Shared {
    pub(super) fn new(address: Address, relation: PostgresRelation) -> Arc<Shared> {
        Arc::new(Shared {
            address,
            relation,
            progress: Progress::new(),
            opened: ArcSwapOption::empty(),
            table: ArcSwapOption::empty(),
            slot: Mutex::default(),
            slot_first: AtomicBool::new(false),
        })
    }

    pub(super) fn table(&self) -> Option<Arc<Table>> {
        self.table.load_full()
    }

    /// Describes the table as it is opened with `options`.
    ///
    /// # Errors
    /// As [`Table::describe`].
    pub(super) async fn describe(&self, client: &Client, options: PostgresOptions) -> Result<Arc<Table>> {
        let table = Arc::new(Table::describe(client, &self.address, &self.relation, &options).await?);
        self.opened.store(Some(Arc::new(Opened { options, table: Arc::clone(&table) })));
        self.table.store(Some(Arc::clone(&table)));
        Ok(table)
    }

    /// Describes the table again. Returns true if it has other columns than before; rows have them from now on.
    ///
    /// # Errors
    /// [`Error::Source`] if the server fails, the table does not exist, or rows are identified in another way.
    pub(super) async fn describe_again(&self, client: &Client) -> Result<bool> {
        let Some(opened) = self.opened.load_full() else { return Ok(false) };
        let table = Table::describe(client, &self.address, &self.relation, &opened.options).await;
        let table = table.map_err(|error| match error {
            // The table may come back.
            Error::Config(detail) => Error::transient(detail),
            error => error,
        })?;
        let is_like = self.table().is_some_and(|known| table.is_like(&known));
        let table = table.under(&opened.table)?;
        if is_like {
            // A trigger or an index may be new, by which writes are no longer combined.
            self.table.store(Some(Arc::new(table)));
            return Ok(false);
        }
        tracing::warn!(
            table = table.name,
            changes = ?opened.table.differences(&table),
            "the columns of the source have changed; rows have the new ones, the schema has them after a restart"
        );
        self.table.store(Some(Arc::new(table)));
        Ok(true)
    }

    /// Notes that the source has a feed by replication.
    pub(super) fn expect_replication(&self, slot: &str) {
        *self.slot.lock() = Some(slot.to_string());
        self.progress.hold();
    }

    /// Makes the slot before the source is listed, so that the feed continues where the list ends. A failure is left to the
    /// feed, which reports it.
    pub(super) async fn make_slot_first(&self, client: &Client, table: &Table) {
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
}
