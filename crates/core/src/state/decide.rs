//! Commands, and what each would do: [`State::decide`] looks, refuses or gives entries, and changes nothing.

use std::sync::Arc;

use super::entry::{Base, BulkRow, Cause, Entry, Frame, Many, OpChange, Origin, Versions, Visible};
use super::op::{Assumed, Effect, Op, OpError, OpId, OpState};
use super::reconcile::{News, Source};
use super::state::{NO_ROW, Note, State};
use super::versions::{Stamped, version_of};
use crate::record::{Body, CborValue, Id, Seq};
use crate::table::{Built, ORDINAL_STEP, Ordinal, Spec, Table};
use crate::vista::query::JsonRow;
use crate::vista::{Error, Narrowing, Result};

/// Something that wants to change a Dio. Can be decided again after a failed append.
#[derive(Clone, Debug)]
pub enum Cmd {
    /// A write by a user of the facade.
    Write(NewWrite),
    /// A worker takes up an operation; or somebody begins to read the master. Answers the mark.
    Open,
    /// [`Cmd::Open`] for a read or a delivery of one row, which does not keep news of other rows waiting.
    OpenFor(Id),
    /// What began at this mark has ended without news.
    Close(u64),
    /// The route or the master has answered for an operation.
    Settle {
        /// The operation.
        op: OpId,
        /// The mark that was opened for its delivery.
        mark: u64,
        /// The answer.
        answer: Answer,
    },
    /// Rows read from the master by a read that began at `mark`.
    News {
        /// The rows that may differ from what is known.
        items: Vec<Item>,
        /// When the read began.
        mark: u64,
        /// Whether subscribers are told.
        told: bool,
    },
    /// As [`Cmd::News`], for more rows than the log should carry: one entry without bodies.
    Bulk {
        /// The rows that may differ.
        items: Vec<Item>,
        /// When the read began.
        mark: u64,
    },
    /// A table built aside from a complete list, for a Dio that has shown nothing yet.
    Seed {
        /// The table.
        table: Table,
        /// When the read began.
        mark: u64,
    },
    /// An upstream event.
    Upstream(Upstream),
    /// What the program says about rows: taken as given.
    Statement {
        /// The rows; `None` for a row that is gone.
        rows: Vec<(Id, Option<Body>)>,
        /// Whether subscribers are told (`RecordChanged`, whether new or not).
        told: bool,
    },
    /// Subscribers are told that these rows changed, whatever is known of them.
    Invalidate(Vec<Id>),
    /// Subscribers are told to read everything again, or (covered) that they have seen everything.
    InvalidateAll {
        /// Whether all differences were told as row events.
        covered: bool,
        /// Who says so.
        origin: Origin,
    },
    /// A person gives a parked operation another try, as a new operation.
    Retry {
        /// The parked operation.
        op: OpId,
        /// The id of the new one.
        new: OpId,
    },
    /// A person gives a parked operation up.
    Discard(OpId),
    /// An index was built aside. Refused without harm ([`Outcome::Unchanged`]) if too much has changed since.
    Attach(Arc<Built>),
    /// An index is not worth its memory.
    Detach(Spec),
    /// Everything that is known of these rows goes; see [`Entry::purge`].
    Purge(Arc<[Id]>),
    /// The purge at this position has ended.
    Purged(Seq),
}

/// A write as it enters the State.
#[derive(Clone, Debug)]
pub struct NewWrite {
    /// The id of the operation it becomes.
    pub op: OpId,
    /// The row, `None` for [`Effect::DeleteAll`].
    pub id: Option<Id>,
    /// What it does.
    pub effect: Effect,
    /// What must hold of the visible row.
    pub condition: Condition,
    /// The operation it repeats.
    pub retry_of: Option<OpId>,
    /// The rows that it may see and make; `None` for all.
    pub within: Option<Arc<Narrowing>>,
    /// The identity of whoever asked for it, if the caller says so.
    pub principal: Option<Arc<str>>,
}

impl NewWrite {
    /// A write without conditions.
    pub fn new(op: OpId, id: Option<Id>, effect: Effect) -> NewWrite {
        NewWrite { op, id, effect, condition: Condition::None, retry_of: None, within: None, principal: None }
    }

    /// What its entries say brought them about.
    fn cause(&self) -> Cause {
        Cause { op: Some(self.op), principal: self.principal.clone(), ..Cause::default() }
    }
}

