//! Contract suites of all drivers: what each source, route and feed must do.

#[cfg(any(feature = "postgres", feature = "redis"))]
pub(crate) mod cache;
#[cfg(feature = "feed")]
pub(crate) mod feed;
mod route;
mod source;

#[cfg(any(feature = "http", feature = "sql"))]
pub(crate) use route::one_effect;
#[cfg(any(feature = "http", feature = "postgres", feature = "mysql", feature = "surrealdb"))]
pub(crate) use route::one_effect_over_cuts;
pub(crate) use route::{refuses_writes, writes};
#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
pub(crate) use source::queries;
#[cfg(any(feature = "http", feature = "postgres", feature = "mysql", feature = "surrealdb"))]
pub(crate) use source::whole_or_error;
pub(crate) use source::{CSV, Natural, reads, rows};
