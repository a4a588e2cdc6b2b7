//! State of a source and its feed: the address, the table, and how far the feed has come.

use std::sync::Arc;

use parking_lot::Mutex;

use super::address::Address;
use super::progress::Progress;
use super::rpc::Session;
use super::table::{Options, Table};
use diorama_core::vista::Result;

/// State of a source and its feed.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) address: Address,
    /// Name of the table.
    pub(super) name: String,
    pub(super) progress: Progress,
    /// The table as it was opened.
    table: Mutex<Option<Arc<Table>>>,
}

impl Shared {
    pub(super) fn new(address: Address, name: String) -> Arc<Shared> {
        Arc::new(Shared { address, name, progress: Progress::default(), table: Mutex::default() })
    }

    pub(super) fn table(&self) -> Option<Arc<Table>> {
        self.table.lock().clone()
    }

    /// Describes the table as it is opened with `options`.
    ///
    /// # Errors
    /// As [`Table::describe`].
    pub(super) async fn describe(&self, session: &mut Session, options: &Options) -> Result<Arc<Table>> {
        let table = Arc::new(Table::describe(session, &self.name, options).await?);
        *self.table.lock() = Some(Arc::clone(&table));
        Ok(table)
    }
}
