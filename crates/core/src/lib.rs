//! The library behind Diorama: [`Vista`], [`Lens`], [`Dio`] and Scenery, without HTTP.
//!
//! Programs use it through the crate `diorama`. The guide is in the documentation of that crate.

pub mod cache;
pub mod dio;
pub mod journal;
pub mod lens;
// `plan`, `state` and `table` are public for the other crates, tests, benches and fuzz targets of this repository. They
// are not part of the interface: programs use them through `dio`.
#[doc(hidden)]
pub mod plan;
pub mod record;
mod redb_file;
pub mod scenery;
#[doc(hidden)]
pub mod state;
#[doc(hidden)]
pub mod table;
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
