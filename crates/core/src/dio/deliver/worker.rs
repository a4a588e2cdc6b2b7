//! The worker: selects the operations that are delivered next, in order and at least once, and starts their deliveries.
//!
//! With one lane and [`WriteOrder::Queue`](crate::dio::WriteOrder) the oldest operation blocks the queue until it is
//! settled. Otherwise only operations of one row are ordered (`schedule.rs`). If the master takes several writes in one
//! transaction, they are delivered in batches. In the order of the queue such a batch is called when the one before has been answered
//! without a failure that has to be repeated, while that is being settled (`call_order.rs`).

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use tokio::task::{Id as TaskId, JoinError, JoinSet};
use tokio::time::Instant;

use super::breaker::CallPermit;
use super::call_order::{CallTurn, LastCall};
use super::delivery::{deliver, deliver_batch, give_up, is_old};
use super::schedule::Schedule;
use crate::dio::clock::wait_until;
use crate::dio::core::Core;
use crate::dio::handle::Handle;
use crate::journal::Seq;
use crate::record::Id;
use crate::state::{Op, OpId, OpState, State};
use crate::vista::Error;

/// Approximate maximum bytes of one batch.
const BATCH_BYTES: usize = 4 << 20;

/// Maximum number of deliveries under way in the order of the queue. At most one of them is with the master.
const OVERLAP: usize = 3;

/// Delivers until the Dio closes and the queue is empty, or `drain_timeout` is over.
pub(crate) async fn run(core: Arc<Core>, handle: Weak<Handle>) {
    let mut published = core.published.subscribe();
    let closing = core.tasks.closing().clone();
    let mut deadline: Option<Instant> = None;
    let mut lanes = ActiveDeliveries::new(Arc::clone(&core), handle);
    loop {
        published.borrow_and_update();
        let due = lanes.start_due();
        let idle = lanes.running.is_empty() && due.is_none_or(|_| deadline.is_some());
        if deadline.is_some() && idle && (core.state().queue().next().is_none() || due.is_some()) {
            // The remaining operations have failed before and wait for a retry. They are in the journal.
            return;
        }
        tokio::select! {
            Some(ended) = lanes.running.join_next_with_id() => lanes.ended(&ended),
            changed = published.changed() => if changed.is_err() { return },
            () = wait_until(due) => {}
            () = closing.cancelled(), if deadline.is_none() => {
                deadline = Some(Instant::now() + core.settings.drain_timeout);
            }
            () = wait_until(deadline) => {
                lanes.running.shutdown().await;
                return;
            }
        }
    }
}

/// End of the part of an ordered queue that is being delivered.
#[derive(Default)]
struct Tail {
    /// Position of its newest operation.
    seq: Seq,
    /// Call of its last delivery. `None` if the next delivery has to wait until the others have ended.
    last: Option<LastCall>,
}

/// The deliveries under way, and the schedule of the next ones.
struct ActiveDeliveries {
    core: Arc<Core>,
    handle: Weak<Handle>,
    running: JoinSet<()>,
    /// Operations of each delivery.
    under_way: HashMap<TaskId, Vec<Op>>,
    /// Unused if the queue is delivered in order.
    schedule: Schedule,
    /// Unused unless the queue is delivered in order.
    tail: Tail,
    /// Number of recoveries of the route that the schedule has taken into account.
    returns: u64,
}

impl ActiveDeliveries {
    fn new(core: Arc<Core>, handle: Weak<Handle>) -> ActiveDeliveries {
        ActiveDeliveries {
            core,
            handle,
            running: JoinSet::new(),
            under_way: HashMap::new(),
            schedule: Schedule::default(),
            tail: Tail::default(),
            returns: 0,
        }
    }

