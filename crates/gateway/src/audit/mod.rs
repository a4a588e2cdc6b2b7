//! The audit log: who did what to the server, kept in the journal.
//!
//! `log.rs` stores entries, `trail.rs` records the actions of administrators, `refusals.rs` sums up refused requests, and `list.rs` is
//! `GET /_audit`.

pub(crate) mod list;
mod log;
mod refusals;
pub(crate) mod trail;

pub use list::describe;
pub use log::AuditLog;
