//! What a driver implements.

use std::sync::Arc;

use async_trait::async_trait;

use super::narrowing::{self, Narrowing};
use super::{Capabilities, Error, ErrorKind, Inferred, Query, Result, Schema, Vista, WriteOp, Written};
use crate::record::{Record, Rows};

/// An opaque continuation: what `fetch_next` gives and takes.
pub type Token = String;

/// One source. A driver needs `schema` and `list`; everything else has a default that says `Unsupported`.
///
/// A shell is called only for what its [`Capabilities`] advertise: [`Vista`] refuses the rest before it gets here. It must
/// be safe to call from many tasks at once, and dropping a call's future must leave the source unharmed.
#[async_trait]
pub trait TableShell: Send + Sync + 'static {
    /// The shape of the rows. Must not do I/O.
    fn schema(&self) -> Arc<Schema>;

    /// What this source can do. Must not do I/O.
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    /// The rows that `query` asks for, in its order. Without capabilities the query is empty: the whole list, in the source's
    /// own order. Rows must be complete or an error: never a part.
    ///
    /// # Errors
    /// [`Error::Source`] when the source fails.
    async fn list(&self, query: &Query) -> Result<Rows>;

    /// One row. The default lists everything and picks it.
    ///
    /// # Errors
    /// [`Error::Source`] when the source fails.
    async fn get(&self, id: &str) -> Result<Option<Record>> {
        Ok(self.list(&Query::default()).await?.get(id))
    }

    /// Whether [`TableShell::get`] reads one row without listing all.
    fn reads_one(&self) -> bool {
        false
    }

    /// Why the last list is held back, for people: the source looks half written, say. Must not do I/O.
    fn withheld(&self) -> Option<String> {
        None
    }

    /// Findings about the source that were not declared. Must not do I/O.
    fn inferred(&self) -> Vec<Inferred> {
        Vec::new()
    }

    /// Whether another source stands in the place of the one that was last listed as a whole: its rows may be others, so that
    /// it is to be listed again. Must not do I/O.
    fn is_replaced(&self) -> bool {
        false
    }

    /// How many rows match `query` (its limit and offset do not count).
    ///
    /// # Errors
    /// [`Error::Source`] when the source fails.
    async fn count(&self, query: &Query) -> Result<u64> {
        let _ = query;
        Err(Error::Unsupported { vista: "this source".into(), what: "count" })
    }

    /// The next rows after `token` (`None` starts), at most `query.limit`; the token to go on with, `None` when done.
    ///
    /// # Errors
    /// [`Error::Source`] when the source fails, [`Error::Invalid`] for a token that is not its own.
    async fn next(&self, query: &Query, token: Option<&Token>) -> Result<(Rows, Option<Token>)> {
        let _ = (query, token);
        Err(Error::Unsupported { vista: "this source".into(), what: "continue from a token" })
    }

    /// Carries out one write and returns what the source says of it. Must be all or nothing.
    ///
    /// # Errors
    /// [`Error::Conflict`], [`Error::NotFound`], [`Error::Invalid`] for refusals, [`Error::Source`] when it fails.
    async fn write(&self, op: &WriteOp) -> Result<Written> {
        let _ = op;
        Err(Error::Unsupported { vista: "this source".into(), what: "write" })
    }

    /// [`TableShell::write`] for the operation with this id, which may come again when its answer was lost. A source that can
    /// remembers the id together with the change, and answers a repetition with the row as it is.
    ///
    /// # Errors
    /// As [`TableShell::write`].
    async fn write_once(&self, operation: &str, op: &WriteOp) -> Result<Written> {
        let _ = operation;
        self.write(op).await
    }

    /// Whether [`TableShell::write_once`] proves that no operation takes effect twice.
    fn writes_once(&self) -> bool {
        false
    }

    /// Whether the operation with this id is known to have taken effect, by what [`TableShell::write_once`] remembers. By default
    /// nothing is known.
    ///
    /// # Errors
    /// [`Error::Source`] when the source fails.
    async fn knows(&self, operation: &str) -> Result<bool> {
        let _ = operation;
        Ok(false)
    }

    /// How many writes [`TableShell::write_batch`] takes in one transaction, at most; 1 for a source without transactions.
    fn batch_size(&self) -> usize {
        1
    }

    /// Carries out [`TableShell::write_once`] for each of `writes`, operation ids with what they do, in their order; a source
    /// with transactions takes them in one. A refused write takes no other with it. The answer ends with the first failure that
    /// may pass: what follows was not tried.
    async fn write_batch(&self, writes: &[(String, WriteOp)]) -> Vec<Result<Written>> {
        let mut written = Vec::with_capacity(writes.len());
        for (operation, op) in writes {
            let done = self.write_once(operation, op).await;
            let passes = done.as_ref().err().is_some_and(|error| error.kind() != ErrorKind::Permanent);
            written.push(done);
            if passes {
                break;
            }
        }
        written
    }

    /// [`TableShell::write`] bounded by the filter and the search words of `within`, as [`Narrowing`] says: as if the other rows
    /// were not there.
    ///
    /// The default reads the row, judges, and writes: a write by somebody else in between is not noticed. Sources that can judge
    /// and write in one step should.
    ///
    /// # Errors
    /// As [`TableShell::write`]; [`Error::NotFound`] for a row outside, [`Error::Conflict`] where one is in the way,
    /// [`Error::Invalid`] for a row that would be outside.
    async fn write_within(&self, op: &WriteOp, within: &Query) -> Result<Written> {
        narrowing::write(self, op, within).await
    }

    /// Inserts a row whose id the source chooses, and returns that id with the row.
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
    /// [`Error::Invalid`] if there is no such relation.
    fn reference(&self, relation: &str, row: &Record) -> Result<Vista> {
        let _ = row;
        Err(Error::invalid(format!("there is no relation {relation:?}")))
    }
}
