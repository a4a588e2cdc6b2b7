//! Rate limit of an API: how many requests it may be sent in a time, and pauses that its answers demand.
//!
//! A request occupies its window from the moment it is sent until one window after its answer. The API counts a request before it
//! answers, so no window of the API ever counts more requests than the limit, whatever the network delays.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Mutex as TurnMutex, Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout};

/// Requests that an API permits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpRate {
    /// Maximum number of requests in each second.
    pub per_second: Option<u64>,
    /// Maximum number of requests in each minute.
    pub per_minute: Option<u64>,
    /// Maximum number of requests in each hour.
    pub per_hour: Option<u64>,
    /// Maximum number of requests without a pause in between; more are spread evenly over the shortest of the times above. By default
    /// as many as it permits.
    pub burst: Option<u64>,
    /// Maximum number of requests at a time; 4 by default.
    pub concurrency: usize,
    /// Header of an answer with the number of requests that are left, like `x-ratelimit-remaining`.
    pub remaining: Option<String>,
    /// Header of an answer with the time at which there are more: seconds from now, or a Unix time.
    pub reset: Option<String>,
}

impl Default for HttpRate {
    fn default() -> HttpRate {
        HttpRate {
            per_second: None,
            per_minute: None,
            per_hour: None,
            burst: None,
            concurrency: 4,
            remaining: None,
            reset: None,
        }
    }
}

impl HttpRate {
    fn windows(&self) -> Vec<Window> {
        let window = |most: Option<u64>, seconds| {
            let most = usize::try_from(most?).ok()?.max(1);
            Some(Window { most, length: Duration::from_secs(seconds) })
        };
        let windows = [window(self.per_second, 1), window(self.per_minute, 60), window(self.per_hour, 3_600)];
        let mut windows: Vec<Window> = windows.into_iter().flatten().collect();
        windows.extend(windows.first().and_then(|window| window.part(self.burst?)));
        windows
    }
}

/// Maximum number of requests in a time.
#[derive(Clone, Copy, Debug)]
struct Window {
    most: usize,
    length: Duration,
}

impl Window {
    /// Returns the part of the time in which `burst` requests are permitted, if they are spread evenly over it: what a leaky bucket
    /// permits that holds so many.
    fn part(self, burst: u64) -> Option<Window> {
        let most = usize::try_from(burst).ok()?.max(1);
        let length = self.length.mul_f64(most as f64 / self.most as f64);
        (most < self.most).then_some(Window { most, length })
    }
}

/// Time at which the next request may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Now,
    At(Instant),
    /// After the answer to a request under way.
    AfterAnswer,
}

/// Requests that count, and the pause.
#[derive(Debug)]
struct Spent {
    windows: Vec<Window>,
    /// Times of answers, oldest first; as many as the largest window needs.
    answers: VecDeque<Instant>,
    under_way: usize,
    paused_until: Option<Instant>,
}

impl Spent {
    fn next(&self, now: Instant) -> Slot {
        if let Some(until) = self.paused_until.filter(|until| *until > now) {
            return Slot::At(until);
        }
        let mut next = Slot::Now;
        for window in &self.windows {
            // The request that must have left the window before another one enters it.
            let Some(room) = window.most.checked_sub(self.under_way + 1) else { return Slot::AfterAnswer };
            let Some(at) = self.answers.len().checked_sub(room + 1) else { continue };
            let free = self.answers[at] + window.length;
            next = match next {
                _ if free <= now => next,
                Slot::At(other) if other > free => next,
                _ => Slot::At(free),
            };
        }
        next
    }

    fn begin(&mut self) {
        self.under_way += 1;
    }

    fn end(&mut self, now: Instant) {
        self.under_way = self.under_way.saturating_sub(1);
        let most = self.windows.iter().map(|window| window.most).max().unwrap_or(0);
        self.answers.push_back(now);
        while self.answers.len() > most {
            self.answers.pop_front();
        }
    }
}

/// Rate limit shared by all requests to an API, in the order in which they ask.
#[derive(Debug)]
pub(crate) struct Budget {
    spent: Mutex<Spent>,
    /// Held by the request that is next.
    turn: TurnMutex<()>,
    answered: Notify,
    lanes: Arc<Semaphore>,
}

/// Permission for one request; counts it when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    budget: Arc<Budget>,
    _lane: Option<OwnedSemaphorePermit>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.budget.spent.lock().end(Instant::now());
        self.budget.answered.notify_one();
    }
}

impl Budget {
    pub(crate) fn new(rate: &HttpRate) -> Budget {
        let windows = rate.windows();
        Budget {
            spent: Mutex::new(Spent { windows, answers: VecDeque::new(), under_way: 0, paused_until: None }),
            turn: TurnMutex::new(()),
            answered: Notify::new(),
            lanes: Arc::new(Semaphore::new(rate.concurrency.max(1))),
        }
    }

