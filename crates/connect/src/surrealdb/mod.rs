//! SurrealDB: tables as sources and as destinations of writes, and their changes.
//!
//! The client speaks the RPC of SurrealDB 3 over a WebSocket in CBOR, which keeps record ids, datetimes, decimals and bytes apart from
//! text.

mod address;
mod cbor;
mod changes;
mod config;
mod errors;
mod feed;
mod kind;
mod live;
mod ops;
mod place;
mod pool;
mod progress;
mod record_id;
mod rpc;
mod shared;
mod source;
mod table;
mod value;
mod write;

pub use self::config::SurrealConnector;
