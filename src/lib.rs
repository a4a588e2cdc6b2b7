//! Diorama puts any data source that is slow, rate-limited or poor (a CSV file, a SQL table, somebody's REST API) behind a
//! fast, live API: a local copy that answers every read, a queue that takes every write, a log of events that tells every
//! change.
//!
//! Three things it does:
//!
//! - **Transparent caching.** Reads come from the copy and never from the master, however slow that is.
//! - **Capability injection.** A source that can only be listed is counted, paged, sorted, searched and filtered from the copy.
//! - **Custom write routing.** Writes go to the master, or wherever `on_write` sends them. The copy shows them at once; the rest
//!   happens behind it.
//!
//! Nothing acknowledged is lost: a write that was accepted is in the journal, and survives a crash if that is a file.
//!
//! # The four words
//!
//! - [`Vista`]: a handle on one source, whatever it is. It advertises what it can do and refuses the rest.
//! - [`Lens`]: long-lived shared infrastructure: cache, journal, callbacks, policies. Built once.
//! - [`Dio`]: a Vista bound to a Lens. Owns the copy, the write queue, the event log and the refresh task.
//! - *Scenery*: a standing reactive view onto a Dio: ordered rows ([`TableScenery`]), one record ([`RecordScenery`]), one
//!   value ([`ValueScenery`]).
//!
//! ```text
//! Vista → Lens.make_dio(vista) → Dio → facade Vista | Scenery
//!                                 ↑
//!                             cache + events
//! ```
//!
//! Where sources come from: [`connect`], or your own [`TableShell`]. Who serves Dios over HTTP: [`gateway`], in any axum app. The
//! guides in the repository's `docs/` are about queries, writes, events, webhooks and operating.
//!
//! # Building a Lens
//!
//! A Lens is built once and shared by all Dios that are made with it. The usual `on_start` seeds the cache from the master:
//!
//! ```
//! # use diorama::connect::MemoryTable;
//! # use diorama::{Column, ColumnType, Record, Schema, Vista};
//! # fn products() -> Vista {
//! #     let columns = [("id", ColumnType::String), ("name", ColumnType::String), ("price", ColumnType::Integer), ("category_id", ColumnType::Integer)];
//! #     let schema = Schema::new("id", columns.into_iter().map(|(name, ty)| Column::new(name, ty)).collect());
//! #     let row = |id: &str, name: &str, category: i64| {
//! #         (id.to_string(), Record::from_iter([("name".into(), name.into()), ("category_id".into(), category.into())]))
//! #     };
//! #     MemoryTable::vista("products", schema, [row("1", "Bun", 1), row("7", "Tart", 2)])
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # std::env::set_current_dir(&folder)?;
//! use std::sync::Arc;
//! use std::time::Duration;
//! use diorama::Lens;
//!
//! let lens = Arc::new(
//!     Lens::new()
//!         .cache_at("./cache.redb")
//!         .on_start(|dio| {
//!             let dio = dio.clone();
//!             async move {
//!                 let rows = dio.master().list_values().await?;
//!                 dio.cache().insert_values(rows).await?;
//!                 Ok(())
//!             }
//!         })
//!         .refresh_every(Duration::from_secs(300))
//!         .build()?,
//! );
//! # let products_dio = lens.make_dio(products()).await?;
//! # assert_eq!(products_dio.cache().count().await?, 2);
//! # assert!(std::path::Path::new("cache.redb").is_file());
//! # Ok(())
//! # }
//! ```
//!
//! - `.cache_at(path)` opens a redb file; each Dio claims a table in it. `.cache_source(backend)` takes any other
//!   [`CacheBackend`].
//! - `.on_start` runs once for each Dio, when it is made.
//! - `.refresh_every` needs `.on_refresh`; together they read the master again on a timer.
//!
//! Every callback is lent the Dio. Clone it (one `Arc`) to take it along:
//!
//! ```
//! # fn build(lens: diorama::LensBuilder) -> diorama::LensBuilder {
//! # lens
//! .on_start(|dio| {
//!     let dio = dio.clone();
//!     async move {
//!         // dio is now owned, safe to hold across await
//! #         dio.cache().count().await.map(drop)
//!     }
//! })
//! # }
//! # assert!(build(diorama::Lens::new()).build().is_err());
//! ```
//!
//! # Creating a Dio
//!
//! `make_dio` opens the cache table named after the Vista, starts the write worker and the timer, runs `on_start` and returns
//! the Dio, ready to use. With `on_start_blocking(false)` it returns at once, and reads fail with [`Error::NotReady`] until the
//! first copy is there. If the cache holds a whole copy and the master is away, that copy is served, and `on_start` is tried
//! again:
//!
//! ```
//! # use diorama::connect::MemoryTable;
//! # use diorama::{Column, ColumnType, Record, Schema, Vista};
//! # fn products() -> Vista {
//! #     let columns = [("id", ColumnType::String), ("name", ColumnType::String), ("price", ColumnType::Integer), ("category_id", ColumnType::Integer)];
//! #     let schema = Schema::new("id", columns.into_iter().map(|(name, ty)| Column::new(name, ty)).collect());
//! #     let row = |id: &str, name: &str, category: i64| {
//! #         (id.to_string(), Record::from_iter([("name".into(), name.into()), ("category_id".into(), category.into())]))
//! #     };
//! #     MemoryTable::vista("products", schema, [row("1", "Bun", 1), row("7", "Tart", 2)])
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let lens = diorama::Lens::new().cache_source(diorama::cache::MemoryCache::new()).build()?;
//! # let products_vista = products();
//! let products_dio = lens.make_dio(products_vista).await?;
//! # assert_eq!(products_dio.name(), "products");
//! # Ok(())
//! # }
//! ```
//!
//! Make as many as you like from one Lens, one for each Vista.
//!
//! # Reading
//!
//! The cache is a simple store of rows by id:
//!
//! ```
//! # use diorama::connect::MemoryTable;
//! # use diorama::{Column, ColumnType, Record, Schema, Vista};
//! # fn products() -> Vista {
//! #     let columns = [("id", ColumnType::String), ("name", ColumnType::String), ("price", ColumnType::Integer), ("category_id", ColumnType::Integer)];
//! #     let schema = Schema::new("id", columns.into_iter().map(|(name, ty)| Column::new(name, ty)).collect());
//! #     let row = |id: &str, name: &str, category: i64| {
//! #         (id.to_string(), Record::from_iter([("name".into(), name.into()), ("category_id".into(), category.into())]))
//! #     };
//! #     MemoryTable::vista("products", schema, [row("1", "Bun", 1), row("7", "Tart", 2)])
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let lens = diorama::Lens::new()
//! #     .cache_source(diorama::cache::MemoryCache::new())
//! #     .on_start(|dio| {
//! #         let dio = dio.clone();
//! #         async move { dio.cache().insert_values(dio.master().list_values().await?).await }
//! #     })
//! #     .build()?;
//! # let products_dio = lens.make_dio(products()).await?;
//! // List everything in cache
//! let rows = products_dio.cache().list_values().await?;
//!
//! // Get one record by id
//! let product = products_dio.cache().get_value("7").await?;
//!
//! // Count
//! let n = products_dio.cache().count().await?;
//! # assert_eq!((rows.len(), n), (2, 2));
//! # assert_eq!(product.map(|row| row["name"].clone()), Some("Tart".into()));
//! # Ok(())
//! # }
//! ```
//!
//! The facade is a Vista over the Dio: reads from the cache, writes through the queue, schema from the master.
//!
//! ```
//! # use diorama::connect::MemoryTable;
//! # use diorama::{Column, ColumnType, Record, Schema, Vista};
//! # fn products() -> Vista {
//! #     let columns = [("id", ColumnType::String), ("name", ColumnType::String), ("price", ColumnType::Integer), ("category_id", ColumnType::Integer)];
//! #     let schema = Schema::new("id", columns.into_iter().map(|(name, ty)| Column::new(name, ty)).collect());
//! #     let row = |id: &str, name: &str, category: i64| {
//! #         (id.to_string(), Record::from_iter([("name".into(), name.into()), ("category_id".into(), category.into())]))
//! #     };
//! #     MemoryTable::vista("products", schema, [row("1", "Bun", 1), row("7", "Tart", 2)])
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let lens = diorama::Lens::new()
//! #     .cache_source(diorama::cache::MemoryCache::new())
//! #     .on_start(|dio| {
//! #         let dio = dio.clone();
//! #         async move { dio.cache().insert_values(dio.master().list_values().await?).await }
//! #     })
//! #     .build()?;
//! # let products_dio = lens.make_dio(products()).await?;
//! let mut v = products_dio.vista();
//! v.add_condition_eq("category_id", 1.into())?;
//! let rows = v.list_values().await?;  // served from cache
//! # assert_eq!(rows.ids().collect::<Vec<_>>(), ["1"]);
//! # Ok(())
//! # }
//! ```
//!
//! It can do what the master can and what a whole copy adds; with `on_write` also what the route adds.
//!
//! # Writing
//!
//! A write becomes a [`WriteOp`] on the Dio's queue. When the call returns it is in the journal and every reader sees it:
//!
//! ```
//! # use diorama::connect::MemoryTable;
//! # use diorama::{Column, ColumnType, Schema, Vista};
//! # fn products() -> Vista {
//! #     let columns = [("id", ColumnType::String), ("name", ColumnType::String), ("price", ColumnType::Integer), ("category_id", ColumnType::Integer)];
//! #     let schema = Schema::new("id", columns.into_iter().map(|(name, ty)| Column::new(name, ty)).collect());
//! #     let row = |id: &str, name: &str, category: i64| {
//! #         (id.to_string(), diorama::Record::from_iter([("name".into(), name.into()), ("category_id".into(), category.into())]))
//! #     };
//! #     MemoryTable::vista("products", schema, [row("1", "Bun", 1), row("7", "Tart", 2)])
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let lens = diorama::Lens::new()
//! #     .cache_source(diorama::cache::MemoryCache::new())
//! #     .on_start(|dio| {
//! #         let dio = dio.clone();
//! #         async move { dio.cache().insert_values(dio.master().list_values().await?).await }
//! #     })
//! #     .build()?;
//! # let products_dio = lens.make_dio(products()).await?;
//! use diorama::Record;
//!
//! let record = Record::from_iter([
//!     ("name".into(), "Muffin".into()),
//!     ("price".into(), 175i64.into()),
//! ]);
//!
//! // Through the facade Vista
//! products_dio.vista().insert(&"muffin".to_string(), &record).await?;
//! # assert_eq!(products_dio.cache().get_value("muffin").await?.map(|row| row["price"].clone()), Some(175.into()));
//! # products_dio.close().await;
//! # assert!(products_dio.master().get_value("muffin").await?.is_some());
//! # Ok(())
//! # }
//! ```
//!
//! The worker hands it to `on_write` if there is one, else to the master, in the order of acceptance. What fails for a moment is
//! repeated, and holds what came after it ([`dio::WriteOrder`]); what fails for good is rolled back and told as
//! [`DioEvent::WriteFailed`]. At most `write_queue_capacity` writes wait; more callers wait for a place.
//!
//! # Events
//!
//! ```
//! # use diorama::connect::MemoryTable;
//! # use diorama::{Column, ColumnType, Record, Schema, Vista};
//! # fn products() -> Vista {
//! #     let columns = [("id", ColumnType::String), ("name", ColumnType::String), ("price", ColumnType::Integer), ("category_id", ColumnType::Integer)];
//! #     let schema = Schema::new("id", columns.into_iter().map(|(name, ty)| Column::new(name, ty)).collect());
//! #     let row = |id: &str, name: &str, category: i64| {
//! #         (id.to_string(), Record::from_iter([("name".into(), name.into()), ("category_id".into(), category.into())]))
//! #     };
//! #     MemoryTable::vista("products", schema, [row("1", "Bun", 1), row("7", "Tart", 2)])
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let lens = diorama::Lens::new()
//! #     .cache_source(diorama::cache::MemoryCache::new())
//! #     .on_start(|dio| {
//! #         let dio = dio.clone();
//! #         async move { dio.cache().insert_values(dio.master().list_values().await?).await }
//! #     })
//! #     .build()?;
//! # let products_dio = lens.make_dio(products()).await?;
//! use diorama::DioEvent;
//!
//! let mut rx = products_dio.subscribe_events();
//!
//! // In a spawned task
//! # let task =
//! tokio::spawn(async move {
//!     while let Ok(event) = rx.recv().await {
//!         match event {
//!             DioEvent::RecordChanged { id } => {
//!                 println!("updated: {}", id);
//!             }
//!             DioEvent::RecordInserted { id } => {
//!                 println!("new: {}", id);
//!             }
//!             DioEvent::RecordRemoved { id } => {
//!                 println!("deleted: {}", id);
//!             }
//!             DioEvent::Invalidated => {
//!                 println!("full refresh happened");
//!             }
//!             _ => {}
//!         }
//!     }
//! });
//! # products_dio.vista().delete("7").await?;
//! # products_dio.close().await;
//! # task.await?;
//! # Ok(())
//! # }
//! ```
//!
//! A receiver that falls behind is told so ([`DioEvent::Lagged`]) and goes on; it holds up nobody.
//!
//! # Live updates
//!
//! Changes that happened at the master come in by `dio.handle_event`, from a webhook, a stream or a queue. Without `on_event`
//! built-in rules reconcile them; with it the program does:
//!
//! ```
//! # use diorama::connect::MemoryTable;
//! # use diorama::{Column, ColumnType, Record, Schema, Vista};
//! # fn products() -> Vista {
//! #     let columns = [("id", ColumnType::String), ("name", ColumnType::String), ("price", ColumnType::Integer), ("category_id", ColumnType::Integer)];
//! #     let schema = Schema::new("id", columns.into_iter().map(|(name, ty)| Column::new(name, ty)).collect());
//! #     let row = |id: &str, name: &str, category: i64| {
//! #         (id.to_string(), Record::from_iter([("name".into(), name.into()), ("category_id".into(), category.into())]))
//! #     };
//! #     MemoryTable::vista("products", schema, [row("1", "Bun", 1), row("7", "Tart", 2)])
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # std::env::set_current_dir(&folder)?;
//! # use std::sync::Arc;
//! # use diorama::{ChangeEvent, Lens};
//! let lens = Arc::new(
//!     Lens::new()
//!         .cache_at("./cache.redb")
//!         .on_start(|dio| {
//!             let dio = dio.clone();
//!             async move {
//!                 let rows = dio.master().list_values().await?;
//!                 dio.cache().insert_values(rows).await?;
//!                 Ok(())
//!             }
//!         })
//!         .on_event(|dio, event| {
//!             let dio = dio.clone();
//!             async move {
//!                 match event {
//!                     ChangeEvent::Updated { id, new: Some(row) } => {
//!                         dio.patched(id, row).await?;
//!                     }
//!                     ChangeEvent::Deleted { id } => {
//!                         dio.cache().delete_value(&id).await?;
//!                         dio.invalidate_record(id);
//!                     }
//!                     ChangeEvent::Invalidated => {
//!                         dio.invalidate_all();
//!                     }
//!                     _ => {}
//!                 }
//!                 Ok(())
//!             }
//!         })
//!         .build()?,
//! );
//! # let dio = lens.make_dio(products()).await?;
//! # let new = Some(Record::from_iter([("name".to_string(), "Cherry tart".into())]));
//! # dio.handle_event(ChangeEvent::Updated { id: "7".into(), new }).await?;
//! # dio.handle_event(ChangeEvent::Deleted { id: "1".into() }).await?;
//! # assert_eq!(dio.cache().get_value("7").await?.map(|row| row["name"].clone()), Some("Cherry tart".into()));
//! # assert_eq!(dio.cache().count().await?, 1);
//! # Ok(())
//! # }
//! ```
//!
//! - `dio.patched(id, record)` writes to the cache and publishes `RecordChanged`.
//! - `dio.invalidate_record(id)` publishes `RecordChanged` without touching the cache.
//! - `dio.invalidate_all()` publishes `Invalidated`.
//!
//! # Refreshing
//!
//! `on_refresh` runs on the timer, and by hand. `Invalidated` is published when it is done:
//!
//! ```
//! # use diorama::connect::MemoryTable;
//! # use diorama::{Column, ColumnType, Record, Schema, Vista};
//! # fn products() -> Vista {
//! #     let columns = [("id", ColumnType::String), ("name", ColumnType::String), ("price", ColumnType::Integer), ("category_id", ColumnType::Integer)];
//! #     let schema = Schema::new("id", columns.into_iter().map(|(name, ty)| Column::new(name, ty)).collect());
//! #     let row = |id: &str, name: &str, category: i64| {
//! #         (id.to_string(), Record::from_iter([("name".into(), name.into()), ("category_id".into(), category.into())]))
//! #     };
//! #     MemoryTable::vista("products", schema, [row("1", "Bun", 1), row("7", "Tart", 2)])
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let lens = diorama::Lens::new()
//! #     .cache_source(diorama::cache::MemoryCache::new())
//! #     .on_start(|dio| {
//! #         let dio = dio.clone();
//! #         async move { dio.cache().insert_values(dio.master().list_values().await?).await }
//! #     })
//! #     .build()?;
//! # let products_dio = lens.make_dio(products()).await?;
//! # let mut rx = products_dio.subscribe_events();
//! products_dio.refresh().await?;
//! # assert_eq!(rx.recv().await?, diorama::DioEvent::Refreshing);
//! # assert_eq!(rx.recv().await?, diorama::DioEvent::Invalidated);
//! # Ok(())
//! # }
//! ```
//!
//! In an `on_refresh`, [`Dio::reconcile`] makes the cache equal to a fresh list and tells row by row what is different;
//! [`Dio::reconcile_whole`] does so with rows that the program made. `dio.cache().clear()` and the inserts after it are one
//! replacement: readers see the old rows until the callback returns `Ok`, then the new ones. [`Dio::begin_list`] takes a whole
//! list page by page, also outside of callbacks.
//!
//! # Putting it together
//!
//! ```
//! # use diorama::connect::MemoryTable;
//! # use diorama::{Column, ColumnType, Record, Schema, Vista};
//! # fn products() -> Vista {
//! #     let columns = [("id", ColumnType::String), ("name", ColumnType::String), ("price", ColumnType::Integer), ("category_id", ColumnType::Integer)];
//! #     let schema = Schema::new("id", columns.into_iter().map(|(name, ty)| Column::new(name, ty)).collect());
//! #     let row = |id: &str, name: &str, category: i64| {
//! #         (id.to_string(), Record::from_iter([("name".into(), name.into()), ("category_id".into(), category.into())]))
//! #     };
//! #     MemoryTable::vista("products", schema, [row("1", "Bun", 1), row("7", "Tart", 2)])
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # std::env::set_current_dir(&folder)?;
//! # let products_vista = products();
//! # let rec = Record::from_iter([("name".to_string(), "Muffin".into())]);
//! use std::sync::Arc;
//! use std::time::Duration;
//! use diorama::Lens;
//!
//! // Build once per application
//! let lens = Arc::new(
//!     Lens::new()
//!         .cache_at("./cache.redb")
//!         .on_start(|dio| {
//!             let dio = dio.clone();
//!             async move {
//!                 let rows = dio.master().list_values().await?;
//!                 dio.cache().insert_values(rows).await?;
//!                 Ok(())
//!             }
//!         })
//!         .refresh_every(Duration::from_secs(300))
//!         .build()?,
//! );
//!
//! // One Dio per entity
//! let products = lens.make_dio(products_vista).await?;
//!
//! // Read and write through the facade — cache is transparent
//! let mut v = products.vista();
//! let rows = v.list_values().await?;       // cache hit
//! v.insert(&"muffin".to_string(), &rec).await?;  // enqueued
//! # assert_eq!(rows.len(), 2);
//! # assert_eq!(v.list_values().await?.len(), 3);
//! # Ok(())
//! # }
//! ```
//!
//! # Callbacks
//!
//! | callback | when it runs | typical use |
//! |---|---|---|
//! | `on_start` | once, in `make_dio`; again while it fails | seed the cache from the master |
//! | `on_refresh` | timer and `refresh()` | read the master again |
//! | `on_write` | every [`WriteOp`] | route writes elsewhere |
//! | `on_event` | every [`ChangeEvent`] | reconcile live updates |
//! | `on_query` | a scenery reads ([`QueryRoute`]) | route queries |
//! | `total_provider` | a scenery opens | say how many rows there are |
//! | `on_load_chunk` | a scenery's viewport moves | fetch a range from the master |
//!
//! # Features
//!
//! | feature | default | brings |
//! |---|---|---|
//! | `csv` | yes | CSV files: `connect::Csv` |
//! | `json` | yes | JSON and NDJSON files: `connect::Json` |
//! | `sqlite` | yes | SQLite tables: `connect::Sqlite`; SQLite itself is compiled in |
//! | `mimalloc` | yes | the command's allocator, which gives memory back; the library brings none |
//! | `testing` | no | a journal that fails on demand and disks that lose power: `journal::double`, `journal::disk` |