/// A condition on the visible row, judged in commit order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// None.
    #[default]
    None,
    /// There is a row with one of these hashes (`If-Match`).
    Matches(Vec<u128>),
    /// There is a row (`If-Match: *`).
    Exists,
    /// There is no row (`If-None-Match: *`).
    Absent,
    /// There is a row with none of these hashes, or there is none and there need not be (`If-None-Match`).
    Differs {
        /// What it must not be.
        from: Vec<u128>,
        /// Whether no row will do.
        or_absent: bool,
    },
}

impl Condition {
    /// Tells whether it holds of the row that is visible.
    fn holds(&self, row: Option<&Body>) -> bool {
        match self {
            Condition::None => true,
            Condition::Exists => row.is_some(),
            Condition::Absent => row.is_none(),
            Condition::Differs { from, or_absent } => row.map_or(*or_absent, |row| !from.contains(&row.hash())),
            Condition::Matches(hashes) => row.is_some_and(|row| hashes.contains(&row.hash())),
        }
    }
}

/// How a delivery ended.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The master has it; perhaps it says what the row is now, and under which id.
    Confirmed {
        /// The row as the master stores it.
        row: Option<Body>,
        /// Its id at the master, if another.
        id: Option<Id>,
    },
    /// The write route took it.
    Routed,
    /// Refused for good.
    Failed(OpError),
    /// Given up until a person decides.
    Parked(OpError),
}

/// One row of a read.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its id.
    pub id: Id,
    /// The row, `None` if the read shows that it is not there.
    pub row: Option<Body>,
    /// Its place in the master's order, if the read tells.
    pub ordinal: Option<Ordinal>,
}

/// An upstream event, encoded.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// The row.
    pub id: Id,
    /// What it says.
    pub change: UpstreamChange,
    /// The row's version after the change, if the sender gives one.
    pub version: Option<Stamped>,
    /// The sender's id of the delivery.
    pub delivery: Option<Arc<str>>,
    /// Through what it came.
    pub origin: Origin,
}

/// What an upstream event says of its row.
#[derive(Clone, Debug)]
pub enum UpstreamChange {
    /// It is this.
    Row(Body),
    /// These columns are this.
    Part(Body),
    /// It is gone.
    Gone,
    /// It changed: read it again.
    Thin,
}

/// What became of an accepted command.
#[derive(Clone, Debug, Default)]
pub struct Decision {
    /// What is to be appended and applied, in this order.
    pub entries: Vec<Entry>,
    /// What is to be noted after that.
    pub notes: Vec<Note>,
    /// What its sender is told.
    pub outcome: Outcome,
}

/// What the sender of a command is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing had to change.
    #[default]
    Unchanged,
    /// It changed something.
    Applied {
        /// Rows that are new.
        inserted: u64,
        /// Rows that are different.
        changed: u64,
        /// Rows that are gone.
        removed: u64,
    },
    /// A write is accepted as this operation.
    Staged {
        /// The operation.
        op: OpId,
        /// Whether the row was not there before.
        created: bool,
    },
    /// A write asks for what is there already.
    Identical,
    /// It cannot be judged yet: the row will be read from the master.
    Deferred,
    /// It is older than what is known.
    Stale,
    /// A read or delivery may begin with this mark.
    Mark(u64),
}

impl Outcome {
    /// Adds what another part of the same work did.
    pub fn add(&mut self, other: &Outcome) {
        let counts = |outcome: &Outcome| match outcome {
            Outcome::Applied { inserted, changed, removed } => (*inserted, *changed, *removed),
            _ => (0, 0, 0),
        };
        let (a, b) = (counts(self), counts(other));
        if matches!(other, Outcome::Applied { .. }) {
            *self = Outcome::Applied { inserted: a.0 + b.0, changed: a.1 + b.1, removed: a.2 + b.2 };
        }
    }
}

/// The largest row that is taken from anybody: the table packs 64 rows into one piece of memory.
const LARGEST_ROW: usize = 16 << 20;

/// Refuses a row that is too large to hold.
///
/// # Errors
/// [`Error::Invalid`] with its size and the bound.
pub fn check_size(id: &str, body: &Body) -> Result<()> {
    if body.size() <= LARGEST_ROW {
        return Ok(());
    }
    let detail = format!("row {id:?} has {} bytes: a row holds at most {} MiB", body.size(), LARGEST_ROW >> 20);
    Err(Error::invalid(detail))
}

/// Collects the entries of one decision.
pub(super) struct Draft<'a> {
    pub(super) state: &'a State,
    pub(super) now: u64,
    pub(super) decision: Decision,
    next_ordinal: Option<Ordinal>,
}

