//! Events of changes: each fits the rows that a subscriber has, and no change is left out without an
//! `Invalidated` that follows.

use std::collections::BTreeMap;

use super::*;

/// A subscriber that reads everything again at `Invalidated`, and otherwise knows only what events tell.
#[derive(Debug, Default)]
pub(super) struct Reader(BTreeMap<Id, Body>);

impl Reader {
    /// Hears of an entry that was applied to `state`. `stated` is true for a statement of the program, which may come without an
    /// event, or with one for any row.
    pub(super) fn hear(&mut self, entry: &Entry, state: &State, stated: bool) {
        let row = entry.id.as_ref().and_then(|id| state.get(id)).map(|row| row.body());
        let id = entry.id.clone().unwrap_or_default();
        let fits = match &entry.frame {
            Frame::Invalidated { covered } => {
                let now = state.table().iter_slots().map(|row| (Id::from(row.id()), row.body())).collect();
                let before = std::mem::replace(&mut self.0, now);
                !covered || before == self.0
            }
            Frame::Inserted | Frame::Changed | Frame::Removed | Frame::Silent if stated => {
                self.put(id, row);
                true
            }
            Frame::Inserted => !self.put(id, row),
            Frame::Changed | Frame::Removed => self.put(id, row),
            Frame::Silent | Frame::WriteFailed(_) | Frame::WriteCommitted => true,
        };
        assert!(fits, "{entry:?} does not fit the rows of a subscriber");
    }

    /// Puts a row or removes it. Returns true if there was one.
    fn put(&mut self, id: Id, row: Option<Body>) -> bool {
        match row {
            Some(row) => self.0.insert(id, row).is_some(),
            None => self.0.remove(&id).is_some(),
        }
    }

    /// Returns true if this row is the one that readers see.
    pub(super) fn has(&self, id: &Id, state: &State) -> bool {
        state.get(id).map(|row| row.body()).as_ref() == self.0.get(id)
    }
}

fn item(key: usize, row: Option<Body>) -> ReadRow {
    ReadRow { id: id(key), row, ordinal: None }
}

/// A change that a feed reports.
fn fed(key: usize, row: Option<Body>) -> Command {
    Command::Upstream(UpstreamEvent {
        id: id(key),
        change: row.map_or(UpstreamChange::Gone, UpstreamChange::Row),
        version: None,
        delivery: None,
        origin: Origin::Feed,
        in_order: true,
    })
}

fn frames(decision: &Decision) -> Vec<&Frame> {
    decision.entries.iter().map(|entry| &entry.frame).collect()
}

#[test]
fn every_event_of_a_row_that_a_refresh_changed_in_bulk_waits_for_its_invalidated() {
    let mut state = State::new(rules(false, true), "epoch", 0);
    let invalidated = |covered| Command::InvalidateAll { covered, origin: Origin::Refresh };
    let bulk = |items| Command::Bulk { items, mark: 0, notice: Notice::Invalidated };
    run(&mut state, &bulk(vec![item(0, Some(plain(0, 1))), item(1, Some(plain(1, 1)))]));
    assert!(state.has_untold() && state.has_silent_changes());
    // Subscribers have neither row, and other rows are told as ever.
    assert_eq!(frames(&run(&mut state, &fed(0, None))), [&Frame::Silent]);
    assert_eq!(frames(&run(&mut state, &fed(0, Some(plain(0, 2))))), [&Frame::Silent]);
    assert_eq!(frames(&run(&mut state, &fed(2, Some(plain(2, 1))))), [&Frame::Inserted]);
    let patch = Command::Write(write(1, Some(&id(1)), Effect::Patch(part(5))));
    assert_eq!(frames(&run(&mut state, &patch)), [&Frame::Silent]);
    let refused = Command::Settle { op: op_id(1), mark: 0, answer: Answer::Failed(rejection()) };
    let decision = run(&mut state, &refused);
    assert!(matches!(frames(&decision)[..], [Frame::Silent, Frame::WriteFailed(_)]), "a failure is told at once");
    assert_eq!(frames(&run(&mut state, &invalidated(true))), [&Frame::Invalidated { covered: false }]);
    assert!(!state.has_untold() && !state.has_silent_changes());
    assert_eq!(frames(&run(&mut state, &fed(0, None))), [&Frame::Removed]);
    assert_eq!(frames(&run(&mut state, &invalidated(true))), [&Frame::Invalidated { covered: true }]);
}

#[test]
fn every_event_of_a_first_copy_and_of_silent_rows_waits_for_its_invalidated() {
    let mut state = State::new(rules(false, true), "epoch", 0);
    let mut table = crate::table::TableBuilder::new();
    table.push(&id(0), &plain(0, 1), 1 << 32);
    run(&mut state, &Command::Seed { table: table.finish(), mark: 0, notice: Notice::Invalidated });
    assert_eq!(frames(&run(&mut state, &fed(0, None))), [&Frame::Silent]);
    run(&mut state, &Command::InvalidateAll { covered: false, origin: Origin::Refresh });
    let read = |notice| Command::ReadRows { items: vec![item(1, Some(plain(1, 1)))], mark: 0, notice };
    run(&mut state, &read(Notice::Invalidated));
    assert_eq!(frames(&run(&mut state, &fed(1, Some(plain(1, 2))))), [&Frame::Silent]);
    run(&mut state, &Command::Purge(Arc::from([id(1)])));
    assert!(!state.table().contains(&id(1)));
    run(&mut state, &Command::InvalidateAll { covered: false, origin: Origin::Refresh });
    // Nobody announces what the program puts into the cache by itself.
    run(&mut state, &read(Notice::Program));
    assert!(state.has_silent_changes() && !state.has_untold());
    assert_eq!(frames(&run(&mut state, &fed(1, None))), [&Frame::Removed]);
}

#[test]
fn every_event_of_an_erased_row_is_told_while_its_invalidated_waits() {
    let mut state = State::new(rules(false, true), "epoch", 0);
    let items = vec![item(0, Some(plain(0, 1)))];
    run(&mut state, &Command::ReadRows { items, mark: 0, notice: Notice::Invalidated });
    let purged = run(&mut state, &Command::Purge(Arc::from([id(0)])));
    assert_eq!(frames(&purged), [&Frame::Silent, &Frame::Removed]);
}
