//! The scripted master and its Dio: possible actions and their effects.

use super::*;

/// Destination of writes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Route {
    /// The master, which answers with or without the stored row.
    Through { returns: bool },
    /// Another system; the master never receives the writes.
    Around,
    /// A consumer that forwards to the master later; with `feedback` the master then sends an event.
    Consumer { feedback: bool },
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Hooks {
    None,
    Thin,
    Full,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    pub(super) keys: usize,
    pub(super) route: Route,
    pub(super) hooks: Hooks,
    /// The consumer may carry out a write before the route has answered.
    pub(super) early: bool,
    /// The master also sends events for writes through it.
    pub(super) echo: bool,
    pub(super) versioned: bool,
    /// Events have versions by a clock of their sender.
    pub(super) clocked: bool,
    pub(super) trust: bool,
    pub(super) deletes: bool,
    pub(super) delete_all: bool,
    pub(super) externals: u8,
    pub(super) writes: u8,
    pub(super) refreshes: u8,
    pub(super) restarts: u8,
    /// Restarts without the cache file, or without a row of it; for random walks only.
    pub(super) losses: u8,
}

/// Part of the cache file that is lost before a restart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Lost {
    Nothing,
    Row(usize),
    File,
}

/// A read of the master in progress.
#[derive(Clone, Debug)]
pub(super) struct Read {
    /// Row that is read again; `None` for the list.
    pub(super) key: Option<usize>,
    pub(super) mark: u64,
    /// Length of each row's history when the read began.
    pub(super) begun: Vec<usize>,
    /// Version of each row that the read saw, once it has.
    pub(super) seen: Option<Vec<usize>>,
}

/// A write on its way to the master.
#[derive(Clone, Debug)]
pub(super) struct Delivery {
    pub(super) op: OpId,
    pub(super) mark: u64,
    /// Answer of the master: rejected, or the resulting versions.
    pub(super) answer: Option<Option<Vec<(usize, usize)>>>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    External { key: usize, delete: bool },
    Write { key: usize, delete: bool },
    WriteAll,
    Deliver(OpId),
    Judge { accept: bool },
    Answer,
    Refresh,
    Reread(usize),
    See(usize),
    Arrive(usize),
    Hook(usize),
    Consume,
    Restart(Lost),
}

#[derive(Clone)]
pub(super) struct World {
    pub(super) setup: Setup,
    pub(super) state: State,
    /// Entries that a trim would have kept.
    pub(super) entries: Vec<Arc<Entry>>,
    /// All rows that the master ever had, by key; the index is the version.
    pub(super) history: Vec<Vec<Option<u64>>>,
    /// Version that each confirmed row has reached.
    pub(super) shown: Vec<usize>,
    /// Version up to which a list that began later has been applied.
    pub(super) listed: Vec<usize>,
    /// True if a list has shown the current row again after it was known; kept for consumers only.
    pub(super) relisted: Vec<bool>,
    pub(super) events: Vec<(usize, usize)>,
    pub(super) reads: Vec<Read>,
    pub(super) delivery: Option<Delivery>,
    pub(super) consumer: VecDeque<OpId>,
    /// Operations that the consumer knows: it carries out each once.
    pub(super) published: Vec<OpId>,
    pub(super) written: Vec<bool>,
    pub(super) next: u64,
    pub(super) externals: u8,
    pub(super) writes: u8,
    pub(super) refreshes: u8,
    pub(super) restarts: u8,
    pub(super) losses: u8,
    /// A refresh follows a restart.
    pub(super) stale: bool,
    /// The master has not been listed since rows were lost.
    pub(super) seeding: bool,
    /// Rows that are not checked after they were lost, until the master is listed; and their earlier visible state, if it
    /// contained everything that the master and the writes had reported.
    pub(super) blank: Vec<bool>,
    pub(super) before: Vec<Option<(usize, Option<u64>)>>,
    /// Rows that were lost beneath routed writes: a later change of the master is not detectable.
    pub(super) spared: Vec<bool>,
}

