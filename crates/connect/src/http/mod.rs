//! HTTP APIs that answer in JSON: paged lists as sources, and requests for writes.

mod addresses;
pub(crate) mod auth;
pub(crate) mod budget;
pub(crate) mod client;
pub(crate) mod config;
mod detect;
mod diorama;
mod document;
pub(crate) mod errors;
mod explore;
mod keys;
pub(crate) mod list;
mod options;
mod pager;
mod paging;
mod pass;
mod pointer;
mod receiver;
mod row;
mod rules;
mod signs;
mod since;
pub(crate) mod source;
mod template;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod write;

pub use self::auth::HttpAuth;
pub use self::budget::HttpRate;
pub use self::config::HttpConnector;
pub use self::diorama::DioramaConnector;
pub use self::document::{Document, Documents};
pub use self::explore::{HttpProposal, explore};
pub use self::options::{HttpOptions, HttpSince};
pub use self::paging::{HttpPages, PageParameter, Paging, StatedTotal};
pub use self::receiver::{HttpAnswer, HttpReceiver, HttpReceiverOptions};
pub use self::rules::{HttpAction, HttpRule};
pub use self::source::Http;
pub use self::write::{HttpIfMatch, HttpWrites};

#[cfg(test)]
mod tests;
