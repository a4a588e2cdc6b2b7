//! Stand-in for a source that could not be opened at start, with its last known shape.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use tokio::sync::OnceCell;

use diorama_core::record::{Record, Rows};
use diorama_core::vista::{
    Capabilities, Error, Inferred, Query, Result, Schema, SourceShape, TableShell, Token, Vista, WriteOp, Written,
};

type Open = Box<dyn Fn() -> BoxFuture<'static, Result<Vista>> + Send + Sync>;

/// A source that is opened by the first call for which it is available. Until then every call fails with the error of opening.
///
/// Its shape is the remembered one. If the source returns with other columns, calls keep failing, because the resource was built
/// for the old columns.
pub struct Deferred {
    shape: SourceShape,
    schema: Arc<Schema>,
    open: Open,
    source: OnceCell<Arc<dyn TableShell>>,
}

impl std::fmt::Debug for Deferred {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deferred").field("shape", &self.shape).finish_non_exhaustive()
    }
}

impl Deferred {
    /// Returns a vista of the source that `open` opens and that last had `shape`.
    pub fn vista(
        name: &str,
        shape: SourceShape,
        open: impl Fn() -> BoxFuture<'static, Result<Vista>> + Send + Sync + 'static,
    ) -> Vista {
        let schema = Arc::new(shape.schema());
        Vista::new(name, Deferred { shape, schema, open: Box::new(open), source: OnceCell::new() })
    }

    async fn source(&self) -> Result<&Arc<dyn TableShell>> {
        self.source
            .get_or_try_init(|| async {
                let vista = (self.open)().await?;
                if vista.schema().columns() != self.schema.columns() {
                    let detail =
                        "its columns have changed since it was last read: restart to serve it with the new columns";
                    return Err(Error::permanent(format!("{}: {detail}", vista.name())));
                }
                Ok(Arc::clone(vista.shell()))
            })
            .await
    }
}

#[async_trait]
impl TableShell for Deferred {
    fn schema(&self) -> Arc<Schema> {
        Arc::clone(&self.schema)
    }

    fn capabilities(&self) -> Capabilities {
        self.shape.capabilities
    }

    async fn list(&self, query: &Query) -> Result<Rows> {
        self.source().await?.list(query).await
    }

    async fn list_changed(&self, fingerprint: &str) -> Result<Option<Rows>> {
        self.source().await?.list_changed(fingerprint).await
    }

    async fn list_into(&self, query: &Query, rows: Rows) -> Result<Rows> {
        self.source().await?.list_into(query, rows).await
    }

    async fn list_changed_into(&self, fingerprint: &str, rows: Rows) -> Result<Option<Rows>> {
        self.source().await?.list_changed_into(fingerprint, rows).await
    }

    async fn list_since(&self, since: &str) -> Result<Option<Rows>> {
        self.source().await?.list_since(since).await
    }

    async fn get(&self, id: &str) -> Result<Option<Record>> {
        self.source().await?.get(id).await
    }

    fn reads_one(&self) -> bool {
        self.shape.reads_one
    }

    fn inferred(&self) -> Vec<Inferred> {
        self.source.get().map_or(Vec::new(), |source| source.inferred())
    }

    fn withheld(&self) -> Option<String> {
        self.source.get().and_then(|source| source.withheld())
    }

    fn warnings(&self) -> Vec<String> {
        self.source.get().map_or(Vec::new(), |source| source.warnings())
    }

    fn is_replaced(&self) -> bool {
        self.source.get().is_some_and(|source| source.is_replaced())
    }

    async fn count(&self, query: &Query) -> Result<u64> {
        self.source().await?.count(query).await
    }

    async fn next(&self, query: &Query, token: Option<&Token>) -> Result<(Rows, Option<Token>)> {
        self.source().await?.next(query, token).await
    }

    async fn write(&self, op: &WriteOp) -> Result<Written> {
        self.source().await?.write(op).await
    }

    async fn write_within(&self, op: &WriteOp, within: &Query) -> Result<Written> {
        self.source().await?.write_within(op, within).await
    }

    async fn insert_return_id_within(&self, record: &Record, within: &Query) -> Result<Written> {
        self.source().await?.insert_return_id_within(record, within).await
    }

    async fn write_once(&self, operation: &str, op: &WriteOp) -> Result<Written> {
        self.source().await?.write_once(operation, op).await
    }

    async fn knows(&self, operation: &str) -> Result<bool> {
        self.source().await?.knows(operation).await
    }

    fn writes_once(&self) -> bool {
        self.shape.writes_once
    }

    fn batch_size(&self) -> usize {
        self.source.get().map_or(1, |source| source.batch_size())
    }

    async fn write_batch(&self, writes: &[(String, WriteOp)]) -> Vec<Result<Written>> {
        match self.source().await {
            Ok(source) => source.write_batch(writes).await,
            Err(error) => vec![Err(error)],
        }
    }

    async fn insert_return_id(&self, record: &Record) -> Result<Written> {
        self.source().await?.insert_return_id(record).await
    }
}
