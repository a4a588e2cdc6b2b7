//! [`Vista`]: the handle through which consumers use a source.

use std::sync::Arc;

use futures_util::stream::{self, BoxStream, StreamExt};

use super::narrowing::{Narrowing, bounds, given_id};
use super::{Capabilities, Error, Query, Result, Schema, TableShell, Token, WriteOp};
use crate::record::{CborValue, Record, Rows};

/// A handle on one source: its name, schema, capabilities, and conditions that narrow the rows it sees.
///
/// Conditions are ANDed and cannot be removed: to widen, clone the handle before narrowing it. A new search or order replaces
/// the earlier one. Clones share the source but not the conditions.
///
/// The conditions bound writes too, as if the other rows did not exist. A row outside is not found, and its id counts as taken.
/// A new row gets the values that equality conditions fix. A write whose result would be outside is [`Error::Invalid`]. The
/// facade of a Dio checks this in the order of all writes; each driver documents how it does.
#[derive(Clone)]
pub struct Vista {
    name: Arc<str>,
    shell: Arc<dyn TableShell>,
    query: Query,
    page_size: u64,
}

impl std::fmt::Debug for Vista {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vista").field("name", &self.name).field("query", &self.query).finish_non_exhaustive()
    }
}

impl Vista {
    /// Creates a handle on `shell`. The cache table and the resource get the same `name`.
    pub fn new(name: impl Into<Arc<str>>, shell: impl TableShell) -> Vista {
        Vista::from_shell(name, Arc::new(shell))
    }

    /// [`Vista::new`] for a shell that is already shared.
    pub fn from_shell(name: impl Into<Arc<str>>, shell: Arc<dyn TableShell>) -> Vista {
        Vista { name: name.into(), shell, query: Query::default(), page_size: 100 }
    }

    /// Name of the source.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Schema of the source's rows.
    pub fn schema(&self) -> Arc<Schema> {
        self.shell.schema()
    }

    /// Operations that the source supports.
    pub fn capabilities(&self) -> Capabilities {
        self.shell.capabilities()
    }

    /// The driver behind this handle.
    pub fn shell(&self) -> &Arc<dyn TableShell> {
        &self.shell
    }

    /// Conditions, search and order set so far.
    pub fn query(&self) -> &Query {
        &self.query
    }

    // --- narrowing ---------------------------------------------------------------------------------------------------

    /// Keeps only rows whose `column` equals `value` (integers and floats compare as numbers).
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the source cannot filter, [`Error::Invalid`] for an unknown column.
    pub fn add_condition_eq(&mut self, column: &str, value: CborValue) -> Result<&mut Self> {
        self.require(self.capabilities().can_filter, "filter")?;
        self.require_column(column)?;
        self.query.filter.and(super::query::Filter::eq(column, value));
        Ok(self)
    }

    /// Keeps only rows that match `filter`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the source cannot filter.
    pub fn add_filter(&mut self, filter: super::Filter) -> Result<&mut Self> {
        self.require(self.capabilities().can_filter, "filter")?;
        self.query.filter.and(filter);
        Ok(self)
    }

    /// Keeps only the row `id`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the source cannot filter.
    pub fn with_id(&mut self, id: &str) -> Result<&mut Self> {
        let schema = self.schema();
        let value = crate::record::id_to_value(id, schema.layout());
        self.add_condition_eq(schema.id_column(), value)
    }

    /// Keeps only rows that contain every word of `words`; replaces an earlier search.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the source cannot search.
    pub fn add_search(&mut self, words: &str) -> Result<&mut Self> {
        self.require(self.capabilities().can_search, "search")?;
        self.query.search = (!words.trim().is_empty()).then(|| words.to_string());
        Ok(self)
    }

    /// Sorts by `column`; replaces an earlier order.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the source cannot sort, [`Error::Invalid`] for an unknown column.
    pub fn add_order(&mut self, column: &str, descending: bool) -> Result<&mut Self> {
        self.require(self.capabilities().can_order, "sort")?;
        self.require_column(column)?;
        self.query.order = vec![super::OrderTerm::new(column, descending)];
        Ok(self)
    }