impl<'a> Draft<'a> {
    fn new(state: &'a State, now: u64) -> Draft<'a> {
        Draft { state, now, decision: Decision::default(), next_ordinal: None }
    }

    pub(super) fn entry(&mut self, id: Option<&Id>, cause: &Cause) -> &mut Entry {
        let seq = self.state.seq + 1 + self.decision.entries.len() as Seq;
        self.decision.entries.push(Entry::new(seq, self.now, id.cloned(), cause.clone()));
        let last = self.decision.entries.len() - 1;
        &mut self.decision.entries[last]
    }

    pub(super) fn note(&mut self, note: Note) {
        self.decision.notes.push(note);
    }

    /// An ordinal after every other, also those given out by this decision.
    pub(super) fn append_ordinal(&mut self) -> Ordinal {
        let next = self.next_ordinal.unwrap_or_else(|| self.state.next_ordinal());
        self.next_ordinal = Some(next.saturating_add(ORDINAL_STEP));
        next
    }

    /// The place of a row that is or becomes visible.
    pub(super) fn ordinal_of(&mut self, id: &str) -> Ordinal {
        match self.state.base(id) {
            Some(base) => base.ordinal,
            None => match self.state.table.get(id) {
                Some(row) => row.ordinal(),
                None => self.append_ordinal(),
            },
        }
    }

    pub(super) fn count(&mut self, frame: &Frame) {
        let one = match frame {
            Frame::Inserted => (1, 0, 0),
            Frame::Changed => (0, 1, 0),
            Frame::Removed => (0, 0, 1),
            _ => return,
        };
        self.decision.outcome.add(&Outcome::Applied { inserted: one.0, changed: one.1, removed: one.2 });
    }
}

/// What subscribers are told when readers saw `old` and now see `new`.
pub(super) fn frame_between(old: bool, new: bool) -> Frame {
    match (old, new) {
        (false, true) => Frame::Inserted,
        (true, true) => Frame::Changed,
        (true, false) => Frame::Removed,
        (false, false) => Frame::Silent,
    }
}

impl State {
    /// What `cmd` would do at `now` (Unix milliseconds).
    ///
    /// # Errors
    /// Why it is refused. A refused command has changed nothing and needs no entry.
    pub fn decide(&self, cmd: &Cmd, now: u64) -> Result<Decision> {
        let mut draft = Draft::new(self, now);
        match cmd {
            Cmd::Write(write) => self.decide_write(&mut draft, write)?,
            Cmd::Open => {
                draft.note(Note::Open);
                draft.decision.outcome = Outcome::Mark(self.next_mark());
            }
            Cmd::OpenFor(id) => {
                draft.note(Note::OpenFor(Arc::clone(id)));
                draft.decision.outcome = Outcome::Mark(self.clock + 1);
            }
            Cmd::Close(mark) => draft.note(Note::Close(*mark)),
            Cmd::Settle { op, mark, answer } => self.decide_settle(&mut draft, *op, *mark, answer),
            Cmd::News { items, mark, told } => {
                for item in items {
                    let news = News { ordinal: item.ordinal, ..News::of(&item.id, item.row.as_ref()) };
                    self.reconcile(&mut draft, &news, Source::Read { mark: *mark }, &cause(Origin::Refresh));
                }
                if !told {
                    // What becomes of writes is told in any case.
                    let read = draft.decision.entries.iter_mut().filter(|entry| entry.cause.op.is_none());
                    read.for_each(|entry| entry.frame = Frame::Silent);
                }
            }
            Cmd::Bulk { items, mark } => self.decide_bulk(&mut draft, items, *mark),
            Cmd::Seed { table, mark } => self.decide_seed(&mut draft, table, *mark)?,
            Cmd::Upstream(event) => self.decide_upstream(&mut draft, event),
            Cmd::Statement { rows, told } => {
                for (id, row) in rows {
                    self.state_row(&mut draft, id, row.as_ref(), *told);
                }
            }
            Cmd::Invalidate(ids) => {
                for id in ids {
                    draft.entry(Some(id), &cause(Origin::Program)).frame = Frame::Changed;
                }
            }
            Cmd::InvalidateAll { covered, origin } => {
                draft.entry(None, &cause(*origin)).frame = Frame::Invalidated { covered: *covered };
            }
            Cmd::Retry { op, new } => self.decide_retry(&mut draft, *op, *new)?,
            Cmd::Discard(op) => self.decide_discard(&mut draft, *op)?,
            Cmd::Attach(built) if self.table.is_far_from(built.from()) => {}
            Cmd::Attach(built) => {
                draft.note(Note::Attach(Arc::clone(built)));
                draft.decision.outcome = Outcome::Applied { inserted: 0, changed: 0, removed: 0 };
            }
            Cmd::Detach(spec) => draft.note(Note::Detach(spec.clone())),
            Cmd::Purge(ids) => self.decide_purge(&mut draft, ids)?,
            Cmd::Purged(seq) => draft.note(Note::Purged(*seq)),
        }
        for entry in &mut draft.decision.entries {
            let row = match &entry.base {
                Base::Set { body, .. } => Some(body),
                Base::Gone => None,
                Base::Keep | Base::Many { .. } => continue,
            };
            // The log has to say so: who replays it does not know any more what the row was, or that it was lost.
            entry.found = entry.id.as_ref().is_some_and(|id| self.finds(id, row) || self.lies_beneath(id, row));
        }
        Ok(draft.decision)
    }

