//! Reads: the facade, queries and aggregates, standing views, indexes, coverage of the source.

pub(super) mod aggregate;
pub(super) mod coverage;
pub(super) mod facade;
pub(super) mod freshness;
pub(super) mod index_requests;
pub(super) mod indexer;
pub(super) mod reads;
pub(super) mod view;
pub(super) mod workers;
