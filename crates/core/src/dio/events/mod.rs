//! Events of a Dio: positions, the ring of the newest events, the log.

pub(super) mod event;
pub(super) mod log;
pub(super) mod ring;
