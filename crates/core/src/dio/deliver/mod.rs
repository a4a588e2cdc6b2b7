//! Delivery of writes to the source: the queue, attempts, circuit breakers, operations.

pub(super) mod attempts;
pub(super) mod breaker;
pub(super) mod call_order;
pub(super) mod carried_ops;
pub(super) mod delivery;
pub(super) mod operations;
pub(super) mod schedule;
pub(super) mod state;
pub(super) mod worker;
