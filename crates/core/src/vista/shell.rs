//! [`TableShell`]: the trait that drivers implement.

use std::sync::Arc;

use async_trait::async_trait;

use super::narrowing::{self, Narrowing};
use super::{Capabilities, Error, ErrorKind, Inferred, Query, Result, Schema, Vista, WriteOp, Written};
use crate::record::{Record, Rows};

/// An opaque continuation token, returned and accepted by `fetch_next`.
pub type Token = String;

/// A driver for one source. `schema` and `list` are required; the other operations return `Unsupported` by default.
///
/// A shell is called only for operations that its [`Capabilities`] advertise: [`Vista`] refuses the others first. It must be
/// safe to call from many tasks at once, and dropping a call's future must not damage the source.
#[async_trait]
pub trait TableShell: Send + Sync + 'static {
    /// Schema of the rows. Must not do I/O.
    fn schema(&self) -> Arc<Schema>;

    /// Operations that this source supports. Must not do I/O.
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    /// The rows that `query` selects, in its order. Without capabilities the query is empty: the whole list, in the source's
    /// own order. The list must be complete: a driver that cannot read all of it returns an error.
    ///
    /// # Errors
    /// [`Error::Source`] when the source fails.
    async fn list(&self, query: &Query) -> Result<Rows>;

    /// The whole list, or `None` if the source finds without reading it that it is the list with this
    /// [fingerprint](Rows::fingerprint). The default always lists.
    ///
    /// # Errors
    /// As [`TableShell::list`].
    async fn list_changed(&self, fingerprint: &str) -> Result<Option<Rows>> {
        let _ = fingerprint;
        self.list(&Query::default()).await.map(Some)
    }

    /// [`TableShell::list`] into `rows`, an empty set under the layout of the schema that may compare its rows with known ones: those
    /// that are equal take no memory. The default lists into a set of its own.
    ///
    /// # Errors
    /// As [`TableShell::list`].
    async fn list_into(&self, query: &Query, rows: Rows) -> Result<Rows> {
        drop(rows);
        self.list(query).await
    }

    /// [`TableShell::list_changed`] into `rows`, as [`TableShell::list_into`] does.
    ///
    /// # Errors
    /// As [`TableShell::list`].
    async fn list_changed_into(&self, fingerprint: &str, rows: Rows) -> Result<Option<Rows>> {
        drop(rows);
        self.list_changed(fingerprint).await
    }

    /// The rows that were added or changed after the list with this [place](Rows::since); deleted rows are not told. `None` if the
    /// whole list is due, which the default always says.
    ///
    /// # Errors
    /// As [`TableShell::list`].
    async fn list_since(&self, since: &str) -> Result<Option<Rows>> {
        let _ = since;
        Ok(None)
    }

    /// One row. The default lists everything and takes the row from the list.
    ///
    /// # Errors
    /// [`Error::Source`] when the source fails.
    async fn get(&self, id: &str) -> Result<Option<Record>> {
        Ok(self.list(&Query::default()).await?.get(id))
    }

    /// True if [`TableShell::get`] reads one row without listing all.
    fn reads_one(&self) -> bool {
        false
    }

    /// Reason why the last list is withheld, for people: for example that the source looks half written. `None` if it is not
    /// withheld. Must not do I/O.
    fn withheld(&self) -> Option<String> {
        None
    }

    /// Warnings about the target for people, for example that it may lose what it has accepted. Nothing fails because of it. Must
    /// not do I/O.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// Properties of the source that the driver inferred because they were not declared. Must not do I/O.
    fn inferred(&self) -> Vec<Inferred> {
        Vec::new()
    }

    /// True if the source was replaced by another since it was last listed as a whole. Its rows may differ, so it has to be
    /// listed again. Must not do I/O.
    fn is_replaced(&self) -> bool {
        false
    }

    /// Number of rows that match `query`, ignoring its limit and offset.
    ///
    /// # Errors
    /// [`Error::Source`] when the source fails.
    async fn count(&self, query: &Query) -> Result<u64> {
        let _ = query;
        Err(Error::Unsupported { vista: "this source".into(), what: "count" })
    }

    /// At most `query.limit` rows after `token` (`None` for the first rows), and the next token, `None` after the last row.
    ///
    /// # Errors
    /// [`Error::Source`] when the source fails, [`Error::Invalid`] for a token that the source did not issue.
    async fn next(&self, query: &Query, token: Option<&Token>) -> Result<(Rows, Option<Token>)> {
        let _ = (query, token);
        Err(Error::Unsupported { vista: "this source".into(), what: "continue from a token" })
    }

    /// Carries out one write and returns the source's answer. Must be atomic.
    ///
    /// # Errors
    /// [`Error::Conflict`], [`Error::NotFound`], [`Error::Invalid`] for refusals, [`Error::Source`] when the source fails.
    async fn write(&self, op: &WriteOp) -> Result<Written> {
        let _ = op;
        Err(Error::Unsupported { vista: "this source".into(), what: "write" })
    }

    /// [`TableShell::write`] for the operation with this id, which is retried if its answer was lost. A source with exactly-once
    /// support stores the id together with the change, and answers a retry with the current row.
    ///
    /// # Errors
    /// As [`TableShell::write`].
    async fn write_once(&self, operation: &str, op: &WriteOp) -> Result<Written> {
        let _ = operation;
        self.write(op).await
    }

    /// True if [`TableShell::write_once`] guarantees that no operation takes effect twice.
    fn writes_once(&self) -> bool {
        false
    }

    /// True if changes of columns are to be written as whole rows, because the target does not keep rows: a topic, for example.
    fn takes_whole_rows(&self) -> bool {
        false
    }

    /// True if [`TableShell::write_once`] has recorded that the operation with this id took effect. Always false by default.
    ///
    /// # Errors
    /// [`Error::Source`] when the source fails.
    async fn knows(&self, operation: &str) -> Result<bool> {
        let _ = operation;
        Ok(false)
    }

    /// Maximum number of writes that [`TableShell::write_batch`] takes in one transaction; 1 for a source without transactions.
    fn batch_size(&self) -> usize {
        1
    }

    /// Carries out [`TableShell::write_once`] for each of `writes` (operation ids and their writes) in order; a source with
    /// transactions uses one for all. A refused write does not affect the others. The answer ends with the first failure that
    /// is not permanent: the writes after it were not tried.
    async fn write_batch(&self, writes: &[(String, WriteOp)]) -> Vec<Result<Written>> {
        let mut written = Vec::with_capacity(writes.len());
        for (operation, op) in writes {
            let done = self.write_once(operation, op).await;
            let is_retryable = done.as_ref().err().is_some_and(|error| error.kind() != ErrorKind::Permanent);
            written.push(done);
            if is_retryable {
                break;
            }
        }
        written
    }

    /// [`TableShell::write`] bounded by the filter and the search words of `within`: the other rows are treated as absent, see
    /// [`Narrowing`].
    ///
    /// The default reads the row, checks it, and writes: a concurrent write by another client in between is not noticed. Sources
    /// that can check and write in one step should do so.
    ///
    /// # Errors
    /// As [`TableShell::write`]; [`Error::NotFound`] for a row outside, [`Error::Conflict`] if a row outside has the id,
    /// [`Error::Invalid`] for a row that would be outside.
    async fn write_within(&self, op: &WriteOp, within: &Query) -> Result<Written> {
        narrowing::write(self, op, within).await
    }

    /// Inserts a row whose id the source chooses, and returns that id with the row. Without an id the row is inserted, and the source
    /// has not told which it is.
    ///
    /// # Errors
    /// As [`TableShell::write`].
    async fn insert_return_id(&self, record: &Record) -> Result<Written> {
        let _ = record;
        Err(Error::Unsupported { vista: "this source".into(), what: "choose an id" })
    }

    /// [`TableShell::insert_return_id`] bounded by `within`, as [`TableShell::write_within`] is.
    ///
    /// # Errors
    /// As [`TableShell::write_within`].
    async fn insert_return_id_within(&self, record: &Record, within: &Query) -> Result<Written> {
        let within = Narrowing::new(within, &self.schema());
        let mut record = record.clone();
        within.complete(&mut record);
        within.check_after(&record)?;
        self.insert_return_id(&record).await
    }

    /// The Vista on the other side of `relation` for `row`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown relation.
    fn reference(&self, relation: &str, row: &Record) -> Result<Vista> {
        let _ = row;
        Err(Error::invalid(format!("there is no relation {relation:?}")))
    }
}
