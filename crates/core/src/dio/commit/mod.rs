//! Changes on their way into the log: writes, the committer and its turns, the cache file, erasure.

pub(super) mod committer;
pub(super) mod invalid;
pub(super) mod ledger;
pub(super) mod purge;
pub(super) mod reconciled;
pub(super) mod recovery;
pub(super) mod room;
pub(super) mod send;
pub(super) mod stage;
pub(super) mod store;
pub(super) mod trouble;
pub(super) mod turn;
pub(super) mod write;
pub(super) mod writeback;
