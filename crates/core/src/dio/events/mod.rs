//! Events of a Dio: the ring of the newest ones, positions, the log.

pub(super) mod event;
pub(super) mod log;
pub(super) mod ring;
