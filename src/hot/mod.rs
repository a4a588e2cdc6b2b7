//! The hot tier: what a Dio knows, in memory. Pure and synchronous: no disk, no network, no task.

pub mod table;

pub use table::{RowRef, Slot, Table, TableBuilder};
