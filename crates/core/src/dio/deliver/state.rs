//! Shared state of deliveries: their attempts and the circuit breakers of what they are delivered to.

use std::sync::Arc;

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
    /// Circuit breaker of what deliveries go to: the source's, unless there is an `on_write`.
    pub(in crate::dio) route_breaker: Arc<Upstream>,
}

impl DeliverState {
    /// State of a Dio whose deliveries go to a route of their own if `has_route`, else to the source.
    pub(in crate::dio) fn new(limits: BreakerLimits, has_route: bool) -> DeliverState {
        let source = Arc::new(Upstream::new("source", limits));
        let route_breaker =
            if has_route { Arc::new(Upstream::new("write route", limits)) } else { Arc::clone(&source) };
        DeliverState { attempts: Mutex::default(), source, route_breaker }
    }
}