    fn decide_write(&self, draft: &mut Draft<'_>, write: &NewWrite) -> Result<()> {
        let Some(id) = &write.id else { return self.decide_delete_all(draft, write) };
        let there = self.table.get(id).map(|row| row.body());
        let within = write.within.as_deref();
        // A row outside is one that is not there, until a row is to be put in its place.
        let before = there.as_ref().filter(|row| within.is_none_or(|within| within.matches(&JsonRow::from(*row))));
        if !write.condition.holds(before) {
            return Err(Error::Precondition { id: id.to_string() });
        }
        if let Some(within) = within {
            self.check_within(write, id, there.as_ref(), before, within)?;
        }
        match (&write.effect, before) {
            (Effect::Insert(body), Some(before)) if before == body => {
                draft.decision.outcome = Outcome::Identical;
                return Ok(());
            }
            (Effect::Insert(_), Some(_)) => {
                return Err(Error::Conflict { id: id.to_string(), detail: "is there already".into() });
            }
            (Effect::Patch(_) | Effect::Delete, None) => return Err(Error::NotFound { id: id.to_string() }),
            _ => {}
        }
        let after = write.effect.on(before, id, self.rules.schema.layout());
        if let Some(after) = &after {
            check_size(id, after)?;
        }
        let op = self.new_op(draft.now, write, Arc::from([Arc::clone(id)]));
        let ordinal = draft.ordinal_of(id);
        let staged = matches!(write.effect, Effect::Insert(_) | Effect::Replace(_));
        let entry = draft.entry(Some(id), &write.cause());
        entry.op = OpChange::Stage(op);
        if before != after.as_ref() {
            entry.frame = frame_between(before.is_some(), after.is_some());
            entry.visible = match after {
                None => Visible::Gone,
                Some(_) if staged => Visible::Staged(ordinal),
                Some(body) => Visible::Row { body, ordinal },
            };
        }
        draft.decision.outcome = Outcome::Staged { op: write.op, created: before.is_none() };
        Ok(())
    }

    /// Judges a bounded write: by the row that is there, then by the one that it makes.
    fn check_within(
        &self,
        write: &NewWrite,
        id: &Id,
        there: Option<&Body>,
        before: Option<&Body>,
        within: &Narrowing,
    ) -> Result<()> {
        within.check_before(write.effect.kind(), id, there)?;
        let after = write.effect.on(before, id, self.rules.schema.layout());
        after.map_or(Ok(()), |after| within.check_after(&after))
    }

    fn decide_delete_all(&self, draft: &mut Draft<'_>, write: &NewWrite) -> Result<()> {
        let targets: Arc<[Id]> = self.table.iter_slots().map(|row| Id::from(row.id())).collect();
        if targets.is_empty() {
            draft.decision.outcome = Outcome::Identical;
            return Ok(());
        }
        let op = self.new_op(draft.now, write, Arc::clone(&targets));
        let mut stage = Some(op);
        for id in targets.iter() {
            let entry = draft.entry(Some(id), &write.cause());
            entry.op = stage.take().map_or(OpChange::Join, OpChange::Stage);
            entry.visible = Visible::Gone;
            entry.frame = Frame::Removed;
        }
        draft.decision.outcome = Outcome::Staged { op: write.op, created: false };
        Ok(())
    }

    fn new_op(&self, now: u64, write: &NewWrite, targets: Arc<[Id]>) -> Op {
        Op {
            id: write.op,
            effect: write.effect.clone(),
            targets,
            created: now,
            retry_of: write.retry_of,
            assumed: match write.condition {
                Condition::None => None,
                Condition::Exists => Some(Assumed::Present),
                Condition::Absent => Some(Assumed::Absent),
                Condition::Matches(_) | Condition::Differs { .. } => Some(Assumed::Version),
            },
            staged: 0,
            log: Vec::new(),
            over: 0,
            state: OpState::Queued,
            delivered: 0,
            beneath: None,
            error: None,
            updated: now,
        }
    }

