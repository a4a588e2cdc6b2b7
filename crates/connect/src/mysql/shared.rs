//! State of a source and its feed: the address, the table, and how far the feed has come.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::address::Address;
use super::options::MySqlOptions;
use super::pool::Session;
use super::progress::Progress;
use super::table::{MySqlRelation, Table};
use diorama_core::vista::{Error, Result};

/// State of a source and its feed.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) address: Address,
    pub(super) relation: MySqlRelation,
    pub(super) progress: Progress,
    /// The source as it was opened.
    opened: ArcSwapOption<Opened>,
    /// The table as it was last described.
    table: ArcSwapOption<Table>,
}

/// Description of a source when it was opened.
#[derive(Debug)]
struct Opened {
    options: MySqlOptions,
    table: Arc<Table>,
}

impl Shared {
    pub(super) fn new(address: Address, relation: MySqlRelation) -> Arc<Shared> {
        let (opened, table) = (ArcSwapOption::empty(), ArcSwapOption::empty());
        Arc::new(Shared { address, relation, progress: Progress::default(), opened, table })
    }

    pub(super) fn table(&self) -> Option<Arc<Table>> {
        self.table.load_full()
    }

    /// Describes the table as it is opened with `options`.
    ///
    /// # Errors
    /// As [`Table::describe`].
    pub(super) async fn describe(&self, session: &mut Session, options: MySqlOptions) -> Result<Arc<Table>> {
        let table = Arc::new(Table::describe(session, &self.address, &self.relation, &options).await?);
        self.opened.store(Some(Arc::new(Opened { options, table: Arc::clone(&table) })));
        self.table.store(Some(Arc::clone(&table)));
        Ok(table)
    }

    /// Describes the table again; rows have its columns from now on.
    ///
    /// # Errors
    /// [`Error::Source`] if the server fails, the table does not exist, or rows are identified in another way.
    pub(super) async fn describe_again(&self, session: &mut Session) -> Result<()> {
        let Some(opened) = self.opened.load_full() else { return Ok(()) };
        let table = Table::describe(session, &self.address, &self.relation, &opened.options).await;
        let table = table.map_err(|error| match error {
            // The table may come back.
            Error::Config(detail) => Error::transient(detail),
            error => error,
        })?;
        if self.table().is_some_and(|known| table.is_like(&known)) {
            return Ok(());
        }
        let table = table.under(&opened.table)?;
        tracing::warn!(
            table = table.name,
            changes = ?opened.table.differences(&table),
            "the columns of the source have changed; rows have the new ones, the schema has them after a restart"
        );
        self.table.store(Some(Arc::new(table)));
        Ok(())
    }
}
