//! Writes on their way to the source: the queue, attempts, circuit breakers, operations.

pub(super) mod attempts;
pub(super) mod breaker;
pub(super) mod carried_ops;
pub(super) mod delivery;
pub(super) mod operations;
pub(super) mod schedule;
pub(super) mod state;
pub(super) mod worker;