    /// Starts the deliveries that are due; returns when to check again.
    fn start_due(&mut self) -> Option<Instant> {
        let state = self.core.state();
        if self.core.sync.seeding.load(Ordering::Acquire) && state.lacks_rows() {
            return None;
        }
        let now = Instant::now();
        if self.core.settings.delivers_in_order() {
            return self.start_in_order(&state, now);
        }
        self.schedule.update(&state, now);
        let returns = self.core.deliver.route_breaker.returns();
        if std::mem::replace(&mut self.returns, returns) != returns {
            self.schedule.wake_all();
        }
        match self.core.deliver.route_breaker.permit(now) {
            CallPermit::Closed => self.start_all(&state, now),
            CallPermit::Due => self.start_probe(&state, now),
            CallPermit::Resting(until) => {
                self.give_up_old(&state);
                Some(until)
            }
            CallPermit::Probing => {
                self.give_up_old(&state);
                // The probe's answer wakes the worker. This is the timeout without an answer.
                Some(now + self.core.settings.breaker.first)
            }
        }
    }

    // --- in the order of the queue -----------------------------------------------------------------------------------

    /// Delivers the oldest operation, with the next ones if the master takes batches.
    fn start_in_order(&mut self, state: &State, now: Instant) -> Option<Instant> {
        if !self.running.is_empty() {
            self.start_behind(state, now);
            return None;
        }
        self.tail = Tail::default();
        let head = state.queue().next()?;
        let (count, next_attempt) =
            self.core.deliver.attempts.lock().get(head.id).map_or((0, None), |attempt| (attempt.count, attempt.next));
        match self.core.deliver.route_breaker.permit(now) {
            permit @ (CallPermit::Resting(_) | CallPermit::Probing) => {
                if is_old(&self.core, head) {
                    self.start_giving_up(head.clone());
                    return None;
                }
                let CallPermit::Resting(until) = permit else { return Some(now + self.core.settings.breaker.first) };
                return Some(until);
            }
            CallPermit::Closed | CallPermit::Due => {}
        }
        if let Some(until) = next_attempt.filter(|until| *until > now) {
            return Some(until);
        }
        if self.core.deliver.route_breaker.permit(now) == CallPermit::Due {
            return match self.core.deliver.route_breaker.admit(now) {
                Ok(probe) => {
                    self.start_one(head.clone(), probe);
                    None
                }
                Err(at) => Some(at),
            };
        }
        if let Err(at) = self.core.deliver.route_breaker.spend(count == 0, now) {
            return Some(at);
        }
        match count {
            0 => self.start_untried(self.batch(state, state.queue()), None),
            _ => self.start_one(head.clone(), false),
        }
        None
    }

    /// Starts a delivery behind those under way, if one may follow them: it is prepared while the last one is with the master.
    fn start_behind(&mut self, state: &State, now: Instant) {
        let is_free = self.running.len() < OVERLAP && self.core.deliver.route_breaker.permit(now) == CallPermit::Closed;
        let Some(last) = self.tail.last.take_if(|last| is_free && last.has_begun()) else { return };
        let batch = self.batch(state, state.queue_after(self.tail.seq));
        let follows = |op: &Op| {
            let untried = self.core.deliver.attempts.lock().get(op.id).is_none_or(|attempt| attempt.count == 0);
            untried && op.targets.len() == 1 && state.is_next(op)
        };
        match batch.first().is_some_and(follows) {
            true => self.start_untried(batch, Some(last)),
            false => self.tail.last = Some(last),
        }
    }

    /// Starts untried operations of an ordered queue, after the call `last`.
    fn start_untried(&mut self, batch: Vec<Op>, last: Option<LastCall>) {
        let may_be_followed = self.core.batches() && batch.first().is_some_and(|op| op.targets.len() == 1);
        let turn = match may_be_followed {
            true => {
                let (turn, last) = CallTurn::after(last);
                self.tail = Tail { seq: batch.last().map_or(0, |op| op.staged), last: Some(last) };
                turn
            }
            false => CallTurn::alone(),
        };
        self.start_batch(batch, turn);
    }

