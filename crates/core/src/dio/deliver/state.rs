//! Shared state of deliveries: attempts and circuit breakers.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use parking_lot::Mutex;

use super::attempts::Attempts;
use super::breaker::Upstream;
use crate::dio::settings::BreakerLimits;

/// State of one Dio that belongs to `deliver/`.
pub(crate) struct DeliverState {
    /// Attempts of operations that wait for the master.
    pub(in crate::dio) attempts: Mutex<Attempts>,
    /// Circuit breaker of the source.
    pub(in crate::dio) source: Arc<Upstream>,
    /// Circuit breaker of the delivery route: the source's, unless there is an `on_write`.
    pub(in crate::dio) route_breaker: Arc<Upstream>,
    /// Number of callers that wait for an operation to be settled.
    pub(in crate::dio) awaited: AtomicUsize,
}

impl DeliverState {
    /// State of a Dio. With `has_route`, deliveries have a breaker of their own; otherwise they share the source's.
    pub(in crate::dio) fn new(limits: BreakerLimits, has_route: bool) -> DeliverState {
        let source = Arc::new(Upstream::new("source", limits));
        let route_breaker =
            if has_route { Arc::new(Upstream::new("write route", limits)) } else { Arc::clone(&source) };
        DeliverState { attempts: Mutex::default(), source, route_breaker, awaited: AtomicUsize::new(0) }
    }
}
