//! Bounds of one request: its caller's budgets, and the time and memory of its query.

use std::sync::Arc;

use axum::body::Bytes;

use crate::access::Principal;
use crate::http::budget::{BudgetError, Budgets, Caller, Lease};
use crate::http::problem::ApiError;
use crate::http::rates::{Amount, Counted, ExportMeter};
use diorama_core::dio::Workers;
use diorama_core::vista::query::Meter;
use diorama_core::vista::query::url::percent_decoded;

/// Bounds of one request, or of one command of a WebSocket.
pub(crate) struct Bounds {
    budgets: Arc<Budgets>,
    caller: Caller,
    /// Identity of the caller.
    pub(crate) principal: Principal,
    /// Time and memory of the query.
    pub(crate) meter: Arc<Meter>,
}

impl Bounds {
    /// Creates the bounds for `principal`, which calls from the address of `caller`.
    pub(crate) fn new(budgets: &Arc<Budgets>, caller: Caller, principal: Principal) -> Bounds {
        let meter = Arc::new(Meter::new(budgets.query_time, budgets.query_memory));
        Bounds { budgets: Arc::clone(budgets), caller, principal, meter }
    }

    /// Returns bounds of the same caller, with the time of a new query.
    pub(crate) fn again(&self) -> Bounds {
        Bounds::new(&self.budgets, self.caller, self.principal.clone())
    }

    /// Returns `body` as the body of an answer; see [`Budgets::answer`].
    ///
    /// # Errors
    /// As [`Budget::take`].
    pub(crate) fn answer(&self, body: Vec<u8>) -> Result<Bytes, BudgetError> {
        self.budgets.answer(self.caller, body)
    }

    /// Takes `bytes` of the budget for answers in flight.
    ///
    /// # Errors
    /// As [`Budget::take`].
    pub(crate) fn lease_answer(&self, bytes: usize) -> Result<Lease, BudgetError> {
        self.budgets.answers.take(self.caller, bytes)
    }

    /// Takes `bytes` of the budget for bodies in memory.
    ///
    /// # Errors
    /// As [`Budget::take`].
    pub(crate) fn lease_body(&self, bytes: usize) -> Result<Lease, BudgetError> {
        self.budgets.bodies.take(self.caller, bytes)
    }

    /// Takes `bytes` of the budget for bodies in temporary files.
    ///
    /// # Errors
    /// As [`Budget::take`].
    pub(crate) fn lease_spooled(&self, bytes: usize) -> Result<Lease, BudgetError> {
        self.budgets.spooled.take(self.caller, bytes)
    }

    /// Takes memory for decoding and applying a delivery of `size` bytes.
    ///
    /// # Errors
    /// As [`Budget::take`].
    pub(crate) fn lease_delivery(&self, size: usize) -> Result<Lease, BudgetError> {
        let mut lease = self.budgets.deliveries.take(self.caller, 0)?;
        lease.grow_for_delivery(size, 0)?;
        Ok(lease)
    }

    /// Takes one unit of the budget for live queries and filters.
    ///
    /// # Errors
    /// As [`Budget::take`].
    pub(crate) fn lease_live(&self) -> Result<Lease, BudgetError> {
        let limited = self.budgets.rates.lease(Amount::LiveQueries, &self.principal, self.caller)?;
        Ok(self.budgets.live.take(self.caller, 1)?.beside(limited))
    }

    /// Returns the maximum number of views of the subscribers of one resource to whom events are dispatched.
    pub(crate) fn most_routed_views(&self) -> usize {
        self.budgets.event_views
    }

    /// Takes a socket or stream from the limits of the principal and its address; none if they have no such limit.
    ///
    /// # Errors
    /// [`BudgetError::Limit`].
    pub(crate) fn lease_socket(&self) -> Result<Vec<Lease>, BudgetError> {
        self.budgets.rates.lease(Amount::Sockets, &self.principal, self.caller)
    }

    /// Takes one request from the limits of the principal and its address, for a command of a WebSocket.
    ///
    /// # Errors
    /// 429.
    pub(crate) fn take_command(&self) -> Result<(), ApiError> {
        let quota = self.budgets.rates.take(&self.principal, self.caller, Counted::Request);
        quota.map_or(Ok(()), |mut quota| quota.verdict())
    }

    /// Returns the counter of an export's bytes.
    ///
    /// # Errors
    /// 429 if earlier exports have used the limit.
    pub(crate) fn export(&self) -> Result<ExportMeter, ApiError> {
        ExportMeter::begin(Arc::clone(&self.budgets), self.principal.clone(), self.caller)
    }

    /// Takes `bytes` for the compiled patterns of a subscriber's filter.
    ///
    /// # Errors
    /// As [`Budget::take`].
    pub(crate) fn lease_patterns(&self, bytes: usize) -> Result<Lease, BudgetError> {
        self.budgets.patterns.take(self.caller, bytes)
    }

    /// Runs `read`, which parses a query from `text`. It runs off the async threads if `text` may contain regular expressions,
    /// which take long to compile.
    ///
    /// # Errors
    /// As [`Workers::run`](diorama_core::dio::Workers).
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        workers: &Workers,
        text: &[u8],
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        match may_hold_regex(text) {
            true => self.run(workers, read).await,
            false => Ok(read()),
        }
    }

    /// Runs `work` off the async threads.
    ///
    /// # Errors
    /// As [`Workers::run`](diorama_core::dio::Workers).
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        workers: &Workers,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        Ok(workers.run(&self.meter, |_| Ok(work())).await?)
    }
}

/// Returns true if a URL's query or a JSON body may contain an operator of regular expressions, perhaps with escaped letters.
pub(crate) fn may_hold_regex(text: &[u8]) -> bool {
    let holds = |text: &[u8]| text.windows(5).any(|word| word.eq_ignore_ascii_case(b"match"));
    let escaped = || match std::str::from_utf8(text).ok().and_then(|text| percent_decoded(text, false)) {
        Some(decoded) => holds(decoded.as_bytes()),
        None => true,
    };
    holds(text) || text.contains(&b'\\') || text.contains(&b'%') && escaped()
}

#[cfg(test)]
impl Default for Bounds {
    fn default() -> Bounds {
        Bounds::new(&Arc::default(), Caller::of(&axum::http::Extensions::new()), Principal::default())
    }
}

#[cfg(test)]
impl Bounds {
    /// Bounds of an anonymous caller of a gateway with these limits.
    pub(crate) fn of_limits(limits: &crate::Limits) -> Bounds {
        let budgets = Arc::new(Budgets::new(limits, &[], limits.body));
        Bounds::new(&budgets, Caller::of(&axum::http::Extensions::new()), Principal::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regular_expressions_are_detected_in_every_spelling() {
        for text in ["a=match.b", "a=imatch.b", "a=m%61tch.b", r#"{"m\u0061tch":1}"#, "%6D%41%54%43%48"] {
            assert!(may_hold_regex(text.as_bytes()), "{text}");
        }
        assert!(!may_hold_regex(b"a=like.*b*&limit=5&name=%C3%BC") && !may_hold_regex(b""));
    }
}
