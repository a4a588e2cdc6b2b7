//! A source that could not be opened when it was asked for, with the shape it had when it was last there.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use tokio::sync::OnceCell;

use diorama_core::record::{Record, Rows};
use diorama_core::vista::{
    Capabilities, Error, Inferred, Query, Result, Schema, SourceShape, TableShell, Token, Vista, WriteOp, Written,
};

type Open = Box<dyn Fn() -> BoxFuture<'static, Result<Vista>> + Send + Sync>;

/// A source that is opened by the first call that finds it there; until then every call fails as opening it does.
///
/// Its shape is the remembered one. A source that comes back with other columns stays shut: what is served was made for the
/// old ones.
pub struct Deferred {
    shape: SourceShape,
    schema: Arc<Schema>,
    open: Open,
    source: OnceCell<Arc<dyn TableShell>>,
}

impl std::fmt::Debug for Deferred {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Late").field("shape", &self.shape).finish_non_exhaustive()
    }
}

impl Deferred {
    /// The source that `open` opens, which was of `shape`.
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
                    let what = "its columns are not what they were when it was last read: restart to serve it as it is";
                    return Err(Error::permanent(format!("{}: {what}", vista.name())));
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
