//! Sceneries: standing, reactive views onto a [`Dio`] for user interfaces. A table ([`TableScenery`]), one record
//! ([`RecordScenery`]), one aggregated value ([`ValueScenery`]).
//!
//! A scenery holds what it shows: reading it never waits and never fetches. It follows the Dio's events, reads again when one
//! of them matters, at most every 25 ms, and moves its [`Generation`] when what it shows has changed; whoever draws it waits
//! for that on a `watch` channel. While `on_refresh` runs it goes on showing what was there before, with the writes and
//! upstream events since: never a half-filled cache. Before the first copy it shows that it is loading, or why that failed,
//! and fills by itself when the copy is there.
//!
//! Handles are cheap clones. They keep the Dio alive; dropping the last one ends the scenery's task.
//!
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
    /// Describes a view of many rows: which, in what order. Nothing happens before
    /// [`open`](TableSceneryBuilder::open).
    pub fn table_scenery(&self) -> TableSceneryBuilder {
        TableSceneryBuilder::new(self.clone())
    }

    /// Opens a view of one row, which may not be there (yet).
    ///
    /// # Errors
    /// What the master says, if the Dio holds only part of its rows and not this one.
    pub async fn record_scenery(&self, id: impl Into<String>) -> Result<RecordScenery> {
        RecordScenery::open(self.clone(), id.into()).await
    }

    /// Describes a view of one value that is computed from many rows. Nothing happens before
    /// [`open`](ValueSceneryBuilder::open).
    pub fn value_scenery(&self) -> ValueSceneryBuilder {
        ValueSceneryBuilder::new(self.clone())
    }
}

/// Counts how often what a scenery shows has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(u64);

impl Generation {
    /// The number.
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

/// What a scenery shows, all of one moment.
#[derive(Debug)]
pub struct ScenerySnapshot {
    /// Counts how often it was another.
    pub version: u64,
    /// The position of the log that it was last seen to be true at.
    pub seq: Seq,
    /// How many rows there are in all, if that is known.
    pub total: Option<u64>,
    /// Rows in order, by id.
    pub rows: Vec<(Id, Body)>,
}

/// What the clones of a handle share. When it goes, the scenery's task ends.
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