    // --- settling ------------------------------------------------------------------------------------------------------

    fn decide_settle(&self, draft: &mut Draft<'_>, op: OpId, mark: u64, answer: &Answer) {
        draft.note(Note::Close(mark));
        let Some(record) = self.ops.get(&op) else { return };
        if record.state != OpState::Queued {
            // Settled before, by a commit whose notes were lost with its answer.
            record.targets.iter().for_each(|id| draft.note(Note::Dirty(Arc::clone(id))));
            return;
        }
        match answer {
            Answer::Routed => {
                let beneath = match &*record.targets {
                    [id] if !self.lost.contains(id) => Some(self.base(id).map_or(NO_ROW, |base| base.body.hash())),
                    _ => None,
                };
                let entry = draft.entry(record.targets.first(), &op_cause(op));
                entry.op = OpChange::Settle { state: OpState::Routed, error: None, beneath };
                entry.frame = Frame::WriteCommitted;
                self.condense(draft, record);
            }
            Answer::Confirmed { row, id } => self.confirm(draft, record, mark, row.as_ref(), id.as_ref()),
            Answer::Failed(error) => self.roll_back(draft, record, OpState::Failed, error),
            Answer::Parked(error) => self.roll_back(draft, record, OpState::Parked, error),
        }
        draft.decision.outcome.add(&Outcome::Applied { inserted: 0, changed: 0, removed: 0 });
    }

    /// The master has the write (R4): its row becomes the confirmed one, unless something newer arrived meanwhile.
    fn confirm(&self, draft: &mut Draft<'_>, op: &Op, mark: u64, row: Option<&Body>, new_id: Option<&Id>) {
        let cause = op_cause(op.id);
        let drafted = draft.decision.entries.len();
        // The worker's own guard is open; a second one means that a read may not have seen this write.
        for id in op.targets.iter() {
            let reading = self.motions(id) > 1;
            let Some(fold) = self.folds.get(id) else { continue };
            let told = row.filter(|_| new_id.is_none_or(|new_id| new_id == id)).and_then(|row| self.version_in(row));
            if self.changed_after(id, mark) && !self.is_newer(id, told.as_ref()) {
                // Not known which came last at the master: keep what is confirmed and ask.
                let base = fold.base.as_ref().map(|base| base.body.clone());
                let rest: Vec<OpId> = fold.ops.iter().copied().filter(|other| *other != op.id).collect();
                self.show_fold(draft, id, base.as_ref(), &rest, Base::Keep, &cause);
                draft.note(Note::Dirty(Arc::clone(id)));
                continue;
            }
            let upto = fold.ops.iter().position(|other| *other == op.id).map_or(0, |at| at + 1);
            let done: Vec<OpId> = fold.ops.iter().take(upto).copied().collect();
            let confirmed = match (row, new_id) {
                (_, Some(new_id)) if new_id != id => None,
                (Some(row), _) => Some(row.clone()),
                (None, _) => self.folded(id, fold.base.as_ref().map(|base| &base.body), &done),
            };
            // What the master made of the row is mostly what readers see: then nothing needs to be laid over it again.
            let expected = row.is_none() && new_id.is_none_or(|new_id| new_id == id)
                || self.folded(id, fold.base.as_ref().map(|base| &base.body), &done) == confirmed;
            let after = match expected {
                true => self.table.get(id).map(|row| row.body()),
                false => self.folded(id, confirmed.as_ref(), fold.ops.iter().skip(upto)),
            };
            let base = match (&confirmed, &fold.base) {
                (Some(body), _) => Base::Set { body: body.clone(), ordinal: draft.ordinal_of(id) },
                (None, Some(_)) => Base::Gone,
                (None, None) => Base::Keep,
            };
            // Routed operations below this one are part of what was confirmed.
            let routed = done.into_iter().filter(|other| *other != op.id).collect();
            self.show_confirmed(draft, id, after, base, &cause, routed, told.clone());
            let unclear = self.rules.version.is_some() && told.is_none();
            if reading || unclear || self.lost.contains(id) || self.touched_after(id, mark) {
                draft.note(Note::Dirty(Arc::clone(id)));
            }
        }
        if let (Some(new_id), Some(row)) = (new_id.filter(|new| !op.targets.contains(new)), row) {
            let rest = self.folds.get(new_id).map(|fold| fold.ops.clone()).unwrap_or_default();
            let base = Base::Set { body: row.clone(), ordinal: draft.ordinal_of(new_id) };
            let told = self.version_in(row);
            let after = self.folded(new_id, Some(row), &rest);
            self.show_confirmed(draft, new_id, after, base, &cause, Vec::new(), told);
        }
        let settle = OpChange::Settle { state: OpState::Applied, error: None, beneath: None };
        let entry = match &mut draft.decision.entries[drafted..] {
            // What the master made of the row is what readers see: one entry says that, and that it is so.
            [only] if only.id.as_ref() == op.targets.first() && only.only_confirms() && op.targets.len() == 1 => only,
            _ => draft.entry(op.targets.first(), &cause),
        };
        (entry.op, entry.frame) = (settle, Frame::WriteCommitted);
    }