impl World {
    pub(super) fn new(setup: Setup) -> World {
        let mut state = State::new(rules(setup.versioned, setup.trust), "epoch", 0);
        state.advance(0);
        let rows = (0..setup.keys).map(|key| (id(key), Some(row(setup.versioned, key, 0, 0)))).collect();
        run(&mut state, &Command::Statement { rows, notify: false });
        World {
            setup,
            state,
            entries: Vec::new(),
            history: vec![vec![Some(0)]; setup.keys],
            shown: vec![0; setup.keys],
            listed: vec![0; setup.keys],
            relisted: vec![false; setup.keys],
            events: Vec::new(),
            reads: Vec::new(),
            delivery: None,
            consumer: VecDeque::new(),
            published: Vec::new(),
            written: vec![false; setup.keys],
            next: 1,
            externals: setup.externals,
            writes: setup.writes,
            refreshes: setup.refreshes,
            restarts: setup.restarts,
            losses: setup.losses,
            stale: false,
            seeding: false,
            blank: vec![false; setup.keys],
            before: vec![None; setup.keys],
            spared: vec![false; setup.keys],
        }
    }

    pub(super) fn actions(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        let blank = self.blank.contains(&true);
        for key in 0..self.setup.keys {
            let here = self.master(key).is_some();
            let visible = self.state.get(&id(key)).is_some();
            if self.externals > 0 {
                actions.push(Action::External { key, delete: false });
                if self.setup.deletes && here {
                    actions.push(Action::External { key, delete: true });
                }
            }
            if self.writes > 0 && !blank {
                actions.push(Action::Write { key, delete: false });
                if self.setup.deletes && visible {
                    actions.push(Action::Write { key, delete: true });
                }
            }
            let doubtful = self.state.is_dirty(&id(key)) && !self.state.has_queued(&id(key));
            if doubtful && self.reads.iter().all(|read| read.key != Some(key)) {
                actions.push(Action::Reread(key));
            }
        }
        if self.writes > 0 && !blank && self.setup.delete_all && !self.state.table().is_empty() {
            actions.push(Action::WriteAll);
        }
        match &self.delivery {
            // Nothing is delivered while rows beneath writes are missing.
            None if self.seeding && self.state.lacks_rows() => {}
            None => {
                let ready = self.state.queue().filter(|op| self.state.is_next(op));
                actions.extend(ready.map(|op| Action::Deliver(op.id)));
            }
            Some(Delivery { answer: None, .. }) => {
                actions.push(Action::Judge { accept: true });
                actions.push(Action::Judge { accept: false });
            }
            Some(_) => actions.push(Action::Answer),
        }
        for (at, read) in self.reads.iter().enumerate() {
            actions.push(if read.seen.is_none() { Action::See(at) } else { Action::Arrive(at) });
        }
        actions.extend((0..self.events.len()).map(Action::Hook));
        if !self.consumer.is_empty() {
            actions.push(Action::Consume);
        }
        if self.restarts > 0 {
            actions.push(Action::Restart(Lost::Nothing));
        }
        if self.losses > 0 {
            actions.push(Action::Restart(Lost::File));
            actions.extend((0..self.setup.keys).map(|key| Action::Restart(Lost::Row(key))));
        }
        let listing = self.reads.iter().any(|read| read.key.is_none());
        // Allow one more when nothing else is left, so that every walk can come to rest.
        if !listing && (self.refreshes > 0 || self.stale || actions.is_empty() && !self.is_listed()) {
            actions.push(Action::Refresh);
        }
        actions
    }

    pub(super) fn master(&self, key: usize) -> Option<u64> {
        *self.history[key].last().unwrap()
    }

    pub(super) fn row_at(&self, key: usize, version: usize) -> Option<Body> {
        self.history[key][version].map(|n| row(self.setup.versioned, key, n, version))
    }

    /// Changes the master's row.
    pub(super) fn change(&mut self, key: usize, n: Option<u64>, event: bool) -> usize {
        self.history[key].push(n);
        self.relisted[key] = false;
        let version = self.history[key].len() - 1;
        if event && self.setup.hooks != Hooks::None {
            self.events.push((key, version));
            self.events.sort_unstable();
        }
        version
    }