    /// Sets the number of rows per page of [`Vista::fetch_page`] and [`Vista::fetch_next`].
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the source does not page, [`Error::Invalid`] for zero.
    pub fn set_page_size(&mut self, rows: u64) -> Result<&mut Self> {
        self.require(self.capabilities().can_set_page_size, "set a page size")?;
        if rows == 0 {
            return Err(Error::invalid("the page size must be at least 1"));
        }
        self.page_size = rows;
        Ok(self)
    }

    // --- reads -------------------------------------------------------------------------------------------------------

    /// Every row of the narrowed set.
    ///
    /// # Errors
    /// [`Error::Source`] when the source fails.
    pub async fn list_values(&self) -> Result<Rows> {
        self.shell.list(&self.query).await
    }

    /// One row of the narrowed set by id.
    ///
    /// # Errors
    /// [`Error::Source`] when the source fails.
    pub async fn get_value(&self, id: &str) -> Result<Option<Record>> {
        let row = self.shell.get(id).await?;
        Ok(row.filter(|row| self.query.is_unfiltered() || self.query.matches(row, &self.schema())))
    }

    /// The first row of the narrowed set, with its id.
    ///
    /// # Errors
    /// [`Error::Source`] when the source fails.
    pub async fn get_some_value(&self) -> Result<Option<(String, Record)>> {
        let mut query = self.query.clone();
        if self.capabilities().can_fetch_page {
            query.limit = Some(1);
        }
        Ok(self.shell.list(&query).await?.iter().next())
    }

    /// Number of rows in the narrowed set.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the source cannot count, [`Error::Source`] when it fails.
    pub async fn get_count(&self) -> Result<u64> {
        self.require(self.capabilities().can_count, "count")?;
        self.shell.count(&self.query).await
    }