    /// The version that a row of the master bears.
    fn version_in(&self, row: &Body) -> Option<CborValue> {
        version_of(row, self.rules.version.as_deref()?)
    }

    /// [`State::show_row`] of what the master confirmed, with what goes with it.
    #[expect(clippy::too_many_arguments, reason = "they are the parts of one entry")]
    fn show_confirmed(
        &self,
        draft: &mut Draft<'_>,
        id: &Id,
        after: Option<Body>,
        base: Base,
        cause: &Cause,
        routed: Vec<OpId>,
        told: Option<CborValue>,
    ) {
        let before = draft.decision.entries.len();
        self.show_row(draft, id, after, base, cause);
        if draft.decision.entries.len() == before && routed.is_empty() {
            return;
        }
        if draft.decision.entries.len() == before {
            draft.entry(Some(id), cause);
        }
        let entry = &mut draft.decision.entries[before];
        entry.versions = Versions::of_column(told);
        if !routed.is_empty() {
            entry.op = OpChange::Absorb(routed);
        }
    }

    /// Where many routed writes lie over the row of `op`, which is routed now, two of them become one, so that a row that is
    /// written often does not pile them up while the master stays silent. The oldest do: what the master shows, when it is
    /// behind, is rather what one of the newer ones made.
    fn condense(&self, draft: &mut Draft<'_>, op: &Op) {
        let [id] = &*op.targets else { return };
        let Some(fold) = self.folds.get(id).filter(|fold| fold.rebased.is_empty()) else { return };
        let routed = fold.ops.iter().filter_map(|op| self.ops.get(op));
        let routed: Vec<&Op> = routed.take_while(|op| op.state == OpState::Routed && op.targets.len() == 1).collect();
        if routed.len() < self.rules.keep_routed {
            return;
        }
        let layout = self.rules.schema.layout();
        let merged =
            routed.windows(2).find_map(|pair| Some((pair[0], pair[1], pair[0].effect.then(&pair[1].effect, layout)?)));
        if let Some((older, newer, effect)) = merged {
            draft.entry(Some(id), &op_cause(newer.id)).op = OpChange::Merge { older: older.id, effect };
        }
    }

    /// The write had no effect, and those have none that were made for the row as it would have left it: they go first, the
    /// newest of them before the others.
    fn roll_back(&self, draft: &mut Draft<'_>, op: &Op, state: OpState, error: &OpError) {
        let mut rest = self.clone();
        for later in self.built_on(op).into_iter().rev() {
            let detail =
                format!("it was made for the row as {} would have left it, which failed: {}", op.id, error.detail);
            rest.take_back(draft, later, OpState::Failed, &OpError { code: "precondition-failed".into(), detail });
        }
        rest.take_back(draft, op, state, error);
    }

    /// Writes whose condition held only because of `op`, oldest first.
    fn built_on(&self, op: &Op) -> Vec<&Op> {
        let layout = self.rules.schema.layout();
        let mut found: Vec<&Op> = Vec::new();
        for id in op.targets.iter() {
            let Some(fold) = self.folds.get(id) else { continue };
            let Some(at) = fold.ops.iter().position(|own| *own == op.id) else { continue };
            let conditional = |later: &OpId| self.ops.get(later).is_some_and(|later| later.assumed.is_some());
            if !fold.ops.iter().skip(at + 1).any(conditional) {
                continue;
            }
            let mut without = self.folded(id, fold.base.as_ref().map(|base| &base.body), fold.ops.iter().take(at));
            let mut with = op.effect.on(without.as_ref(), id, layout);
            for later in fold.ops.iter().skip(at + 1).filter_map(|later| self.ops.get(later)) {
                let broken = match later.assumed {
                    None => false,
                    Some(Assumed::Version) => with != without,
                    Some(Assumed::Present) => with.is_some() && without.is_none(),
                    Some(Assumed::Absent) => with.is_none() && without.is_some(),
                };
                with = later.effect.on(with.as_ref(), id, layout);
                if broken {
                    found.push(later);
                } else {
                    without = later.effect.on(without.as_ref(), id, layout);
                }
            }
        }
        found.sort_by_key(|op| op.staged);
        found
    }