    pub(super) fn step(&mut self, action: Action) {
        match action {
            Action::External { key, delete } => {
                self.externals -= 1;
                let n = (!delete).then(|| self.fresh_value());
                self.change(key, n, true);
            }
            Action::Write { key, delete } => {
                self.writes -= 1;
                self.written[key] = true;
                let n = self.fresh_value();
                let effect = match delete {
                    true => Effect::Delete,
                    false if self.setup.versioned && self.state.get(&id(key)).is_some() => Effect::Patch(part(n)),
                    false => Effect::Replace(plain(key, n)),
                };
                self.run(&Command::Write(write(n, Some(&id(key)), effect)));
            }
            Action::WriteAll => {
                self.writes -= 1;
                let n = self.fresh_value();
                self.run(&Command::Write(write(n, None, Effect::DeleteAll)));
            }
            Action::Deliver(op) => {
                self.before.fill(None);
                let mark = self.open_delivery(op);
                if matches!(self.setup.route, Route::Through { .. }) {
                    self.delivery = Some(Delivery { op, mark, answer: None });
                    return self.check();
                }
                if self.setup.route != Route::Around && !self.published.contains(&op) {
                    self.published.push(op);
                    self.consumer.push_back(op);
                }
                match self.setup.early {
                    true => self.delivery = Some(Delivery { op, mark, answer: Some(Some(Vec::new())) }),
                    false => self.run(&Command::Settle { op, mark, answer: Answer::Routed }),
                }
            }
            Action::Judge { accept } => {
                let op = self.delivery.as_ref().unwrap().op;
                let made = accept.then(|| self.at_master(op, self.setup.echo));
                self.delivery.as_mut().unwrap().answer = Some(made);
            }
            Action::Answer => self.answer(),
            Action::Refresh => {
                self.refreshes = self.refreshes.saturating_sub(1);
                self.stale = false;
                self.read(None);
            }
            Action::Reread(key) => self.read(Some(key)),
            Action::See(at) => {
                let seen = self.history.iter().map(|history| history.len() - 1).collect();
                self.reads[at].seen = Some(seen);
            }
            Action::Arrive(at) => self.arrive(at),
            Action::Hook(at) => {
                let (key, version) = self.events.remove(at);
                self.event(key, version);
            }
            Action::Consume => {
                let op = self.consumer.pop_front().unwrap();
                self.at_master(op, self.setup.route == Route::Consumer { feedback: true });
            }
            Action::Restart(lost) => self.restart(lost),
        }
        self.check();
    }

