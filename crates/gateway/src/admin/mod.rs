//! Routes for operators of the server: health, metrics, operations, backup, refresh and purge.

pub(crate) mod archive;
pub(crate) mod backup;
pub(crate) mod health;
pub(crate) mod operations;
pub(crate) mod purge;
pub(crate) mod refresh;
pub(crate) mod scrape;
