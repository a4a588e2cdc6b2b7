//! The source contract: consumers hold a [`Vista`], drivers implement [`TableShell`].
//!
//! Also the vocabulary that they share: [`Query`] with the crate's only matcher and comparator, [`WriteOp`] and [`Error`].

mod capabilities;
mod cell;
mod change;
pub mod check;
mod error;
mod inferred;
mod instant;
mod kinds;
mod log_limit;
mod narrowing;
mod op;
pub mod query;
mod schema;
mod shape;
mod shell;
#[expect(clippy::module_inception, reason = "the type gives the folder its name")]
mod vista;

pub use capabilities::Capabilities;
pub use cell::Coercion;
pub(crate) use cell::expected;
pub use change::ChangeEvent;
pub use check::{RowCheck, Shape, UnknownColumns};
pub use error::{Error, ErrorKind, Result};
pub use inferred::Inferred;
pub use instant::Instant;
pub use kinds::Kinds;
pub use log_limit::LogLimit;
pub use narrowing::{Narrowing, WriteBounds, WriteColumns};
pub use op::{WriteKind, WriteOp, Written};
pub use query::{Filter, OrderTerm, Query};
pub use schema::{Column, ColumnType, Flag, Reference, Schema};
pub use shape::SourceShape;
pub use shell::{TableShell, Token};
pub use vista::Vista;
