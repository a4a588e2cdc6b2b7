//! Synchronization with the source: refreshes, lists, upstream events, deliveries of webhooks and feeds.

mod announcement;
pub(super) mod apply;
pub(super) mod bucket;
pub(super) mod cache;
pub(super) mod check;
pub(super) mod feed;
pub(super) mod inbox;
pub(super) mod ingest;
pub(super) mod mark;
pub(super) mod master;
pub(super) mod mismatch;
pub(super) mod outbox;
pub(super) mod refresh;
pub(super) mod replacement;
pub(super) mod replacement_rows;
pub(super) mod report;
pub(super) mod reread;
pub(super) mod seed;
pub(super) mod start;
pub(super) mod state;
pub(super) mod whole_list;