    /// Routed writes that the master should have shown long ago: a read that began at `mark` shows the row without them.
    pub(super) fn expire(&self, draft: &mut Draft<'_>, id: &Id, mark: u64) {
        let (Some(ttl), Some(fold)) = (self.rules.routed_ttl, self.folds.get(id)) else { return };
        let now = draft.now;
        let is_due =
            |op: &&Op| op.state == OpState::Routed && op.delivered <= mark && now.saturating_sub(op.updated) >= ttl;
        let detail = format!("the source does not show it, {} s after the write route took it", ttl / 1_000);
        let error = OpError { code: "unconfirmed".into(), detail };
        let mut rest = self.clone();
        for op in fold.ops.iter().rev().filter_map(|op| self.ops.get(op)).filter(is_due) {
            rest.take_back(draft, op, OpState::Failed, &error);
        }
    }

    /// Readers see the confirmed row with the other writes over it; then exactly one `WriteFailed`. What is drafted is done to
    /// this State, so that the next to be taken back finds it.
    fn take_back(&mut self, draft: &mut Draft<'_>, op: &Op, state: OpState, error: &OpError) {
        let cause = op_cause(op.id);
        let drafted = draft.decision.entries.len();
        for id in op.targets.iter() {
            let Some(fold) = self.folds.get(id) else { continue };
            let rest: Vec<OpId> = fold.ops.iter().copied().filter(|other| *other != op.id).collect();
            let base = fold.base.as_ref().map(|base| base.body.clone());
            self.show_fold(draft, id, base.as_ref(), &rest, Base::Keep, &cause);
        }
        let entry = draft.entry(op.targets.first(), &cause);
        entry.op = OpChange::Settle { state, error: Some(error.clone()), beneath: None };
        entry.frame = Frame::WriteFailed(error.clone());
        draft.decision.entries[drafted..].iter().for_each(|entry| drop(self.apply(entry)));
    }

    /// An entry that makes `base` the confirmed row and shows it with `rest` laid over, if either changes anything.
    fn show_fold(&self, draft: &mut Draft<'_>, id: &Id, body: Option<&Body>, rest: &[OpId], base: Base, cause: &Cause) {
        self.show_row(draft, id, self.folded(id, body, rest), base, cause);
    }

    /// An entry that makes `base` the confirmed row and shows `after`, if either changes anything.
    fn show_row(&self, draft: &mut Draft<'_>, id: &Id, after: Option<Body>, base: Base, cause: &Cause) {
        let before = self.table.get(id).map(|row| row.body());
        if before == after && !base.changes() {
            return;
        }
        let ordinal = draft.ordinal_of(id);
        let entry = draft.entry(Some(id), cause);
        entry.base = base;
        if before != after {
            entry.frame = frame_between(before.is_some(), after.is_some());
            entry.visible = match after {
                None => Visible::Gone,
                Some(body) => match &entry.base {
                    Base::Set { body: confirmed, .. } if *confirmed == body => Visible::Base,
                    _ => Visible::Row { body, ordinal },
                },
            };
        }
    }

    // --- a person's decisions --------------------------------------------------------------------------------------------

    fn parked_op(&self, op: OpId) -> Result<&Op> {
        let record = self.ops.get(&op).ok_or_else(|| Error::NotFound { id: op.to_string() })?;
        if record.state != OpState::Parked {
            let detail = "is not parked: only parked operations can be retried or discarded".to_string();
            return Err(Error::Conflict { id: op.to_string(), detail });
        }
        Ok(record)
    }

    fn decide_retry(&self, draft: &mut Draft<'_>, op: OpId, new: OpId) -> Result<()> {
        let parked = self.parked_op(op)?.clone();
        let id = if parked.effect == Effect::DeleteAll { None } else { parked.targets.first().cloned() };
        let effect = parked.effect;
        let again = NewWrite { retry_of: Some(op), ..NewWrite::new(new, id, effect) };
        self.decide_write(draft, &again).map_err(|error| match error {
            // The operation is there; what it would change is not.
            Error::NotFound { id } => Error::Conflict { id, detail: "is not there any more".into() },
            error => error,
        })?;
        if draft.decision.outcome == Outcome::Identical {
            let detail = "has nothing left to do: everything is as it asks; discard it".to_string();
            return Err(Error::Conflict { id: op.to_string(), detail });
        }
        let entry = draft.entry(parked.targets.first(), &op_cause(op));
        entry.op = OpChange::Settle { state: OpState::Discarded, error: None, beneath: None };
        Ok(())
    }

