//! Sceneries: live views of a [`Dio`] for user interfaces. A table ([`TableScenery`]), one record ([`RecordScenery`]), one
//! aggregated value ([`ValueScenery`]).
//!
//! A scenery holds its content in memory: reading it never waits and never fetches. It follows the Dio's events, reads again
//! when one of them matters, at most every 25 ms, and increments its [`Generation`] when its content changes. Drawing code
//! waits for that on a `watch` channel.
//!
//! While `on_refresh` runs, a scenery keeps showing the earlier content with the writes and upstream events since, never a
//! half-filled cache. Before the first copy it shows that it is loading, or the reason of a failure, and fills by itself when
//! the copy is complete.
//!
//! Handles are cheap to clone. They keep the Dio open; dropping the last one ends the scenery's task.
//! # Example
//! ```
//! # async fn draw(products: &diorama_core::Dio) -> diorama_core::Result<()> {
//! let cheap = products.table_scenery().where_eq("category_id", 1).sort("price", false).open().await?;
//! let mut generation = cheap.subscribe();
//! loop {
//!     for (id, product) in &cheap.rows() {
//!         println!("{id}: {:?}", product.get("name"));
//!     }
//!     println!("{} in all", cheap.row_count());
//!     if generation.changed().await.is_err() {
//!         return Ok(());
//!     }
//! }
//! # }
//! ```

mod follow;
mod record;
mod table;
mod value;
mod window;

pub use record::{RecordScenery, RecordStatus};
pub use table::{LoadState, TableScenery, TableSceneryBuilder};
pub use value::{ValueScenery, ValueSceneryBuilder};

use std::future::Future;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::dio::Dio;
use crate::journal::Seq;
use crate::record::{Body, Id};
use crate::vista::Result;

impl Dio {
    /// Starts building a view of many rows. Nothing happens before [`open`](TableSceneryBuilder::open).
    pub fn table_scenery(&self) -> TableSceneryBuilder {
        TableSceneryBuilder::new(self.clone())
    }

    /// Opens a view of one row, which need not exist yet.
    ///
    /// # Errors
    /// Errors of the master, if the Dio holds only part of its rows and not this one.
    pub async fn record_scenery(&self, id: impl Into<String>) -> Result<RecordScenery> {
        RecordScenery::open(self.clone(), id.into()).await
    }

    /// Starts building a view of one value that is computed from many rows. Nothing happens before
    /// [`open`](ValueSceneryBuilder::open).
    pub fn value_scenery(&self) -> ValueSceneryBuilder {
        ValueSceneryBuilder::new(self.clone())
    }
}

/// Counter of changes of a scenery's content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(u64);

impl Generation {
    /// Returns the number.
    pub fn get(self) -> u64 {
        self.0
    }

    fn bump(generation: &watch::Sender<Generation>) {
        generation.send_modify(|generation| generation.0 += 1);
    }
}

impl std::fmt::Display for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Consistent snapshot of a scenery's content.
#[derive(Debug)]
pub struct ScenerySnapshot {
    /// Number of changes so far.
    pub version: u64,
    /// Newest log position at which the content is known to be current.
    pub seq: Seq,
    /// Total number of rows, if known.
    pub total: Option<u64>,
    /// Rows in order, by id.
    pub rows: Vec<(Id, Body)>,
}

/// State shared by the clones of a handle. Dropping it ends the scenery's task.
struct TaskHandle<T> {
    dio: Dio,
    shared: Arc<T>,
    _stop: DropGuard,
}

impl<T: Send + Sync + 'static> TaskHandle<T> {
    /// Runs `task` until the last handle is dropped or the Dio closes.
    fn start(dio: Dio, shared: Arc<T>, task: impl Future<Output = ()> + Send + 'static) -> Arc<TaskHandle<T>> {
        let stop = CancellationToken::new();
        let (stopped, closing) = (stop.clone(), dio.0.core.tasks.closing().clone());
        dio.0.core.tasks.spawn(async move {
            tokio::select! {
                () = task => {}
                () = stopped.cancelled() => {}
                () = closing.cancelled() => {}
            }
        });
        Arc::new(TaskHandle { dio, shared, _stop: stop.drop_guard() })
    }
}
