//! Budgets: what callers may hold of the server at a time, all together and each address.
//!
//! A [`Budget`] counts bytes or things that are held. Whoever takes some holds a [`Lease`], which gives it back when dropped.
//! Each budget has a bound (a key of `[server.limits]`), a gauge and a counter of refusals in `/metrics`, and two outcomes when it is
//! used up: 503 `busy` where the whole server is, 429 `rate-limited` where one address holds its share. Both say when to come again.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::Extensions;
use parking_lot::Mutex;
use thiserror::Error;

use crate::http::limits::Limits;
use diorama_inbound::MOST_BYTES;

/// Bodies of answers up to this size are not counted: the socket takes them.
const SMALL_ANSWER: usize = 64 << 10;
/// Bytes of memory that a delivery takes while it is decoded and applied, for each byte of its body. Measured: 4 for long texts, 11
/// to 56 for rows, 67 for the densest JSON.
const DELIVERY_BYTE: usize = 64;
/// The same for each change: a short delivery may make many rows of one. Measured: 0.8 to 3.4 KiB.
const DELIVERY_CHANGE: usize = 4 << 10;
/// What the smallest delivery takes.
const DELIVERY_FLOOR: usize = 16 << 10;

/// The address that a request came from, as far as budgets tell addresses apart: an IPv6 address stands for its /64 network, which
/// one client has whole.
///
/// The server puts it into the extensions of each request; without one, all callers share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Caller(IpAddr);

impl Caller {
    /// The caller at `address`.
    pub fn new(address: IpAddr) -> Caller {
        Caller(match address.to_canonical() {
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                IpAddr::from([a, b, c, d, 0, 0, 0, 0])
            }
            v4 => v4,
        })
    }

    /// The caller of the request that has these extensions.
    pub(crate) fn of(extensions: &Extensions) -> Caller {
        extensions.get().copied().unwrap_or(Caller(IpAddr::from([0, 0, 0, 0])))
    }
}

/// Reason why a [`Budget`] gives nothing. `key` is that of `[server.limits]` that sets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BudgetError {
    /// The caller's address holds its share: 429 `rate-limited`.
    #[error("this address has its share of the {name}")]
    #[expect(missing_docs, reason = "said above")]
    Share { name: &'static str, key: &'static str },
    /// Everything is taken: 503 `busy`.
    #[error("all of the {name} are taken")]
    #[expect(missing_docs, reason = "said above")]
    All { name: &'static str, key: &'static str },
}

/// An amount that callers share.
#[derive(Debug)]
pub struct Budget {
    /// As metrics and refusals name it.
    name: &'static str,
    /// The key of `[server.limits]` that sets it.
    key: &'static str,
    most: usize,
    /// The most that one address may hold.
    share: usize,
    held: Mutex<Holdings>,
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct Holdings {
    all: usize,
    by_caller: HashMap<Caller, usize>,
}

impl Budget {
    /// A budget of `most`, of which one address may hold `share`.
    pub fn new(name: &'static str, key: &'static str, most: usize, share: usize) -> Arc<Budget> {
        Arc::new(Budget { name, key, most, share, held: Mutex::default(), refused: AtomicU64::new(0) })
    }

    /// Takes `amount` for `caller`.
    ///
    /// # Errors
    /// The caller's address holds its share, or all is taken.
    pub fn take(self: &Arc<Budget>, caller: Caller, amount: usize) -> Result<Lease, BudgetError> {
        self.add(caller, amount)?;
        Ok(Lease { budget: Arc::clone(self), caller, amount })
    }

    fn add(&self, caller: Caller, amount: usize) -> Result<(), BudgetError> {
        let mut held = self.held.lock();
        let own = held.by_caller.get(&caller).copied().unwrap_or(0);
        let of_caller = own.saturating_add(amount) > self.share;
        if of_caller || held.all.saturating_add(amount) > self.most {
            drop(held);
            self.refused.fetch_add(1, Ordering::Relaxed);
            let (name, key) = (self.name, self.key);
            return Err(if of_caller { BudgetError::Share { name, key } } else { BudgetError::All { name, key } });
        }
        held.all += amount;
        if amount > 0 {
            held.by_caller.insert(caller, own + amount);
        }
        Ok(())
    }

    fn give_back(&self, caller: Caller, amount: usize) {
        let mut held = self.held.lock();
        held.all -= amount;
        if let Some(own) = held.by_caller.get_mut(&caller) {
            *own -= amount;
            if *own == 0 {
                held.by_caller.remove(&caller);
            }
        }
    }

    /// Its name for metrics.
    pub fn key(&self) -> &'static str {
        self.key
    }

    /// The most that may be held.
    pub fn most(&self) -> usize {
        self.most
    }