    /// Waits until a request may be sent.
    ///
    /// # Errors
    /// The time until one may be sent, if it does not come within `patience`.
    pub(crate) async fn acquire(self: &Arc<Self>, patience: Duration) -> Result<Permit, Duration> {
        let waiting = async {
            let lane = Arc::clone(&self.lanes).acquire_owned().await.ok();
            let _turn = self.turn.lock().await;
            loop {
                // Before the look, so that an answer in between is not missed.
                let answered = self.answered.notified();
                let slot = {
                    let mut spent = self.spent.lock();
                    let slot = spent.next(Instant::now());
                    if slot == Slot::Now {
                        spent.begin();
                    }
                    slot
                };
                match slot {
                    Slot::Now => return Permit { budget: Arc::clone(self), _lane: lane },
                    Slot::At(at) => sleep_until(at).await,
                    Slot::AfterAnswer => answered.await,
                }
            }
        };
        match timeout(patience, waiting).await {
            Ok(permit) => Ok(permit),
            Err(_) => Err(self.wait()),
        }
    }

    /// Time until a request may be sent, as far as it is known.
    pub(super) fn wait(&self) -> Duration {
        let now = Instant::now();
        match self.spent.lock().next(now) {
            Slot::At(at) => at - now,
            Slot::Now | Slot::AfterAnswer => Duration::from_secs(1),
        }
    }

    /// Lets no request be sent for `time`.
    pub(super) fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut spent = self.spent.lock();
        spent.paused_until = Some(spent.paused_until.map_or(until, |own| own.max(until)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(per_second: u64, per_minute: Option<u64>) -> HttpRate {
        HttpRate { per_second: Some(per_second), per_minute, concurrency: 64, ..HttpRate::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn no_window_of_the_api_counts_more_than_the_limit() {
        let budget = Arc::new(Budget::new(&rate(5, Some(40))));
        let arrivals = Arc::new(Mutex::new(Vec::new()));
        let started = Instant::now();
        let requests = (0..100).map(|at| {
            let (budget, arrivals) = (Arc::clone(&budget), Arc::clone(&arrivals));
            async move {
                let permit = budget.acquire(Duration::from_secs(3_600)).await.unwrap();
                // The way to the API takes between 0 and 300 ms.
                tokio::time::sleep(Duration::from_millis(at * 37 % 300)).await;
                arrivals.lock().push(started.elapsed());
                tokio::time::sleep(Duration::from_millis(20)).await;
                drop(permit);
            }
        });
        futures_util::future::join_all(requests).await;
        let mut arrivals = arrivals.lock().clone();
        arrivals.sort_unstable();
        assert_eq!(arrivals.len(), 100);
        for (most, length) in [(5, Duration::from_secs(1)), (40, Duration::from_secs(60))] {
            for first in 0..arrivals.len().saturating_sub(most) {
                assert!(arrivals[first + most] - arrivals[first] >= length, "more than {most} in {length:?}");
            }
        }
        // 100 requests at 40 a minute need two whole minutes and a part of the third.
        assert!(started.elapsed() < Duration::from_secs(140), "{:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn requests_beyond_a_burst_are_spread_evenly() {
        let budget = Arc::new(Budget::new(&HttpRate { burst: Some(1), ..rate(5, None) }));
        let (mut sent, started) = (Vec::new(), Instant::now());
        for _ in 0..7 {
            drop(budget.acquire(Duration::from_secs(60)).await.unwrap());
            sent.push(started.elapsed().as_millis());
        }
        assert_eq!(sent, [0, 200, 400, 600, 800, 1_000, 1_200]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_holds_every_request_and_the_impatient_are_told_how_long() {
        let budget = Arc::new(Budget::new(&HttpRate::default()));
        budget.pause(Duration::from_secs(30));
        budget.pause(Duration::from_secs(10));
        let wait = budget.acquire(Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(wait, Duration::from_secs(25));
        let started = Instant::now();
        drop(budget.acquire(Duration::from_secs(60)).await.unwrap());
        assert_eq!(started.elapsed(), Duration::from_secs(25));
    }

    #[tokio::test(start_paused = true)]
    async fn requests_are_sent_in_the_order_in_which_they_ask() {
        let budget = Arc::new(Budget::new(&rate(1, None)));
        let order = Arc::new(Mutex::new(Vec::new()));
        let requests = (0..6).map(|at| {
            let (budget, order) = (Arc::clone(&budget), Arc::clone(&order));
            async move {
                let permit = budget.acquire(Duration::from_secs(60)).await.unwrap();
                order.lock().push(at);
                drop(permit);
            }
        });
        futures_util::future::join_all(requests).await;
        assert_eq!(*order.lock(), [0, 1, 2, 3, 4, 5]);
    }
}