#[cfg(feature = "command")]
pub mod app;
#[cfg(feature = "command")]
pub mod config;

pub use diorama_core::{
    CacheBackend, Capabilities, CborValue, ChangeEvent, Column, ColumnType, Dio, DioEvent, Error, EventReceiver,
    Filter, Flag, Generation, Inferred, Lens, LensBuilder, LoadState, OrderTerm, Query, QueryRoute, Record,
    RecordScenery, RecordStatus, Result, Rows, Schema, TableScenery, TableShell, ValueScenery, Vista, WeakDio, WriteOp,
    Written,
};

/// Storage of a Dio's rows: in memory, in a file, or elsewhere.
pub mod cache {
    pub use diorama_core::cache::{Bytes, CacheBackend, CacheError, CacheTable, CachedRow, Id, MemoryCache, RedbCache};
}

/// The systems that it connects to, and the contract of connectors.
pub mod connect {
    #[cfg(feature = "ws")]
    pub use diorama_connect::WsFeed;
    pub use diorama_connect::{Connector, Key, Late, MemoryTable, Registry, Route, Settings, Source, SourceRequest};
    #[cfg(feature = "csv")]
    pub use diorama_connect::{Csv, CsvOptions};
    #[cfg(feature = "feed")]
    pub use diorama_connect::{Feed, FeedFormat};
    #[cfg(feature = "sqlite")]
    pub use diorama_connect::{JournalMode, Sqlite, SqliteOptions};
    #[cfg(feature = "json")]
    pub use diorama_connect::{Json, JsonOptions};
}

