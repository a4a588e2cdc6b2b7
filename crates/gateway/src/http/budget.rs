//! Budgets: amounts that all callers together, and each address, may hold at a time.
//!
//! A [`Budget`] counts bytes or things in use. Taking some yields a [`Lease`], which returns the amount when dropped.
//! Each budget has a limit (a key of `[server.limits]`), and a gauge and a counter of refusals in `/metrics`. A request is refused with
//! 503 `busy` if the whole budget is in use, and with 429 `rate-limited` if one address uses its share. Both have `Retry-After`.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::Extensions;
use parking_lot::Mutex;
use thiserror::Error;

use crate::http::limits::Limits;
use crate::http::rates::{RateLimit, RateLimits};
use diorama_inbound::MOST_BYTES;

/// Size up to which the body of an answer is not counted, because the socket's buffer takes it at once.
const SMALL_ANSWER: usize = 64 << 10;
/// Bytes of memory that a delivery needs while it is decoded and applied, for each byte of its body. Measured: 4 for long texts,
/// 11 to 56 for rows, 67 for the densest JSON.
const DELIVERY_BYTE: usize = 64;
/// Bytes of memory for each change of a delivery: a short delivery can expand to many rows. Measured: 0.8 to 3.4 KiB.
const DELIVERY_CHANGE: usize = 4 << 10;
/// Bytes of memory for the smallest delivery.
const DELIVERY_FLOOR: usize = 16 << 10;

/// Address that a request came from, as budgets distinguish addresses. An IPv6 address is reduced to its /64 network, because one
/// client usually has all of that network.
///
/// The server inserts it into the extensions of each request. Requests without one share one caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Caller(IpAddr);

