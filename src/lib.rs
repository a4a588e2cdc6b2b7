//! Diorama puts any data source that is slow, rate-limited or poor behind a fast, live API.
pub mod cache;
pub mod drivers;
pub mod gateway;
pub mod hot;
pub mod journal;
pub mod record;
pub mod vista;

pub use record::{CborValue, Record, Rows};
pub use vista::{
    Capabilities, ChangeEvent, Column, ColumnType, Error, Filter, Flag, OrderTerm, Query, Result, Schema, TableShell,
    Vista, WriteOp, Written,
};