/// What is asked of a [`Dio`], and what it says.
pub mod dio {
    pub use diorama_core::dio::{
        Backoff, BreakerLimits, BreakerState, ChunkRequest, ChunkSink, Condition, Counters, Dio, DioCache, DioEvent,
        DroppedColumn, EventReceiver, FeedMeter, FeedStatus, Freshness, HeldBy, Histogram, IdempotencyKey, Inbound,
        Mismatch, OnUnknown, OpError, OpId, Operation, OperationQuery, OperationState, Origin, Position, Purged,
        QueryRoute, Reach, Reconciled, RefreshReport, Retry, RingLimits, Settings, Status, Ticket, Times, WeakDio,
        WholeList, Workers, WriteOptions, WriteOrder, WriteRoute,
    };
}

/// Dios as HTTP resources in a router of axum's.
#[cfg(feature = "gateway")]
pub mod gateway {
    pub use diorama_gateway::webhook;
    pub use diorama_gateway::{
        Ack, ApiError, Archive, Auth, Backup, Caller, Code, Explorer, Gateway, GatewayService, Limits, Loopback,
        MountOptions, Sockets,
    };
}

/// Webhooks: signatures, senders, maps.
#[cfg(feature = "gateway")]
pub use diorama_inbound as inbound;

/// The log of what must never be lost: in a file, in memory, or elsewhere.
pub mod journal {
    pub use diorama_core::journal::{
        AppendError, Changes, Claim, Delivery, DeliveryId, DeliveryQuery, DeliveryState, InboxLimits, InboxUse,
        Journal, JournalError, Kept, LogBatch, LogEntry, LogId, LogState, MemoryJournal, Raw, RedbJournal, Rewrite,
        Seq,
    };
}

