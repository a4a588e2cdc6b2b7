//! Routes that read and write the rows of a resource.

pub(crate) mod aggregate;
pub(crate) mod aggregate_request;
pub(crate) mod bulk;
pub(crate) mod by_filter;
pub(crate) mod common_headers;
pub(crate) mod delete;
pub(crate) mod explain;
mod export;
pub(crate) mod extract;
pub(crate) mod format;
pub(crate) mod insert;
pub(crate) mod list;
mod new_row;
pub(crate) mod patch;
pub(crate) mod query;
pub(crate) mod query_cache;
pub(crate) mod record;
pub(crate) mod related;
pub(crate) mod replace;
pub(crate) mod schema;
pub(crate) mod scoped_rows;
pub(crate) mod snapshot;
pub(crate) mod write;