    /// A batch of the first of `ops` and those after it that can be delivered with it: untried writes of different rows.
    fn batch<'a>(&self, state: &State, ops: impl Iterator<Item = &'a Op>) -> Vec<Op> {
        let most = if self.core.batches() { self.core.vista.shell().batch_size().max(1) } else { 1 };
        let attempts = self.core.deliver.attempts.lock();
        let mut bytes = 0;
        let mut batch: Vec<Op> = Vec::new();
        for op in ops {
            bytes += op.size();
            // Operations that an older journal brought back are resolved singly.
            let untried =
                |op: &Op| attempts.get(op.id).is_none_or(|attempt| attempt.count == 0 && attempt.base_hash.is_none());
            let joins = untried(op) && batch.first().is_none_or(|first| untried(first) && first.targets.len() == 1);
            let fits = batch.len() < most && bytes <= BATCH_BYTES && joins && op.targets.len() == 1;
            // The first operation is always delivered.
            let together = batch.is_empty() || fits && state.is_next(op);
            if !together {
                break;
            }
            batch.push(op.clone());
        }
        batch
    }

    // --- in the order of each row ------------------------------------------------------------------------------------

    /// Starts all due deliveries within the lanes and the retry budget.
    fn start_all(&mut self, state: &State, now: Instant) -> Option<Instant> {
        let mut refused: Option<Instant> = None;
        while !self.is_full() {
            let Some((id, tried)) = self.schedule.next(refused.is_none()) else { break };
            let Some(op) = self.still_queued(state, id) else { continue };
            if let Err(at) = self.core.deliver.route_breaker.spend(!tried, now) {
                refused = Some(at);
                continue;
            }
            match tried {
                true => self.start_one(op, false),
                false => self.start_fresh(state, op),
            }
        }
        match (refused, self.schedule.next_due()) {
            (Some(refused), Some(due)) => Some(refused.min(due)),
            (refused, due) => refused.or(due),
        }
    }

    /// Starts an untried operation, with other untried ones if the master takes batches.
    fn start_fresh(&mut self, state: &State, first: Op) {
        if !self.core.batches() || first.targets.len() != 1 {
            return self.start_one(first, false);
        }
        let ids = self.schedule.fresh(self.core.vista.shell().batch_size());
        let others = ids.into_iter().filter(|id| *id != first.id).filter_map(|id| state.op(id));
        let others = others.filter(|op| op.state == OpState::Queued && op.targets.len() == 1);
        let batch = self.batch(state, std::iter::once(&first).chain(others));
        self.start_batch(batch, CallTurn::alone());
    }

    /// Starts the due operation that is the best probe of the master.
    fn start_probe(&mut self, state: &State, now: Instant) -> Option<Instant> {
        // The answer wakes the worker. This is the timeout without an answer.
        let later = Some(now + self.core.settings.breaker.first);
        while !self.is_full() {
            let Some(id) = self.schedule.probe() else { return self.schedule.next_due() };
            let Some(op) = self.still_queued(state, id) else { continue };
            return match self.core.deliver.route_breaker.admit(now) {
                Ok(probe) => {
                    self.start_one(op, probe);
                    later
                }
                Err(at) => Some(at),
            };
        }
        later
    }

    /// Parks operations that are too old while the breaker is open. Stops at the first younger one, because the later
    /// ones are younger still.
    fn give_up_old(&mut self, state: &State) {
        while !self.is_full() {
            let Some(id) = self.schedule.oldest() else { return };
            let Some(op) = self.still_queued(state, id) else { continue };
            if !is_old(&self.core, &op) {
                return;
            }
            self.start_giving_up(op);
        }
    }

    /// The operation if it still waits; else removes it from the schedule.
    fn still_queued(&mut self, state: &State, id: OpId) -> Option<Op> {
        match state.op(id) {
            Some(op) if op.state == OpState::Queued => Some(op.clone()),
            Some(op) => {
                self.schedule.ended(state, id, &op.targets);
                None
            }
            None => {
                self.schedule.ended(state, id, &[]);
                None
            }
        }
    }

    // --- deliveries --------------------------------------------------------------------------------------------------

    fn is_full(&self) -> bool {
        self.running.len() >= self.core.settings.write_concurrency.max(1)
    }

    fn start_one(&mut self, op: Op, probe: bool) {
        self.start_in_turn(op, probe, CallTurn::alone());
    }

    fn start_in_turn(&mut self, op: Op, probe: bool, turn: CallTurn) {
        self.core.deliver.attempts.lock().begin(op.id);
        let delivery = deliver(Arc::clone(&self.core), self.handle.clone(), op.clone(), probe, turn);
        self.start(vec![op], delivery);
    }

    fn start_batch(&mut self, mut batch: Vec<Op>, turn: CallTurn) {
        if batch.len() == 1
            && let Some(op) = batch.pop()
        {
            return self.start_in_turn(op, false, turn);
        }
        let mut attempts = self.core.deliver.attempts.lock();
        batch.iter().for_each(|op| attempts.begin(op.id));
        drop(attempts);
        let delivery = deliver_batch(Arc::clone(&self.core), batch.clone(), turn);
        self.start(batch, delivery);
    }

    fn start_giving_up(&mut self, op: Op) {
        self.core.deliver.attempts.lock().hold(op.id);
        let cause = self.core.deliver.route_breaker.error().unwrap_or_default();
        let giving_up = give_up(Arc::clone(&self.core), op.clone(), Error::transient(cause));
        self.start(vec![op], giving_up);
    }

    fn start(&mut self, ops: Vec<Op>, delivery: impl Future<Output = ()> + Send + 'static) {
        ops.iter().for_each(|op| self.schedule.start(op.id));
        let task = self.running.spawn(delivery);
        self.under_way.insert(task.id(), ops);
    }

    /// Handles the end of a delivery, also after a panic.
    fn ended(&mut self, ended: &Result<(TaskId, ()), JoinError>) {
        let task = match ended {
            Ok((task, ())) => *task,
            Err(error) => error.id(),
        };
        let Some(ops) = self.under_way.remove(&task) else { return };
        if ended.is_err()
            && let Some(left_out) = self.core.lines.pass(("panicked", String::new()))
        {
            tracing::error!(dio = %self.core.name, left_out, "a delivery panicked; it is retried");
        }
        let state = self.core.state();
        for op in ops {
            let waits = state.op(op.id).is_some_and(|op| op.state == OpState::Queued);
            let (tried, next) = {
                let mut attempts = self.core.deliver.attempts.lock();
                attempts.release(op.id);
                attempts.get(op.id).map_or((false, None), |attempt| (attempt.count > 0, attempt.next))
            };
            if waits {
                // It comes before all others.
                self.tail.last = None;
            }
            match waits {
                true => self.schedule.requeue(op.id, tried, next),
                false => self.schedule.ended(&state, op.id, &op.targets),
            }
        }
    }
}

impl Core {
    /// Returns true if a caller or another operation waits until `op` is settled.
    pub(in crate::dio) fn is_awaited(&self, op: OpId) -> bool {
        let state = self.state();
        let is_alone = |row: &Id| state.fold(row).is_none_or(|fold| fold.ops.len() <= 1);
        let shares_row = state.op(op).is_some_and(|op| !op.targets.iter().all(is_alone));
        // So many deliveries need not wait for each other.
        let together = if self.batches() { OVERLAP } else { 1 };
        self.deliver.awaited.load(Ordering::Relaxed) > 0 || shares_row || state.backlog().0 > together
    }

    /// Returns true if the master takes several writes in one transaction, and guarantees by their ids that each takes
    /// effect once.
    pub(super) fn batches(&self) -> bool {
        let shell = self.vista.shell();
        self.callbacks.on_write.is_none() && shell.writes_once() && shell.batch_size() > 1
    }
}