/// Infrastructure that Dios share.
pub mod lens {
    pub use diorama_core::lens::{DioBuilder, Lens, LensBuilder};
}

/// Rows and their values.
pub mod record {
    pub use diorama_core::record::{
        Body, BodyError, CborValue, Id, JsonError, JsonLimits, Layout, Record, Rows, RowsIter, Stamp, Undecodable,
        parse_json, value_to_json,
    };
}

/// Standing views onto a Dio.
pub mod scenery {
    pub use diorama_core::scenery::{
        Generation, LoadState, RecordScenery, RecordStatus, TableScenery, TableSceneryBuilder, ValueScenery,
        ValueSceneryBuilder,
    };
}

/// The contract of sources.
pub mod vista {
    pub use diorama_core::vista::{
        Capabilities, ChangeEvent, Coercion, Column, ColumnType, Error, ErrorKind, Filter, Flag, Inferred, Kinds,
        Narrowing, OrderTerm, Query, Reference, Result, Schema, SourceShape, TableShell, Token, UnknownColumns, Vista,
        WriteKind, WriteOp, Written,
    };

    /// The query language.
    pub mod query {
        pub use diorama_core::vista::query::{
            AggregateItem, Aggregation, Cursor, Fields, Filter, Function, JsonRow, OrderTerm, Path, Pattern, Prepared,
            Projection, Query, SelectItem, Test, Truth,
        };
    }
}

/// The README's example is compiled like those of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[derive(Debug)]
pub struct Readme;

/// So are those of the guide to embedding.
#[cfg(doctest)]
#[doc = include_str!("../docs/embedding.md")]
#[derive(Debug)]
pub struct Embedding;
