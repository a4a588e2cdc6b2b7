//! Routes for those who run the server: health, operations, backup, refresh and purge.

pub(crate) mod backup;
pub(crate) mod health;
pub(crate) mod operations;
pub(crate) mod purge;
pub(crate) mod refresh;
