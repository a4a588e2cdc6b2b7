//! [`Recent`]: state of the callers of the last time, in bounded memory.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// State of callers, each made for its first call and forgotten some time after its last one.
///
/// Callers beyond the maximum share one state, so that a flood of addresses or names neither fills the memory nor escapes its limit.
#[derive(Debug)]
pub(crate) struct Recent<K, V> {
    /// Maximum number of callers to distinguish within one [`Recent::rest`].
    most: usize,
    /// Time without a call after which a caller is forgotten.
    rest: Duration,
    generations: Mutex<Generations<K, V>>,
    others: V,
}

/// Callers in two generations. A caller that is only in the older one when the generations are swapped has not called for the time of
/// rest, and is forgotten.
#[derive(Debug)]
struct Generations<K, V> {
    began: Instant,
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Eq + Hash + Clone, V> Recent<K, V> {
    /// Creates the table of up to `most` callers, with the state that all others share.
    pub(crate) fn new(most: usize, rest: Duration, others: V) -> Recent<K, V> {
        let generations = Generations { began: Instant::now(), young: HashMap::new(), old: HashMap::new() };
        Recent { most, rest, generations: Mutex::new(generations), others }
    }

    /// Returns the result of `job` on the state of `caller`, which `make` makes if the caller is not known.
    pub(crate) fn with<T>(&self, caller: &K, now: Instant, make: impl FnOnce() -> V, job: impl FnOnce(&V) -> T) -> T {
        let mut generations = self.generations.lock();
        if now.saturating_duration_since(generations.began) >= self.rest {
            generations.began = now;
            generations.old = std::mem::take(&mut generations.young);
        }
        if let Some(state) = generations.young.get(caller) {
            return job(state);
        }
        if generations.young.len() >= self.most {
            drop(generations);
            return job(&self.others);
        }
        let state = generations.old.remove(caller).unwrap_or_else(make);
        job(generations.young.entry(caller.clone()).or_insert(state))
    }

    /// Returns the number of callers that are known.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        let generations = self.generations.lock();
        generations.young.len() + generations.old.len()
    }
}