    pub(super) fn fresh_value(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// Applies an operation at the master.
    pub(super) fn at_master(&mut self, op: OpId, event: bool) -> Vec<(usize, usize)> {
        let op = self.state.op(op).unwrap().clone();
        let made = match op.effect {
            Effect::Delete | Effect::DeleteAll => None,
            _ => Some(op.id.as_u128() as u64),
        };
        let keys: Vec<usize> = (0..self.setup.keys).filter(|key| op.targets.contains(&id(*key))).collect();
        keys.into_iter().map(|key| (key, self.change(key, made, event))).collect()
    }

    pub(super) fn answer(&mut self) {
        let Delivery { op, mark, answer } = self.delivery.take().unwrap();
        let answer = match answer.unwrap() {
            _ if !matches!(self.setup.route, Route::Through { .. }) => Answer::Routed,
            None => Answer::Failed(rejection()),
            Some(made) => {
                let stored = |(key, version): &(usize, usize)| self.row_at(*key, *version);
                let returns = self.setup.route == Route::Through { returns: true };
                let row = made.first().filter(|_| returns && made.len() == 1).and_then(stored);
                Answer::Confirmed { row, id: None }
            }
        };
        self.run(&Command::Settle { op, mark, answer });
    }

    pub(super) fn open(&mut self) -> u64 {
        self.begin(&Command::Open)
    }

    /// Opens the guard of a delivery, as the worker does.
    pub(super) fn open_delivery(&mut self, op: OpId) -> u64 {
        match &*self.state.op(op).unwrap().targets {
            [id] => self.begin(&Command::OpenFor(Arc::clone(id))),
            _ => self.begin(&Command::Open),
        }
    }

    fn begin(&mut self, command: &Command) -> u64 {
        match run(&mut self.state, command).outcome {
            Outcome::Mark(mark) => mark,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn read(&mut self, key: Option<usize>) {
        let mark = self.open();
        let begun = self.history.iter().map(|history| history.len() - 1).collect();
        self.reads.push(Read { key, mark, begun, seen: None });
    }

    pub(super) fn arrive(&mut self, at: usize) {
        let read = self.reads.remove(at);
        let seen = read.seen.unwrap();
        let keys = match read.key {
            Some(key) => key..key + 1,
            None => 0..self.setup.keys,
        };
        let items = keys
            .map(|key| ReadRow { id: id(key), row: self.row_at(key, seen[key]), ordinal: None })
            .filter(|item| {
                let known = self.state.base(&item.id).map(|base| base.body);
                let doubtful = self.state.is_dirty(&item.id) || self.state.fold(&item.id).is_some();
                read.key.is_some() || doubtful || known != item.row
            })
            .collect();
        let consumed = matches!(self.setup.route, Route::Consumer { .. });
        let base = |key: usize| self.state.base(&id(key)).map(|base| value_of(&base.body));
        // A read from before the answer of a route cannot end its operation.
        let is_later = |key: usize| {
            let ops = self.state.fold(&id(key)).into_iter().flat_map(|fold| &fold.ops);
            ops.filter_map(|op| self.state.op(*op)).all(|op| op.state == OpState::Routed && op.delivered <= read.mark)
        };
        let known = |key: usize| consumed && base(key) == self.master(key) && is_later(key);
        let known: Vec<bool> = (0..self.setup.keys).map(known).collect();
        self.run(&Command::ReadRows { items, mark: read.mark, notice: Notice::RowEvents });
        self.run(&Command::Close(read.mark));
        if read.key.is_none() {
            assert!(!self.state.lacks_rows(), "rows beneath writes are missing after a list");
            self.seeding = false;
            for (key, begun) in read.begun.into_iter().enumerate() {
                self.relisted[key] |= known[key] && begun + 1 == self.history[key].len();
                self.listed[key] = begun.max(self.listed[key]);
                self.unblank(key);
            }
        }
    }

    pub(super) fn event(&mut self, key: usize, version: usize) {
        let change = match (self.setup.hooks, self.row_at(key, version)) {
            (Hooks::Full, Some(body)) => UpstreamChange::Row(body),
            (Hooks::Full, None) => UpstreamChange::Gone,
            _ => UpstreamChange::Thin,
        };
        let by_sender = || EventVersion { clock: "sender".into(), version: (version as u64).into() };
        let version_sent = match (self.setup.clocked, self.setup.versioned) {
            (true, _) => Some(by_sender()),
            (false, versioned) => versioned.then(|| by_column(version as u64)),
        };
        let (row, ident) = (self.row_at(key, version), id(key));
        let reported_row = ReportedRow { version: version_sent.as_ref(), ..ReportedRow::of(&ident, row.as_ref()) };
        let is_ordered = version_sent.is_some() && self.state.compare_versions(&reported_row).is_some();
        let event = UpstreamEvent {
            id: id(key),
            change,
            version: version_sent,
            delivery: None,
            origin: Origin::Webhook,
            in_order: false,
        };
        let before = self.state.base(&id(key)).map(|base| base.body);
        let trusts = self.setup.trust && !is_ordered && !self.setup.versioned && !self.blank[key];
        if trusts {
            // Accepted although it may be late: the only rule that may show an older row.
            self.shown[key] = self.shown[key].min(version);
        }
        self.run(&Command::Upstream(event));
        if trusts && self.state.base(&id(key)).map(|base| base.body) == before {
            self.shown[key] = self.shown[key].max(self.position(key, 0).unwrap());
        }
    }

    /// Kills and restarts: the cache file is current except for the lost part, and the journal is trimmed as far as possible.
    pub(super) fn restart(&mut self, lost: Lost) {
        match lost {
            Lost::Nothing => self.restarts -= 1,
            _ => self.losses -= 1,
        }
        let is_lost = |key: usize| lost == Lost::File || lost == Lost::Row(key);
        for key in (0..self.setup.keys).filter(|key| is_lost(*key)) {
            self.blank(key);
        }
        let mut table = TableBuilder::new();
        let mut bases: Vec<(Id, BaseRow)> = (0..self.setup.keys)
            .filter(|key| !is_lost(*key))
            .filter_map(|key| Some((id(key), self.state.base(&id(key))?)))
            .collect();
        bases.sort_by_key(|(_, base)| base.slot);
        for (id, base) in bases {
            table.push_at(base.slot, &id, &base.body, base.ordinal);
        }
        let rules = rules(self.setup.versioned, self.setup.trust);
        let lacked = self.state.lacks_rows();
        let gap = lacked && self.state.has_gap();
        let head = self.state.seq();
        let watermark = if lost == Lost::File { 0 } else { head };
        let ids: HashSet<Id> = (0..self.setup.keys).filter(|key| !is_lost(*key)).map(id).collect();
        let versions: Vec<_> = self.state.all_versions().filter(|(id, _)| ids.contains(id)).collect();
        self.state = State::restore(rules, "epoch", watermark, table.finish());
        self.state.restore_versions(versions);
        for entry in &self.entries {
            self.state.apply(&Entry::decode(&entry.encode()).unwrap());
        }
        self.state.advance(head);
        // The cache file does not count as complete while rows are missing.
        if lost != Lost::Nothing || lacked {
            self.state.doubt_missing(gap);
            self.seeding = true;
        }
        self.reads.clear();
        self.delivery = None;
        self.stale = true;
    }

    /// Marks the row as lost.
    pub(super) fn blank(&mut self, key: usize) {
        let (id, base) = (id(key), self.state.base(&id(key)).map(|base| value_of(&base.body)));
        let visible = self.state.get(&id).map(|row| value_of(&row.body()));
        let sure = self.state.fold(&id).is_none_or(|fold| fold.rebased.is_empty()) && self.delivery.is_none();
        let certain = sure && !self.blank[key] && !self.state.is_dirty(&id) && base == self.master(key);
        self.before[key] = certain.then(|| (self.history[key].len(), visible));
        self.spared[key] |= self.state.fold(&id).is_some();
        self.blank[key] = true;
    }

    /// Checks a row after a list: it equals the row before the loss, if nothing else happened to it.
    pub(super) fn unblank(&mut self, key: usize) {
        let Some(position) = self.position(key, 0).filter(|_| self.blank[key]) else { return };
        self.blank[key] = false;
        self.shown[key] = position;
        let visible = self.state.get(&id(key)).map(|row| value_of(&row.body()));
        if let Some((length, before)) = self.before[key].take()
            && length == self.history[key].len()
            && !self.state.is_dirty(&id(key))
        {
            assert_eq!(visible, before, "row {key} after the loss of the cache file");
        }
    }

    pub(super) fn run(&mut self, command: &Command) {
        let decision = self.state.decide(command, 0).unwrap();
        for entry in decision.entries {
            self.state.apply(&entry);
            self.entries.push(Arc::new(entry));
            for key in (0..self.setup.keys).filter(|key| !self.blank[*key]) {
                let position = self.position(key, self.shown[key]);
                assert!(position.is_some(), "row {key} goes back behind version {}", self.shown[key]);
                self.shown[key] = position.unwrap();
            }
        }
        for note in &decision.notes {
            self.state.note(note);
        }
        let kept = self.state.kept_entries();
        self.entries.retain(|entry| kept.contains(&entry.seq));
    }
}