    fn decide_discard(&self, draft: &mut Draft<'_>, op: OpId) -> Result<()> {
        let parked = self.parked_op(op)?;
        let entry = draft.entry(parked.targets.first(), &op_cause(op));
        entry.op = OpChange::Settle { state: OpState::Discarded, error: None, beneath: None };
        Ok(())
    }

    // --- the program's statements ----------------------------------------------------------------------------------------

    /// `patched` and raw cache writes: the confirmed row is as given. Routed operations that it speaks of are done.
    fn state_row(&self, draft: &mut Draft<'_>, id: &Id, row: Option<&Body>, told: bool) {
        let cause = cause(Origin::Program);
        let before = draft.decision.entries.len();
        self.overrule(draft, &News::of(id, row), u64::MAX, &cause);
        let frame = if told { Frame::Changed } else { Frame::Silent };
        match draft.decision.entries[before..].first_mut() {
            Some(entry) => entry.frame = frame,
            None if told => draft.entry(Some(id), &cause).frame = Frame::Changed,
            None => {}
        }
        draft.note(Note::Touch(Arc::clone(id)));
        if self.has_queued(id) || self.motions(id) > 0 {
            draft.note(Note::Dirty(Arc::clone(id)));
        }
    }

    // --- many rows at once -------------------------------------------------------------------------------------------------

    /// One entry for all rows that may be applied; the others become dirty, as in [`Cmd::News`].
    fn decide_bulk(&self, draft: &mut Draft<'_>, items: &[Item], mark: u64) {
        let mut rows = Vec::with_capacity(items.len());
        for item in items {
            let known = self.folds.get(&item.id).map(|fold| fold.base.as_ref().map(|base| &base.body));
            if known == Some(item.row.as_ref()) && !self.has_queued(&item.id) && self.settled_by(&item.id, mark) {
                continue;
            }
            if known.is_some() || self.touched_after(&item.id, mark) {
                draft.note(Note::Dirty(Arc::clone(&item.id)));
                continue;
            }
            let news = News { ordinal: item.ordinal, ..News::of(&item.id, item.row.as_ref()) };
            if self.compare_versions(&news) == Some(std::cmp::Ordering::Less) {
                continue;
            }
            let (old, new) = (self.table.contains(&item.id), item.row.is_some());
            draft.count(&frame_between(old, new));
            let ordinal = item.ordinal.or_else(|| self.table.get(&item.id).map(|row| row.ordinal()));
            let ordinal = ordinal.unwrap_or_else(|| draft.append_ordinal());
            let row = item.row.clone().map(|body| (body, ordinal));
            rows.push(BulkRow { id: Arc::clone(&item.id), row });
            if self.settled_by(&item.id, mark) {
                draft.note(Note::Clean(Arc::clone(&item.id)));
            }
        }
        if !rows.is_empty() {
            let entry = draft.entry(None, &cause(Origin::Refresh));
            entry.base = Base::Many { rows: Arc::new(Many::Rows(rows)), carried: Vec::new() };
        }
    }

    fn decide_seed(&self, draft: &mut Draft<'_>, table: &Table, mark: u64) -> Result<()> {
        let confirmed = self.folds.values().any(|fold| fold.base.is_some());
        let visible = self.table.iter_slots().any(|row| !self.folds.contains_key(row.id()));
        // Of routed writes the list is news, which are judged row by row.
        let routed = self.ops.values().any(|op| op.state == OpState::Routed);
        if confirmed || visible || routed || self.clock != mark && !self.touched.is_empty() {
            return Err(Error::Conflict { id: String::new(), detail: "rows arrived before the first copy".into() });
        }
        // Writes that wait may have been delivered before, while or after it was read.
        self.folds.keys().for_each(|id| draft.note(Note::Dirty(Arc::clone(id))));
        draft.decision.outcome = Outcome::Applied { inserted: table.len() as u64, changed: 0, removed: 0 };
        let entry = draft.entry(None, &cause(Origin::Refresh));
        entry.base = Base::Many { rows: Arc::new(Many::Table(table.clone())), carried: Vec::new() };
        Ok(())
    }
}

/// A cause without an operation.
pub(super) fn cause(origin: Origin) -> Cause {
    Cause { origin, ..Cause::default() }
}

fn op_cause(op: OpId) -> Cause {
    Cause { op: Some(op), ..Cause::default() }
}