impl Caller {
    /// Creates the caller at `address`.
    pub fn new(address: IpAddr) -> Caller {
        Caller(match address.to_canonical() {
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                IpAddr::from([a, b, c, d, 0, 0, 0, 0])
            }
            v4 => v4,
        })
    }

    /// Returns the caller of the request that has these extensions.
    pub(crate) fn of(extensions: &Extensions) -> Caller {
        extensions.get().copied().unwrap_or(Caller(IpAddr::from([0, 0, 0, 0])))
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Caller in whose name a part of a budget is held.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Holder {
    /// All callers at an address.
    Address(Caller),
    /// The principal of this name, wherever it calls from.
    Principal(Arc<str>),
}

impl From<Caller> for Holder {
    fn from(caller: Caller) -> Holder {
        Holder::Address(caller)
    }
}

/// Error of a [`Budget`] that is exhausted. `key` is the key of `[server.limits]` that sets its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BudgetError {
    /// The caller's address uses its whole share: 429 `rate-limited`.
    #[error("this address uses its whole share of the {name}")]
    #[expect(missing_docs, reason = "explained above")]
    Share { name: &'static str, key: &'static str },
    /// The whole budget is in use: 503 `busy`.
    #[error("all of the {name} are in use")]
    #[expect(missing_docs, reason = "explained above")]
    All { name: &'static str, key: &'static str },
    /// The caller has as much as its `[[limit]]` permits: 429 `rate-limited`. `key` is a key of that table.
    #[error("this {whose} has as many {name} as its limit permits")]
    #[expect(missing_docs, reason = "explained above")]
    Limit { whose: &'static str, name: &'static str, key: &'static str },
}

/// Amount that callers share.
#[derive(Debug)]
pub struct Budget {
    /// Name in refusals.
    name: &'static str,
    /// Key of `[server.limits]` that sets the limit.
    key: &'static str,
    most: usize,
    /// Maximum amount for one address.
    share: usize,
    held: Mutex<Holdings>,
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct Holdings {
    all: usize,
    by_holder: HashMap<Holder, usize>,
}

impl Budget {
    /// Creates a budget of `most`, of which one address may hold `share`.
    pub fn new(name: &'static str, key: &'static str, most: usize, share: usize) -> Arc<Budget> {
        Arc::new(Budget { name, key, most, share, held: Mutex::default(), refused: AtomicU64::new(0) })
    }

    /// Takes `amount` for `holder`.
    ///
    /// # Errors
    /// The holder would exceed its share, or all holders together the budget.
    pub fn take(self: &Arc<Budget>, holder: impl Into<Holder>, amount: usize) -> Result<Lease, BudgetError> {
        let holder = holder.into();
        self.add(&holder, amount)?;
        Ok(Lease { budget: Arc::clone(self), holder, amount, beside: Vec::new() })
    }

    fn add(&self, holder: &Holder, amount: usize) -> Result<(), BudgetError> {
        let mut held = self.held.lock();
        let own = held.by_holder.get(holder).copied().unwrap_or(0);
        let of_caller = own.saturating_add(amount) > self.share;
        if of_caller || held.all.saturating_add(amount) > self.most {
            drop(held);
            self.refused.fetch_add(1, Ordering::Relaxed);
            let (name, key) = (self.name, self.key);
            return Err(if of_caller { BudgetError::Share { name, key } } else { BudgetError::All { name, key } });
        }
        held.all += amount;
        if amount > 0 {
            match held.by_holder.get_mut(holder) {
                Some(own) => *own += amount,
                None => drop(held.by_holder.insert(holder.clone(), amount)),
            }
        }
        Ok(())
    }

    fn give_back(&self, holder: &Holder, amount: usize) {
        let mut held = self.held.lock();
        held.all -= amount;
        if let Some(own) = held.by_holder.get_mut(holder) {
            *own -= amount;
            if *own == 0 {
                held.by_holder.remove(holder);
            }
        }
    }

    /// Returns the key of `[server.limits]`, which is the budget's name in metrics.
    pub fn key(&self) -> &'static str {
        self.key
    }

    /// Returns the maximum amount that may be held.
    pub fn most(&self) -> usize {
        self.most
    }

    /// Returns the amount that is held now.
    pub fn held(&self) -> usize {
        self.held.lock().all
    }

    /// Returns the number of refusals so far.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// Part of a [`Budget`], returned to it on drop.
#[derive(Debug)]
#[must_use = "dropping a lease returns its amount"]
pub struct Lease {
    budget: Arc<Budget>,
    holder: Holder,
    amount: usize,
    /// Leases that are held as long as this one.
    beside: Vec<Lease>,
}

impl Lease {
    /// Takes `more` in addition.
    ///
    /// # Errors
    /// As [`Budget::take`]; the lease keeps the amount that it had.
    pub fn grow(&mut self, more: usize) -> Result<(), BudgetError> {
        self.budget.add(&self.holder, more)?;
        self.amount += more;
        Ok(())
    }

    /// Grows the lease to at least `amount`.
    ///
    /// # Errors
    /// As [`Budget::take`].
    pub fn grow_to(&mut self, amount: usize) -> Result<(), BudgetError> {
        self.grow(amount.saturating_sub(self.amount))
    }

    /// Grows the lease to the estimate for a delivery of `size` bytes and `changes` changes, or to the share of one address if that
    /// is less. So the largest delivery is accepted when no other is in flight.
    ///
    /// # Errors
    /// As [`Budget::take`].
    pub(crate) fn grow_for_delivery(&mut self, size: usize, changes: usize) -> Result<(), BudgetError> {
        self.grow_to(delivery_memory(size, changes).min(self.budget.share))
    }

    /// Holds `others` as long as this lease.
    pub(crate) fn beside(mut self, others: Vec<Lease>) -> Lease {
        self.beside.extend(others);
        self
    }

    /// Returns all but `amount` to the budget.
    pub fn shrink_to(&mut self, amount: usize) {
        let less = self.amount.saturating_sub(amount);
        self.budget.give_back(&self.holder, less);
        self.amount -= less;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.budget.give_back(&self.holder, self.amount);
    }
}

/// Budgets of one gateway.
#[derive(Debug)]
pub struct Budgets {
    /// Bytes of request bodies in memory.
    pub bodies: Arc<Budget>,
    /// Bytes of request bodies in temporary files.
    pub spooled: Arc<Budget>,
    /// Bytes of memory for decoding and applying the deliveries of webhooks, as estimated from their length.
    pub deliveries: Arc<Budget>,
    /// Bytes of large answers until the socket has taken them, and of the positions of rows that are still to be sent.
    pub answers: Arc<Budget>,
    /// Distinct live queries and filters of subscribers, counted for the address that opened them.
    pub live: Arc<Budget>,
    /// Bytes of the compiled patterns in subscribers' filters.
    pub patterns: Arc<Budget>,
    /// Limits of principals and addresses.
    pub(crate) rates: RateLimits,
    pub(super) query_time: Duration,
    pub(super) query_memory: usize,
    pub(super) event_views: usize,
}

impl Default for Budgets {
    fn default() -> Budgets {
        Budgets::new(&Limits::default(), &[], MOST_BYTES)
    }
}

impl Budgets {
    /// Creates budgets with these limits, for a gateway whose webhooks take deliveries of up to `delivery` bytes.
    pub fn new(limits: &Limits, rates: &[RateLimit], delivery: usize) -> Budgets {
        let quarter = |most: usize| (most / 4).max(1);
        // One body of the maximum size is accepted, whatever the budget is.
        let body_share = quarter(limits.bodies).max(limits.body.max(delivery).saturating_mul(2));
        let spooled_share = quarter(limits.spooled).max(delivery);
        let delivery_share = quarter(limits.deliveries).max(delivery_memory(delivery, 0).min(limits.deliveries));
        Budgets {
            bodies: Budget::new("bytes of bodies in flight", "bodies", limits.bodies.max(body_share), body_share),
            spooled: Budget::new(
                "bytes of spooled bodies",
                "spooled",
                limits.spooled.max(spooled_share),
                spooled_share,
            ),
            deliveries: Budget::new(
                "memory for deliveries",
                "deliveries",
                limits.deliveries.max(delivery_share),
                delivery_share,
            ),
            answers: Budget::new("bytes of answers in flight", "answers", limits.answers, quarter(limits.answers)),
            live: Budget::new("live queries", "live_queries", limits.live_queries, limits.live_per_address),
            patterns: Budget::new("bytes of patterns", "patterns", limits.patterns, quarter(limits.patterns)),
            rates: RateLimits::new(rates),
            query_time: limits.query_time,
            query_memory: limits.query_memory,
            event_views: limits.event_views,
        }
    }

    /// Returns all budgets, for metrics.
    pub fn all(&self) -> [&Budget; 6] {
        [&self.bodies, &self.spooled, &self.deliveries, &self.answers, &self.live, &self.patterns]
    }

    /// Returns `body` as the body of an answer to `caller`. A large body holds a lease until the socket has taken it.
    ///
    /// # Errors
    /// As [`Budget::take`].
    pub fn answer(&self, caller: Caller, body: Vec<u8>) -> Result<Bytes, BudgetError> {
        if body.capacity() <= SMALL_ANSWER {
            return Ok(body.into());
        }
        let lease = self.answers.take(caller, body.capacity())?;
        Ok(lease.bytes(body))
    }
}

/// Estimates the memory for a delivery of `size` bytes and `changes` changes.
fn delivery_memory(size: usize, changes: usize) -> usize {
    size.saturating_mul(DELIVERY_BYTE).max(changes.saturating_mul(DELIVERY_CHANGE)).max(DELIVERY_FLOOR)
}

/// Bytes with their lease.
struct LeasedBytes {
    body: Vec<u8>,
    _lease: Lease,
}

impl Lease {
    /// Returns `body` as bytes that hold this lease until they are dropped.
    pub(crate) fn bytes(self, body: Vec<u8>) -> Bytes {
        Bytes::from_owner(LeasedBytes { body, _lease: self })
    }
}

impl AsRef<[u8]> for LeasedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(text: &str) -> Caller {
        Caller::new(text.parse().unwrap())
    }

    #[test]
    fn one_address_is_limited_to_its_share_and_all_to_the_budget() {
        let budget = Budget::new("things", "things", 10, 4);
        let key = "things";
        let (share, all) = (BudgetError::Share { name: key, key }, BudgetError::All { name: key, key });
        let mut first = budget.take(caller("10.0.0.1"), 4).unwrap();
        assert_eq!(budget.take(caller("::ffff:10.0.0.1"), 1).unwrap_err(), share);
        assert_eq!(first.grow(1).unwrap_err(), share);
        let others = [budget.take(caller("10.0.0.2"), 4).unwrap(), budget.take(caller("10.0.0.3"), 2).unwrap()];
        assert_eq!(budget.take(caller("10.0.0.4"), 1).unwrap_err(), all);
        assert_eq!((budget.held(), budget.refused()), (10, 3));
        first.shrink_to(1);
        assert_eq!(budget.held(), 7);
        assert!(first.grow_to(3).is_ok() && first.grow_to(2).is_ok());
        assert_eq!(budget.held(), 9);
        drop((first, others));
        assert_eq!(budget.held(), 0);
        assert!(budget.held.lock().by_holder.is_empty());
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_caller() {
        assert_eq!(caller("2001:db8::1"), caller("2001:db8::2:1"));
        assert_ne!(caller("2001:db8::1"), caller("2001:db8:0:1::1"));
        assert_eq!(caller("::ffff:10.0.0.1"), caller("10.0.0.1"));
    }

    #[test]
    fn a_large_answer_is_counted_until_its_bytes_are_dropped() {
        let budgets = Budgets::default();
        let small = budgets.answer(caller("10.0.0.1"), vec![0; 100]).unwrap();
        assert_eq!(budgets.answers.held(), 0);
        let large = budgets.answer(caller("10.0.0.1"), vec![0; 1 << 20]).unwrap();
        let part = large.slice(..5);
        drop((small, large));
        assert_eq!(budgets.answers.held(), 1 << 20);
        drop(part);
        assert_eq!(budgets.answers.held(), 0);
    }
}
