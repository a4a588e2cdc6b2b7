//! Rows of other resources: embedded in those of a list, as conditions on them, and under `/{dio}/{id}/{relation}`.
//!
//! `text.rs` divides a query string, `relation.rs` finds the relations that it names, `query.rs` holds what it asks of them, and
//! `selected.rs` selects and encodes embedded rows. `nested.rs` is the route. The rows of each relation are those of its own [`Scope`](crate::scope::Scope).

mod nested;
mod query;
mod relation;
mod selected;
mod text;

pub(crate) use nested::nested;
pub(crate) use query::{Reading, Related};
pub(crate) use relation::{check, reverse_references};
pub(crate) use selected::{Embedded, select};
