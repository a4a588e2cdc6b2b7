//! Commits: writes, the committer and its turns, the cache file, purges.

pub(super) mod capacity;
pub(super) mod committer;
pub(super) mod invalidations;
pub(super) mod journal_failure;
pub(super) mod mark;
pub(super) mod purge;
pub(super) mod reconciled;
pub(super) mod recovery;
pub(super) mod retention;
pub(super) mod send;
pub(super) mod stage;
pub(super) mod state;
pub(super) mod store;
pub(super) mod turn;
pub(super) mod write;
pub(super) mod writeback;
