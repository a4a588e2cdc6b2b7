//! Diorama puts any data source that is slow, rate-limited or poor behind a fast, live API.
pub mod app;
pub mod cache;
pub mod config;
pub mod dio;
pub mod drivers;
pub mod gateway;
pub mod hot;
pub mod inbound;
pub mod journal;
pub mod lens;
pub mod record;
mod redb_file;
pub mod vista;

pub use dio::{Dio, DioEvent};
pub use lens::{Lens, LensBuilder};
pub use cache::CacheBackend;
pub use record::{CborValue, Record, Rows};
pub use vista::{
    Capabilities, ChangeEvent, Column, ColumnType, Error, Filter, Flag, OrderTerm, Query, Result, Schema, TableShell,
    Vista, WriteOp, Written,
};