    /// Streams the rows of the narrowed set.
    pub fn stream_values(&self) -> BoxStream<'static, Result<(String, Record)>> {
        let this = self.clone();
        if !self.capabilities().can_fetch_next {
            return stream::once(async move { this.list_values().await })
                .flat_map(|rows| match rows {
                    Ok(rows) => stream::iter(rows.into_iter().map(Ok).collect::<Vec<_>>()),
                    Err(error) => stream::iter(vec![Err(error)]),
                })
                .boxed();
        }
        stream::try_unfold((this, Some(None)), |(this, token)| async move {
            let Some(token) = token else { return Ok(None) };
            let (rows, next) = this.fetch_next(token).await?;
            Ok::<_, Error>(Some((rows, (this, next.map(Some)))))
        })
        .flat_map(|rows| match rows {
            Ok(rows) => stream::iter(rows.into_iter().map(Ok).collect::<Vec<_>>()),
            Err(error) => stream::iter(vec![Err(error)]),
        })
        .boxed()
    }

    /// Page `number`, counted from 1; empty past the end.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the source does not page, [`Error::Invalid`] for page 0.
    pub async fn fetch_page(&self, number: u64) -> Result<Rows> {
        self.require(self.capabilities().can_fetch_page, "fetch a page")?;
        let before = number.checked_sub(1).ok_or_else(|| Error::invalid("pages are numbered from 1"))?;
        let mut query = self.query.clone();
        query.limit = Some(self.page_size);
        query.offset = before.saturating_mul(self.page_size);
        self.shell.list(&query).await
    }

    /// The page after `token` (`None` for the first) and the token of the next page, `None` after the last.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the source has no tokens, [`Error::Invalid`] for a token that the source did not issue.
    pub async fn fetch_next(&self, token: Option<Token>) -> Result<(Rows, Option<Token>)> {
        self.require(self.capabilities().can_fetch_next, "continue from a token")?;
        let mut query = self.query.clone();
        query.limit = Some(self.page_size);
        self.shell.next(&query, token.as_ref()).await
    }

    /// The rows that `relation` relates to `row`, as another Vista.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown relation.
    pub fn get_ref(&self, relation: &str, row: &Record) -> Result<Vista> {
        self.shell.reference(relation, row)
    }

    // --- writes ------------------------------------------------------------------------------------------------------

    /// Adds a row under `id`.
    ///
    /// # Errors
    /// [`Error::Unsupported`], [`Error::Conflict`] if the id is taken by another row, [`Error::Invalid`], [`Error::Source`].
    pub async fn insert(&self, id: &str, record: &Record) -> Result<()> {
        self.require(self.capabilities().can_insert, "insert")?;
        self.write(WriteOp::Insert { id: id.to_string(), record: record.clone() }).await
    }

    /// Alias of [`Vista::insert`], named like its siblings.
    ///
    /// # Errors
    /// As [`Vista::insert`].
    pub async fn insert_value(&self, id: &str, record: &Record) -> Result<()> {
        self.insert(id, record).await
    }

    /// Adds a row whose id is in its id column or chosen by the source, and returns the id.
    ///
    /// # Errors
    /// As [`Vista::insert`].
    pub async fn insert_return_id(&self, record: &Record) -> Result<String> {
        self.require(self.capabilities().can_insert, "insert")?;
        let schema = self.schema();
        let narrowing = (!self.query.is_unfiltered()).then(|| Narrowing::new(&self.query, &schema));
        if let Some(id) = given_id(narrowing.as_ref(), record, schema.id_column()) {
            self.insert(&id, record).await?;
            return Ok(id);
        }
        let written = match &narrowing {
            Some(narrowing) => self.shell.insert_return_id_within(record, narrowing.query()).await?,
            None => self.shell.insert_return_id(record).await?,
        };
        written.id.ok_or_else(|| Error::permanent("the source did not return the id that it chose"))
    }

    /// Writes the whole row `id`, whether or not it exists.
    ///
    /// # Errors
    /// [`Error::Unsupported`], [`Error::Invalid`], [`Error::Source`].
    pub async fn replace_value(&self, id: &str, record: &Record) -> Result<()> {
        self.require(self.capabilities().can_update, "update")?;
        self.write(WriteOp::Replace { id: id.to_string(), record: record.clone() }).await
    }

    /// Changes the given columns of row `id`.
    ///
    /// # Errors
    /// [`Error::Unsupported`], [`Error::NotFound`], [`Error::Invalid`], [`Error::Source`].
    pub async fn patch_value(&self, id: &str, record: &Record) -> Result<()> {
        self.require(self.capabilities().can_update, "update")?;
        self.write(WriteOp::Patch { id: id.to_string(), record: record.clone() }).await
    }

    /// Deletes row `id`. Succeeds if the row does not exist.
    ///
    /// # Errors
    /// [`Error::Unsupported`], [`Error::Source`].
    pub async fn delete(&self, id: &str) -> Result<()> {
        self.require(self.capabilities().can_delete, "delete")?;
        match self.write(WriteOp::Delete { id: id.to_string() }).await {
            Err(Error::NotFound { .. }) => Ok(()),
            other => other,
        }
    }

    /// Deletes every row of the narrowed set. If there are conditions, each row is checked again just before it is deleted: a row
    /// that has left the set by then stays.
    ///
    /// # Errors
    /// [`Error::Unsupported`], [`Error::Source`].
    pub async fn delete_all(&self) -> Result<()> {
        self.require(self.capabilities().can_delete, "delete")?;
        if self.query.is_unfiltered() && self.capabilities().can_delete_all {
            return self.write(WriteOp::DeleteAll).await;
        }
        for id in self.list_values().await?.ids() {
            self.delete(id).await?;
        }
        Ok(())
    }

    async fn write(&self, op: WriteOp) -> Result<()> {
        if self.query.is_unfiltered() {
            return self.shell.write(&op).await.map(drop);
        }
        self.shell.write_within(&op, &bounds(&self.query)).await.map(drop)
    }

    fn require(&self, can: bool, what: &'static str) -> Result<()> {
        if can { Ok(()) } else { Err(Error::Unsupported { vista: Arc::clone(&self.name), what }) }
    }

    fn require_column(&self, column: &str) -> Result<()> {
        if self.schema().column(column).is_some() {
            return Ok(());
        }
        Err(Error::invalid(format!("resource {:?} has no column {column:?}", self.name)))
    }
}