    /// What is held now.
    pub fn held(&self) -> usize {
        self.held.lock().all
    }

    /// How often it was refused.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// A part of a [`Budget`], given back when dropped.
#[derive(Debug)]
#[must_use = "a lease that is dropped is given back"]
pub struct Lease {
    budget: Arc<Budget>,
    caller: Caller,
    amount: usize,
}

impl Lease {
    /// Takes `more`.
    ///
    /// # Errors
    /// As [`Budget::take`]; what was held stays held.
    pub fn grow(&mut self, more: usize) -> Result<(), BudgetError> {
        self.budget.add(self.caller, more)?;
        self.amount += more;
        Ok(())
    }

    /// Holds at least `amount` from now on.
    ///
    /// # Errors
    /// As [`Budget::take`].
    pub fn grow_to(&mut self, amount: usize) -> Result<(), BudgetError> {
        self.grow(amount.saturating_sub(self.amount))
    }

    /// Holds at least what a delivery of `size` bytes and `changes` changes takes from now on, or the share of one address if that is
    /// less: the largest delivery passes when nothing else is there.
    ///
    /// # Errors
    /// As [`Budget::take`].
    pub(crate) fn grow_for_delivery(&mut self, size: usize, changes: usize) -> Result<(), BudgetError> {
        self.grow_to(delivery_memory(size, changes).min(self.budget.share))
    }

    /// Gives back all but `amount`.
    pub fn shrink_to(&mut self, amount: usize) {
        let less = self.amount.saturating_sub(amount);
        self.budget.give_back(self.caller, less);
        self.amount -= less;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.budget.give_back(self.caller, self.amount);
    }
}

/// The budgets of one gateway.
#[derive(Debug)]
pub struct Budgets {
    /// Bytes of request bodies that are held in memory.
    pub bodies: Arc<Budget>,
    /// Bytes of request bodies in temporary files.
    pub spooled: Arc<Budget>,
    /// Bytes of memory in which the deliveries of webhooks are decoded and applied, as estimated from their length.
    pub deliveries: Arc<Budget>,
    /// Bytes of large answers until the socket has taken them, and of the places of rows that are still to be sent.
    pub answers: Arc<Budget>,
    /// Different live queries and filters of subscribers, on the account of the address that brought them.
    pub live: Arc<Budget>,
    /// Bytes of the compiled patterns that subscribers' filters keep.
    pub patterns: Arc<Budget>,
    pub(super) query_time: Duration,
    pub(super) query_memory: usize,
}

impl Default for Budgets {
    fn default() -> Budgets {
        Budgets::new(&Limits::default(), MOST_BYTES)
    }
}

impl Budgets {
    /// Budgets as `limits` say, of a gateway whose webhooks take deliveries of up to `delivery` bytes.
    pub fn new(limits: &Limits, delivery: usize) -> Budgets {
        let quarter = |most: usize| (most / 4).max(1);
        // One body of the largest size passes, whatever the budget is.
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
            answers: Budget::new("bytes of answers under way", "answers", limits.answers, quarter(limits.answers)),
            live: Budget::new("live queries", "live_queries", limits.live_queries, limits.live_per_address),
            patterns: Budget::new("bytes of patterns", "patterns", limits.patterns, quarter(limits.patterns)),
            query_time: limits.query_time,
            query_memory: limits.query_memory,
        }
    }

    /// All of them, for metrics.
    pub fn all(&self) -> [&Budget; 6] {
        [&self.bodies, &self.spooled, &self.deliveries, &self.answers, &self.live, &self.patterns]
    }

    /// `body` as the body of an answer to `caller`. A large one holds a lease until the socket has taken it.
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

/// The memory that a delivery of `size` bytes and `changes` changes is estimated to take.
fn delivery_memory(size: usize, changes: usize) -> usize {
    size.saturating_mul(DELIVERY_BYTE).max(changes.saturating_mul(DELIVERY_CHANGE)).max(DELIVERY_FLOOR)
}

/// Bytes with the lease that they hold.
struct LeasedBytes {
    body: Vec<u8>,
    _lease: Lease,
}

impl Lease {
    /// `body`, with this lease as long as its bytes are there.
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
    fn one_address_gets_its_share_and_all_get_what_there_is() {
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
        assert!(budget.held.lock().by_caller.is_empty());
    }

    #[test]
    fn a_network_is_one_caller() {
        assert_eq!(caller("2001:db8::1"), caller("2001:db8::2:1"));
        assert_ne!(caller("2001:db8::1"), caller("2001:db8:0:1::1"));
        assert_eq!(caller("::ffff:10.0.0.1"), caller("10.0.0.1"));
    }

    #[test]
    fn a_large_answer_is_counted_until_its_bytes_are_gone() {
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
