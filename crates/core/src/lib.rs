//! The library behind Diorama: [`Vista`], [`Lens`], [`Dio`] and Scenery, without HTTP.
//!
//! Programs use it through the crate `diorama`, whose documentation has the guide.

pub mod cache;
pub mod dio;
// What a Dio knows, in memory. Public for the tests, benches and fuzz targets of this repository; no part of the interface: what
// users meet of it is in `dio`.
#[doc(hidden)]
pub mod hot;
pub mod journal;
pub mod lens;
pub mod record;
mod redb_file;
pub mod scenery;
pub mod vista;

pub use cache::CacheBackend;
pub use dio::{Dio, DioEvent, EventReceiver, QueryRoute, WeakDio};
pub use lens::{Lens, LensBuilder};
pub use record::{CborValue, Record, Rows};
pub use scenery::{Generation, LoadState, RecordScenery, RecordStatus, TableScenery, ValueScenery};
pub use vista::{
    Capabilities, ChangeEvent, Column, ColumnType, Error, Filter, Flag, Inferred, OrderTerm, Query, Result, Schema,
    TableShell, Vista, WriteOp, Written,
};
